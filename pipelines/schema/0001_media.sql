-- Videos, their moments and the vectors that find them; jobs and the staging area that ingest fills.
-- Instants are timestamptz and always the database's clock; offsets into a video are whole milliseconds.

CREATE SCHEMA media;

CREATE TABLE media.creators (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    handle     text NOT NULL UNIQUE CHECK (length(handle) BETWEEN 1 AND 200),
    name       text NOT NULL,
    wallet     text,                       -- what a manifest claimed; the first claim stands
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Fencing tokens: a later lease always carries a larger one.
CREATE SEQUENCE media.lease_tokens AS bigint;

CREATE TABLE media.videos (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    creator_id       bigint NOT NULL REFERENCES media.creators,
    source_uri       text NOT NULL UNIQUE,
    source_etag      text NOT NULL DEFAULT '',  -- of the object that was listed; another one means another content
    source_bytes     bigint NOT NULL DEFAULT 0 CHECK (source_bytes >= 0),
    content_hash     text,                      -- SHA-256 in hex
    title            text NOT NULL DEFAULT '',
    description      text NOT NULL DEFAULT '',
    tags             text[] NOT NULL DEFAULT '{}',
    language         text NOT NULL DEFAULT 'english',
    duration_ms      integer CHECK (duration_ms >= 0),
    width            integer CHECK (width > 0),
    height           integer CHECK (height > 0),
    fps              real CHECK (fps >= 0),
    has_audio        boolean,
    container        text,
    codec            text,
    playback_uri     text,                      -- where to play from when it is not source_uri
    visibility       text NOT NULL DEFAULT 'public' CHECK (visibility IN ('public', 'unlisted', 'private')),
    status           text NOT NULL DEFAULT 'queued'
                     CHECK (status IN ('queued', 'processing', 'ready', 'failed', 'quarantined', 'removed')),
    attempts         integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),   -- counted before decoding starts
    failures         integer NOT NULL DEFAULT 0 CHECK (failures >= 0),   -- attempts that came back with an error
    error            text,
    error_code       text,
    warning          text,                      -- ready, but not all of it: why
    pipeline_version integer,
    created_at       timestamptz NOT NULL DEFAULT now(),
    ready_at         timestamptz,
    retry_at         timestamptz,               -- not before
    lease_owner      text,
    lease_token      bigint UNIQUE,
    lease_until      timestamptz,
    CHECK (status <> 'ready' OR ready_at IS NOT NULL),
    CHECK (status <> 'quarantined' OR (error IS NOT NULL AND error_code IS NOT NULL)),
    CHECK ((lease_owner IS NULL) = (lease_token IS NULL) AND (lease_owner IS NULL) = (lease_until IS NULL))
);
CREATE INDEX videos_creator ON media.videos (creator_id, id);
CREATE INDEX videos_lease ON media.videos (lease_owner) WHERE lease_owner IS NOT NULL;
CREATE INDEX videos_newest ON media.videos (created_at DESC, id DESC) WHERE status = 'ready' AND visibility = 'public';

CREATE TABLE media.jobs (
    id            text PRIMARY KEY CHECK (id ~ '^[a-z0-9-]{1,64}$'),
    source        text NOT NULL,
    options       jsonb NOT NULL DEFAULT '{}',
    status        text NOT NULL DEFAULT 'queued'
                  CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    priority      integer NOT NULL DEFAULT 0,
    submissions   integer NOT NULL DEFAULT 0 CHECK (submissions >= 0),
    submission_id text,                        -- Ray's name of the last one
    submitted_at  timestamptz,
    heartbeat_at  timestamptz,                 -- of the driver
    total         integer NOT NULL DEFAULT 0 CHECK (total >= 0),
    listed        boolean NOT NULL DEFAULT false,
    cancel        boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now(),
    started_at    timestamptz,
    finished_at   timestamptz,
    error         text,
    report        jsonb NOT NULL DEFAULT '{}',
    CHECK ((status IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL))
);
CREATE INDEX jobs_unfinished ON media.jobs (created_at) WHERE finished_at IS NULL;
CREATE INDEX jobs_newest ON media.jobs (created_at DESC);

CREATE TABLE media.job_videos (
    job_id         text NOT NULL REFERENCES media.jobs ON DELETE CASCADE,
    video_id       bigint NOT NULL REFERENCES media.videos,
    position       integer NOT NULL,           -- the order of work: creators take turns
    outcome        text CHECK (outcome IN ('ready', 'skipped', 'failed', 'quarantined', 'removed')),
    error          text,
    error_code     text,
    segments       integer NOT NULL DEFAULT 0,
    frames         bigint NOT NULL DEFAULT 0,
    bytes          bigint NOT NULL DEFAULT 0,
    fetch_seconds  real NOT NULL DEFAULT 0,
    decode_seconds real NOT NULL DEFAULT 0,    -- CPU
    embed_seconds  real NOT NULL DEFAULT 0,
    embedded       bigint NOT NULL DEFAULT 0,  -- frames
    PRIMARY KEY (job_id, video_id)
);
CREATE INDEX job_videos_open ON media.job_videos (job_id, position) WHERE outcome IS NULL;
CREATE INDEX job_videos_video ON media.job_videos (video_id);

