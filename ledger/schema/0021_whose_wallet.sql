-- Whose a wallet is or was: asked when a payment that a backup has forgotten is adopted.
CREATE INDEX wallet_changes_new_wallet ON ledger.wallet_changes (new_wallet);
