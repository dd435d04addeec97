-- The creators that a key of scope ingest may speak for, by their handles. NULL: any of them, as all keys of before may.
ALTER TABLE app.api_keys ADD COLUMN creators text[] CHECK (cardinality(creators) > 0);
