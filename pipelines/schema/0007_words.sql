-- The words of each video, once, in place of once for each of its moments; what they are ranked by; how a text may go on.
-- All three tables hold only videos that a search may show (ready and public) and follow media.videos by a trigger, so that
-- whoever writes words, visibility or status, an older release too, cannot leave them out of step. Other code only reads.
-- Expands: media.segments.search stays and is still written, for replicas of the release before this one.

-- `segment_id` leaves room for words of one moment alone (machine notes); NULL are the words of the whole video.
CREATE TABLE media.texts (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    video_id   bigint NOT NULL REFERENCES media.videos ON DELETE CASCADE,
    segment_id bigint,
    search     tsvector NOT NULL
);

-- What a word says for a video (BM25's share of a document, see media.impacts_of). Read per word from the best down, so a
-- common word costs what a rare one does: ranking is done when words are written, not when they are asked for.
CREATE TABLE media.impacts (
    video_id bigint NOT NULL,
    lexeme   text COLLATE "C" NOT NULL,
    impact   real NOT NULL
);
ALTER TABLE media.impacts ALTER lexeme SET STATISTICS 1000;   -- how common common words are

-- Titles and tags by each of their words, so that what begins with what was typed is a range of the key.
CREATE TABLE media.completions (
    inner_word boolean NOT NULL,                 -- begins at a later word than the first
    start      text COLLATE "C" NOT NULL,        -- from there on, in lower case
    whole      text COLLATE "C" NOT NULL,
    video_id   bigint NOT NULL
);

-- BM25 (Robertson and Zaragoza 2009) with a word of a title counted five times, one of the tags twice, as ts_rank does.
-- The length that counts as usual is fixed, so that no row depends on others: k1 = 1.2, b = 0.5, 32 words.
CREATE FUNCTION media.impacts_of(search tsvector) RETURNS TABLE (lexeme text, impact real) LANGUAGE sql IMMUTABLE AS $$
    SELECT word.lexeme, (2.2 * word.often / (word.often + 1.2 * (0.5 + 0.5 * sum(word.places) OVER () / 32)))::real
    FROM (SELECT u.lexeme, count(*) AS places, sum(CASE w WHEN 'A' THEN 5 WHEN 'B' THEN 2 ELSE 1 END)::float8 AS often
          FROM unnest(search) AS u, unnest(u.weights) AS w GROUP BY 1) AS word
$$;

-- The first eight words of a title or tag to begin at; what is kept of each is cut to 64 characters.
CREATE FUNCTION media.beginnings(title text, tags text[])
RETURNS TABLE (inner_word boolean, start text, whole text) LANGUAGE sql IMMUTABLE AS $$
    SELECT DISTINCT word.place > 1, left(lower(array_to_string(each.words[word.place:], ' ')), 64), each.whole
    FROM (SELECT whole, string_to_array(trim(regexp_replace(whole, '\s+', ' ', 'g')), ' ') AS words
          FROM (SELECT left(given, 200) AS whole FROM unnest(title || tags) AS given) AS cut) AS each,
         generate_series(1, least(8, cardinality(each.words))) AS word (place)
    WHERE each.words[word.place] <> ''
$$;

-- Runs with its owner's rights: replicas change words of videos and cannot write these tables otherwise.
CREATE FUNCTION media.follow_words() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM media.texts WHERE video_id = NEW.id;
    DELETE FROM media.impacts WHERE video_id = NEW.id;
    DELETE FROM media.completions WHERE video_id = NEW.id;
    IF NEW.status = 'ready' AND NEW.visibility = 'public' THEN
        INSERT INTO media.texts (video_id, search)
            SELECT NEW.id, media.search_text(NEW.language, NEW.title, NEW.tags, NEW.description);
        INSERT INTO media.impacts (video_id, lexeme, impact)
            SELECT t.video_id, i.lexeme, i.impact FROM media.texts t, media.impacts_of(t.search) i WHERE t.video_id = NEW.id;
        INSERT INTO media.completions (inner_word, start, whole, video_id)
            SELECT b.inner_word, b.start, b.whole, NEW.id FROM media.beginnings(NEW.title, NEW.tags) b;
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION media.forget_words() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM media.impacts WHERE video_id = OLD.id;
    DELETE FROM media.completions WHERE video_id = OLD.id;
    RETURN NULL;
END $$;

-- Leases and attempts change often and no words: they do not get past WHEN. Readers are not locked out by any of this;
-- writers of media.videos wait until the migration ends.
CREATE TRIGGER videos_words_first AFTER INSERT ON media.videos FOR EACH ROW
    WHEN (NEW.status = 'ready' AND NEW.visibility = 'public') EXECUTE FUNCTION media.follow_words();
CREATE TRIGGER videos_words AFTER UPDATE OF title, description, tags, language, status, visibility ON media.videos
    FOR EACH ROW WHEN (
        (OLD.status = 'ready' AND OLD.visibility = 'public') <> (NEW.status = 'ready' AND NEW.visibility = 'public')
        OR NEW.status = 'ready' AND NEW.visibility = 'public'
           AND (OLD.title, OLD.description, OLD.tags, OLD.language)
               IS DISTINCT FROM (NEW.title, NEW.description, NEW.tags, NEW.language))
    EXECUTE FUNCTION media.follow_words();
CREATE TRIGGER videos_words_last AFTER DELETE ON media.videos FOR EACH ROW EXECUTE FUNCTION media.forget_words();

INSERT INTO media.texts (video_id, search)
    SELECT id, media.search_text(language, title, tags, description) FROM media.videos
    WHERE status = 'ready' AND visibility = 'public' ORDER BY id;
INSERT INTO media.impacts (video_id, lexeme, impact)
    SELECT t.video_id, i.lexeme, i.impact FROM media.texts t, media.impacts_of(t.search) i;
INSERT INTO media.completions (inner_word, start, whole, video_id)
    SELECT b.inner_word, b.start, b.whole, v.id FROM media.videos v, media.beginnings(v.title, v.tags) b
    WHERE v.status = 'ready' AND v.visibility = 'public';
-- Indexes are made of what is there already, which takes a third of the time.
ALTER TABLE media.texts ADD UNIQUE NULLS NOT DISTINCT (video_id, segment_id);
CREATE INDEX texts_search ON media.texts USING gin (search) WITH (fastupdate = off);
ALTER TABLE media.impacts ADD PRIMARY KEY (video_id, lexeme);
CREATE INDEX impacts_best ON media.impacts (lexeme, impact DESC, video_id DESC);
ALTER TABLE media.completions ADD PRIMARY KEY (inner_word, start, whole, video_id);
CREATE INDEX completions_video ON media.completions (video_id);
ANALYZE media.texts, media.impacts, media.completions;
