-- What another role writes keeps nobody from being paid for longer than the ledger's own rules do.

-- For how long a first wallet may wait at most: the ledger's own setting for a manifest's, as it noted it.
ALTER TABLE ledger.wallet_rules ADD manifest_hold_s integer NOT NULL DEFAULT 31622400 CHECK (manifest_hold_s >= 0);
UPDATE ledger.wallets w SET hold_until = now() + make_interval(secs => r.change_hold_s)
FROM ledger.wallet_rules r WHERE w.hold_until > now() + make_interval(secs => greatest(r.change_hold_s, 31622400));

CREATE OR REPLACE FUNCTION ledger.guard_wallet() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    rules ledger.wallet_rules;
BEGIN
    IF pg_has_role(current_user, (SELECT relowner FROM pg_catalog.pg_class WHERE oid = TG_RELID), 'USAGE') THEN
        RETURN NEW;
    END IF;
    SELECT * INTO rules FROM ledger.wallet_rules;
    IF TG_OP = 'INSERT' THEN
        NEW.set_at := now();
        IF NEW.hold_until > now() + make_interval(secs => greatest(rules.change_hold_s, rules.manifest_hold_s)) THEN
            NEW.hold_until := now() + make_interval(secs => greatest(rules.change_hold_s, rules.manifest_hold_s));
        END IF;
        RETURN NEW;
    ELSIF NEW.creator_id <> OLD.creator_id
          OR NEW.set_by = 'manifest' AND (OLD.set_by <> 'manifest' OR NEW.wallet <> OLD.wallet) THEN
        RAISE EXCEPTION 'a manifest changes no wallet' USING ERRCODE = 'PX005';
    END IF;
    NEW.set_at := OLD.set_at;
    IF NEW.wallet <> OLD.wallet THEN
        NEW.set_at := now();
        NEW.hold_until := greatest(OLD.hold_until, CASE WHEN rules.change_hold_s > 0
                                                        THEN now() + make_interval(secs => rules.change_hold_s) END);
    ELSIF NEW.set_by <> OLD.set_by OR NEW.hold_until IS DISTINCT FROM OLD.hold_until THEN
        NEW.set_at := now();
        IF OLD.hold_until > now() AND coalesce(NEW.hold_until, '-infinity') < OLD.hold_until
           AND NOT ledger.confirms_wallet(OLD, NEW) THEN
            RAISE EXCEPTION 'the hold of creator %''s wallet ends with its time', OLD.creator_id USING ERRCODE = 'PX005';
        ELSIF NEW.hold_until > coalesce(OLD.hold_until, '-infinity') THEN
            RAISE EXCEPTION 'the same wallet of creator % waits no longer than it did', OLD.creator_id USING ERRCODE = 'PX005';
        END IF;
    END IF;
    RETURN NEW;
END $$;

-- Two persons: who has placed an order was an administrator a day before, as who approves it was. Else one of them could make
-- the other in a moment.
ALTER TABLE ledger.orders ADD admin_since timestamptz;
CREATE OR REPLACE FUNCTION ledger.place_order(key text, kind text, body jsonb, reason text, lives_s integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    admin record;
    number bigint;
BEGIN
    SELECT * INTO admin FROM app.admin_of(key);
    IF admin.id IS NULL THEN
        RAISE EXCEPTION 'this is no key of an administrator' USING ERRCODE = 'PX006';
    END IF;
    INSERT INTO ledger.orders (kind, body, reason, ordered_by, ordered_as, admin_since, expires_at)
    VALUES (kind, body, reason, admin.id, admin.name, admin.since, clock_timestamp() + make_interval(secs => lives_s))
    RETURNING id INTO number;
    RETURN number;
END $$;
CREATE OR REPLACE FUNCTION ledger.approve_order(key text, number bigint) RETURNS void
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
        RAISE EXCEPTION 'order % is approved with a key that was an administrator''s a day before it was placed', number
            USING ERRCODE = 'PX006';
    ELSIF found.admin_since > found.ordered_at - interval '1 day' THEN
        RAISE EXCEPTION 'order % was placed with a key younger than a day: where two decide, place it again tomorrow', number
            USING ERRCODE = 'PX006';
    END IF;
    UPDATE ledger.orders SET approved_by = admin.id, approved_as = admin.name, approved_at = clock_timestamp()
    WHERE id = number;
END $$;
