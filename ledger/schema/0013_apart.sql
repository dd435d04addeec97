-- What one role writes another reads and waits for: so neither ends nor stops the other by it.

-- ── What replicas record ───────────────────────────────────────────────────────────────────────────────────────────

-- A replica records by these functions and has no other way: they number batches, and take every instant from the
-- database's clock. An incarnation began at most a month before the database hears of it.
CREATE FUNCTION ledger.begin_incarnation(number uuid, spool_name text, machine_name text, age_s double precision)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO ledger.incarnations (id, spool, machine, started_at)
    VALUES (number, left(spool_name, 200), left(machine_name, 200),
            now() - make_interval(secs => least(greatest(age_s, 0), 2592000)))
    ON CONFLICT DO NOTHING;
    RETURN (SELECT recorded FROM ledger.incarnations WHERE id = number);
END $$;

-- For an heir: waits for what the dead have sent and the database still writes, and keeps others from recording.
CREATE FUNCTION ledger.hold_incarnation(number uuid)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known bigint;
BEGIN
    SELECT recorded INTO known FROM ledger.incarnations WHERE id = number FOR UPDATE;
    RETURN known;
END $$;

-- Whether the batch was recorded: it follows on what there is.
CREATE FUNCTION ledger.record_batch(number uuid, first bigint, some_searches integer, some_appearances integer,
                                    in_format smallint, bytes bytea, digest bytea, is_adopted boolean)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE ledger.incarnations SET recorded = recorded + some_searches WHERE id = number AND recorded = first;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO ledger.appearance_batches (incarnation, seq, searches, appearances, format, payload, sha256, adopted)
    VALUES (number, first, some_searches, some_appearances, in_format, bytes, digest, is_adopted);
    RETURN true;
END $$;

-- Whether it was closed: it has recorded so many searches, or any number where none is named.
CREATE FUNCTION ledger.close_incarnation(number uuid, at_recorded bigint DEFAULT NULL)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE ledger.incarnations SET closed_at = now()
    WHERE id = number AND (at_recorded IS NULL OR recorded = at_recorded);
    RETURN FOUND;
END $$;

