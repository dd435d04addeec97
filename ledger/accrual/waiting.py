"""What waits for the fold: recorded batches in order, decoded into arrays, and grouped as the fold's rules need them.

Everything here follows from the batches alone, so the next group can be prepared while the database still writes the
last one. The time of a search is the one that its replica states, bounded by the time at which the database recorded
it: at most an hour earlier (more for batches that came late) and five seconds later. So a wrong clock moves no
appearance to another day. A damaged batch is set aside. A batch of an unknown format stops its incarnation until a
version that knows the format folds it. Knows no rule and no account.
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
from ledger.accrual import seen
from ledger.accrual.caps import DAY_S, Days, Tally
from ledger.accrual.groups import Flags, Groups, Places, changes, order_of, order_of_hashes
from ledger.accrual.seen import Keys, Seconds
from ledger.appearances import spool
from ledger.money import Amounts
from ledger.settings import LedgerSettings

log = logging.getLogger(__name__)

Ids = NDArray[np.int64]
Unpacked = tuple[NDArray[np.void], NDArray[np.void]]  # searches and appearances, as `spool.unpack` gives them

# How far before (EARLIEST_MS) and after (LATEST_MS) its recording a search can have been made. A batch that an heir recorded
# may be as old as its incarnation, but not older than OLDEST_MS: what was seen and earned is remembered a few days only.
EARLIEST_MS, LATEST_MS, OLDEST_MS = 3_600_000, 5_000, seen.LATE_S * 1000
REMEMBERED_S = 7 * DAY_S  # the most that a backlog extends what is remembered

# The batches of each incarnation from its cursor on. Payloads are stored out of line: only those of chosen batches are read.
WAITING = """
    SELECT id, folded, seq, searches, appearances, format, payload, sha256,
           (extract(epoch FROM CASE WHEN recorded_at BETWEEN '2000-01-01 UTC' AND now() + interval '7 days'
                               THEN recorded_at END) * 1000)::bigint,
           CASE WHEN adopted AND started_at BETWEEN '2000-01-01 UTC' AND now() + interval '7 days'
                THEN (extract(epoch FROM started_at) * 1000)::bigint END FROM (
        SELECT i.id, i.folded, i.started_at, b.*,
               sum(b.weight) OVER (ORDER BY i.started_at, i.id, b.seq) - b.weight AS before
        FROM (SELECT id, started_at, recorded, coalesce(m.folded, i.folded) AS folded FROM ledger.unfolded i
              LEFT JOIN unnest(%(moved)s::uuid[], %(folded)s::bigint[]) AS m (id, folded) USING (id)
              WHERE i.folded < i.recorded AND i.id <> ALL(%(stuck)s)) i,
             LATERAL (SELECT seq, searches, appearances, format, payload, sha256, recorded_at, adopted,
                             greatest(appearances, octet_length(payload) / 512) AS weight  -- many searches, few appearances
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
    recorded_ms: int | None  # since 1970, by the database's clock; None where the row has an impossible time
    begun_ms: int | None  # when the incarnation began; only of a batch recorded late, by an heir or its replica

    @property
    def begins_ms(self) -> int:
        """The earliest time at which one of its searches can have been made, in milliseconds since 1970."""
        assert self.recorded_ms is not None
        earliest = self.recorded_ms - EARLIEST_MS
        return earliest if self.begun_ms is None else min(self.begun_ms, earliest)

    @property
    def earliest_ms(self) -> int:
        """The earliest time at which its searches count: `begins_ms`, or `OLDEST_MS` before the recording, if later."""
        assert self.recorded_ms is not None
        return max(self.begins_ms, self.recorded_ms - OLDEST_MS)

    @property
    def latest_ms(self) -> int:
        """The latest time at which one of its searches counts: `LATEST_MS` after the recording, as clocks differ."""
        assert self.recorded_ms is not None
        return self.recorded_ms + LATEST_MS


@dataclass(frozen=True)
class Readings:
    """Batches that were decoded, and batches that could not be decoded."""

    good: list[Stored] = field(default_factory=list)
    unpacked: list[Unpacked] = field(default_factory=list)  # the arrays of each good batch
    damaged: dict[tuple[UUID, int], str] = field(default_factory=dict)  # the reason, by incarnation and seq
    ends: dict[UUID, int] = field(default_factory=dict)  # the cursor of each incarnation after good and damaged batches
    stuck: dict[UUID, str] = field(default_factory=dict)  # why, by incarnation whose next batch has an unknown format


@dataclass(frozen=True)
class Shown:
    """The appearances of many batches, one row each; viewer, network and time are stored once per search."""

    viewers: Keys  # (searches, 2) uint64: the two words of the viewer's keyed hash
    origins: Keys  # (searches, 2) uint64: those of an anonymous viewer's network; zeros of a viewer with a key
    seconds: Seconds  # (searches,) uint32: seconds since 1970
    searches: Groups  # the rows of each search
    search: Places  # (rows,) int64: the search of each row
    segment: Ids  # (rows,) int64
    creator: Ids  # (rows,) int64
    amount: Amounts  # (rows,) int64: what the appearance may earn in all, in base units of PIX

    @property
    def days(self) -> Days:
        """The UTC day of each search since 1970, uint16, shape (searches,)."""
        return (self.seconds // DAY_S).astype(np.uint16)

    @property
    def has_origin(self) -> Flags:
        """True for rows of anonymous viewers whose network is known, shape (rows,)."""
        known: Flags = self.origins[:, 0] | self.origins[:, 1] != 0
        return known[self.search]


@dataclass(frozen=True)
class Group:
    """What one fold takes: its batches, and their appearances in the orders and groups that the rules need."""

    read: Readings
    heads: NDArray[np.void]  # (searches,) of dtype `spool.SEARCH`
    shown: Shown
    keys: Keys  # (rows,) hash of viewer and segment (`seen.keys_of`)
    by_key: Places  # (rows,) the rows by ascending key
    parts: Groups  # rows of one segment, creator and day, by ascending segment
    creators: Groups  # parts of one creator, by ascending creator
    tallies: dict[str, Tally]  # by kind of cap
    made_ms: NDArray[
        np.int64
    ]  # (searches,) when each was made, as far as is known; may be longer ago than is remembered
    skews_ms: dict[UUID, int]  # where a clock was corrected: the most milliseconds that it was out of bounds
    is_full: bool  # whether more waits than one fold takes

    @property
    def stored(self) -> Sequence[Stored]:
        """The batches that it folds: the good ones."""
        return self.read.good


class Skews:
    """Logs which replicas' clocks are wrong: when this is first seen, and once every `interval_s` while it lasts."""

    def __init__(self, interval_s: float = 60.0) -> None:
        self._interval_s = interval_s
        self._logged_at: dict[UUID, float] = {}  # monotonic time, by incarnation

    def note(self, skews_ms: Mapping[UUID, int]) -> None:
        """Log the skews of a fold, in milliseconds by incarnation, unless they were logged within `interval_s`."""
        for incarnation, skew_ms in skews_ms.items():
            if time.monotonic() - self._logged_at.get(incarnation, -math.inf) >= self._interval_s:
                self._logged_at[incarnation] = time.monotonic()
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
    """Read batches that are recorded and not folded, within the limits of one fold.

    Args:
        connection: in the transaction of the fold.
        settings: `fold_batches_max` and `fold_appearances_max` are read.
        stuck: incarnations to leave out.
        cursors: the cursors of incarnations as the fold that is under way will set them; for all other incarnations the
            stored cursors are used.

    Returns:
        The batches, each incarnation's in order and without a gap; and whether more may wait.
    """
    moved = cursors or {}
    limits = {"batches": settings.fold_batches_max, "appearances": settings.fold_appearances_max,
              "moved": list(moved), "folded": list(moved.values()), "stuck": list(stuck)}  # fmt: skip
    rows = connection.cursor(binary=True).execute(WAITING, limits).fetchall()
    batches: list[Stored] = []
    expected: dict[UUID, int] = {}
    for incarnation, folded, seq, searches, *columns in rows:
        if seq == expected.get(incarnation, folded):
            expected[incarnation] = seq + searches
            batches.append(Stored(incarnation, seq, searches, *columns))
    count = sum(each.appearances for each in batches)
    return batches, count > settings.fold_appearances_max or len(rows) == settings.fold_batches_max


def since_s(connection: Connection[Any], now_s: int) -> int:
    """Return the time since which seen segments and earned sums must be remembered, in seconds since 1970.

    This is the time at which the oldest waiting batch was recorded, or `now_s` if none waits; so a backlog of a day is
    folded as it would have been that day. It is never more than `REMEMBERED_S` ago, even if an incarnation waits longer
    than that for a newer version.
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
    """Decode batches; note those that are damaged, and incarnations that are stuck on an unknown format."""
    readings = Readings()
    for each in stored:
        if each.incarnation in readings.stuck:
            continue
        try:
            if each.recorded_ms is None:
                raise Rejected("a batch was recorded when no clock was", code="batch-damaged")
            unpacked = spool.unpack(each.payload, each.format)
            if (len(unpacked[0]), len(unpacked[1])) != (each.searches, each.appearances):
                raise Rejected("a batch does not hold what its row says", code="batch-damaged")
        except Rejected as error:
            if error.code == spool.UNKNOWN:
                readings.stuck[each.incarnation] = str(error)
                continue
            readings.damaged[each.incarnation, each.seq] = str(error)
        else:
            readings.good.append(each)
            readings.unpacked.append(unpacked)
        readings.ends[each.incarnation] = each.seq + each.searches
    return readings


def grouped(read: Readings, *, is_full: bool) -> Group:
    """Join the arrays of all good batches, then sort and group their rows."""
    heads = _joined([head for head, _ in read.unpacked], spool.SEARCH)
    at_ms, made_ms, skews_ms = _bounded(read.good, heads["at_ms"].astype(np.int64))
    shown = _decoded(heads, _joined([body for _, body in read.unpacked], spool.SHOWN), at_ms)
    keys = seen.keys_of(shown.viewers, shown.search, shown.segment)
    with ThreadPoolExecutor(1, "sort") as executor:  # numpy sorts without the GIL: two sorts on two cores
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
    """Bound the times that replicas gave their searches by what the database's clock allows.

    `said_ms` is (searches,), in milliseconds since 1970. Returns three values: the bounded times, at which searches
    count; the times at which they were made, which may be earlier; and a skew for each incarnation with a wrong clock.
    The skew is that of the search furthest out of bounds, in milliseconds, negative if it was too early. Batches that
    were recorded late say nothing of a clock and are not considered.
    """
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
    distance = np.abs(said_ms[wrong].astype(np.float64) - at_ms[wrong])  # as int64 an absurd time would overflow
    furthest = wrong[np.argsort(-distance, kind="stable")]
    of_search = np.repeat(np.arange(len(stored)), sizes)
    for row in furthest[np.unique(of_search[furthest], return_index=True)[1]]:  # the furthest of each batch
        each = stored[of_search[row]]
        if each.begun_ms is None:  # a late batch says nothing of a clock
            skew_ms = int(said_ms[row]) - int(at_ms[row])
            skews[each.incarnation] = max(skews.get(each.incarnation, 0), skew_ms, key=abs)
    return at_ms, made_ms, skews


def _decoded(heads: NDArray[np.void], rows: NDArray[np.void], at_ms: NDArray[np.int64]) -> Shown:
    """Split records into columns: `heads` and `at_ms` are (searches,), `rows` is (appearances,)."""
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
