-- Up to when keys of clients are gone (of what else is deleted: nothing is asked). A search that is as old and comes only now, with
-- a key, may have counted under it. Of a database that has deleted some already it is known as far as the oldest that is left.
ALTER TABLE ledger.retention ADD forgotten_until timestamptz;
INSERT INTO ledger.retention AS r (name, keep_d, parts, bytes, forgotten_until)
    (SELECT 'idempotency', 0, 0, 0, created_at FROM ledger.idempotency ORDER BY created_at LIMIT 1)
    ON CONFLICT (name) DO UPDATE SET forgotten_until = excluded.forgotten_until;
