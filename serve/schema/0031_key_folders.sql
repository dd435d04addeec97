-- Folders of buckets that jobs of a key of scope ingest may name, where it is for named creators. NULL: those that are called
-- as its creators, also for keys of before.
ALTER TABLE app.api_keys ADD COLUMN folders text[] CHECK (cardinality(folders) > 0);
