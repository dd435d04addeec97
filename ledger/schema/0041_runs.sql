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
-- day, in days since 1970, that was judged by then, and `whole_from` the first of which the totals know all. Where it counts by
-- other rules (`rules` names them) everything is counted again, but no day is judged again for that.
CREATE TABLE ledger.total_runs (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    keys     bytea NOT NULL,               -- little-endian uint64, ascending: creator in the upper 47 bits, day in the lower 17
    net      bytea NOT NULL,               -- little-endian int64, as all that follow: what the creator has earned
    vouched  bytea NOT NULL,               -- parts of what it was worth (ledger/vouching.py); a run can take back
    doubtful bytea NOT NULL,
    beside   bytea NOT NULL,
    viewers  bytea NOT NULL,               -- of how many sources there is a doubtful part
    judged_until   bigint NOT NULL,
    judged_through integer NOT NULL,
    whole_from integer NOT NULL,
    rules    text NOT NULL,
    mark     bigint NOT NULL,
    newest_day integer NOT NULL,
    CHECK (length(keys) % 8 = 0 AND length(keys) = length(net) AND length(keys) = length(vouched)
           AND length(keys) = length(doubtful) AND length(keys) = length(beside) AND length(keys) = length(viewers))
);
ALTER TABLE ledger.total_runs ALTER keys SET STORAGE EXTERNAL, ALTER net SET STORAGE EXTERNAL,
    ALTER vouched SET STORAGE EXTERNAL, ALTER doubtful SET STORAGE EXTERNAL, ALTER beside SET STORAGE EXTERNAL,
    ALTER viewers SET STORAGE EXTERNAL;
-- What was earned before this was judged by the rules of then.
INSERT INTO ledger.total_runs (keys, net, vouched, doubtful, beside, viewers, judged_until, judged_through, whole_from, rules, mark,
                               newest_day)
    SELECT ''::bytea, ''::bytea, ''::bytea, ''::bytea, ''::bytea, ''::bytea, 0, today - 1, today - 3, '', 0, today
    FROM (SELECT floor(extract(epoch FROM now()) / 86400)::integer AS today) t WHERE EXISTS (SELECT FROM ledger.pair_runs);
CREATE TRIGGER a_fenced BEFORE INSERT OR UPDATE ON ledger.total_runs
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_epoch();
