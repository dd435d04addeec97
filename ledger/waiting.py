"""What waits for the fold: recorded batches in order, decoded into arrays, and brought together by what rules ask about.

Everything here follows from the batches alone, so the next group can be made ready while the database still writes the
last one. Rows of one search share viewer and second: those are kept once a search. A search was made when its replica
says, but never long before the database heard of it and never after: a clock that is wrong moves no day. A batch that is
damaged is set aside; one of a format that only a newer version knows stops its incarnation, until that version folds.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from cluster.errors import Rejected
from ledger import seen, spool
from ledger.caps import DAY_S, Days, Tally
from ledger.groups import Flags, Groups, Places, changes, order_of, order_of_hashes
from ledger.money import Amounts
from ledger.seen import Keys, Seconds
from ledger.settings import LedgerSettings

log = logging.getLogger(__name__)

Ids = NDArray[np.int64]
Unpacked = tuple[NDArray[np.void], NDArray[np.void]]  # searches and appearances, as `spool.unpack` gives them

# How far what a replica says of the time is believed, from when the database recorded it. What an heir has recorded
# may be as old as its incarnation; but nobody remembers longer than a few days what was seen and earned.
EARLIEST_MS, LATEST_MS, OLDEST_MS = 3_600_000, 5_000, seen.LATE_S * 1000
REMEMBERED_S = 7 * DAY_S  # at most, for a backlog's sake

# Each incarnation from its cursor on. Payloads are out of line: only those that are chosen are read.
WAITING = """
    SELECT id, folded, seq, searches, appearances, format, payload, sha256,
           (extract(epoch FROM CASE WHEN recorded_at BETWEEN '2000-01-01 UTC' AND now() + interval '7 days'
                               THEN recorded_at END) * 1000)::bigint,
           CASE WHEN started_at BETWEEN '2000-01-01 UTC' AND now() + interval '7 days'
                THEN (extract(epoch FROM started_at) * 1000)::bigint END, adopted FROM (
        SELECT i.id, i.folded, i.started_at, b.*,
               sum(b.weight) OVER (ORDER BY i.started_at, i.id, b.seq) - b.weight AS before
        FROM (SELECT id, started_at, recorded, coalesce(m.folded, i.folded) AS folded FROM ledger.unfolded i
              LEFT JOIN unnest(%(moved)s::uuid[], %(folded)s::bigint[]) AS m (id, folded) USING (id)
              WHERE i.folded < i.recorded AND i.id <> ALL(%(stuck)s)) i,
             LATERAL (SELECT seq, searches, appearances, format, payload, sha256, recorded_at, adopted,
                             greatest(appearances, octet_length(payload) / 512) AS weight  -- what is large and shows little
                      FROM ledger.appearance_batches b
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
    recorded_ms: int | None  # by the database's clock; none where its row says what no clock does
    started_ms: int | None  # when the incarnation began; none like that
    is_adopted: bool  # an heir has recorded it, or its replica long after it was made

    @property
    def begun_ms(self) -> int | None:
        """When the incarnation began, of a batch that may be as old."""
        return self.started_ms if self.is_adopted else None

    @property
    def begins_ms(self) -> int:
        """The earliest that one of its searches can have been made."""
        assert self.recorded_ms is not None
        earliest = self.recorded_ms - EARLIEST_MS
        return earliest if self.begun_ms is None else min(self.begun_ms, earliest)

    @property
    def earliest_ms(self) -> int:
        """The same, but never longer ago than anybody remembers: of when it counts."""
        assert self.recorded_ms is not None
        return max(self.begins_ms, self.recorded_ms - OLDEST_MS)

    @property
    def latest_ms(self) -> int:
        """The latest; a little after it was recorded, for clocks that are right to a few seconds."""
        assert self.recorded_ms is not None
        return self.recorded_ms + LATEST_MS

    @property
    def oldest_ms(self) -> int:
        """Before this nothing of it was shown, whatever its replica says of the time."""
        assert self.recorded_ms is not None
        earliest = self.recorded_ms - EARLIEST_MS
        if self.started_ms is None:
            return earliest
        started = min(self.started_ms, self.recorded_ms)
        return started if self.is_adopted else max(started, earliest)


@dataclass(frozen=True)
class Readings:
    """What could be read of the batches that wait."""

    good: list[Stored] = field(default_factory=list)
    unpacked: list[Unpacked] = field(default_factory=list)  # of each good one
    damaged: dict[tuple[UUID, int], str] = field(default_factory=dict)  # why, by incarnation and seq
    ends: dict[UUID, int] = field(default_factory=dict)  # where cursors stand after the good and the damaged
    stuck: dict[UUID, str] = field(default_factory=dict)  # incarnations that go on in a format not known here


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

    read: Readings
    heads: NDArray[np.void]
    shown: Shown
    keys: Keys  # viewer and segment of each row
    by_key: Places
    parts: Groups  # rows of one segment, creator and day, in the order of segments
    creators: Groups  # parts of one creator, in the order of creators
    tallies: dict[str, Tally]
    made_ms: NDArray[
        np.int64
    ]  # when each search was made, as far as that can be known: also longer ago than is remembered
    skews_ms: dict[UUID, int]  # replicas whose clock was not believed, and how far it was off the bounds
    is_full: bool  # there is more

    @property
    def stored(self) -> Sequence[Stored]:
        """The batches that it takes."""
        return self.read.good

    def shown_before(self, instant_ms: int) -> Flags:
        """Appearances that may have been shown before an instant, by the database's clock.

        A replica that says so is believed. That they were shown later is believed of a clock that is right, where the replica
        has recorded them itself; else only of an incarnation that has begun later.
        """
        sizes = np.array([each.searches for each in self.stored], np.int64)
        oldest, trusted = (
            np.repeat(np.array(bounds, np.int64), sizes)
            for bounds in (
                [each.oldest_ms for each in self.stored],
                [-1 if each.is_adopted else each.latest_ms for each in self.stored],
            )
        )
        said = self.heads["at_ms"].astype(np.int64)
        before: Flags = (said < instant_ms) | ((said > trusted) & (oldest < instant_ms))
        return before[self.shown.search]


class Skews:
    """Says which replicas' clocks are wrong: when one is first found, and every so often while it stays so."""

    def __init__(self, interval_s: float = 60.0) -> None:
        self._interval_s = interval_s
        self._said_at: dict[UUID, float] = {}

    def note(self, skews_ms: Mapping[UUID, int]) -> None:
        for incarnation, skew_ms in skews_ms.items():
            if time.monotonic() - self._said_at.get(incarnation, -math.inf) >= self._interval_s:
                self._said_at[incarnation] = time.monotonic()
                log.error(
                    "a replica's clock is wrong, or its searches come late: they count as of when they were recorded",
                    extra={"incarnation": str(incarnation), "skew_ms": skew_ms},
                )


def waiting(
    connection: Connection[Any],
    settings: LedgerSettings,
    stuck: Collection[UUID],
    cursors: Mapping[UUID, int] | None = None,
) -> tuple[list[Stored], bool]:
    """Batches that were recorded and not folded, each incarnation's in order and without a gap; whether there may be more.

    `cursors` says where incarnations will stand once what is being folded has been; those that are `stuck` are left out.
    """
    moved = cursors or {}
    limits = {"batches": settings.fold_batches_max, "appearances": settings.fold_appearances_max,
              "moved": list(moved), "folded": list(moved.values()), "stuck": list(stuck)}  # fmt: skip
    rows = connection.cursor(binary=True).execute(WAITING, limits).fetchall()
    found: list[Stored] = []
    expected: dict[UUID, int] = {}
    for number, folded, seq, searches, *rest in rows:
        if seq == expected.get(number, folded):
            expected[number] = seq + searches
            found.append(Stored(number, seq, searches, *rest))
    count = sum(each.appearances for each in found)
    return found, count > settings.fold_appearances_max or len(rows) == settings.fold_batches_max


def since_s(connection: Connection[Any], now_s: int) -> int:
    """The time since which what was seen and earned must be remembered: when the oldest waiting batch was recorded.

    Now, where none waits. A backlog of a day is folded as it would have been that day; one that is older than
    `REMEMBERED_S`, as an incarnation in a newer format may be, does not keep everything since.
    """
    row = connection.execute(
        "SELECT extract(epoch FROM min(b.recorded_at))::bigint FROM ledger.unfolded i, LATERAL ("
        "   SELECT recorded_at FROM ledger.appearance_batches b WHERE b.incarnation = i.id AND b.seq >= i.folded"
        "   ORDER BY b.seq LIMIT 1) b WHERE i.folded < i.recorded"
        " AND b.recorded_at BETWEEN '2000-01-01 UTC' AND now()"
    ).fetchone()
    oldest_s = now_s if row is None or row[0] is None else int(row[0])
    return max(min(oldest_s, now_s), now_s - REMEMBERED_S)


def read(stored: Sequence[Stored]) -> Readings:
    """Read these batches as far as they can be."""
    found = Readings()
    for each in stored:
        if each.incarnation in found.stuck:
            continue
        try:
            if each.recorded_ms is None:
                raise Rejected("a batch was recorded when no clock was", code="batch-damaged")
            unpacked = spool.unpack(each.payload, each.format)
            if (len(unpacked[0]), len(unpacked[1])) != (each.searches, each.appearances):
                raise Rejected("a batch does not hold what its row says", code="batch-damaged")
        except Rejected as error:
            if error.code == spool.UNKNOWN:
                found.stuck[each.incarnation] = str(error)
                continue
            found.damaged[each.incarnation, each.seq] = str(error)
        else:
            found.good.append(each)
            found.unpacked.append(unpacked)
        found.ends[each.incarnation] = each.seq + each.searches
    return found


def grouped(read: Readings, *, is_full: bool) -> Group:
    """What was read as arrays, sorted."""
    heads = _joined([head for head, _ in read.unpacked], spool.SEARCH)
    at_ms, made_ms, skews_ms = _bounded(read.good, heads["at_ms"].astype(np.int64))
    shown = _decoded(heads, _joined([body for _, body in read.unpacked], spool.SHOWN), at_ms)
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
    return Group(read, heads, shown, keys, by_key.result(), parts, creators, tallies, made_ms, skews_ms, is_full)


def _joined(parts: Sequence[NDArray[np.void]], kind: np.dtype[np.void]) -> NDArray[np.void]:
    data = b"".join(part.data for part in parts)
    return np.frombuffer(data, kind) if data else np.zeros(0, kind)


def _bounded(
    stored: Sequence[Stored], said_ms: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], dict[UUID, int]]:
    """When searches count, and when they were made, by their replicas as far as the database's clock allows; how far off it
    clocks were."""
    sizes = np.array([each.searches for each in stored], np.int64)
    begins, earliest, latest = (
        np.repeat(np.array(bounds, np.int64), sizes)
        for bounds in (
            [each.begins_ms for each in stored],
            [each.earliest_ms for each in stored],
            [each.latest_ms for each in stored],
        )
    )
    at_ms, made_ms = np.clip(said_ms, earliest, latest), np.clip(said_ms, begins, latest)
    wrong, skews = np.flatnonzero(at_ms != said_ms), dict[UUID, int]()
    of_search = np.repeat(np.arange(len(stored)), sizes)
    for row in wrong[np.unique(of_search[wrong], return_index=True)[1]]:
        each = stored[of_search[row]]
        if each.begun_ms is None:  # an heir may come late
            skews[each.incarnation] = int(said_ms[row]) - int(at_ms[row])
    return at_ms, made_ms, skews


def _decoded(heads: NDArray[np.void], rows: NDArray[np.void], at_ms: NDArray[np.int64]) -> Shown:
    counts = heads["count"].astype(np.int64)
    return Shown(
        viewers=np.ascontiguousarray(heads["viewer"]).view("<u8").reshape(-1, 2),
        origins=np.ascontiguousarray(heads["origin"]).view("<u8").reshape(-1, 2),
        seconds=(at_ms // 1000).astype(np.uint32),
        searches=Groups(None, np.concatenate([[0], np.cumsum(counts)])),
        search=np.repeat(np.arange(len(heads)), counts),
        segment=rows["segment_id"].astype(np.int64),
        creator=rows["creator_id"].astype(np.int64),
        amount=rows["amount_pix"].astype(np.int64),
    )
