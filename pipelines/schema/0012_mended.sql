-- Lists of uploads that Pixr itself has written. The address of one holds the digest of its content, which whoever can write
-- into the bucket can compute too: so only those that stand here are lists. Serve's replicas may read this and not write it.
CREATE TABLE media.lists (
    uri        text PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO media.lists (uri) SELECT DISTINCT source FROM media.jobs WHERE source LIKE 's3://%/uploads/lists/%.jsonl';

-- What manifests last said of each video: a word that differs from what they said before takes effect, the same word again
-- leaves alone what people have changed since. NULL: not noted yet, as of all videos of releases before this one.
-- Last, for its lock stops searches until the end.
ALTER TABLE media.videos ADD COLUMN manifest_words jsonb;
