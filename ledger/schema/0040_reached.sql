-- A state that nothing comes to is none: no batch was ever held, and no transfer has ever expired. Rows are not looked at:
-- there are none of these, and a look at all payouts would keep everybody waiting.
ALTER TABLE ledger.batches DROP CONSTRAINT batches_state_check,
    ADD CONSTRAINT batches_state_check CHECK (state IN ('planned', 'signed', 'posted', 'failed', 'cancelled')) NOT VALID;
ALTER TABLE ledger.transfers DROP CONSTRAINT transfers_state_check,
    ADD CONSTRAINT transfers_state_check CHECK (state IN ('pending', 'posted', 'voided')) NOT VALID;

CREATE OR REPLACE FUNCTION ledger.guard_batch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.state, NEW.state) IN (('planned', 'signed'), ('planned', 'cancelled'), ('planned', 'posted'),
                                  ('signed', 'planned'), ('signed', 'posted'), ('signed', 'failed'))
       AND (NEW.id, NEW.kind, NEW.count, NEW.amount_pix) = (OLD.id, OLD.kind, OLD.count, OLD.amount_pix) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'batch % cannot go from % to %', OLD.id, OLD.state, NEW.state USING ERRCODE = 'PX005';
END $$;

DELETE FROM ledger.ages WHERE state = 'held';
