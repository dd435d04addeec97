-- Serve's own tables, in full for its replicas; their shape is a migration's. No other part has a business with keys: a
-- reader sees whose they are and what they open, and not their hashes.
REVOKE ALL ON SCHEMA app FROM pixr_serve, pixr_jobs, pixr_ledger, pixr_reader;
REVOKE ALL ON ALL TABLES IN SCHEMA app FROM pixr_serve, pixr_jobs, pixr_ledger, pixr_reader;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA app FROM pixr_serve, pixr_jobs, pixr_ledger, pixr_reader;
GRANT USAGE ON SCHEMA app TO pixr_serve, pixr_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA app TO pixr_serve;
REVOKE DELETE ON app.principals, app.api_keys FROM pixr_serve;  -- a key ends, and nobody forgets whose it was
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA app TO pixr_serve;
ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO pixr_serve;

GRANT SELECT ON app.principals, app.uploads, app.watch_events, app.watched TO pixr_reader;
GRANT SELECT (id, principal_id, scopes, created_at, expires_at, revoked_at, creators, folders) ON app.api_keys TO pixr_reader;
GRANT SELECT (principal_id, created_at, expires_at) ON app.sessions TO pixr_reader;
