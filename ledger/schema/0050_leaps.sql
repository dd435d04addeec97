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
-- Who may be paid more now is looked at again (see 0020).
CREATE TRIGGER wakes AFTER UPDATE ON ledger.leaps
    FOR EACH ROW WHEN (NEW.above_pix < OLD.above_pix) EXECUTE FUNCTION ledger.wake();

-- What a person has released was found before: a later hold does not withhold it.
CREATE OR REPLACE FUNCTION ledger.withheld(creator bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT (coalesce((
        SELECT sum(s.captive_pix - s.reversed_pix)
        FROM (SELECT bool_or(released_at IS NULL) AS is_held, max(released_at) AS released_at FROM ledger.holds
              WHERE creator_id = creator AND partial AND NOT starts_with(reason, 'velocity on ')) h
        JOIN ledger.suspicions s ON s.creator_id = creator AND h.is_held
             AND (h.released_at IS NULL OR s.found_at > h.released_at)), 0)
    + coalesce((
        SELECT sum(l.above_pix) FROM ledger.leaps l
        WHERE l.creator_id = creator AND EXISTS (
            SELECT FROM ledger.holds h WHERE h.creator_id = creator AND h.partial AND h.released_at IS NULL
              AND starts_with(h.reason, 'velocity on ' || to_char(l.day, 'YYYY-MM-DD') || ':'))), 0))::bigint
$$;
