"""Highlights: which words of a moment's title, tags and description are those of a query.

A word is compared as full text compares it: by its stem, in its video's language with the query's. Positions count
characters (Unicode code points) of the text as an answer shows it. Changes no order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import LiteralString

from pipelines.fulltext import wanted
from pipelines.index import Connection, Found, Plan, configure

WORD = re.compile(r"\w+")
CHARS_MAX = 2000  # of a description; words behind it are not marked
WORDS_MAX = 20_000  # of an answer, that are compared
FIELDS = ("title", "tags", "description")

MATCHED: LiteralString = """
    SELECT g.video_id, g.word FROM unnest(%(videos)s::bigint[], %(words)s::text[]) AS g (video_id, word)
    JOIN media.videos v ON v.id = g.video_id
    WHERE tsvector_to_array(to_tsvector(coalesce(
              (SELECT oid::regconfig FROM pg_ts_config WHERE cfgname = v.language LIMIT 1), 'simple'::regconfig), g.word))
          && (SELECT tsvector_to_array(to_tsvector(%(language)s::regconfig, %(text)s)))"""


@dataclass(frozen=True)
class Highlight:
    """Characters `start` to `end` (exclusive) of a field; `index` is the tag's, 0 elsewhere."""

    field: str
    index: int
    start: int
    end: int
    text: str


async def of(
    connection: Connection, moments: Sequence[Found], text: str, language: str, plan: Plan | None = None
) -> dict[int, list[Highlight]]:
    """The words of a query in each moment, by moment, in the order of the fields."""
    await configure(connection, {"statement_timeout": (plan or Plan()).timeout_ms})
    pairs = list(dict.fromkeys((each.video_id, word.text) for each in moments for word in _words(each)))[:WORDS_MAX]
    parameters = {
        "videos": [video_id for video_id, _ in pairs],
        "words": [word for _, word in pairs],
        "language": language,
        "text": wanted(text),
    }
    matched = set(await (await connection.execute(MATCHED, parameters)).fetchall())
    return {
        each.segment_id: [word for word in _words(each) if (each.video_id, word.text) in matched] for each in moments
    }


def _words(moment: Found) -> Iterator[Highlight]:
    """Every word of what is shown of a moment."""
    given = {"title": [moment.title], "tags": moment.tags, "description": [moment.description[:CHARS_MAX]]}
    for field in FIELDS:
        for index, text in enumerate(given[field]):
            for word in WORD.finditer(text):
                yield Highlight(field, index, *word.span(), word.group())
