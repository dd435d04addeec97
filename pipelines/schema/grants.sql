-- What each role may do with the catalogue. A replica of Serve shows it, changes words and visibility, takes down and
-- submits jobs; jobs write it. Neither creates tables: a model's come by `register_model`, which jobs may call and requests
-- may not.
REVOKE ALL ON SCHEMA media FROM pixr_serve, pixr_jobs, pixr_ledger, pixr_reader;
REVOKE ALL ON ALL TABLES IN SCHEMA media FROM pixr_serve, pixr_jobs, pixr_ledger, pixr_reader;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA media FROM pixr_serve, pixr_jobs, pixr_ledger, pixr_reader;
GRANT USAGE ON SCHEMA media TO pixr_serve, pixr_jobs, pixr_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA media TO pixr_serve, pixr_jobs, pixr_reader;
GRANT USAGE ON SEQUENCE media.lease_tokens TO pixr_serve, pixr_jobs;
-- Partitions come with their models, later than this.
ALTER DEFAULT PRIVILEGES IN SCHEMA media GRANT SELECT ON TABLES TO pixr_serve, pixr_jobs, pixr_reader;

GRANT INSERT, UPDATE, DELETE ON media.videos, media.segments, media.segment_lineage, media.embeddings, media.staging,
  media.jobs, media.job_videos TO pixr_serve, pixr_jobs;
GRANT DELETE ON media.earlier_moments TO pixr_serve, pixr_jobs;  -- with a video that is taken down
GRANT INSERT ON media.earlier_moments, media.contents TO pixr_jobs;
-- Nobody deletes a creator: one without videos may still be owed money, and is whom their keys are of.
GRANT INSERT, UPDATE ON media.creators TO pixr_serve, pixr_jobs;
GRANT UPDATE ON media.generation TO pixr_serve, pixr_jobs;
GRANT UPDATE (files, image_size, fit, followed) ON media.models TO pixr_jobs;  -- which one is active is the owner's to say
GRANT INSERT, DELETE ON media.lists TO pixr_jobs;

REVOKE EXECUTE ON FUNCTION media.register_model(text, integer, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION media.register_model(text, integer, text) TO pixr_jobs;
-- With its owner's rights: it makes tables. The extension's types and functions are in `public`.
ALTER FUNCTION media.register_model(text, integer, text) SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp;
-- A job has what it has listed analyzed. PostgreSQL 16 knows no such privilege, and warns in place of doing it.
DO $$ BEGIN
    IF current_setting('server_version_num')::int >= 170000 THEN
        GRANT MAINTAIN ON media.videos, media.job_videos TO pixr_jobs;
    END IF;
END $$;
