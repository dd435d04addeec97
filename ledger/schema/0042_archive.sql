-- What is old leaves the tables: it is written to objects outside of the database first, by day, and what they hold is known here
-- by its hash. Only what stands in such a part can be deleted, by the functions below and by nobody's own statement; sums of
-- what has gone are carried forward in the same transaction, so that balances, earnings and bounds go on adding up.

-- ── Parts ──────────────────────────────────────────────────────────────────────────────────────────────────────────

-- folds     what was shown and what became of it (appearance_batches, outcomes, folds), by the numbers of folds
-- journal   entries with their postings, by the numbers of entries; entries themselves stay, as links of the hash chain
-- payments  transactions that have ended, with payouts, transfers, attempts and markers, counted from 1
-- chain     what the treasury's history says (chain_transactions), counted from 1
CREATE TABLE ledger.archives (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind      text NOT NULL CHECK (kind IN ('folds', 'journal', 'payments', 'chain')),
    first     bigint NOT NULL CHECK (first >= 1),
    last      bigint NOT NULL,
    day       date NOT NULL,                  -- UTC, of its first row
    rows      bigint NOT NULL CHECK (rows >= 1),
    bytes     bigint NOT NULL CHECK (bytes >= 1),   -- of the content; the object is compressed
    name      text NOT NULL UNIQUE,           -- of the object; its hash is part of it
    sha256    bytea NOT NULL CHECK (length(sha256) = 32),   -- of the content
    head      bytea CHECK (length(head) = 32),      -- of a part of the journal: the hash of its last entry
    newest_at timestamptz NOT NULL,
    made_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (kind, first),
    CHECK (last >= first),
    CHECK ((kind = 'journal') = (head IS NOT NULL))
);

-- Postings of a part of the journal once more, by account, so that a statement reads those of one creator. `places` says where
-- accounts begin in the object, and the hash of each block.
CREATE TABLE ledger.archived_accounts (
    archive_id bigint PRIMARY KEY REFERENCES ledger.archives,
    name       text NOT NULL UNIQUE,
    bytes      bigint NOT NULL,
    places     bytea NOT NULL
);
ALTER TABLE ledger.archived_accounts ALTER places SET STORAGE EXTERNAL;

-- Nothing that is younger is ever deleted, whatever a setting says: the owner's to change. Without a row it is a week.
CREATE TABLE ledger.archive_rules (
    id        boolean PRIMARY KEY DEFAULT true CHECK (id),
    least_age interval NOT NULL
);
CREATE FUNCTION ledger.is_old(instant timestamptz) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT instant < now() - coalesce((SELECT least_age FROM ledger.archive_rules), interval '7 days')
$$;

-- The last number of a kind that stands in a part.
CREATE FUNCTION ledger.archived(which text) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT last FROM ledger.archives WHERE kind = which ORDER BY first DESC LIMIT 1), 0)
$$;

-- Up to which number the rows of parts are gone from the tables. `rest` is of postings of payments, deposits and the like,
-- which stay as long as the rows that they are compared with.
CREATE TABLE ledger.forgotten (
    kind text PRIMARY KEY CHECK (kind IN ('folds', 'journal', 'rest')),
    upto bigint NOT NULL CHECK (upto >= 0)
);

CREATE FUNCTION ledger.check_archive() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before bigint := ledger.archived(NEW.kind);
BEGIN
    IF NEW.first <= before OR NEW.kind <> 'folds' AND NEW.first <> before + 1 THEN
        RAISE EXCEPTION 'part % of % does not follow on %', NEW.first, NEW.kind, before USING ERRCODE = 'PX005';
    ELSIF NOT ledger.is_old(NEW.newest_at) THEN
        RAISE EXCEPTION 'part % of % is too young', NEW.first, NEW.kind USING ERRCODE = 'PX005';
    ELSIF NEW.kind = 'journal' AND NOT EXISTS (SELECT FROM ledger.entries WHERE id = NEW.last AND hash = NEW.head) THEN
        RAISE EXCEPTION 'part % of the journal does not end with entry %', NEW.first, NEW.last USING ERRCODE = 'PX003';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER a_fenced BEFORE INSERT ON ledger.archives FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();
