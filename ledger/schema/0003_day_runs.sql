-- What was earned in a UTC day, by viewer, segment and creator, for the day's bounds: sorted runs of 64-bit keys (a mix
-- of day and subject), one a fold and kind, merged over time. Rows of ledger.days would cost more than the fold itself.
CREATE TABLE ledger.day_runs (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind    text NOT NULL CHECK (kind IN ('viewer', 'segment', 'creator')),
    keys    bytea NOT NULL,                -- little-endian uint64, ascending
    days    bytea NOT NULL,                -- little-endian uint16, days since 1970
    amounts bytea NOT NULL,                -- little-endian int64, base units
    CHECK (length(keys) = length(amounts) AND length(keys) = 4 * length(days))
);
