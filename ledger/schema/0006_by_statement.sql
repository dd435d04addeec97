-- What rows refer to is looked at once for all rows of a statement instead of in a query for each of them. It is as
-- strong as a foreign key: what is referred to can neither be deleted nor be given another id (see the triggers).

-- An unknown account is one that the balances could not be moved of.
CREATE OR REPLACE FUNCTION ledger.apply_postings() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moved bigint;
BEGIN
    IF EXISTS (SELECT FROM (SELECT entry_id, max(line) AS line FROM added GROUP BY entry_id) last
               LEFT JOIN ledger.entries e ON e.id = last.entry_id WHERE e.id IS NULL OR last.line > e.lines) THEN
        RAISE EXCEPTION 'a posting has no line in its entry' USING ERRCODE = 'PX004';
    END IF;
    UPDATE ledger.accounts a SET balance = a.balance + moving.amount
    FROM (SELECT account_id, sum(amount)::bigint AS amount FROM added GROUP BY account_id) moving
    WHERE a.id = moving.account_id;
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved <> (SELECT count(DISTINCT account_id) FROM added) THEN
        RAISE EXCEPTION 'a posting names an unknown account' USING ERRCODE = 'foreign_key_violation', DETAIL =
            (SELECT 'accounts ' || string_agg(DISTINCT account_id::text, ', ') FROM added
             WHERE NOT EXISTS (SELECT FROM ledger.accounts a WHERE a.id = added.account_id));
    END IF;
    RETURN NULL;
END $$;
ALTER TABLE ledger.postings DROP CONSTRAINT postings_account_id_fkey, DROP CONSTRAINT postings_entry_id_fkey;

-- Looked up by id one after the other, however large the tables are.
CREATE FUNCTION ledger.verify_transfers() RETURNS trigger LANGUAGE plpgsql SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    missing text;
BEGIN
    SELECT string_agg(name || ' ' || id, ', ') INTO missing FROM (
        SELECT 'account' AS name, source AS id FROM added
        WHERE NOT EXISTS (SELECT FROM ledger.accounts a WHERE a.id = source)
        UNION SELECT 'account', target FROM (SELECT DISTINCT target FROM added) targets
        WHERE NOT EXISTS (SELECT FROM ledger.accounts a WHERE a.id = target)
        UNION SELECT 'entry', pending_entry FROM (SELECT DISTINCT pending_entry FROM added) entries
        WHERE NOT EXISTS (SELECT FROM ledger.entries e WHERE e.id = pending_entry)) missing_ones;
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'a transfer names what does not exist' USING ERRCODE = 'foreign_key_violation', DETAIL = missing;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER verified AFTER INSERT ON ledger.transfers REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.verify_transfers();
ALTER TABLE ledger.transfers DROP CONSTRAINT transfers_source_fkey, DROP CONSTRAINT transfers_target_fkey,
    DROP CONSTRAINT transfers_pending_entry_fkey;

CREATE OR REPLACE FUNCTION ledger.guard_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> 'pending' OR NEW.state = 'pending'
       OR (NEW.id, NEW.source, NEW.target, NEW.amount_pix, NEW.pending_entry)
          IS DISTINCT FROM (OLD.id, OLD.source, OLD.target, OLD.amount_pix, OLD.pending_entry) THEN
        RAISE EXCEPTION 'transfer % is % and stays so', OLD.id, OLD.state USING ERRCODE = 'PX005';
    END IF;
    RETURN NEW;
END $$;

-- A payout says once what its recipient received, and nothing else of it changes.
CREATE FUNCTION ledger.verify_payouts() RETURNS trigger LANGUAGE plpgsql SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    missing text;
BEGIN
    SELECT string_agg(name || ' ' || id, ', ') INTO missing FROM (
        SELECT 'transfer' AS name, transfer_id::text AS id FROM added
        WHERE NOT EXISTS (SELECT FROM ledger.transfers t WHERE t.id = transfer_id)
        UNION SELECT 'batch', batch_id FROM (SELECT DISTINCT batch_id FROM added) batches
        WHERE NOT EXISTS (SELECT FROM ledger.batches b WHERE b.id = batch_id)) missing_ones;
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'a payout names what does not exist' USING ERRCODE = 'foreign_key_violation', DETAIL = missing;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER verified AFTER INSERT ON ledger.payouts REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.verify_payouts();
ALTER TABLE ledger.payouts DROP CONSTRAINT payouts_transfer_id_fkey, DROP CONSTRAINT payouts_batch_id_fkey;

CREATE FUNCTION ledger.guard_payout() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'payout % stays as it is', OLD.id USING ERRCODE = 'PX005';
END $$;
CREATE TRIGGER guarded BEFORE UPDATE ON ledger.payouts FOR EACH ROW
    WHEN (OLD.on_chain_pix IS NOT NULL AND NEW.on_chain_pix IS DISTINCT FROM OLD.on_chain_pix
          OR (NEW.id, NEW.creator_id, NEW.period, NEW.seq, NEW.wallet, NEW.amount_pix, NEW.transfer_id, NEW.batch_id)
             IS DISTINCT FROM
             (OLD.id, OLD.creator_id, OLD.period, OLD.seq, OLD.wallet, OLD.amount_pix, OLD.transfer_id, OLD.batch_id))
    EXECUTE FUNCTION ledger.guard_payout();
CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON ledger.payouts
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

-- Addresses hardly compress: trying costs more than writing them.
ALTER TABLE ledger.batches ALTER plan SET STORAGE EXTERNAL;

-- A creator has few payouts; those of one are found by the index of (creator_id, period, seq).
DROP INDEX ledger.payouts_creator;

-- Numbers that fit into four bytes are kept in four: a column's length says which it is.
ALTER TABLE ledger.pair_runs DROP CONSTRAINT pair_runs_check, ADD CONSTRAINT pair_runs_whole CHECK (
    length(viewers) = 4 * length(days)
    AND length(creators) IN (length(viewers), length(viewers) / 2)
    AND length(gross) IN (length(viewers), length(viewers) / 2)
    AND length(net) IN (length(viewers), length(viewers) / 2));
