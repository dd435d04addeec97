-- Of a moment whose pictures its video showed before its content changed: since then. NULL: since the video has its content.
ALTER TABLE media.segments ADD shown_since timestamptz;
-- What these are compared with (see pipelines/contents.py): moments of contents that a video has no more.
CREATE TABLE media.earlier_moments (
    video_id  bigint NOT NULL REFERENCES media.videos ON DELETE CASCADE,
    model_id  smallint NOT NULL REFERENCES media.models,
    since     timestamptz NOT NULL,
    embedding halfvec NOT NULL
);
CREATE INDEX earlier_moments_since ON media.earlier_moments (video_id, model_id, since);
