-- What is asked every round costs what it touches, not what exists: small tables that the database keeps by itself beside
-- the large ones, and indexes on what is open.

-- Creators whose `payable` balance is worth a payout, in the order in which it came to that. Whom a look has found not to be
-- payable (no wallet, a hold) is parked until that can have changed: at an instant, or ('infinity') when they are woken.
CREATE TABLE ledger.owed (
    creator_id   bigint PRIMARY KEY,
    account_id   bigint NOT NULL,
    n            bigint GENERATED ALWAYS AS IDENTITY,
    parked_until timestamptz
);
CREATE INDEX owed_open ON ledger.owed (n) WHERE parked_until IS NULL;
CREATE INDEX owed_parked ON ledger.owed (parked_until) WHERE parked_until < 'infinity';

-- From which balance on: the smallest payout that the planner makes, which it says (see `fit_owed`); and what a first payout
-- must be worth besides.
CREATE TABLE ledger.owed_least (
    id          boolean PRIMARY KEY DEFAULT true CHECK (id),
    least_pix   bigint NOT NULL DEFAULT 1 CHECK (least_pix >= 1),
    opening_pix bigint NOT NULL DEFAULT 0
);
INSERT INTO ledger.owed_least DEFAULT VALUES;
INSERT INTO ledger.owed (creator_id, account_id)
    SELECT owner, id FROM ledger.accounts
    WHERE kind = 'payable' AND party = 'creator' AND asset = 'PIX' AND balance >= 1 ORDER BY balance DESC, id;

-- Hold those whose balance comes to the least payout: where that has changed, by one look at all. Postings wait meanwhile, and
-- this for those that are under way, so that none is missed. Where only the price of a first payout has changed, those who wait
-- for a while are looked at again.
CREATE FUNCTION ledger.fit_owed(new_least bigint, new_opening bigint) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF new_least <> (SELECT least_pix FROM ledger.owed_least) THEN
        LOCK TABLE ledger.accounts IN SHARE ROW EXCLUSIVE MODE;
        UPDATE ledger.owed_least SET least_pix = new_least;
        DELETE FROM ledger.owed o USING ledger.accounts a WHERE a.id = o.account_id AND a.balance < new_least;
        INSERT INTO ledger.owed (creator_id, account_id)
            SELECT owner, id FROM ledger.accounts
            WHERE kind = 'payable' AND party = 'creator' AND asset = 'PIX' AND balance >= new_least
            ORDER BY balance DESC, id ON CONFLICT DO NOTHING;
    END IF;
    IF new_opening <> (SELECT opening_pix FROM ledger.owed_least) THEN
        UPDATE ledger.owed_least SET opening_pix = new_opening;
        UPDATE ledger.owed SET parked_until = NULL WHERE parked_until < 'infinity';
    END IF;
END $$;

-- Balances are moved by postings and by nothing else (see 0005 and 0006); who comes to be owed a payout, or no longer is, is
-- noted with it.
CREATE OR REPLACE FUNCTION ledger.apply_postings() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moved bigint;
BEGIN
    IF EXISTS (SELECT FROM (SELECT entry_id, max(line) AS line FROM added GROUP BY entry_id) last
               LEFT JOIN ledger.entries e ON e.id = last.entry_id WHERE e.id IS NULL OR last.line > e.lines) THEN
        RAISE EXCEPTION 'a posting has no line in its entry' USING ERRCODE = 'PX004';
    END IF;
    WITH moving AS (
        UPDATE ledger.accounts a SET balance = a.balance + m.amount
        FROM (SELECT account_id, sum(amount)::bigint AS amount FROM added GROUP BY account_id) m
        WHERE a.id = m.account_id
        RETURNING a.id, a.owner, a.kind = 'payable' AND a.party = 'creator' AND a.asset = 'PIX' AS is_payable,
                  a.balance - m.amount AS before, a.balance AS after),
    risen AS (
        INSERT INTO ledger.owed (creator_id, account_id)
        SELECT owner, moving.id FROM moving, ledger.owed_least
        WHERE is_payable AND before < least_pix AND after >= least_pix ORDER BY after DESC, moving.id
        ON CONFLICT DO NOTHING),
    fallen AS (
        DELETE FROM ledger.owed o USING moving, ledger.owed_least
        WHERE o.creator_id = owner AND is_payable AND before >= least_pix AND after < least_pix)
    SELECT count(*) INTO moved FROM moving;
    IF moved <> (SELECT count(DISTINCT account_id) FROM added) THEN
        RAISE EXCEPTION 'a posting names an unknown account' USING ERRCODE = 'foreign_key_violation', DETAIL =
            (SELECT 'accounts ' || string_agg(DISTINCT account_id::text, ', ') FROM added
             WHERE NOT EXISTS (SELECT FROM ledger.accounts a WHERE a.id = added.account_id));
    END IF;
    RETURN NULL;
