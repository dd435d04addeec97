-- Who may call, and what the HTTP door keeps of its callers. No password, no key in clear, no address.

CREATE SCHEMA app;

-- Somebody who calls: a program, a creator (`creator_id` of media.creators), an operator.
CREATE TABLE app.principals (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 200),
    creator_id bigint,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX principals_creator ON app.principals (creator_id) WHERE creator_id IS NOT NULL;

-- Keys are 32 random bytes or more, so a plain SHA-256 is enough; a key is shown once, when it is made.
CREATE TABLE app.api_keys (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    principal_id bigint NOT NULL REFERENCES app.principals,
    hash         bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    scopes       text[] NOT NULL CHECK (scopes <@ ARRAY['search', 'ingest', 'creator', 'admin'] AND cardinality(scopes) > 0),
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz
);
CREATE INDEX api_keys_principal ON app.api_keys (principal_id);

CREATE TABLE app.sessions (
    hash         bytea PRIMARY KEY CHECK (length(hash) = 32),
    principal_id bigint NOT NULL REFERENCES app.principals,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL
);

-- Multipart uploads that are under way.
CREATE TABLE app.uploads (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    principal_id bigint NOT NULL REFERENCES app.principals,
    uri          text NOT NULL,
    size         bigint CHECK (size >= 0),
    created_at   timestamptz NOT NULL DEFAULT now(),
    finished_at  timestamptz
);

-- What viewers watched, for the feed; a viewer is a keyed hash.
CREATE TABLE app.watch_events (
    viewer     bytea NOT NULL CHECK (length(viewer) = 16),
    segment_id bigint NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('play', 'finish', 'like')),
    watched_ms integer NOT NULL DEFAULT 0 CHECK (watched_ms >= 0),
    at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX watch_events_viewer ON app.watch_events (viewer, at DESC);
