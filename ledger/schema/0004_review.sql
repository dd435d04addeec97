-- What each viewer's looking has earned each creator in a UTC day, as runs of arrays: one a fold, merged over time.
CREATE TABLE ledger.pair_runs (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    viewers  bytea NOT NULL,               -- little-endian uint64, the first half of the viewer's keyed hash
    creators bytea NOT NULL,               -- little-endian int64
    days     bytea NOT NULL,               -- little-endian uint16, days since 1970
    gross    bytea NOT NULL,               -- little-endian int64: what the appearances paid in all
    net      bytea NOT NULL,               -- the creator's part of it
    CHECK (length(viewers) = length(creators) AND length(viewers) = length(gross) AND length(viewers) = length(net)
           AND length(viewers) = 4 * length(days))
);

-- A creator's day that looks made: how much of it came from viewers who look at nobody else, and how much was taken back.
CREATE TABLE ledger.suspicions (
    day          date NOT NULL,
    creator_id   bigint NOT NULL,
    viewers      integer NOT NULL CHECK (viewers > 0),
    captive_pix  bigint NOT NULL CHECK (captive_pix >= 0),
    reversed_pix bigint NOT NULL DEFAULT 0 CHECK (reversed_pix BETWEEN 0 AND captive_pix),
    found_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (day, creator_id)
);
CREATE TRIGGER a_fenced BEFORE INSERT OR UPDATE ON ledger.suspicions
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();