END $$;

-- Creators of whom something was changed that may have kept them from being paid. Whoever changes it only adds a row here,
-- so that nobody waits for the planner; which takes them out, before it looks.
CREATE TABLE ledger.woken (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    creator_id bigint NOT NULL
);
INSERT INTO ledger.woken (creator_id) SELECT DISTINCT creator_id FROM ledger.holds WHERE released_at IS NULL;
CREATE FUNCTION ledger.wake() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO ledger.woken (creator_id) VALUES (NEW.creator_id);
    RETURN NULL;
END $$;
CREATE TRIGGER wakes AFTER INSERT OR UPDATE OF wallet, hold_until ON ledger.wallets
    FOR EACH ROW EXECUTE FUNCTION ledger.wake();
CREATE TRIGGER wakes AFTER UPDATE ON ledger.holds FOR EACH ROW EXECUTE FUNCTION ledger.wake();
CREATE TRIGGER wakes AFTER UPDATE ON ledger.suspicions
    FOR EACH ROW WHEN (NEW.captive_pix - NEW.reversed_pix < OLD.captive_pix - OLD.reversed_pix)
    EXECUTE FUNCTION ledger.wake();

-- What each UTC day's payouts come to, less what was voided.
CREATE TABLE ledger.payout_days (
    period      date PRIMARY KEY,
    planned_pix bigint NOT NULL CHECK (planned_pix >= 0)
);
INSERT INTO ledger.payout_days (period, planned_pix)
    SELECT p.period, sum(p.amount_pix) FROM ledger.payouts p JOIN ledger.transfers t ON t.id = p.transfer_id
    WHERE t.state IN ('pending', 'posted') GROUP BY p.period;

CREATE FUNCTION ledger.count_payouts() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO ledger.payout_days AS d (period, planned_pix)
    SELECT period, sum(amount_pix)::bigint FROM added GROUP BY period
    ON CONFLICT (period) DO UPDATE SET planned_pix = d.planned_pix + excluded.planned_pix;
    RETURN NULL;
END $$;
CREATE TRIGGER counted AFTER INSERT ON ledger.payouts REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.count_payouts();

CREATE FUNCTION ledger.count_voided() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    UPDATE ledger.payout_days d SET planned_pix = d.planned_pix - v.pix
    FROM (SELECT p.period, sum(p.amount_pix)::bigint AS pix FROM changed c JOIN ledger.payouts p ON p.transfer_id = c.id
          WHERE c.state IN ('voided', 'expired') GROUP BY p.period) v
    WHERE d.period = v.period;
    RETURN NULL;
END $$;
CREATE TRIGGER counted AFTER UPDATE ON ledger.transfers REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.count_voided();

-- What is open is found without what has ended.
CREATE INDEX attempts_live ON ledger.attempts (signed_at) WHERE state = 'live';
CREATE INDEX attempts_slot ON ledger.attempts (slot) WHERE slot IS NOT NULL;
CREATE INDEX batches_reclaims ON ledger.batches (ended_at) WHERE kind = 'reclaim';
ALTER TABLE ledger.markers ADD since timestamptz;      -- when its batch ended
UPDATE ledger.markers m SET since = b.ended_at FROM ledger.batches b WHERE b.id = m.batch_id;
ALTER TABLE ledger.markers ALTER since SET DEFAULT now();
UPDATE ledger.markers SET since = now() WHERE since IS NULL;
ALTER TABLE ledger.markers ALTER since SET NOT NULL;
CREATE INDEX markers_standing ON ledger.markers (since, batch_id) WHERE reclaimed_by IS NULL;

-- How often the stakes have changed: who keeps them in memory reads them again when this has moved.
CREATE TABLE ledger.stakes_version (
    id      boolean PRIMARY KEY DEFAULT true CHECK (id),
    version bigint NOT NULL DEFAULT 0
);
INSERT INTO ledger.stakes_version DEFAULT VALUES;
CREATE FUNCTION ledger.count_stakes() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE ledger.stakes_version SET version = version + 1;
    RETURN NULL;
END $$;
CREATE TRIGGER counted AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON ledger.segment_stakes
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.count_stakes();
