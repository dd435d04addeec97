-- Rows that were there before have a public id too. Readers are not locked out; who writes videos waits until this ends.
UPDATE media.videos SET public_id = DEFAULT WHERE public_id IS NULL;
UPDATE media.creators SET public_id = DEFAULT WHERE public_id IS NULL;
CREATE UNIQUE INDEX videos_public_id ON media.videos (public_id);
CREATE UNIQUE INDEX creators_public_id ON media.creators (public_id);
-- Lists by what they are sorted by; the newest first has its index already. Texts by their beginning alone: releases before
-- this one took titles of any length, and an index takes no more than 2704 bytes.
CREATE INDEX videos_title ON media.videos (left(title, 200), id) WHERE status = 'ready' AND visibility = 'public';
CREATE INDEX videos_duration ON media.videos ((coalesce(duration_ms, -1)), id)
    WHERE status = 'ready' AND visibility = 'public';
CREATE INDEX creators_name ON media.creators (left(name, 200), id);
CREATE INDEX creators_newest ON media.creators (created_at, id);
