-- What was watched of late, for the feed.

CREATE INDEX watch_events_recent ON app.watch_events (at, segment_id);
