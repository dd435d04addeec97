"""Statements: every movement of a creator's money, newest first, page by page, from the journal and on into the archive.

What stands in a part of the archive is read there, by account (see `archive.accounts`), and what does not in the tables: so a
statement is whole whatever has left them, and one that reaches a part which cannot be read says so. Only reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import Connection

from cluster.errors import Rejected, Temporary
from ledger.archive import accounts, parts
from ledger.archive.accounts import Found, Kept
from ledger.archive.parts import JOURNAL
from ledger.archive.shelf import DAMAGED, Shelf
from ledger.settings import AMOUNT_MAX

Conn = Connection[Any]

ROWS_MAX = 10_000  # of one page
PARTS_MAX = 50  # of the archive that one page reads
LOOKS_MAX = 10


class Place(NamedTuple):
    """An entry and its line, up to which a statement has been read."""

    entry: int
    line: int


BEGIN = Place(AMOUNT_MAX, 0)


@dataclass(frozen=True)
class StatementLine:
    """One movement of a creator's money: the entry that moved it, and the account it moved."""

    at: str
    entry_id: int
    kind: str
    account: str
    amount: int
    signature: str | None
    line: int  # of the entry


@dataclass(frozen=True)
class Page:
    """Some lines, and where to go on; None: these were the last."""

    lines: list[StatementLine]
    following: Place | None


# What is not archived: the postings of each account are read in the order of its index.
LIVE = """
    SELECT p.account_id, p.entry_id, p.amount, p.line FROM unnest(%(accounts)s::bigint[]) AS a (id), LATERAL (
        SELECT account_id, entry_id, line, amount FROM ledger.postings
        WHERE account_id = a.id AND entry_id > %(archived)s
          AND entry_id <= %(entry)s AND (entry_id < %(entry)s OR line > %(line)s)
        ORDER BY entry_id DESC, line LIMIT %(limit)s) p
    ORDER BY p.entry_id DESC, p.line LIMIT %(limit)s"""
PARTS = """
    SELECT r.first, r.name, a.name, a.bytes, a.places FROM ledger.archives r
    LEFT JOIN ledger.archived_accounts a ON a.archive_id = r.id
    WHERE r.kind = 'journal' AND r.first <= %(entry)s AND r.newest_at >= %(since)s - interval '2 days'
    ORDER BY r.first DESC LIMIT %(most)s"""
# An entry may take the money of many batches: a line for each recipient, batch by batch in the order that it names them in.
ABOUT = """
    SELECT w.entry, w.line, e.occurred_at, e.kind, coalesce(
        (SELECT t.signature FROM ledger.attempts t WHERE t.state = 'landed' AND t.batch_id = b.id),
        (SELECT p.signature FROM ledger.past_batches p WHERE p.id = b.id))
    FROM unnest(%s::bigint[], %s::integer[]) AS w (entry, line) JOIN ledger.entries e ON e.id = w.entry, LATERAL (
        SELECT coalesce(e.document::jsonb->>'batch', (
            SELECT id FROM (
                SELECT n.id, sum(coalesce(l.count, p.count)) OVER (ORDER BY n.place) AS last
                FROM jsonb_array_elements_text(CASE e.kind WHEN 'payout_pending' THEN e.document::jsonb->'batches' END)
                     WITH ORDINALITY AS n (id, place)
                LEFT JOIN ledger.batches l ON l.id = n.id LEFT JOIN ledger.past_batches p ON p.id = n.id) named
            WHERE last >= w.line ORDER BY last LIMIT 1)) AS id) b"""


def page(connection: Conn, creator_id: int, shelf: Shelf, *, before: Place = BEGIN, limit: int = ROWS_MAX) -> Page:
    """Postings on a creator's accounts after `before`, with the signature of the payout each belongs to.

    A page costs what it shows, wherever it begins, and one small read for each part of the archive that it passes.

    Raises:
        Temporary: the object store is away.
        Rejected: a part of the archive is gone or damaged.
    """
    limit = min(limit, ROWS_MAX)
    own = connection.execute(
        "SELECT id, kind, created_at FROM ledger.accounts WHERE party = 'creator' AND owner = %s", (creator_id,)
    ).fetchall()
    kinds = {int(number): str(kind) for number, kind, _ in own}
    if not kinds:
        return Page([], None)
    found, archived = _live(connection, list(kinds), before, limit)
    following: Place | None = Place(found[-1].entry, found[-1].line) if len(found) == limit else None
    if following is None and archived:
        more, following = _archived(connection, shelf, list(kinds), min(row[2] for row in own),
                                    _within(before, archived), limit - len(found))  # fmt: skip
        found += more
    return Page(_lines(connection, found, kinds), following)


def _live(connection: Conn, own: Sequence[int], before: Place, limit: int) -> tuple[list[Found], int]:
    """Postings of the tables that stand in no part; and the last entry that does.

    Parts are added meanwhile: looked at again until none was, so that nothing falls between.
    """
    for _ in range(LOOKS_MAX):
        archived = parts.last(connection, JOURNAL)
        given = {
            "accounts": list(own),
            "archived": archived,
            "entry": before.entry,
            "line": before.line,
            "limit": limit,
        }
        found = [Found(*row) for row in connection.execute(LIVE, given)]
        if parts.last(connection, JOURNAL) == archived:
            return found, archived
    raise Temporary("the archive grows while a statement is read")


def _within(before: Place, archived: int) -> Place:
    """Where to begin in the archive."""
    return before if before.entry <= archived else Place(archived, 0)


def _archived(
    connection: Conn, shelf: Shelf, own: Sequence[int], since: datetime, before: Place, limit: int
) -> tuple[list[Found], Place | None]:
    """Postings of the archive, newest first, and where to go on."""
    rows = connection.execute(PARTS, {"entry": before.entry, "since": since, "most": PARTS_MAX + 1}).fetchall()
    found: list[Found] = []
    for first, part, name, size, places in rows[:PARTS_MAX]:
        if name is None:
            raise Rejected(f"part {part} of the archive has no postings by account", code=DAMAGED)
        kept = Kept(name, size, bytes(places))
        some = [each for each in accounts.read(shelf, kept, own) if _is_after(each, before)]
        found += sorted(some, key=lambda each: (-each.entry, each.line))
        if len(found) > limit:
            last = found[limit - 1] if limit else None
            return found[:limit], Place(last.entry, last.line) if last else before
        before = Place(first - 1, 0)
    return found, before if len(rows) > PARTS_MAX else None


def _is_after(found: Found, place: Place) -> bool:
    return found.entry < place.entry or (found.entry == place.entry and found.line > place.line)


def _lines(connection: Conn, found: Sequence[Found], kinds: dict[int, str]) -> list[StatementLine]:
    rows = connection.execute(ABOUT, ([each.entry for each in found], [each.line for each in found]))
    about = {(entry, line): (at.isoformat(), kind, signature) for entry, line, at, kind, signature in rows}
    lines = []
    for each in found:
        at, kind, signature = about[each.entry, each.line]
        lines.append(StatementLine(at, each.entry, kind, kinds[each.account], each.amount, signature, each.line))
    return lines
