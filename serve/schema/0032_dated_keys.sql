-- Since when somebody is an administrator, orders of money ask. Serve's role makes keys and ends them: it dates none back,
-- makes no other key of one that is there, and none that has ended good again.
CREATE FUNCTION app.guard_key() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before jsonb := to_jsonb(OLD);
    after jsonb := to_jsonb(NEW);
BEGIN
    IF pg_has_role(current_user, (SELECT relowner FROM pg_catalog.pg_class WHERE oid = TG_RELID), 'USAGE') THEN
        RETURN NEW;
    ELSIF TG_OP = 'INSERT' THEN
        NEW.created_at := now();
    ELSIF (after - 'expires_at' - 'revoked_at') <> (before - 'expires_at' - 'revoked_at')
          OR before->>'revoked_at' <> coalesce(after->>'revoked_at', '')
          OR coalesce((after->>'expires_at')::timestamptz, 'infinity') > (before->>'expires_at')::timestamptz THEN
        RAISE EXCEPTION 'a caller and its keys stay what they were made as: make another one' USING ERRCODE = 'PX007';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guarded BEFORE INSERT OR UPDATE ON app.principals FOR EACH ROW EXECUTE FUNCTION app.guard_key();
CREATE TRIGGER guarded BEFORE INSERT OR UPDATE ON app.api_keys FOR EACH ROW EXECUTE FUNCTION app.guard_key();

-- Since the key was made, too: who may make keys could make one for an administrator of long ago.
CREATE OR REPLACE FUNCTION app.admin_of(key text, OUT id bigint, OUT name text, OUT since timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.id, p.name, greatest(p.created_at, k.created_at)
    FROM app.api_keys k JOIN app.principals p ON p.id = k.principal_id
    WHERE k.hash = sha256(convert_to(key, 'UTF8')) AND 'admin' = ANY(k.scopes)
      AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
$$;
