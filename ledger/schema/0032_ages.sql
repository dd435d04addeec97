-- What is open and since when, one row a state, as the ledger found it last: for who shows it and may not look themselves.
CREATE TABLE ledger.ages (
    state     text PRIMARY KEY,
    open      bigint NOT NULL CHECK (open >= 0),
    late      bigint NOT NULL CHECK (late BETWEEN 0 AND open),   -- open for longer than limit_s
    oldest_at timestamptz,                                       -- none where nothing is open
    limit_s   double precision NOT NULL,
    names     text[] NOT NULL DEFAULT '{}',                      -- of the oldest that are late
    looked_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((open = 0) = (oldest_at IS NULL))
);
CREATE TRIGGER a_fenced BEFORE INSERT OR UPDATE ON ledger.ages FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();
