-- Words that a sign joins are found by each of their parts: "hdr10.mp4" by "hdr10", "node.js" by "node", "a/b/c.txt" by "b",
-- "ana@example.org" by "example". PostgreSQL's parser takes them for one word (a host, a path, an address, a version), and
-- what stands between < and > for none. A video is found by the parts, and by the whole too, as replicas of the release before
-- this one ask for it. What is asked for is taken apart in the same way, its parts one behind the other.
-- Searches go on while this runs; who writes videos waits until it ends.
LOCK TABLE media.videos IN SHARE ROW EXCLUSIVE MODE;

-- Signs of ASCII, of Latin-1 (not the soft hyphen, the middle dot of Catalan and raised numbers), general punctuation (not
-- what is invisible), currencies, arrows and operators, punctuation of East Asia and its wide forms. For brackets of a regex.
CREATE FUNCTION media.signs() RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT '\u0021-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u007e'
        || '\u00a1-\u00a9\u00ab\u00ac\u00ae-\u00b1\u00b4\u00b6\u00b8\u00bb\u00bf\u00d7\u00f7'
        || '\u2010-\u2027\u2030-\u205e\u20a0-\u20c0\u2190-\u22ff'
        || '\u3001-\u3003\u3008-\u3011\u3014-\u301f\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65'
$$;
-- A sign with something before and behind it.
CREATE FUNCTION media.joined() RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT '[^\s' || media.signs() || '][' || media.signs() || ']+[^\s' || media.signs() || ']'
$$;
CREATE FUNCTION media.parted(given text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT regexp_replace(given, '[' || media.signs() || ']+', ' ', 'g')
$$;

-- A text with its joined words in parts. One whose parts all are stop words ("how-to", "A.I.") stays whole: nothing would be
-- left to find it by.
CREATE FUNCTION media.in_parts(config regconfig, given text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
BEGIN
    IF given !~ media.joined() THEN
        RETURN media.parted(given);
    END IF;
    RETURN (SELECT string_agg(CASE WHEN each.word ~ media.joined() AND length(to_tsvector(config, media.parted(each.word))) = 0
                                   THEN each.word ELSE media.parted(each.word) END, ' ' ORDER BY each.place)
            FROM regexp_split_to_table(given, '\s+') WITH ORDINALITY AS each (word, place));
END $$;

-- The words of a text: of what a video is found by, and of what is asked for.
CREATE FUNCTION media.words(config regconfig, given text) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
BEGIN
    RETURN to_tsvector(config, media.in_parts(config, given));
END $$;
-- They one behind the other.
CREATE FUNCTION media.phrase(config regconfig, given text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
BEGIN
    RETURN phraseto_tsquery(config, media.in_parts(config, given));
END $$;
-- As websearch_to_tsquery reads a text: all words, with "phrases" and `or`. A joined word is a phrase of its parts.
CREATE FUNCTION media.asked(config regconfig, given text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
BEGIN
    IF given !~ ('[' || media.signs() || ']') THEN
        RETURN websearch_to_tsquery(config, given);
    END IF;
    RETURN websearch_to_tsquery(config, (
        SELECT string_agg(CASE WHEN piece.place % 2 = 0 THEN '"' || media.in_parts(config, piece.quoted) || '"' ELSE (
            SELECT string_agg(CASE WHEN each.word ~ ('[' || media.signs() || ']')
                                   THEN '"' || media.in_parts(config, each.word) || '"' ELSE each.word END,
                              ' ' ORDER BY each.place)
            FROM regexp_split_to_table(piece.quoted, '\s+') WITH ORDINALITY AS each (word, place)) END,
            ' ' ORDER BY piece.place)
        FROM string_to_table(given, '"') WITH ORDINALITY AS piece (quoted, place)));
END $$;

-- What full text finds a video by: its words with the weights of media.search_text, then the joined words as wholes.
CREATE FUNCTION media.found_by(language text, title text, tags text[], description text)
RETURNS tsvector LANGUAGE sql STABLE AS $$
    SELECT parts.search || ts_delete(whole.search, tsvector_to_array(parts.search))
    FROM (SELECT coalesce((SELECT oid::regconfig FROM pg_ts_config WHERE cfgname = language LIMIT 1),
                          'simple'::regconfig) AS config) AS chosen
    CROSS JOIN LATERAL (SELECT setweight(media.words(chosen.config, title), 'A')
                            || setweight(media.words(chosen.config, array_to_string(tags, ' ')), 'B')
                            || setweight(media.words(chosen.config, description), 'C') AS search OFFSET 0) AS parts
    CROSS JOIN LATERAL (SELECT media.search_text(language, title, tags, description) AS search OFFSET 0) AS whole
$$;

-- As in 0007, but for what a video is found by.
CREATE OR REPLACE FUNCTION media.follow_words() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM media.texts WHERE video_id = NEW.id;
    DELETE FROM media.impacts WHERE video_id = NEW.id;
    DELETE FROM media.completions WHERE video_id = NEW.id;
    IF NEW.status = 'ready' AND NEW.visibility = 'public' THEN
        INSERT INTO media.texts (video_id, search)
            SELECT NEW.id, media.found_by(NEW.language, NEW.title, NEW.tags, NEW.description);
        INSERT INTO media.impacts (video_id, lexeme, impact)
            SELECT t.video_id, i.lexeme, i.impact FROM media.texts t, media.impacts_of(t.search) i WHERE t.video_id = NEW.id;
        INSERT INTO media.completions (inner_word, start, whole, video_id)
            SELECT b.inner_word, b.start, b.whole, NEW.id FROM media.beginnings(NEW.title, NEW.tags) b;
    END IF;
    RETURN NULL;
END $$;

-- The words of videos that were there before, where they are other ones now. Kept answers know the old ones.
DO $$
DECLARE
    changed record;
BEGIN
    FOR changed IN
        SELECT t.id, t.video_id, now_found.search
        FROM media.texts t JOIN media.videos v ON v.id = t.video_id
        CROSS JOIN LATERAL (SELECT media.found_by(v.language, v.title, v.tags, v.description) AS search OFFSET 0) AS now_found
        WHERE t.segment_id IS NULL AND now_found.search <> t.search
    LOOP
        UPDATE media.texts SET search = changed.search WHERE id = changed.id;
        DELETE FROM media.impacts WHERE video_id = changed.video_id;
        INSERT INTO media.impacts (video_id, lexeme, impact)
            SELECT changed.video_id, i.lexeme, i.impact FROM media.impacts_of(changed.search) i;
    END LOOP;
END $$;
UPDATE media.generation SET value = value + 1;
ANALYZE media.texts, media.impacts;
