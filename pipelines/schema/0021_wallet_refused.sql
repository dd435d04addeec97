-- Why the ledger does not take the wallet that a manifest has named for a creator, as long as they have none (see serve/wallets.py):
-- it is said under the jobs that have videos of theirs.
ALTER TABLE media.creators ADD wallet_refused text;
