"""Highlights: which words of a moment's title, tags and description match those of a query.

Words are compared as full text compares them: by their stems, in the video's language and the query's. Each word of a
token joined by signs ("node.js") is compared alone; a token of stop words ("how-to"), which a search finds as a whole,
is not marked. Positions count characters (Unicode code points) of the text as an answer shows it. Highlights do not
affect the order of an answer.

Three steps: `words_of`, `matched`, `marked`. The first and the last use no database and may take tens of milliseconds, so
they run in a thread. The words of a text are bounded by constants here, however long it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from typing import LiteralString

from pipelines.index.fulltext import without_excluded
from pipelines.index.vectors import Connection, MomentDetails, SearchLimits, configure

WORD = re.compile(r"[^\W_]+")  # words as full text has them: signs, also `_`, separate them
CHARS_MAX = 2000  # of a title, of a description, of all tags together; words behind them are not marked
WORDS_MAX = 10_000  # words of an answer that are compared: 100 videos with 100 words each
MARKS_MAX = 50  # of a moment; an answer grows by 80 bytes with each
FIELDS = ("title", "tags", "description")

# Words contain no spaces, so each list is passed as one text.
MATCHED: LiteralString = """
    SELECT g.video_id, g.word
    FROM unnest(string_to_array(%(videos)s, ' ')::bigint[], string_to_array(%(words)s, ' ')) AS g (video_id, word)
    JOIN media.videos v ON v.id = g.video_id
    WHERE tsvector_to_array(to_tsvector(coalesce(
              (SELECT oid::regconfig FROM pg_ts_config WHERE cfgname = v.language LIMIT 1), 'simple'::regconfig), g.word))
          && (SELECT tsvector_to_array(media.words(%(language)s::regconfig, %(text)s)))"""


@dataclass(frozen=True)
class Highlight:
    """A marked word of a moment's field."""

    field: str  # one of FIELDS
    index: int  # of the tag; 0 in other fields
    start: int  # characters
    end: int  # exclusive
    text: str


@dataclass(frozen=True)
class VideoWords:
    """The distinct words of several videos, and for each word the id of its video; both lists are joined by spaces."""

    videos: str
    words: str


def words_of(moments: Sequence[MomentDetails]) -> VideoWords:
    """Collect the words to compare, each once per video: of titles first, then tags, then descriptions, up to `WORDS_MAX`."""
    texts: dict[tuple[int, str], None] = {}
    for field in FIELDS:
        for moment in moments:
            for _, text in _texts(moment, field):
                texts[moment.video_id, text] = None  # moments of one video have most of their texts in common
    pairs: dict[tuple[int, str], None] = {}
    for video_id, text in texts:
        pairs |= {(video_id, word): None for word in WORD.findall(text)}
        if len(pairs) >= WORDS_MAX:
            break
    first = list(islice(pairs, WORDS_MAX))
    return VideoWords(" ".join(str(video_id) for video_id, _ in first), " ".join(word for _, word in first))


async def matched(
    connection: Connection, words: VideoWords, text: str, language: str, plan: SearchLimits | None = None
) -> set[tuple[int, str]]:
    """Return which words match a query.

    Args:
        connection: Connection to the primary or a standby.
        words: The words of the videos, as `words_of` collects them.
        text: The query as typed.
        language: PostgreSQL's name of the query's language.
        plan: Limits of the search.

    Returns:
        Pairs of a video id and a matching word of that video.

    Raises:
        psycopg.errors.QueryCanceled: it took longer than the plan allows.
    """
    await configure(connection, {"statement_timeout": (plan or SearchLimits()).timeout_ms})
    parameters = {"videos": words.videos, "words": words.words, "language": language, "text": without_excluded(text)}
    return set(await (await connection.execute(MATCHED, parameters)).fetchall())


def marked(moments: Sequence[MomentDetails], matched: Set[tuple[int, str]]) -> Mapping[int, list[Highlight]]:
    """Map segment ids to the matched words of the moment, in the order of the fields, `MARKS_MAX` at most."""
    return {
        moment.segment_id: list(
            islice((word for word in _words(moment) if (moment.video_id, word.text) in matched), MARKS_MAX)
        )
        for moment in moments
    }


def _words(moment: MomentDetails) -> Iterator[Highlight]:
    """Yield every word of a moment's fields."""
    for field in FIELDS:
        for index, text in _texts(moment, field):
            for word in WORD.finditer(text):
                yield Highlight(field, index, *word.span(), word.group())


def _texts(moment: MomentDetails, field: str) -> Iterator[tuple[int, str]]:
    """Yield the texts of a field with their indices, up to `CHARS_MAX` in all."""
    texts = {"title": [moment.title], "tags": moment.tags, "description": [moment.description]}[field]
    chars_left = CHARS_MAX
    for index, text in enumerate(texts):
        if chars_left <= 0:
            return
        yield index, text[:chars_left]
        chars_left -= len(text)
