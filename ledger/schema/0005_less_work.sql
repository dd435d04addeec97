-- The same rules for less work.

-- Runs of numbers and signed transactions hardly compress: trying costs more than writing them.
ALTER TABLE ledger.seen_runs ALTER keys SET STORAGE EXTERNAL, ALTER seconds SET STORAGE EXTERNAL;
ALTER TABLE ledger.day_runs ALTER keys SET STORAGE EXTERNAL, ALTER days SET STORAGE EXTERNAL,
    ALTER amounts SET STORAGE EXTERNAL;
ALTER TABLE ledger.pair_runs ALTER viewers SET STORAGE EXTERNAL, ALTER creators SET STORAGE EXTERNAL,
    ALTER days SET STORAGE EXTERNAL, ALTER gross SET STORAGE EXTERNAL, ALTER net SET STORAGE EXTERNAL;
ALTER TABLE ledger.attempts ALTER raw SET STORAGE EXTERNAL;

-- Balances are moved by postings and by nothing else. Accounts need no locks of their own: whoever adds a posting has
-- written its entry in the same transaction (an entry's lines are complete at its commit and no line comes twice), and
-- so holds the end of the hash chain until it ends.
CREATE OR REPLACE FUNCTION ledger.apply_postings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM (SELECT entry_id, max(line) AS line FROM added GROUP BY entry_id) last
               JOIN ledger.entries e ON e.id = last.entry_id WHERE last.line > e.lines) THEN
        RAISE EXCEPTION 'a posting has no line in its entry' USING ERRCODE = 'PX004';
    END IF;
    UPDATE ledger.accounts a SET balance = a.balance + moved.amount
    FROM (SELECT account_id, sum(amount)::bigint AS amount FROM added GROUP BY account_id) moved
    WHERE a.id = moved.account_id;
    RETURN NULL;
END $$;

-- What is allowed is decided without a call; the function is called to refuse the rest. A condition is looked at one
-- level above the function that it guards.
DROP TRIGGER guarded ON ledger.accounts;
CREATE TRIGGER guarded_insert BEFORE INSERT ON ledger.accounts
    FOR EACH ROW WHEN (NEW.balance <> 0) EXECUTE FUNCTION ledger.guard_account();
CREATE TRIGGER guarded_update BEFORE UPDATE ON ledger.accounts
    FOR EACH ROW WHEN (pg_trigger_depth() = 0 OR (NEW.id, NEW.kind, NEW.party, NEW.owner, NEW.asset)
                                                 IS DISTINCT FROM (OLD.id, OLD.kind, OLD.party, OLD.owner, OLD.asset))
    EXECUTE FUNCTION ledger.guard_account();
CREATE TRIGGER guarded_delete BEFORE DELETE ON ledger.accounts
    FOR EACH ROW EXECUTE FUNCTION ledger.guard_account();

-- A balance stands in no index, and pages have room: moving it is then one new version of a row in place, instead of one
-- and an entry in each index. Planning looks for what is due by reading the accounts, which are few beside their postings.
DROP INDEX ledger.accounts_payable;
ALTER TABLE ledger.accounts SET (fillfactor = 45);