CREATE TRIGGER checked BEFORE INSERT ON ledger.archives FOR EACH ROW EXECUTE FUNCTION ledger.check_archive();
CREATE TRIGGER kept BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.archives
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER kept BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.archived_accounts
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

-- What was kept for how long, and how much of it lies where: as the ledger found it last, for who shows it.
CREATE TABLE ledger.retention (
    name      text PRIMARY KEY,
    keep_d    integer NOT NULL,               -- days; 0: for ever
    oldest_at timestamptz,                    -- of what is in the tables
    parts     bigint NOT NULL,
    bytes     bigint NOT NULL,
    looked_at timestamptz NOT NULL DEFAULT now()
);

-- ── Folds ──────────────────────────────────────────────────────────────────────────────────────────────────────────

CREATE INDEX outcomes_fold ON ledger.outcomes (fold_id);

-- What goes is looked up row by row, however large the tables are.
-- Delete the next fold that is archived, up to `final`, with its batches and what became of them; its number.
CREATE FUNCTION ledger.forget_fold(final bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    since bigint;
    number bigint;
BEGIN
    INSERT INTO ledger.forgotten AS f VALUES ('folds', 0) ON CONFLICT (kind) DO UPDATE SET upto = f.upto RETURNING upto INTO since;
    SELECT min(id) INTO number FROM ledger.folds WHERE id > since
        AND id <= least(final, ledger.archived('folds')) AND ledger.is_old(folded_at);
    IF number IS NULL THEN
        RETURN NULL;
    END IF;
    WITH gone AS (DELETE FROM ledger.outcomes WHERE fold_id = number RETURNING incarnation, seq)
    DELETE FROM ledger.appearance_batches b USING gone WHERE (b.incarnation, b.seq) = (gone.incarnation, gone.seq);
    DELETE FROM ledger.folds WHERE id = number;
    UPDATE ledger.forgotten SET upto = number WHERE kind = 'folds';
    RETURN number;
END $$;

-- ── The journal ────────────────────────────────────────────────────────────────────────────────────────────────────

-- What an account's postings come to that are gone; `earned`: those of accruals.
CREATE TABLE ledger.carried (
    account_id bigint PRIMARY KEY REFERENCES ledger.accounts,
    amount     bigint NOT NULL,
    earned     bigint NOT NULL,
    postings   bigint NOT NULL CHECK (postings > 0)
);

CREATE FUNCTION ledger.carry_postings() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    newest bigint := (SELECT max(entry_id) FROM gone);
BEGIN
    IF newest IS NULL THEN
        RETURN NULL;
    ELSIF newest > ledger.archived('journal')
          OR NOT ledger.is_old((SELECT occurred_at FROM ledger.entries WHERE id = newest)) THEN
        RAISE EXCEPTION 'ledger.postings is append-only, but for what is archived and old: entry % is not', newest
            USING ERRCODE = 'PX002';
    END IF;
    INSERT INTO ledger.carried AS c (account_id, amount, earned, postings)
    SELECT g.account_id, sum(g.amount)::bigint, coalesce(sum(g.amount) FILTER (WHERE e.kind = 'accrual'), 0)::bigint, count(*)
    FROM gone g JOIN ledger.entries e ON e.id = g.entry_id GROUP BY g.account_id
    ON CONFLICT (account_id) DO UPDATE SET amount = c.amount + excluded.amount, earned = c.earned + excluded.earned,
        postings = c.postings + excluded.postings;
    RETURN NULL;
END $$;
DROP TRIGGER kept ON ledger.postings;
CREATE TRIGGER kept BEFORE UPDATE OR TRUNCATE ON ledger.postings
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER carried AFTER DELETE ON ledger.postings REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.carry_postings();

-- Delete postings of the next entries that are archived, up to entry `final` and to about `most` of them; how many entries
-- were passed. `journal`: what folds and maturing have written, which is nearly everything; `rest`: all that is left.
CREATE FUNCTION ledger.forget_postings(which text, final bigint, most bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    since bigint;
    until bigint;
    ends bigint := least(final, ledger.archived('journal'));
BEGIN
    IF which NOT IN ('journal', 'rest') THEN
        RAISE EXCEPTION 'there are no postings of %', which USING ERRCODE = 'PX005';
    END IF;
    INSERT INTO ledger.forgotten AS f VALUES (which, 0) ON CONFLICT (kind) DO UPDATE SET upto = f.upto RETURNING upto INTO since;
    IF which = 'rest' THEN
        ends := least(ends, coalesce((SELECT upto FROM ledger.forgotten WHERE kind = 'journal'), 0));
    END IF;
    SELECT max(id) INTO until FROM (
        SELECT id, sum(lines) OVER (ORDER BY id) - lines AS before
        FROM (SELECT id, lines FROM ledger.entries WHERE id > since AND id <= ends ORDER BY id LIMIT 10000) next) counted
    WHERE before < most;
    IF until IS NULL THEN
        RETURN 0;
    END IF;
    DELETE FROM ledger.postings p USING ledger.entries e
    WHERE e.id = p.entry_id AND e.id > since AND e.id <= until AND p.entry_id > since AND p.entry_id <= until
      AND (which = 'rest' OR e.kind IN ('accrual', 'maturity'));
    UPDATE ledger.forgotten SET upto = until WHERE kind = which;
    RETURN until - since;
END $$;

-- ── Payments ───────────────────────────────────────────────────────────────────────────────────────────────────────

-- Transactions whose rows are gone: their ids are not given again, and statements name their signatures.
CREATE TABLE ledger.past_batches (
    id         text PRIMARY KEY,
    kind       text NOT NULL,
    state      text NOT NULL,
    count      integer NOT NULL,              -- of its recipients
    signature  text,                          -- of the one that has landed
    slot       bigint,
    ended_at   timestamptz NOT NULL,
    archive_id bigint NOT NULL REFERENCES ledger.archives
);
CREATE INDEX past_batches_signature ON ledger.past_batches (signature) WHERE signature IS NOT NULL;
CREATE INDEX past_batches_reclaims ON ledger.past_batches (id) WHERE kind = 'reclaim';
CREATE TRIGGER kept BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.past_batches
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

-- What a creator's payouts come to that are gone.
CREATE TABLE ledger.paid_before (
    creator_id   bigint PRIMARY KEY,
    paid_pix     bigint NOT NULL,
    on_chain_pix bigint NOT NULL,
    payouts      bigint NOT NULL,
    settled      bigint NOT NULL
);

CREATE INDEX batches_ended ON ledger.batches (ended_at, id) WHERE ended_at IS NOT NULL;
ALTER TABLE ledger.batches DROP CONSTRAINT batches_parent_fkey;   -- a parent ends, and goes, before its halves
ALTER TABLE ledger.markers DROP CONSTRAINT markers_reclaimed_by_fkey;
-- The newest slot of which something is gone: what was read of an address up to there is not read again.
ALTER TABLE ledger.chain_cursors ADD forgotten_slot bigint NOT NULL DEFAULT 0;

CREATE FUNCTION ledger.carry_payouts() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    IF EXISTS (SELECT FROM gone g WHERE NOT EXISTS (SELECT FROM ledger.past_batches b WHERE b.id = g.batch_id)) THEN
        RAISE EXCEPTION 'ledger.payouts is append-only, but for what is archived' USING ERRCODE = 'PX002';
    END IF;
    INSERT INTO ledger.paid_before AS p (creator_id, paid_pix, on_chain_pix, payouts, settled)
    SELECT g.creator_id,
           coalesce(sum(CASE t.state WHEN 'posted' THEN t.amount_pix WHEN 'voided' THEN g.on_chain_pix END), 0)::bigint,
           coalesce(sum(g.on_chain_pix), 0)::bigint, count(*), count(*) FILTER (WHERE t.state = 'posted')
    FROM gone g JOIN ledger.transfers t ON t.id = g.transfer_id GROUP BY g.creator_id
    ON CONFLICT (creator_id) DO UPDATE SET paid_pix = p.paid_pix + excluded.paid_pix,
        on_chain_pix = p.on_chain_pix + excluded.on_chain_pix, payouts = p.payouts + excluded.payouts,
        settled = p.settled + excluded.settled;
    UPDATE ledger.payout_days d SET planned_pix = d.planned_pix - s.pix
    FROM (SELECT g.period, sum(g.amount_pix)::bigint AS pix FROM gone g JOIN ledger.transfers t ON t.id = g.transfer_id
          WHERE t.state = 'posted' GROUP BY g.period) s
    WHERE d.period = s.period;
    DELETE FROM ledger.payout_days d USING (SELECT DISTINCT period FROM gone) g
    WHERE d.period = g.period AND d.planned_pix = 0;
    DELETE FROM ledger.transfers t USING gone g WHERE t.id = g.transfer_id;
    RETURN NULL;
END $$;
DROP TRIGGER kept ON ledger.payouts;
CREATE TRIGGER kept BEFORE TRUNCATE ON ledger.payouts FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER carried AFTER DELETE ON ledger.payouts REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.carry_payouts();

-- What goes with a batch goes with one that is archived.
CREATE FUNCTION ledger.check_past() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM gone g WHERE NOT EXISTS (SELECT FROM ledger.past_batches b WHERE b.id = g.batch_id)) THEN
        RAISE EXCEPTION 'ledger.% is append-only, but for what is archived', TG_TABLE_NAME USING ERRCODE = 'PX002';
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION ledger.check_past_batches() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM gone g WHERE NOT EXISTS (SELECT FROM ledger.past_batches b WHERE b.id = g.id)) THEN
        RAISE EXCEPTION 'ledger.batches is append-only, but for what is archived' USING ERRCODE = 'PX002';
    END IF;
    RETURN NULL;
