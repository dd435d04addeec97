-- What each role may do with money. A replica of Serve records what was shown, notes a creator's wallet and shows earnings;
-- the ledger alone writes the journal, payouts and stops, and holds the epoch; jobs have no business here. Nobody but the
-- owner deletes what is kept, and nobody sets what triggers set.
REVOKE ALL ON SCHEMA ledger FROM pixr_serve, pixr_jobs, pixr_ledger, pixr_reader;
REVOKE ALL ON ALL TABLES IN SCHEMA ledger FROM pixr_serve, pixr_jobs, pixr_ledger, pixr_reader;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA ledger FROM pixr_serve, pixr_jobs, pixr_ledger, pixr_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA ledger REVOKE ALL ON TABLES FROM pixr_serve;  -- that a release before gave it
GRANT USAGE ON SCHEMA ledger TO pixr_serve, pixr_ledger, pixr_reader;

-- Nothing is called by whom it is not for: a trigger's function with its owner's rights could be put on another table.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC, pixr_serve, pixr_jobs, pixr_ledger, pixr_reader;
GRANT EXECUTE ON FUNCTION ledger.entry_hash(ledger.entries), ledger.archived(text) TO pixr_serve, pixr_ledger, pixr_reader;
GRANT EXECUTE ON FUNCTION ledger.withheld(bigint) TO pixr_serve, pixr_ledger, pixr_reader;
GRANT EXECUTE ON FUNCTION ledger.confirms_wallet(ledger.wallets, ledger.wallets) TO pixr_serve;
GRANT EXECUTE ON FUNCTION ledger.begin_incarnation(uuid, text, text, double precision), ledger.hold_incarnation(uuid),
  ledger.record_batch(uuid, bigint, integer, integer, smallint, bytea, bytea, boolean),
  ledger.close_incarnation(uuid, bigint) TO pixr_serve, pixr_ledger;
GRANT EXECUTE ON FUNCTION ledger.place_order(text, text, jsonb, text, integer), ledger.approve_order(text, bigint)
  TO pixr_ledger;

GRANT SELECT ON ledger.accounts, ledger.postings, ledger.entries, ledger.transfers, ledger.payouts, ledger.batches,
  ledger.wallets, ledger.wallet_rules, ledger.holds, ledger.incarnations, ledger.own_addresses, ledger.markers,
  ledger.segment_stakes, ledger.stakes_version, ledger.ages, ledger.suspicions, ledger.leaps TO pixr_serve;
GRANT SELECT (batch_id, n, signature, state, slot) ON ledger.attempts TO pixr_serve;
-- Of what is archived, so that a statement is whole.
GRANT SELECT ON ledger.archives, ledger.archived_accounts, ledger.carried, ledger.past_batches, ledger.paid_before,
  ledger.retention TO pixr_serve;
-- Who may change a row may also lock it, for as long as they like: what a replica may change, the ledger never waits for.
GRANT INSERT (creator_id, wallet, set_by, hold_until, proof, held_for),
  UPDATE (wallet, set_by, set_at, hold_until, proof, held_for) ON ledger.wallets TO pixr_serve;
GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.wallet_challenges TO pixr_serve;
GRANT SELECT, INSERT ON ledger.wallet_proofs TO pixr_serve;

GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO pixr_ledger;
GRANT UPDATE ON ledger.fence, ledger.wallet_rules, ledger.reviewed TO pixr_ledger;
-- To lock it: the end of the chain is moved by a trigger, and this column has one value.
GRANT UPDATE (id) ON ledger.chain_head TO pixr_ledger;
GRANT INSERT ON ledger.entries, ledger.postings, ledger.outcomes, ledger.folds, ledger.set_aside, ledger.idempotency,
  ledger.own_addresses, ledger.reconciliations, ledger.chain_transactions TO pixr_ledger;
GRANT INSERT (kind, party, owner, asset) ON ledger.accounts TO pixr_ledger;
GRANT UPDATE (folded) ON ledger.incarnations TO pixr_ledger;
GRANT INSERT, UPDATE ON ledger.transfers, ledger.holds, ledger.freezes, ledger.batches, ledger.payouts, ledger.attempts,
  ledger.markers, ledger.chain, ledger.chain_cursors, ledger.suspicions, ledger.resolutions, ledger.cursors,
  ledger.checked_wallets, ledger.ages TO pixr_ledger;
GRANT INSERT, UPDATE, DELETE ON ledger.leaps TO pixr_ledger;
GRANT INSERT, DELETE ON ledger.seen_runs, ledger.day_runs, ledger.pair_runs, ledger.total_runs, ledger.token_accounts
  TO pixr_ledger;
GRANT INSERT, UPDATE, DELETE ON ledger.maturing TO pixr_ledger;
GRANT UPDATE (kind, entry_id) ON ledger.chain_transactions TO pixr_ledger;
GRANT UPDATE (done_at, carried_out, outcome, entry_id) ON ledger.orders TO pixr_ledger;  -- placed by functions alone
-- Who is owed a payout, and what days come to, is kept by triggers with their owner's rights.
GRANT UPDATE (n, parked_until) ON ledger.owed TO pixr_ledger;
GRANT DELETE ON ledger.woken TO pixr_ledger;
GRANT EXECUTE ON FUNCTION ledger.fit_owed(bigint, bigint) TO pixr_ledger;
-- What is archived is deleted by these functions alone, once it is old; the ledger says what a part holds.
GRANT INSERT ON ledger.archives, ledger.archived_accounts TO pixr_ledger;
GRANT EXECUTE ON FUNCTION ledger.is_old(timestamptz), ledger.is_past(text) TO pixr_ledger, pixr_reader;
GRANT EXECUTE ON FUNCTION ledger.forget_fold(bigint),
  ledger.forget_postings(text, bigint, bigint), ledger.forget_payments(bigint, text[]),
  ledger.forget_transactions(bigint, text[]) TO pixr_ledger;
GRANT INSERT, UPDATE ON ledger.retention TO pixr_ledger;
GRANT DELETE ON ledger.idempotency, ledger.reconciliations, ledger.suspicions TO pixr_ledger;

-- All but the bytes of what is signed, which may be sent by whoever has them.
GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO pixr_reader;
REVOKE SELECT ON ledger.attempts FROM pixr_reader;
GRANT SELECT (batch_id, n, signature, blockhash, last_valid_block_height, context_slot, epoch, state, signed_at, sent_at,
  sends, ended_at, slot, lamports, error) ON ledger.attempts TO pixr_reader;
