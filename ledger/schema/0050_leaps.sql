-- What a creator's UTC day comes to above the proportion of the days before (ledger/velocity.py). It waits while a partial
-- hold for that day is in force; what is in proportion is paid.
CREATE TABLE ledger.leaps (
    day        date NOT NULL,
    creator_id bigint NOT NULL,
    above_pix  bigint NOT NULL CHECK (above_pix >= 0),
    matures_at timestamptz NOT NULL,              -- when the first of that day's earnings is payable
    found_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (day, creator_id)
);
CREATE INDEX leaps_creator ON ledger.leaps (creator_id);
CREATE TRIGGER a_fenced BEFORE INSERT OR UPDATE ON ledger.leaps
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();
-- Who may be paid more now is looked at again (see 0020).
CREATE TRIGGER wakes AFTER UPDATE ON ledger.leaps
    FOR EACH ROW WHEN (NEW.above_pix < OLD.above_pix) EXECUTE FUNCTION ledger.wake();

-- The same of what is doubtful; of what was found before, it is.
ALTER TABLE ledger.suspicions ADD matures_at timestamptz NOT NULL DEFAULT '-infinity';

-- What a person has released was found before: a later hold does not withhold it. Nor is anything withheld before the day's
-- own earnings come to be payable: what was earned before them is paid.
CREATE OR REPLACE FUNCTION ledger.withheld(creator bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT (coalesce((
        SELECT sum(s.captive_pix - s.reversed_pix)
        FROM (SELECT bool_or(partial AND released_at IS NULL AND NOT starts_with(reason, 'velocity on ')) AS is_held,
                     max(released_at) FILTER (WHERE starts_with(reason, 'fan-in')) AS released_at
              FROM ledger.holds WHERE creator_id = creator) h
        JOIN ledger.suspicions s ON s.creator_id = creator AND h.is_held AND s.matures_at <= now()
             AND (h.released_at IS NULL OR s.found_at > h.released_at)), 0)
    + coalesce((
        SELECT sum(l.above_pix) FROM ledger.leaps l
        WHERE l.creator_id = creator AND l.matures_at <= now() AND EXISTS (
            SELECT FROM ledger.holds h WHERE h.creator_id = creator AND h.partial AND h.released_at IS NULL
              AND starts_with(h.reason, 'velocity on ' || to_char(l.day, 'YYYY-MM-DD') || ':'))), 0))::bigint
$$;
