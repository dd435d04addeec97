"""Each change taken out of a copy in turn: does its test fail? Run in a clone."""
import subprocess, sys
from pathlib import Path
R = Path.cwd()
S, P, L = "tests/serve/test_reposts.py", "tests/pipelines/test_reposts.py", "tests/ledger/test_abuse.py"
C = [
 ("one video's moments compared", "pipelines/index.py", ' AND a.video_id <> b.video_id WHERE', ' WHERE', [S+"::test_moments_of_one_video_that_show_the_same_each_earn", "tests/pipelines/test_index.py::test_moments_of_one_video_are_no_copies_of_each_other"]),
 ("reposts take places", "serve/search.py", 'firsts = [each for each in shown if not each.is_repost]', 'firsts = list(shown)', [S+"::test_who_has_anothers_file_takes_no_place_from_those_who_earn"]),
 ("no time of a moment's own", "pipelines/index.py", 'coalesce(s.shown_since, v.content_at', 'coalesce(v.content_at', [S+"::test_a_film_that_was_coded_again_is_still_the_first"]),
 ("a review that finds nothing notes nothing", "ledger/review.py", '        _note_seen(connection)\n', '', [L+"::test_a_review_that_finds_nothing_has_seen_what_there_is"]),
 ("due at once", "ledger/owed.py", ' - f.earned_pix', '', [L+"::test_nothing_is_due_of_what_no_review_has_seen"]),
 ("pictures not compared", "pipelines/segments.py", '    return _by_pictures(connection, video_id, model_id, moments)', '    return [None] * len(moments)', [P+"::test_a_film_that_is_coded_again_is_there_as_long_as_before"]),
 ("times not kept for another model", "pipelines/segments.py", '[_at(before, (moment.start_ms + moment.end_ms) // 2) for moment in moments]', '[None] * len(moments)', [P+"::test_a_film_that_is_coded_again_is_there_as_long_as_before"]),
 ("all old times kept", "pipelines/segments.py", '    return _by_pictures(connection, video_id, model_id, moments)', '    return [_at(before, moment.start_ms) for moment in moments]', [P+"::test_what_takes_a_film_s_place_is_there_since_then"]),
 ("a file put back is new", "pipelines/segments.py", 'UPDATE media.videos SET content_at = %s WHERE id = %s', 'SELECT %s, %s', [P+"::test_who_puts_an_earlier_file_back_is_no_copy_of_who_has_copied_it"]),
 ("half the key", "pipelines/index.py", 'e.model_id = {model} AND e.segment_id = ANY', 'e.model_id <> -{model} AND e.segment_id = ANY', ["tests/pipelines/test_index.py::test_vectors_of_some_moments_are_looked_up_by_their_whole_key"]),
 ("waits without an end", "serve/search.py", 'pairs = await _extra(services, RELEVANCE, degraded, work)', 'pairs = await work', [S+"::test_where_copies_cannot_be_told_apart_nothing_is_earned"]),
 ("copies earn", "serve/search.py", 'or asked.same > 1 or', 'or True or', [S+"::test_copies_of_a_video_make_a_view_earn_no_more", S+"::test_whatever_is_said_a_copy_earns_no_more_than_it_shows_and_not_beside_its_original"]),
 ("reposts earn", "serve/search.py", ' and not moment.is_repost', '', [S+"::test_another_creators_file_earns_nothing_until_an_administrator_accepts_it"]),
 ("no index of first files", "pipelines/schema/0020_first_public.sql", 'coalesce(content_at, created_at)', 'created_at', [P+"::test_who_had_a_file_first_is_found_by_an_index_however_many_have_it"]),
 ("any least cosine", "serve/settings.py", 'not PPM // 2 < self.copies_cosine_ppm', 'not -1 <= self.copies_cosine_ppm', ["tests/cluster/test_settings.py"]),
]
for name, file, before, after, tests in C:
    path = R / file
    text = path.read_text()
    assert text.count(before) >= 1, (name, text.count(before))
    path.write_text(text.replace(before, after))
    try:
        for test in tests:
            done = subprocess.run([".venv/bin/python", "-m", "pytest", "-p", "no:cacheprovider", "-q", "--timeout", "600", test], capture_output=True, text=True)
            print("FAILS as it should" if done.returncode == 1 else f"PASSES ({done.returncode})", "|", name, "|", test, "|", done.stdout.strip().splitlines()[-1:], flush=True)
    finally:
        path.write_text(text)
