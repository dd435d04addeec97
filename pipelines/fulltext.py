"""Full text: the moments whose title, tags and description match words.

Ranking is linear in what matches, so the matches are cut off before it; where all words together find too little, any
of them will do. What is excluded (`-word`, or a list of its own) is excluded either way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from psycopg.sql import SQL

from pipelines.index import VISIBLE, Connection, Filters, Hit, Plan, configure, hits

EXCLUDED = re.compile(r'(?:^|\s)-("[^"]*"|[^\s"]+)')  # as websearch_to_tsquery reads it: -word, -"two words"

OPERATORS = re.compile(r"['\\:&|!()<>*]")  # of a tsquery
COMPLETED_ROWS_MAX = 1000


def excluded(text: str) -> list[str]:
    """The words that a text excludes."""
    return [match.group(1).strip('"') for match in EXCLUDED.finditer(text)]


def wanted(text: str) -> str:
    """A text without what it excludes."""
    return " ".join(EXCLUDED.sub(" ", text).split())


async def matching(
    connection: Connection,
    text: str,
    limit: int,
    filters: Filters | None = None,
    plan: Plan | None = None,
    language: str = "english",
    without: Sequence[str] = (),
) -> list[Hit]:
    """The moments that match, all words first, then any of them.

    Raises:
        psycopg.errors.QueryCanceled: it took longer than the plan allows.
    """
    filters, plan = filters or Filters(), plan or Plan()
    await configure(connection, {"statement_timeout": plan.timeout_ms})
    words = (text, _any(*excluded(text), *without), language)
    found = await _matching(connection, words, limit, filters, plan, any_word=False)
    if len(found) < limit:
        seen = {hit.segment_id for hit in found}
        more = await _matching(connection, words, limit, filters, plan, any_word=True)
        lowest = min((hit.value for hit in found), default=1.0)
        found += [Hit(hit.segment_id, min(hit.value, lowest) / 2) for hit in more if hit.segment_id not in seen]
    return found[:limit]


def _any(*texts: str) -> str:
    quoted = (text.replace('"', " ") for text in texts)
    return " or ".join(f'"{text}"' for text in quoted)


async def _matching(
    connection: Connection, asked: tuple[str, str, str], limit: int, filters: Filters, plan: Plan, *, any_word: bool
) -> list[Hit]:
    """`querytree` leaves a query without its negations: where any word will do, those still exclude."""
    conditions, parameters = filters.conditions("s.id")
    words = "websearch_to_tsquery(%(language)s::regconfig, %(text)s)"
    wanted = f"replace(querytree({words}), ' & ', ' | ')::tsquery" if any_word else words
    query = SQL(
        f"WITH asked AS MATERIALIZED (SELECT {wanted} AS words,"
        " websearch_to_tsquery(%(language)s::regconfig, %(excluded)s) AS excluded"
        f" WHERE querytree({words}) NOT IN ('', 'T')),"
        " hits AS MATERIALIZED (SELECT s.id, s.search, asked.words FROM asked, media.segments s"
        " JOIN media.videos v ON v.id = s.video_id"
        f" WHERE s.search @@ asked.words AND NOT s.search @@ asked.excluded AND {VISIBLE}{conditions}"
        " LIMIT %(rows)s)"
        " SELECT id, ts_rank_cd(search, words, 1) FROM hits ORDER BY 2 DESC, 1 LIMIT %(limit)s"
    )
    given = dict(zip(("text", "excluded", "language"), asked, strict=True))
    return await hits(connection, query, parameters | given | {"rows": plan.text_rows, "limit": limit})


async def completions(connection: Connection, text: str, limit: int) -> list[str]:
    """Titles and tags with a word that begins like the last one typed, those that begin like all of it first.

    The word index finds them; what it finds is cut off before it is looked at.
    """
    typed = " ".join(text.split()).casefold()
    words = OPERATORS.sub(" ", typed).split()
    if not words:
        return []
    rows = await (
        await connection.execute(
            "WITH hits AS MATERIALIZED (SELECT video_id FROM media.segments"
            " WHERE search @@ to_tsquery('simple', %(word)s) LIMIT %(rows)s)"
            " SELECT v.title, v.tags FROM media.videos v WHERE v.id IN (SELECT video_id FROM hits)"
            f" AND {VISIBLE} ORDER BY v.id DESC",
            {"word": f"'{words[-1]}':*", "rows": COMPLETED_ROWS_MAX},
        )
    ).fetchall()
    known = dict.fromkeys(text for title, tags in rows for text in (title, *tags))
    fitting = [each for each in known if f" {typed}" in f" {each.casefold()}"]
    return sorted(fitting, key=lambda each: (not each.casefold().startswith(typed), len(each), each))[:limit]
