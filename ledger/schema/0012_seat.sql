-- Where the database lies (server, timeline, database): rows that are found elsewhere were restored from a backup, or a
-- standby has taken over, and may have forgotten what was paid.
ALTER TABLE ledger.chain ADD seat text;
