-- How much each moment is watched, kept up to date as events come, so that a feed reads the first rows of an index in place of
-- counting a week of events. Follows app.watch_events by a trigger: an older release, too, cannot leave it out of step.
--
-- Forward decay (Cormode, Shkapenyuk, Srivastava and Xu 2009): a viewer who watches at t adds 2 ^ (t / half-life), and
-- everything is divided by 2 ^ (now / half-life) where it is read. So the order of rows is right at any time and no row is
-- rewritten for growing old. `heat` is the logarithm (base 2) of the sum, which has no largest number.

CREATE TABLE app.watched (
    segment_id bigint PRIMARY KEY,
    heat       float8 NOT NULL
);

-- An instant in half-lives: half of the week that a feed counted before.
CREATE FUNCTION app.half_lives(at timestamptz) RETURNS float8 LANGUAGE sql IMMUTABLE AS $$
    SELECT (extract(epoch FROM at) / 302400)::float8
$$;

-- log2(2 ^ a + 2 ^ b); beyond 60 the smaller one is less than a float8 can tell, and the power of it might underflow.
CREATE FUNCTION app.warmed(a float8, b float8) RETURNS float8 LANGUAGE sql IMMUTABLE AS $$
    SELECT greatest(a, b) + ln(1 + power(2, -least(abs(a - b), 60))) / ln(2)
$$;

-- A viewer counts for a moment once in seven days, whatever kinds of events they send.
CREATE FUNCTION app.follow_watched() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM app.watch_events e WHERE e.viewer = NEW.viewer AND e.segment_id = NEW.segment_id
                   AND e.at > NEW.at - interval '7 days') THEN
        INSERT INTO app.watched AS w VALUES (NEW.segment_id, app.half_lives(NEW.at))
            ON CONFLICT (segment_id) DO UPDATE SET heat = app.warmed(w.heat, excluded.heat);
    END IF;
    RETURN NEW;
END $$;

-- What a viewer has watched, by the moment; the index by time remains for replicas of the release before this one.
CREATE INDEX watch_events_seen ON app.watch_events (viewer, segment_id, at DESC);
CREATE TRIGGER watch_events_watched BEFORE INSERT ON app.watch_events FOR EACH ROW EXECUTE FUNCTION app.follow_watched();

INSERT INTO app.watched (segment_id, heat)
    SELECT segment_id, app.half_lives(now()) + ln(sum(power(2, app.half_lives(at) - app.half_lives(now())))) / ln(2)
    FROM (SELECT segment_id, min(at) AS at FROM app.watch_events WHERE at > now() - interval '7 days'
          GROUP BY segment_id, viewer) AS first
    GROUP BY 1;
CREATE INDEX watched_most ON app.watched (heat DESC);
ANALYZE app.watched;