-- Instants that can be reckoned with and that clients can name (Python's end with the year 9999). Where replicas could
-- choose them, those that are none are mended; of batches, which nobody changes, they are set aside by the fold.
UPDATE ledger.incarnations SET started_at = now() WHERE started_at NOT BETWEEN '2000-01-01 UTC' AND '3000-01-01 UTC';
UPDATE ledger.incarnations SET closed_at = now() WHERE closed_at NOT BETWEEN '2000-01-01 UTC' AND '3000-01-01 UTC';
UPDATE ledger.wallets SET set_at = now() WHERE set_at NOT BETWEEN '2000-01-01 UTC' AND '3000-01-01 UTC';
UPDATE ledger.wallets SET hold_until = CASE WHEN hold_until > now() THEN now() + interval '1 year' END
WHERE hold_until NOT BETWEEN '2000-01-01 UTC' AND '3000-01-01 UTC';
ALTER TABLE ledger.incarnations ADD CONSTRAINT incarnations_instants CHECK (
    started_at BETWEEN '2000-01-01 UTC' AND '3000-01-01 UTC' AND closed_at BETWEEN '2000-01-01 UTC' AND '3000-01-01 UTC') NOT VALID;
ALTER TABLE ledger.appearance_batches ADD CONSTRAINT appearance_batches_instants CHECK (
    recorded_at BETWEEN '2000-01-01 UTC' AND '3000-01-01 UTC') NOT VALID;
ALTER TABLE ledger.appearance_batches ADD CONSTRAINT appearance_batches_bytes CHECK (length(payload) <= 67108864) NOT VALID;
ALTER TABLE ledger.wallets ADD CONSTRAINT wallets_instants CHECK (
    set_at BETWEEN '2000-01-01 UTC' AND '3000-01-01 UTC' AND hold_until BETWEEN '2000-01-01 UTC' AND '3000-01-01 UTC') NOT VALID;

-- Where the fold stands, where it could not note it in `incarnations` because another transaction held the row: it never
-- waits for one. No reference: checking it would wait for that transaction too. The greater of both counts.
CREATE TABLE ledger.cursors (
    incarnation uuid PRIMARY KEY,
    folded      bigint NOT NULL CHECK (folded >= 0)
);
CREATE TRIGGER a_fenced BEFORE INSERT OR UPDATE ON ledger.cursors
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();

-- The incarnations of which something may wait, each with where the fold stands.
CREATE VIEW ledger.unfolded AS
    SELECT i.id, i.started_at, i.recorded, greatest(i.folded, c.folded) AS folded
    FROM ledger.incarnations i LEFT JOIN ledger.cursors c ON c.incarnation = i.id WHERE i.folded < i.recorded;

-- ── Wallets ────────────────────────────────────────────────────────────────────────────────────────────────────────

-- The wallet of which the ledger has last asked whether it is payable (was `wallets.checked_wallet`, which replicas wrote):
-- each is asked about once more. A later release with more rules empties the table.
CREATE TABLE ledger.checked_wallets (
    creator_id bigint PRIMARY KEY,
    wallet     text NOT NULL
);

-- For how long a change of wallet holds payouts at least, whatever a replica says: the ledger's own setting, as it noted it.
CREATE TABLE ledger.wallet_rules (
    id            boolean PRIMARY KEY DEFAULT true CHECK (id),
    change_hold_s integer NOT NULL CHECK (change_hold_s >= 0)
);
INSERT INTO ledger.wallet_rules (change_hold_s) VALUES (259200);

ALTER TABLE ledger.wallets ADD CONSTRAINT wallets_base58 CHECK (wallet ~ '^[1-9A-HJ-NP-Za-km-z]{32,44}$') NOT VALID;

-- Whether what a row becomes is a confirmation, which ends its hold: the creator, or an administrator, keeps the wallet
-- that a manifest has named. That happens once, since nothing becomes a manifest's again.
CREATE FUNCTION ledger.confirms_wallet(before ledger.wallets, after ledger.wallets) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT before.set_by = 'manifest' AND after.set_by <> 'manifest' AND after.wallet = before.wallet
$$;

-- What holds for every role but the owner of the table, however it writes a wallet.
CREATE FUNCTION ledger.guard_wallet() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_has_role(current_user, (SELECT relowner FROM pg_catalog.pg_class WHERE oid = TG_RELID), 'USAGE') THEN
        RETURN NEW;
    ELSIF TG_OP = 'INSERT' THEN
        NEW.set_at := now();
        RETURN NEW;
    ELSIF NEW.creator_id <> OLD.creator_id
          OR NEW.set_by = 'manifest' AND (OLD.set_by <> 'manifest' OR NEW.wallet <> OLD.wallet) THEN
        RAISE EXCEPTION 'a manifest changes no wallet' USING ERRCODE = 'PX005';
    END IF;
    NEW.set_at := OLD.set_at;
    IF NEW.wallet <> OLD.wallet THEN
        NEW.set_at := now();
        NEW.hold_until := greatest(NEW.hold_until, OLD.hold_until, (
            SELECT now() + make_interval(secs => change_hold_s) FROM ledger.wallet_rules WHERE change_hold_s > 0));
    ELSIF NEW.set_by <> OLD.set_by OR NEW.hold_until IS DISTINCT FROM OLD.hold_until THEN
        NEW.set_at := now();
        IF OLD.hold_until > now() AND coalesce(NEW.hold_until, '-infinity') < OLD.hold_until
           AND NOT ledger.confirms_wallet(OLD, NEW) THEN
            RAISE EXCEPTION 'the hold of creator %''s wallet ends with its time', OLD.creator_id USING ERRCODE = 'PX005';
        END IF;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guarded BEFORE INSERT OR UPDATE ON ledger.wallets FOR EACH ROW EXECUTE FUNCTION ledger.guard_wallet();

-- Every change of a wallet, of who set it and of its hold leaves a trace.
ALTER TABLE ledger.wallet_changes
    ADD old_set_by     text,
    ADD old_hold_until timestamptz,
    ADD new_hold_until timestamptz;
CREATE OR REPLACE FUNCTION ledger.log_wallet() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO ledger.wallet_changes (creator_id, new_wallet, set_by, new_hold_until)
        VALUES (NEW.creator_id, NEW.wallet, NEW.set_by, NEW.hold_until);
    ELSE
        INSERT INTO ledger.wallet_changes (creator_id, old_wallet, new_wallet, set_by, old_set_by, old_hold_until, new_hold_until)
        VALUES (NEW.creator_id, OLD.wallet, NEW.wallet, NEW.set_by, OLD.set_by, OLD.hold_until, NEW.hold_until);
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER logged ON ledger.wallets;
CREATE TRIGGER logged_insert AFTER INSERT ON ledger.wallets FOR EACH ROW EXECUTE FUNCTION ledger.log_wallet();
CREATE TRIGGER logged_update AFTER UPDATE ON ledger.wallets FOR EACH ROW
    WHEN ((NEW.wallet, NEW.set_by, NEW.hold_until) IS DISTINCT FROM (OLD.wallet, OLD.set_by, OLD.hold_until))
    EXECUTE FUNCTION ledger.log_wallet();

-- ── What the ledger writes ─────────────────────────────────────────────────────────────────────────────────────────

-- The epoch follows the clock (in microseconds) or grows by steps: one for a writer, a thousand for a restore. None reaches the
-- end of the numbers.
DROP TRIGGER guarded ON ledger.fence;
CREATE OR REPLACE FUNCTION ledger.guard_fence() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.epoch > OLD.epoch THEN
        RAISE EXCEPTION 'the epoch does not go from % to %', OLD.epoch, NEW.epoch USING ERRCODE = 'PX005';
    END IF;
    RAISE EXCEPTION 'the epoch % is over and does not come again', OLD.epoch USING ERRCODE = 'PX005';
END $$;
CREATE TRIGGER guarded BEFORE UPDATE ON ledger.fence FOR EACH ROW
    WHEN (NEW.epoch < OLD.epoch OR NEW.id IS DISTINCT FROM OLD.id
          OR NEW.epoch > greatest(OLD.epoch + 1000, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint))
    EXECUTE FUNCTION ledger.guard_fence();

-- Balances and the end of the chain are moved by these triggers alone, with their owner's rights: no role may change them
-- (see grants.sql), whatever triggers it makes on tables of its own.
ALTER FUNCTION ledger.apply_postings() SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION ledger.link_entry() SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
