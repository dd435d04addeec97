-- Orders: what an administrator has the ledger do that no rule of its own does. An order is placed and approved by
-- functions that are given an administrator's key, and in no other way; the ledger carries it out, in its next round, once.
CREATE TABLE ledger.orders (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('adopt', 'withdrawal', 'correction', 'secret')),
    body        jsonb NOT NULL CHECK (jsonb_typeof(body) = 'object'),
    reason      text NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
    ordered_by  bigint NOT NULL,                 -- app.principals
    ordered_as  text NOT NULL,                   -- what it was called then
    ordered_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at  timestamptz NOT NULL,
    approved_by bigint,
    approved_as text,
    approved_at timestamptz,
    done_at     timestamptz,
    carried_out boolean,
    outcome     text,
    entry_id    bigint REFERENCES ledger.entries,
    CHECK (approved_by <> ordered_by),
    CHECK ((approved_by IS NULL) = (approved_at IS NULL) AND (approved_by IS NULL) = (approved_as IS NULL)),
    CHECK (approved_at < expires_at),
    CHECK ((done_at IS NULL) = (outcome IS NULL) AND (done_at IS NULL) = (carried_out IS NULL)),
    CHECK (entry_id IS NULL OR carried_out)
);
CREATE INDEX orders_open ON ledger.orders (id) WHERE done_at IS NULL;
CREATE TRIGGER guarded BEFORE UPDATE ON ledger.orders FOR EACH ROW
    WHEN (OLD.done_at IS NOT NULL
          OR OLD.approved_by IS NOT NULL AND (NEW.approved_by, NEW.approved_as, NEW.approved_at)
                                             IS DISTINCT FROM (OLD.approved_by, OLD.approved_as, OLD.approved_at)
          OR (NEW.id, NEW.kind, NEW.body, NEW.reason, NEW.ordered_by, NEW.ordered_as, NEW.ordered_at, NEW.expires_at)
             IS DISTINCT FROM
             (OLD.id, OLD.kind, OLD.body, OLD.reason, OLD.ordered_by, OLD.ordered_as, OLD.ordered_at, OLD.expires_at))
    EXECUTE FUNCTION ledger.guard_stop();
CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON ledger.orders
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER a_fenced BEFORE UPDATE OF done_at, carried_out, outcome, entry_id ON ledger.orders
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();

CREATE FUNCTION ledger.place_order(key text, kind text, body jsonb, reason text, lives_s integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    admin record;
    number bigint;
BEGIN
    SELECT * INTO admin FROM app.admin_of(key);
    IF admin.id IS NULL THEN
        RAISE EXCEPTION 'this is no key of an administrator' USING ERRCODE = 'PX006';
    END IF;
    INSERT INTO ledger.orders (kind, body, reason, ordered_by, ordered_as, expires_at)
    VALUES (kind, body, reason, admin.id, admin.name, clock_timestamp() + make_interval(secs => lives_s)) RETURNING id INTO number;
    RETURN number;
END $$;
REVOKE ALL ON FUNCTION ledger.place_order(text, text, jsonb, text, integer) FROM PUBLIC;

-- Who may make keys could make a second person in a moment: an approver is a day older than what they approve.
CREATE FUNCTION ledger.approve_order(key text, number bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    admin record;
    found record;
BEGIN
    SELECT * INTO admin FROM app.admin_of(key);
    IF admin.id IS NULL THEN
        RAISE EXCEPTION 'this is no key of an administrator' USING ERRCODE = 'PX006';
    END IF;
    SELECT o.* INTO found FROM ledger.orders o WHERE o.id = number FOR UPDATE;
    IF found.id IS NULL THEN
        RAISE EXCEPTION 'there is no order %', number USING ERRCODE = 'PX006';
    ELSIF found.done_at IS NOT NULL THEN
        RAISE EXCEPTION 'order % is done', number USING ERRCODE = 'PX006';
    ELSIF found.approved_by IS NOT NULL THEN
        RAISE EXCEPTION 'order % is approved', number USING ERRCODE = 'PX006';
    ELSIF found.expires_at <= clock_timestamp() THEN
        RAISE EXCEPTION 'order % has expired', number USING ERRCODE = 'PX006';
    ELSIF found.ordered_by = admin.id THEN
        RAISE EXCEPTION 'order % is your own: another administrator approves it', number USING ERRCODE = 'PX006';
    ELSIF admin.since > found.ordered_at - interval '1 day' THEN
        RAISE EXCEPTION 'order % is approved by whoever was an administrator a day before it was placed', number
            USING ERRCODE = 'PX006';
    END IF;
    UPDATE ledger.orders SET approved_by = admin.id, approved_as = admin.name, approved_at = clock_timestamp()
    WHERE id = number;
END $$;
REVOKE ALL ON FUNCTION ledger.approve_order(text, bigint) FROM PUBLIC;

-- What an order was about is no longer unknown.
ALTER TABLE ledger.chain_transactions DROP CONSTRAINT chain_transactions_kind_check,
    ADD CONSTRAINT chain_transactions_kind_check
        CHECK (kind IN ('deposit', 'attempt', 'neutral', 'unknown', 'withdrawal'));
CREATE TRIGGER guarded BEFORE UPDATE ON ledger.chain_transactions FOR EACH ROW
    WHEN (OLD.kind <> 'unknown' OR OLD.entry_id IS NOT NULL
          OR (NEW.signature, NEW.slot, NEW.delta_pix, NEW.delta_lamports)
             IS DISTINCT FROM (OLD.signature, OLD.slot, OLD.delta_pix, OLD.delta_lamports))
    EXECUTE FUNCTION ledger.guard_stop();
