-- The id of a payout batch says whom it pays, to whoever holds the secret: such ids begin with a letter.
ALTER TABLE ledger.batches DROP CONSTRAINT batches_id_check;
ALTER TABLE ledger.batches ADD CONSTRAINT batches_id_check CHECK (id ~ '^([0-9a-f]{32}|p[0-9a-f]{31})$') NOT VALID;
ALTER TABLE ledger.batches VALIDATE CONSTRAINT batches_id_check;
