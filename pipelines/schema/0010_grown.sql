-- Of the changes that the generation counts, those that only added moments: kept answers need not be dropped for each of
-- them while many videos are ingested. What nobody counts here is felt at once, also when an older version writes it.
ALTER TABLE media.generation ADD COLUMN grown bigint NOT NULL DEFAULT 0;
