-- Since when a video has had its content, and whether a person has accepted one that another creator's public video had before
-- (see pipelines/reposts.py). Of what was ingested before this, since it was listed.
ALTER TABLE media.videos ADD content_at timestamptz, ADD repost_accepted boolean NOT NULL DEFAULT false;
