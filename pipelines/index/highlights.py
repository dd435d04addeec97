"""Highlights: which words of a moment's title, tags and description are those of a query.

A word is compared as full text compares it: by its stem, in its video's language with the query's. Of words that a sign
joins ("node.js") each is one; those that are stop words alone ("how-to") are found as a whole and not marked. Positions count
characters (Unicode code points) of the text as an answer shows it. Changes no order.

Three steps, the first and last of which ask nobody and may take tens of milliseconds (for a thread): `asked`, `matched`,
`marked`. What a text has of words is bounded by constants here, however long it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from typing import LiteralString

from pipelines.index.fulltext import wanted
from pipelines.index.vectors import Connection, MomentDetails, SearchLimits, configure

WORD = re.compile(r"[^\W_]+")  # as full text has them: a sign parts words, `_` too
CHARS_MAX = 2000  # of a title, of a description, of all tags; words behind them are not marked
WORDS_MAX = (
    10_000  # of an answer, that are compared, so that the database's work has a bound; 100 videos with 100 words each
)
MARKS_MAX = 50  # of a moment: more than a reader looks at, and an answer grows by 80 bytes with each
FIELDS = ("title", "tags", "description")

# Words have no space in them, so each of both lists is one text.
MATCHED: LiteralString = """
    SELECT g.video_id, g.word
    FROM unnest(string_to_array(%(videos)s, ' ')::bigint[], string_to_array(%(words)s, ' ')) AS g (video_id, word)
    JOIN media.videos v ON v.id = g.video_id
    WHERE tsvector_to_array(to_tsvector(coalesce(
              (SELECT oid::regconfig FROM pg_ts_config WHERE cfgname = v.language LIMIT 1), 'simple'::regconfig), g.word))
          && (SELECT tsvector_to_array(media.words(%(language)s::regconfig, %(text)s)))"""


@dataclass(frozen=True)
class Highlight:
    """Characters `start` to `end` (exclusive) of a field; `index` is the tag's, 0 elsewhere."""

    field: str
    index: int
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class VideoWords:
    """The distinct words of each video, with a space between; `videos` names the video of each."""

    videos: str
    words: str


def asked(moments: Sequence[MomentDetails]) -> VideoWords:
    """What is to be compared, each word once a video: all titles first, then tags, then descriptions, up to `WORDS_MAX`."""
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
    connection: Connection, asked: VideoWords, text: str, language: str, plan: SearchLimits | None = None
) -> set[tuple[int, str]]:
    """Which of the words are those of a query, each with its video.

    Raises:
        psycopg.errors.QueryCanceled: it took longer than the plan allows.
    """
    await configure(connection, {"statement_timeout": (plan or SearchLimits()).timeout_ms})
    parameters = {"videos": asked.videos, "words": asked.words, "language": language, "text": wanted(text)}
    return set(await (await connection.execute(MATCHED, parameters)).fetchall())


def marked(moments: Sequence[MomentDetails], matched: Set[tuple[int, str]]) -> Mapping[int, list[Highlight]]:
    """By moment its words that are in `matched`, in the order of the fields, `MARKS_MAX` at most."""
    return {
        each.segment_id: list(
            islice((word for word in _words(each) if (each.video_id, word.text) in matched), MARKS_MAX)
        )
        for each in moments
    }


def _words(moment: MomentDetails) -> Iterator[Highlight]:
    """Every word of what is shown of a moment."""
    for field in FIELDS:
        for index, text in _texts(moment, field):
            for word in WORD.finditer(text):
                yield Highlight(field, index, *word.span(), word.group())


def _texts(moment: MomentDetails, field: str) -> Iterator[tuple[int, str]]:
    """The texts of a field with the index of each, `CHARS_MAX` of all of them together."""
    given = {"title": [moment.title], "tags": moment.tags, "description": [moment.description]}[field]
    left = CHARS_MAX
    for index, text in enumerate(given):
        if left <= 0:
            return
        yield index, text[:left]
        left -= len(text)
