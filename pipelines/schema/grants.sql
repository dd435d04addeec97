-- What Serve's replicas may do with the catalogue: show it, change words and visibility, take down, submit jobs.
-- Not: create tables or functions, so that a model is registered by a job and never by a request.
GRANT USAGE ON SCHEMA media TO pixr_serve;
GRANT SELECT ON ALL TABLES IN SCHEMA media TO pixr_serve;
GRANT INSERT, UPDATE, DELETE ON media.videos, media.segments, media.segment_lineage, media.embeddings, media.staging,
  media.jobs, media.job_videos, media.creators TO pixr_serve;
GRANT UPDATE ON media.generation TO pixr_serve;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA media TO pixr_serve;
-- Partitions come with their models, later than this.
ALTER DEFAULT PRIVILEGES IN SCHEMA media GRANT SELECT ON TABLES TO pixr_serve;
