-- What is doubtful is held to its extent: a clock, a batch, a part of what a creator has earned.

-- A batch that an heir recorded from a dead replica's spool may be as old as the incarnation; any other is of the moment.
-- What was recorded before this was written down may be either: its searches keep their day.
ALTER TABLE ledger.appearance_batches ADD adopted boolean NOT NULL DEFAULT true;
ALTER TABLE ledger.appearance_batches ALTER adopted SET DEFAULT false;

-- Batches that nobody can read. They earn nothing and what follows on them is folded all the same.
CREATE TABLE ledger.set_aside (
    incarnation uuid NOT NULL,
    seq         bigint NOT NULL,
    reason      text NOT NULL,
    found_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (incarnation, seq),
    FOREIGN KEY (incarnation, seq) REFERENCES ledger.appearance_batches ON DELETE CASCADE
);
CREATE TRIGGER a_fenced BEFORE INSERT OR UPDATE ON ledger.set_aside
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();

-- A partial hold withholds no more than what the creator's suspicions found since it was placed leave doubtful.
ALTER TABLE ledger.holds ADD partial boolean NOT NULL DEFAULT false;
DROP TRIGGER guarded ON ledger.holds;
CREATE TRIGGER guarded BEFORE UPDATE ON ledger.holds FOR EACH ROW
    WHEN (OLD.released_at IS NOT NULL
          OR (NEW.id, NEW.creator_id, NEW.reason, NEW.placed_at, NEW.until, NEW.partial)
             IS DISTINCT FROM (OLD.id, OLD.creator_id, OLD.reason, OLD.placed_at, OLD.until, OLD.partial))
    EXECUTE FUNCTION ledger.guard_stop();
CREATE INDEX suspicions_creator ON ledger.suspicions (creator_id);

CREATE FUNCTION ledger.withheld(creator bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(s.captive_pix - s.reversed_pix), 0)::bigint FROM ledger.suspicions s
    WHERE s.creator_id = creator AND s.found_at >= (
        SELECT min(h.placed_at) FROM ledger.holds h
        WHERE h.creator_id = creator AND h.partial AND h.released_at IS NULL)
$$;

-- Which secret the ids and markers of batches derive from: its fingerprint, so that another one is refused.
ALTER TABLE ledger.chain ADD secret_mark text;
