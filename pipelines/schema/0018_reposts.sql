-- Since when a video has had the content of its moments, and whether a person has accepted one that another creator's public video
-- had before (see pipelines/reposts.py). Of what was ingested before this, since it was listed. What an attempt has found in its object
-- becomes the content with the moments that are made of it.
ALTER TABLE media.videos ADD content_at timestamptz, ADD probed_hash text, ADD repost_accepted boolean NOT NULL DEFAULT false;
-- Each content that was ever found in a video, and since when: who puts an earlier file back has had it since then.
CREATE TABLE media.contents (
    video_id     bigint NOT NULL REFERENCES media.videos ON DELETE CASCADE,
    content_hash text NOT NULL,
    since        timestamptz NOT NULL,
    PRIMARY KEY (video_id, content_hash)
);
