-- Nothing ever read or wrote this table: what a UTC day comes to stands in ledger.day_runs and total_runs. No release needs it.
DROP TABLE ledger.days;
