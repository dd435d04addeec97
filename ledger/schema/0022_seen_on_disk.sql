-- A fold's run of what was seen stays a row of its own until it is too old, and files beside the ledger hold many of them
-- merged. The mark is a row's own, so that a file of another database is told apart (a row of before has its id).
ALTER TABLE ledger.seen_runs ADD mark bigint;
