-- What the report of a job says beyond its rows: how full batches were.
ALTER TABLE media.job_videos ADD COLUMN embed_slots real NOT NULL DEFAULT 0;   -- rows of batches, filled or padded
