-- Who of those that show a file had it first, however many these are. In a migration of its own: searches go on while an index is
-- made, and do not while a table gets a column, which is a moment.
CREATE INDEX videos_first_public ON media.videos (content_hash, (coalesce(content_at, created_at)), id)
    WHERE status = 'ready' AND visibility = 'public';
