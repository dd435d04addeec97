-- What Serve's replicas may do with money: record what was shown, note a creator's wallet, show earnings. Nothing else:
-- the journal, payouts, stops and the chain's tables are the ledger's alone.
GRANT USAGE ON SCHEMA ledger TO pixr_serve;
GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO pixr_serve;
GRANT INSERT ON ledger.appearance_batches, ledger.incarnations, ledger.wallets, ledger.wallet_changes TO pixr_serve;
GRANT UPDATE ON ledger.incarnations, ledger.wallets TO pixr_serve;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA ledger TO pixr_serve;
ALTER DEFAULT PRIVILEGES IN SCHEMA ledger GRANT SELECT ON TABLES TO pixr_serve;
