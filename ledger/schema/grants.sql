-- What each role may do with money. A replica of Serve records what was shown, notes a creator's wallet and shows earnings;
-- the ledger alone writes the journal, payouts and stops, and holds the epoch; jobs have no business here. Nobody but the
-- owner deletes what is kept, and nobody sets what triggers set.
REVOKE ALL ON SCHEMA ledger FROM pixr_serve, pixr_jobs, pixr_ledger, pixr_reader;
REVOKE ALL ON ALL TABLES IN SCHEMA ledger FROM pixr_serve, pixr_jobs, pixr_ledger, pixr_reader;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA ledger FROM pixr_serve, pixr_jobs, pixr_ledger, pixr_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA ledger REVOKE ALL ON TABLES FROM pixr_serve;  -- that a release before gave it
GRANT USAGE ON SCHEMA ledger TO pixr_serve, pixr_ledger, pixr_reader;

GRANT SELECT ON ledger.accounts, ledger.postings, ledger.entries, ledger.transfers, ledger.payouts, ledger.batches,
  ledger.wallets, ledger.holds, ledger.incarnations, ledger.own_addresses, ledger.markers, ledger.segment_stakes
  TO pixr_serve;
GRANT SELECT (batch_id, n, signature, state, slot) ON ledger.attempts TO pixr_serve;
GRANT INSERT (id, spool, machine, started_at), UPDATE (recorded, closed_at) ON ledger.incarnations TO pixr_serve;
GRANT INSERT ON ledger.appearance_batches TO pixr_serve;
GRANT INSERT, UPDATE (wallet, checked_wallet, set_by, set_at, hold_until) ON ledger.wallets TO pixr_serve;

GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO pixr_ledger;
GRANT UPDATE ON ledger.fence, ledger.chain_head TO pixr_ledger;
GRANT INSERT ON ledger.entries, ledger.postings, ledger.appearance_batches, ledger.outcomes, ledger.folds,
  ledger.set_aside, ledger.idempotency, ledger.own_addresses, ledger.reconciliations, ledger.chain_transactions
  TO pixr_ledger;
GRANT INSERT, UPDATE ON ledger.accounts, ledger.transfers, ledger.incarnations, ledger.holds, ledger.freezes,
  ledger.batches, ledger.payouts, ledger.attempts, ledger.markers, ledger.chain, ledger.chain_cursors, ledger.suspicions,
  ledger.resolutions TO pixr_ledger;
GRANT INSERT, UPDATE ON ledger.leaps TO pixr_ledger;
GRANT INSERT, DELETE ON ledger.seen_runs, ledger.day_runs, ledger.pair_runs, ledger.token_accounts TO pixr_ledger;
GRANT INSERT, UPDATE, DELETE ON ledger.maturing TO pixr_ledger;
GRANT UPDATE (checked_wallet) ON ledger.wallets TO pixr_ledger;
GRANT UPDATE (kind) ON ledger.chain_transactions TO pixr_ledger;

-- All but the bytes of what is signed, which may be sent by whoever has them.
GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO pixr_reader;
REVOKE SELECT ON ledger.attempts FROM pixr_reader;
GRANT SELECT (batch_id, n, signature, blockhash, last_valid_block_height, context_slot, epoch, state, signed_at, sent_at,
  sends, ended_at, slot, lamports, error) ON ledger.attempts TO pixr_reader;
