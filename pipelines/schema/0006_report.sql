-- What the report of a job says beyond its rows: how full batches were; and what a video says of itself: frames that
-- were there and could not be decoded.
ALTER TABLE media.job_videos ADD COLUMN embed_slots real NOT NULL DEFAULT 0;   -- rows of batches, filled or padded
ALTER TABLE media.staging ADD COLUMN lost integer NOT NULL DEFAULT 0 CHECK (lost >= 0);     -- frames of the chunk
