-- What a creator's UTC day comes to above the proportion of the days before (ledger/velocity.py). It waits while a partial
-- hold for that day is in force; what is in proportion is paid.
CREATE TABLE ledger.leaps (
    day        date NOT NULL,
    creator_id bigint NOT NULL,
    above_pix  bigint NOT NULL CHECK (above_pix >= 0),
    found_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (day, creator_id)
);
CREATE INDEX leaps_creator ON ledger.leaps (creator_id);
CREATE TRIGGER a_fenced BEFORE INSERT OR UPDATE ON ledger.leaps
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();

CREATE OR REPLACE FUNCTION ledger.withheld(creator bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT (coalesce((
        SELECT sum(s.captive_pix - s.reversed_pix) FROM ledger.suspicions s
        WHERE s.creator_id = creator AND s.found_at >= (
            SELECT min(h.placed_at) FROM ledger.holds h
            WHERE h.creator_id = creator AND h.partial AND h.released_at IS NULL
              AND NOT starts_with(h.reason, 'velocity on '))), 0)
    + coalesce((
        SELECT sum(l.above_pix) FROM ledger.leaps l
        WHERE l.creator_id = creator AND EXISTS (
            SELECT FROM ledger.holds h WHERE h.creator_id = creator AND h.partial AND h.released_at IS NULL
              AND starts_with(h.reason, 'velocity on ' || to_char(l.day, 'YYYY-MM-DD') || ':'))), 0))::bigint
$$;
