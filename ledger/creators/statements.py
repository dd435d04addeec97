"""Statements: every movement of a creator's money, newest first, page by page, from the journal and then from the archive.

Archived postings are read from the archive, by account (see `archive.accounts`), all others from the tables. So a
statement is complete, even if postings were deleted from the tables. If a part that a page needs cannot be read, the
page fails. Only reads.
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
PARTS_MAX = 50  # parts of the archive that one page reads
LOOKS_MAX = 10  # tries to read the tables while no part is added


class Place(NamedTuple):
    """The entry and line up to which a statement has been read."""

    entry: int
    line: int


BEGIN = Place(AMOUNT_MAX, 0)


@dataclass(frozen=True)
class StatementLine:
    """One movement of a creator's money: a posting on one of their accounts."""

    at: str  # RFC 3339
    entry_id: int
    kind: str  # of the entry
    account: str  # kind of the account: "maturing" or "payable"
    amount: int  # base units of PIX
    signature: str | None  # of the payout's transaction, if it belongs to one
    line: int  # of the entry


@dataclass(frozen=True)
class Page:
    """One page of a statement."""

    lines: list[StatementLine]
    following: Place | None  # where the next page begins; None after the last


# Postings that are not archived; those of each account are read in the order of its index.
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
# One entry may plan the payouts of many batches: a line for each recipient, batch by batch in the order of its document.
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
    """Read one page of a creator's statement.

    The cost of a page depends on what it shows, not on where it begins. In addition, each part of the archive that lies
    between its first and last line takes one small read.

    Args:
        connection: of any role that may read the ledger.
        creator_id: the creator.
        shelf: where the archive lies.
        before: where the page before ended; its lines are older than that.
        limit: the most lines of the page; `ROWS_MAX` at most.

    Returns:
        The page. An empty page is not always the last: a page also ends after `PARTS_MAX` parts without a posting of
        the creator.

    Raises:
        Temporary: the object store does not answer, or the archive grows too quickly.
        Rejected: a part of the archive is missing or damaged.
    """
    limit = min(limit, ROWS_MAX)
    creator_accounts = connection.execute(
        "SELECT id, kind, created_at FROM ledger.accounts WHERE party = 'creator' AND owner = %s", (creator_id,)
    ).fetchall()
    kinds = {int(number): str(kind) for number, kind, _ in creator_accounts}
    if not kinds:
        return Page([], None)
    postings, archived = _live(connection, list(kinds), before, limit)
    following: Place | None = Place(postings[-1].entry, postings[-1].line) if len(postings) == limit else None
    if following is None and archived:
        begin = before if before.entry <= archived else Place(archived, 0)
        older, following = _archived(connection, shelf, list(kinds), min(row[2] for row in creator_accounts),
                                     begin, limit - len(postings))  # fmt: skip
        postings += older
    return Page(_lines(connection, postings, kinds), following)


def _live(connection: Conn, account_ids: Sequence[int], before: Place, limit: int) -> tuple[list[Found], int]:
    """Read the postings that are not archived. Return them, and the number of the last archived entry.

    If a part is added to the archive meanwhile, the postings are read again, so that none is missed.
    """
    for _ in range(LOOKS_MAX):
        archived = parts.last(connection, JOURNAL)
        bounds = {
            "accounts": list(account_ids),
            "archived": archived,
            "entry": before.entry,
            "line": before.line,
            "limit": limit,
        }
        postings = [Found(*row) for row in connection.execute(LIVE, bounds)]
        if parts.last(connection, JOURNAL) == archived:
            return postings, archived
    raise Temporary("the archive grows while a statement is read")


def _archived(
    connection: Conn, shelf: Shelf, account_ids: Sequence[int], since: datetime, before: Place, limit: int
) -> tuple[list[Found], Place | None]:
    """Read postings from the archive, newest first. Return them, and the place from which to go on; None at the end.

    `since` is the time at which the creator's oldest account was opened.
    """
    rows = connection.execute(PARTS, {"entry": before.entry, "since": since, "most": PARTS_MAX + 1}).fetchall()
    postings: list[Found] = []
    for first, part, name, size, places in rows[:PARTS_MAX]:
        if name is None:
            raise Rejected(f"part {part} of the archive has no postings by account", code=DAMAGED)
        kept = Kept(name, size, bytes(places))
        of_part = [each for each in accounts.read(shelf, kept, account_ids) if _is_after(each, before)]
        postings += sorted(of_part, key=lambda each: (-each.entry, each.line))
        if len(postings) > limit:
            last = postings[limit - 1] if limit else None
            return postings[:limit], Place(last.entry, last.line) if last else before
        before = Place(first - 1, 0)
    return postings, before if len(rows) > PARTS_MAX else None


def _is_after(posting: Found, place: Place) -> bool:
    return posting.entry < place.entry or (posting.entry == place.entry and posting.line > place.line)


def _lines(connection: Conn, postings: Sequence[Found], kinds: dict[int, str]) -> list[StatementLine]:
    """Make lines of a statement from postings and their entries; `kinds` are the kinds of the accounts by id."""
    rows = connection.execute(ABOUT, ([each.entry for each in postings], [each.line for each in postings]))
    about = {(entry, line): (at.isoformat(), kind, signature) for entry, line, at, kind, signature in rows}
    lines = []
    for posting in postings:
        at, kind, signature = about[posting.entry, posting.line]
        account = kinds[posting.account]
        lines.append(StatementLine(at, posting.entry, kind, account, posting.amount, signature, posting.line))
    return lines
