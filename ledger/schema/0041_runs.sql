-- What was earned in a day is remembered like what was seen: a fold's run stays a row of its own until it is too old, and files
-- beside the ledger hold many of them merged. The mark is a row's own, so that a file of another database is told apart (a row
-- of before has its id). `newest_day`, in days since 1970, says how long a row is of use; of those of before nobody has noted
-- it: a day more than it can be.
ALTER TABLE ledger.day_runs ADD mark bigint,
    ADD newest_day integer NOT NULL DEFAULT (extract(epoch FROM now()) / 86400)::integer + 1;
ALTER TABLE ledger.pair_runs ADD mark bigint,
    ADD newest_day integer NOT NULL DEFAULT (extract(epoch FROM now()) / 86400)::integer + 1;
CREATE INDEX day_runs_kind ON ledger.day_runs (kind, id);

-- What creators' days come to, as far as it was reckoned: one run a review, of what it has changed. `judged_until` is the last
-- row of pair_runs that it contains, so that a review looks at what came since and at nobody else; `judged_through` the last UTC
-- day, in days since 1970, that was judged by then. Where it counts by other rules (`rules` names them) everything is counted again.
CREATE TABLE ledger.total_runs (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    keys     bytea NOT NULL,               -- little-endian uint64, ascending: creator in the upper 47 bits, day in the lower 17
    net      bytea NOT NULL,               -- little-endian int64, as all that follow: what the creator has earned
    vouched  bytea NOT NULL,               -- parts of what it was worth (ledger/vouching.py); a run can take back
    doubtful bytea NOT NULL,
    free     bytea NOT NULL,
    viewers  bytea NOT NULL,               -- of how many there is a doubtful part
    judged_until   bigint NOT NULL,
    judged_through integer NOT NULL,
    rules    text NOT NULL,
    mark     bigint NOT NULL,
    newest_day integer NOT NULL,
    CHECK (length(keys) % 8 = 0 AND length(keys) = length(net) AND length(keys) = length(vouched)
           AND length(keys) = length(doubtful) AND length(keys) = length(free) AND length(keys) = length(viewers))
);
ALTER TABLE ledger.total_runs ALTER keys SET STORAGE EXTERNAL, ALTER net SET STORAGE EXTERNAL,
    ALTER vouched SET STORAGE EXTERNAL, ALTER doubtful SET STORAGE EXTERNAL, ALTER free SET STORAGE EXTERNAL,
    ALTER viewers SET STORAGE EXTERNAL;
CREATE TRIGGER a_fenced BEFORE INSERT OR UPDATE ON ledger.total_runs
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();
