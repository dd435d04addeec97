-- What the anonymous viewers of one network have earned others in a UTC day is bounded like a viewer's own: runs of a kind
-- of their own. Batches of format 2 carry the network as a keyed hash; those of format 1 have none and are not bounded so.
ALTER TABLE ledger.day_runs DROP CONSTRAINT day_runs_kind_check,
    ADD CONSTRAINT day_runs_kind_check CHECK (kind IN ('viewer', 'segment', 'creator', 'origin'));
