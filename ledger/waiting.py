"""What waits for the fold: recorded batches in order, decoded into arrays, and brought together by what rules ask about.

Everything here follows from the batches alone, so the next group can be made ready while the database still writes the
last one. Rows of one search share viewer and second: those are kept once a search. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from ledger import seen, spool
from ledger.caps import DAY_S, Days, Tally
from ledger.groups import Flags, Groups, Places, changes, order_of, order_of_hashes
from ledger.money import Amounts
from ledger.seen import Keys, Seconds
from ledger.settings import LedgerSettings

Ids = NDArray[np.int64]

# Each incarnation from its cursor on. Payloads are out of line: only those that are chosen are read.
WAITING = """
    SELECT id, folded, seq, searches, appearances, format, payload, sha256 FROM (
        SELECT i.id, i.folded, b.*,
               sum(b.appearances) OVER (ORDER BY i.started_at, i.id, b.seq) - b.appearances AS before
        FROM (SELECT id, started_at, recorded, coalesce(m.folded, i.folded) AS folded FROM ledger.incarnations i
              LEFT JOIN unnest(%(moved)s::uuid[], %(folded)s::bigint[]) AS m (id, folded) USING (id)
              WHERE i.folded < i.recorded) i,
             LATERAL (SELECT seq, searches, appearances, format, payload, sha256 FROM ledger.appearance_batches b
                      WHERE b.incarnation = i.id AND b.seq >= i.folded ORDER BY b.seq LIMIT %(batches)s) b
        WHERE i.folded < i.recorded ORDER BY i.started_at, i.id, b.seq LIMIT %(batches)s) w
    WHERE before <= %(appearances)s ORDER BY before, id, seq"""


@dataclass(frozen=True)
class Stored:
    """One batch as the database holds it."""

    incarnation: UUID
    seq: int
    searches: int
    appearances: int
    format: int
    payload: bytes
    sha256: bytes


@dataclass(frozen=True)
class Shown:
    """The appearances of many batches, one row each; `search` is the search that a row belongs to."""

    viewers: Keys  # of each search: the two words of the viewer's hash
    origins: Keys  # of each search: those of an anonymous viewer's network, else 0
    seconds: Seconds  # of each search
    searches: Groups
    search: Places
    segment: Ids
    creator: Ids
    amount: Amounts

    @property
    def days(self) -> Days:
        """The UTC day of each search."""
        return (self.seconds // DAY_S).astype(np.uint16)

    @property
    def has_origin(self) -> Flags:
        """Rows of anonymous viewers whose network is known."""
        known: Flags = self.origins[:, 0] | self.origins[:, 1] != 0
        return known[self.search]


@dataclass(frozen=True)
class Group:
    """What one fold takes: its batches, their appearances, and these sorted by whatever the rules ask about."""

    stored: Sequence[Stored]
    heads: NDArray[np.void]
    shown: Shown
    keys: Keys  # viewer and segment of each row
    by_key: Places
    parts: Groups  # rows of one segment, creator and day, in the order of segments
    creators: Groups  # parts of one creator, in the order of creators
    tallies: dict[str, Tally]
    is_full: bool  # there is more


def waiting(
    connection: Connection[Any], settings: LedgerSettings, cursors: Mapping[UUID, int] | None = None
) -> tuple[list[Stored], bool]:
    """Batches that were recorded and not folded, each incarnation's in order and without a gap; whether there may be more.

    `cursors` says where incarnations will stand once what is being folded has been.
    """
    moved = cursors or {}
    limits = {"batches": settings.fold_batches_max, "appearances": settings.fold_appearances_max,
              "moved": list(moved), "folded": list(moved.values())}  # fmt: skip
    rows = connection.cursor(binary=True).execute(WAITING, limits).fetchall()
    found: list[Stored] = []
    expected: dict[UUID, int] = {}
    for number, folded, seq, searches, appearances, form, payload, sha256 in rows:
        if seq == expected.get(number, folded):
            expected[number] = seq + searches
            found.append(Stored(number, seq, searches, appearances, form, payload, sha256))
    count = sum(each.appearances for each in found)
    return found, count > settings.fold_appearances_max or len(rows) == settings.fold_batches_max


def grouped(stored: Sequence[Stored], *, is_full: bool) -> Group:
    """These batches as arrays, sorted."""
    heads, shown = _decoded(stored)
    keys = seen.keys_of(shown.viewers, shown.search, shown.segment)
    with ThreadPoolExecutor(1, "sort") as executor:  # a sort needs no interpreter: two cores do two at once
        by_key = executor.submit(order_of_hashes, keys)
        order = order_of(shown.segment)
        days = shown.days
        day = days[shown.search] if len(days) and (days != days[0]).any() else np.broadcast_to(days[:1], len(order))
        parts = Groups.where(order, changes(shown.segment[order], shown.creator[order], day[order]))
        firsts = parts.firsts
        segment, creator, part_day = shown.segment[firsts], shown.creator[firsts], day[firsts]
        by_creator = order_of(creator)
        tallies = {
            "viewer": Tally.of(shown.searches, shown.viewers, days),
            "origin": Tally.of(shown.searches, shown.origins, days),
            "segment": Tally.of(parts, segment, part_day),
            "creator": Tally.of(parts, creator, part_day),
        }
        creators = Groups.where(by_creator, changes(creator[by_creator]))
    return Group(stored, heads, shown, keys, by_key.result(), parts, creators, tallies, is_full)


def _decoded(stored: Sequence[Stored]) -> tuple[NDArray[np.void], Shown]:
    unpacked = [spool.unpack(each.payload, each.format) for each in stored]
    heads = np.frombuffer(b"".join(head.data for head, _ in unpacked), spool.SEARCH)
    rows = np.frombuffer(b"".join(body.data for _, body in unpacked), spool.SHOWN)
    counts = heads["count"].astype(np.int64)
    shown = Shown(
        viewers=np.ascontiguousarray(heads["viewer"]).view("<u8").reshape(-1, 2),
        origins=np.ascontiguousarray(heads["origin"]).view("<u8").reshape(-1, 2),
        seconds=(heads["at_ms"] // 1000).astype(np.uint32),
        searches=Groups(None, np.concatenate([[0], np.cumsum(counts)])),
        search=np.repeat(np.arange(len(heads)), counts),
        segment=rows["segment_id"].astype(np.int64),
        creator=rows["creator_id"].astype(np.int64),
        amount=rows["amount_pix"].astype(np.int64),
    )
    return heads, shown
