-- Which administrator holds this key; nobody where it is none, has ended, or has another scope. For functions of other
-- packages that are called with a key, by roles that may see neither keys nor principals.
CREATE FUNCTION app.admin_of(key text, OUT id bigint, OUT name text, OUT since timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.id, p.name, p.created_at FROM app.api_keys k JOIN app.principals p ON p.id = k.principal_id
    WHERE k.hash = sha256(convert_to(key, 'UTF8')) AND 'admin' = ANY(k.scopes)
      AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
$$;
REVOKE ALL ON FUNCTION app.admin_of(text) FROM PUBLIC;
