-- Handles in their one way of writing, as `pipelines.handles.normal` has it: letters with their accents composed (NFC), one
-- space between words and none around. Releases before this one kept them as they were written; named again, such a creator
-- would be two. Where two creators come to the same, or nothing is left, both stay as they are and are named: whose videos
-- and money are whose is for people to say.
DO $$
DECLARE
    odd record;
BEGIN
    FOR odd IN
        SELECT * FROM (
            SELECT id, handle, form, array_agg(id) OVER (PARTITION BY form) AS ids FROM (
                SELECT id, handle,
                       btrim(regexp_replace(normalize(handle, NFC),
                                            '[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+', ' ', 'g'),
                             E' \t\n\u000b\f\r\u001c\u001d\u001e\u001f\u0085\u2028\u2029') AS form
                FROM media.creators) AS written) AS compared
        WHERE form <> handle ORDER BY id
    LOOP
        IF length(odd.form) NOT BETWEEN 1 AND 200 THEN
            RAISE WARNING 'creator % keeps the handle %, which has no usable way of writing', odd.id, to_json(odd.handle);
        ELSIF cardinality(odd.ids) > 1 THEN
            RAISE WARNING 'creator % keeps the handle %: creators % are written alike; `pixr ingest --reassign` moves their videos',
                odd.id, to_json(odd.handle), odd.ids;
        ELSE
            UPDATE media.creators SET handle = odd.form WHERE id = odd.id;
        END IF;
    END LOOP;
END $$;