END $$;
-- A transfer goes with its payout (see `carry_payouts`) and otherwise never.
CREATE FUNCTION ledger.check_past_transfers() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_trigger_depth() < 2 OR EXISTS (SELECT FROM gone WHERE state = 'pending') THEN
        RAISE EXCEPTION 'ledger.transfers is append-only, but for what is archived' USING ERRCODE = 'PX002';
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER kept ON ledger.transfers;
CREATE TRIGGER kept BEFORE TRUNCATE ON ledger.transfers FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER checked_past AFTER DELETE ON ledger.transfers REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_past_transfers();
DROP TRIGGER kept ON ledger.attempts;
CREATE TRIGGER kept BEFORE TRUNCATE ON ledger.attempts FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER checked_past AFTER DELETE ON ledger.attempts REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_past();
DROP TRIGGER kept ON ledger.resolutions;
CREATE TRIGGER kept BEFORE TRUNCATE ON ledger.resolutions FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER checked_past AFTER DELETE ON ledger.resolutions REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_past();
DROP TRIGGER kept ON ledger.batches;
CREATE TRIGGER kept BEFORE TRUNCATE ON ledger.batches FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER checked_past AFTER DELETE ON ledger.batches REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_past_batches();

-- Delete these batches, which are archived, with all that goes with them. None that can still change: nothing of it is live,
-- pending, asked about or locked on chain.
CREATE FUNCTION ledger.forget_payments(archive bigint, ids text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    counted integer;
    newest bigint;
BEGIN
    INSERT INTO ledger.past_batches (id, kind, state, count, signature, slot, ended_at, archive_id)
    SELECT b.id, b.kind, b.state, b.count, a.signature, a.slot, b.ended_at, r.id FROM ledger.batches b
    JOIN ledger.archives r ON r.id = archive AND r.kind = 'payments' AND r.rows = cardinality(ids)
    LEFT JOIN ledger.attempts a ON a.batch_id = b.id AND a.state = 'landed'
    WHERE b.id = ANY (ids) AND ledger.is_old(b.ended_at) AND ledger.is_past(b.id);
    GET DIAGNOSTICS counted = ROW_COUNT;
    IF counted <> cardinality(ids) THEN
        RAISE EXCEPTION 'of % batches % can go', cardinality(ids), counted USING ERRCODE = 'PX002';
    END IF;
    SELECT max(slot) INTO newest FROM ledger.attempts WHERE batch_id = ANY (ids);
    DELETE FROM ledger.chain_transactions c USING ledger.attempts a WHERE a.batch_id = ANY (ids) AND c.signature = a.signature;
    UPDATE ledger.chain_cursors SET forgotten_slot = greatest(forgotten_slot, least(newest, slot - 1)) WHERE newest IS NOT NULL;
    DELETE FROM ledger.resolutions WHERE batch_id = ANY (ids);
    DELETE FROM ledger.markers WHERE batch_id = ANY (ids);
    DELETE FROM ledger.attempts WHERE batch_id = ANY (ids);
    DELETE FROM ledger.payouts WHERE batch_id = ANY (ids);
    DELETE FROM ledger.batches WHERE id = ANY (ids);
END $$;

-- Whether a batch has ended so that nothing of it changes any more. What the chain's history has of it was read and is explained;
-- what has failed at the very slot up to which history was read stays, for history is read again from there.
CREATE FUNCTION ledger.is_past(batch text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM ledger.batches WHERE id = batch AND ended_at IS NOT NULL)
        AND NOT EXISTS (SELECT FROM ledger.attempts a WHERE a.batch_id = batch
                        AND (a.state = 'live' OR NOT ledger.is_old(a.signed_at)
                             OR a.state = 'failed' AND a.slot >= (SELECT min(slot) FROM ledger.chain_cursors)
                             OR EXISTS (SELECT FROM ledger.chain_transactions c
                                        WHERE c.signature = a.signature AND c.kind = 'unknown')
                             OR a.state IN ('landed', 'failed')
                             AND NOT EXISTS (SELECT FROM ledger.chain_transactions c
                                             WHERE c.signature = a.signature AND c.kind = 'attempt')))
        AND NOT EXISTS (SELECT FROM ledger.markers WHERE batch_id = batch AND reclaimed_by IS NULL)
        AND NOT EXISTS (SELECT FROM ledger.resolutions WHERE batch_id = batch AND done_at IS NULL)
        AND NOT EXISTS (SELECT FROM ledger.payouts p JOIN ledger.transfers t ON t.id = p.transfer_id
                        WHERE p.batch_id = batch AND t.state = 'pending')
$$;

-- ── The chain's history ────────────────────────────────────────────────────────────────────────────────────────────

CREATE INDEX chain_transactions_seen ON ledger.chain_transactions (seen_at, signature);
CREATE INDEX chain_transactions_slot ON ledger.chain_transactions (slot);
CREATE INDEX chain_transactions_entry ON ledger.chain_transactions (entry_id) WHERE entry_id IS NOT NULL;

-- Delete these transactions, which are archived; neither those of attempts, which go with their batch, nor unknown ones.
CREATE FUNCTION ledger.forget_transactions(archive bigint, signatures text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    counted bigint;
    newest bigint;
BEGIN
    WITH gone AS (
        DELETE FROM ledger.chain_transactions c USING ledger.archives r
        WHERE c.signature = ANY (signatures) AND c.kind NOT IN ('unknown', 'attempt') AND ledger.is_old(c.seen_at)
          AND r.id = archive AND r.kind = 'chain' AND r.rows = cardinality(signatures)
        RETURNING c.slot)
    SELECT count(*), max(slot) INTO counted, newest FROM gone;
    IF counted <> cardinality(signatures) THEN
        RAISE EXCEPTION 'of % transactions % can go', cardinality(signatures), counted USING ERRCODE = 'PX002';
    END IF;
    UPDATE ledger.chain_cursors SET forgotten_slot = greatest(forgotten_slot, least(newest, slot - 1));
END $$;

-- ── What is deleted and not archived ───────────────────────────────────────────────────────────────────────────────

CREATE INDEX idempotency_created ON ledger.idempotency (created_at);
