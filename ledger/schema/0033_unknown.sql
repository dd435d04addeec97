-- What was read of the chain and is unknown is looked for every round, and nearly nothing is.
CREATE INDEX chain_transactions_unknown ON ledger.chain_transactions (slot, seen_at) WHERE kind = 'unknown';
