-- Moments that are gone (made anew of another source, say) leave no row in what is watched most (`app.watched`): the feed reads
-- its first rows, and would find nothing to show there. That table is another package's and may come later than this one.
CREATE FUNCTION media.forget_watched() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF to_regclass('app.watched') IS NOT NULL THEN
        DELETE FROM app.watched WHERE segment_id IN (SELECT id FROM gone);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER segments_watched AFTER DELETE ON media.segments REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION media.forget_watched();
DO $$ BEGIN
    IF to_regclass('app.watched') IS NOT NULL THEN
        DELETE FROM app.watched w WHERE NOT EXISTS (SELECT FROM media.segments s WHERE s.id = w.segment_id);
    END IF;
END $$;
