-- Instants that clients can name (Python's end with the year 9999), whichever part writes them: one that is none would be
-- an error for each part that reads its row. Rows of before are left as they are until they change.
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT c.oid::regclass AS name, c.relname, string_agg(
            format('%I BETWEEN %L AND %L', a.attname, '1970-01-01 UTC', '3000-01-01 UTC'), ' AND ' ORDER BY a.attnum) AS rule
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = 'media'::regnamespace AND c.relkind = 'r' AND NOT c.relispartition
          AND a.atttypid = 'timestamptz'::regtype AND a.attnum > 0 AND NOT a.attisdropped
        GROUP BY c.oid, c.relname ORDER BY c.relname
    LOOP
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (%s) NOT VALID',
                       found.name, found.relname || '_instants', found.rule);
    END LOOP;
END $$;
