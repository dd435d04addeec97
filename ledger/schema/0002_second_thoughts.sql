-- The chain has the last word. A transaction that was given up as expired and is found final after all (a node lied
-- about heights) is settled like any other: its attempt goes from expired to what it became, its batch to posted.

CREATE OR REPLACE FUNCTION ledger.guard_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.state = 'live' OR (OLD.state = 'expired' AND NEW.state IN ('landed', 'failed')))
       AND (NEW.batch_id, NEW.n, NEW.signature, NEW.raw, NEW.last_valid_block_height)
           IS NOT DISTINCT FROM (OLD.batch_id, OLD.n, OLD.signature, OLD.raw, OLD.last_valid_block_height) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'attempt % of batch % is % and stays so', OLD.n, OLD.batch_id, OLD.state USING ERRCODE = 'PX005';
END $$;

CREATE OR REPLACE FUNCTION ledger.guard_batch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.state, NEW.state) IN (('planned', 'signed'), ('planned', 'held'), ('held', 'planned'), ('planned', 'cancelled'),
                                  ('held', 'cancelled'), ('signed', 'posted'), ('signed', 'failed'), ('signed', 'planned'),
                                  ('planned', 'posted'))
       AND (NEW.id, NEW.kind, NEW.count, NEW.amount_pix) = (OLD.id, OLD.kind, OLD.count, OLD.amount_pix) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'batch % cannot go from % to %', OLD.id, OLD.state, NEW.state USING ERRCODE = 'PX005';
END $$;

-- A batch is posted only by a landed attempt.
CREATE FUNCTION ledger.verify_posted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM ledger.attempts WHERE batch_id = NEW.id AND state = 'landed') THEN
        RAISE EXCEPTION 'batch % is posted and no attempt of it has landed', NEW.id USING ERRCODE = 'PX005';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER posted_by_chain AFTER UPDATE ON ledger.batches DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.state = 'posted') EXECUTE FUNCTION ledger.verify_posted();