-- One row a decode chunk: what it gives until the last one of its video is there. Unlogged would lose rows in a crash
-- that the lease still counts on, so it is an ordinary table.
CREATE TABLE media.staging (
    video_id     bigint NOT NULL REFERENCES media.videos ON DELETE CASCADE,
    lease_token  bigint NOT NULL,
    chunk        integer NOT NULL CHECK (chunk >= 0),
    chunks       integer NOT NULL CHECK (chunks > chunk),
    frame_ms     bytea NOT NULL,               -- int32 a frame
    features     bytea NOT NULL,               -- float32, shots.FEATURES values a frame
    candidate_ms bytea NOT NULL,               -- int32 a candidate
    sharpness    bytea NOT NULL,               -- float32 a candidate
    vectors      bytea NOT NULL,               -- float32, the model's dimensions a candidate
    thumbnails   bytea[] NOT NULL,             -- WebP a candidate
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (video_id, lease_token, chunk)
);

CREATE TABLE media.segments (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    video_id         bigint NOT NULL REFERENCES media.videos,
    creator_id       bigint NOT NULL REFERENCES media.creators,
    start_ms         integer NOT NULL CHECK (start_ms >= 0),
    end_ms           integer NOT NULL,
    best_frame_ms    integer NOT NULL,
    description      text NOT NULL DEFAULT '',
    search           tsvector NOT NULL,
    thumbnail_uri    text,
    pipeline_version integer NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    UNIQUE (video_id, start_ms, pipeline_version),
    CHECK (end_ms > start_ms),
    CHECK (best_frame_ms BETWEEN start_ms AND end_ms)
);
CREATE INDEX segments_search ON media.segments USING gin (search);
CREATE INDEX segments_creator ON media.segments (creator_id, id);

-- Where a moment went when its video was ingested again: old ids redirect to the new one with the largest overlap.
CREATE TABLE media.segment_lineage (
    old_id     bigint NOT NULL,
    new_id     bigint NOT NULL,
    overlap    real NOT NULL CHECK (overlap > 0 AND overlap <= 1),   -- share of the old moment
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (old_id, new_id),
    CHECK (old_id <> new_id)
);
CREATE INDEX segment_lineage_new ON media.segment_lineage (new_id);

CREATE TABLE media.models (
    id          smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE,
    dimensions  integer NOT NULL CHECK (dimensions BETWEEN 1 AND 4000),  -- the most that a halfvec index takes
    active      boolean NOT NULL DEFAULT false,
    fingerprint text NOT NULL,
    relevance   jsonb NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX models_one_active ON media.models (active) WHERE active;

CREATE TABLE media.embeddings (
    model_id   smallint NOT NULL,
    segment_id bigint NOT NULL,
    video_id   bigint NOT NULL,
    creator_id bigint NOT NULL,
    start_ms   integer NOT NULL,
    end_ms     integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    embedding  halfvec STORAGE PLAIN NOT NULL,     -- L2-normalised
    PRIMARY KEY (model_id, segment_id)
) PARTITION BY LIST (model_id);
CREATE INDEX embeddings_video ON media.embeddings (video_id, model_id);

-- Names a model, gives it its partition with the check and the index of its dimension; the first one is the active one.
-- The same name with other weights is refused: their vectors do not compare.
CREATE FUNCTION media.register_model(model_name text, model_dimensions integer, model_fingerprint text)
RETURNS smallint LANGUAGE plpgsql AS $$
DECLARE
    known media.models;
    leaf  text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('media.register_model'));
    SELECT * INTO known FROM media.models WHERE name = model_name;
    IF FOUND THEN
        IF known.fingerprint <> model_fingerprint OR known.dimensions <> model_dimensions THEN
            RAISE EXCEPTION 'model % is registered with other weights', model_name USING ERRCODE = 'unique_violation';
        END IF;
        RETURN known.id;
    END IF;
    INSERT INTO media.models (name, dimensions, fingerprint, active)
        VALUES (model_name, model_dimensions, model_fingerprint, NOT EXISTS (SELECT FROM media.models WHERE active))
        RETURNING * INTO known;
    leaf := 'embeddings_m' || known.id;
    EXECUTE format('CREATE TABLE media.%I PARTITION OF media.embeddings (CHECK (vector_dims(embedding) = %s))'
        ' FOR VALUES IN (%s)', leaf, model_dimensions, known.id);
    EXECUTE format('ALTER TABLE media.%I ALTER embedding SET STORAGE PLAIN', leaf);
    EXECUTE format('CREATE INDEX %I ON media.%I USING hnsw ((embedding::halfvec(%s)) halfvec_ip_ops)',
        leaf || '_hnsw', leaf, model_dimensions);
    RETURN known.id;
END $$;

-- What full text finds: the title above the tags above the description, in the video's language.
CREATE FUNCTION media.search_text(language text, title text, tags text[], description text)
RETURNS tsvector LANGUAGE sql STABLE AS $$
    SELECT setweight(to_tsvector(config, title), 'A')
        || setweight(to_tsvector(config, array_to_string(tags, ' ')), 'B')
        || setweight(to_tsvector(config, description), 'C')
    FROM (SELECT coalesce((SELECT oid::regconfig FROM pg_ts_config WHERE cfgname = language LIMIT 1),
                          'simple'::regconfig) AS config) AS chosen
$$;

-- Grows with every change that a search could see: the key of caches, the frozen point of cursors.
CREATE TABLE media.generation (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    value bigint NOT NULL
);
INSERT INTO media.generation (value) VALUES (1);
