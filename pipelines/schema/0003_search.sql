-- What narrows a search: tags are asked for by containment. Creators and the newest have their indexes already.

CREATE INDEX videos_tags ON media.videos USING gin (tags);
