"""Folding: recorded batches become journal entries. Cursor, journal, balances and outcomes move in one transaction.

Each incarnation's batches are taken in order, from where its cursor stands; a gap stops that incarnation, so nothing
is skipped. Every appearance gets one outcome; those that are funded are split exactly and summed per creator. The
`reward_pool` pays for all of it and never goes below zero: when it is empty an appearance is kept, unfunded.

The database writes in a thread of its own, statement after statement, while the next ones are computed here; where more
waits than one fold takes, so is the next group made ready. Only when all is written does this thread commit.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from cluster.stopwatch import Stopwatch
from ledger import advances, book, maturing, money, pairs, waiting
from ledger.audience import Audience
from ledger.caps import DAY_S, Caps
from ledger.directory import Directory
from ledger.groups import Flags, changes
from ledger.money import Amounts
from ledger.pairs import Pairs
from ledger.runfiles import Run
from ledger.seen import Seen
from ledger.settings import PPM, Economics, LedgerSettings
from ledger.shared_networks import SharedNetworks
from ledger.vouching import SCALED_MAX
from ledger.waiting import Group, Ids, Stored

log = logging.getLogger(__name__)

MATURED_MAX = 10_000  # buckets a round
RETRIED_MS = 3_600_000  # before it is carried here, a search may have counted elsewhere under the same key
ORIGIN = "origin"  # the bound that holds for anonymous viewers alone
OF_OTHERS = ("segment", "creator")  # bounds that other viewers can fill
# The greater of a row's own cursor and the one beside it counts. Who records may hold the row for as long as they like.
MOVED = """
    WITH ends AS (SELECT * FROM unnest(%(ids)s::uuid[], %(folded)s::bigint[]) AS e (id, folded)),
    free AS (SELECT i.id, e.folded FROM ledger.incarnations i JOIN ends e USING (id) WHERE e.folded <= i.recorded
             ORDER BY i.id FOR NO KEY UPDATE OF i SKIP LOCKED),
    moved AS (UPDATE ledger.incarnations i SET folded = f.folded FROM free f WHERE i.id = f.id RETURNING i.id)
    INSERT INTO ledger.cursors (incarnation, folded) SELECT id, folded FROM ends WHERE id NOT IN (SELECT id FROM moved)
    ON CONFLICT (incarnation) DO UPDATE SET folded = excluded.folded"""
Result = TypeVar("Result")
Stake = tuple[int, list[int], list[int]]  # segment, investors, what each has put in


class Outcome(IntEnum):
    """What became of an appearance; the byte that `ledger.outcomes` keeps."""

    FUNDED = 0
    REPEATED_KEY = 1  # the search's Idempotency-Key had been used
    SEEN = 2  # the viewer has seen this segment within 24 hours
    CAPPED = 3
    UNFUNDED = 4  # `reward_pool` was empty
    UNEARNED = 5  # earns nothing: no relevance, or an anonymous viewer


Outcomes = NDArray[np.uint8]


@dataclass(frozen=True)
class Folded:
    """What one fold did."""

    batches: int
    appearances: int
    funded: int
    amount_pix: int


@dataclass(frozen=True)
class Earned:
    """What the funded appearances of a fold come to: in all, for the platform, and for creators and investors."""

    total: int
    platform: int
    parties: dict[str, tuple[Ids, Amounts]]
    by_day: tuple[Ids, Ids, Amounts]  # creators, the UTC days on which they were shown, and their parts of these


class Pen:
    """The thread that writes: what it is given is done in turn, each timed as a stage of the fold."""

    def __init__(self, executor: ThreadPoolExecutor, stages: Stopwatch) -> None:
        self._executor, self._stages = executor, stages
        self._given: list[Future[Any]] = []

    def give(self, stage: str, write: Callable[..., Result], *values: Any) -> Future[Result]:
        def timed() -> Result:
            with self._stages.time(stage):
                return write(*values)

        self._given.append(self._executor.submit(timed))
        return self._given[-1]

    def finish(self) -> None:
        """Wait for everything; the first thing that went wrong is raised."""
        for each in self._given:
            each.result()


class Fold:
    """The accountant of appearances; one per holder of the epoch."""

    def __init__(
        self,
        connection: Connection[Any],
        economics: Economics,
        settings: LedgerSettings,
        folder: Path | None = None,
        networks: SharedNetworks | None = None,
    ) -> None:
        """`folder`: of the files of what folds remember; without one all of it is in memory. `networks`: of many people."""
        self._connection, self._economics, self._settings = connection, economics, settings
        self.stages = Stopwatch()
        self._ahead: Group | None = None
        self._stuck: set[UUID] = set()  # incarnations that go on in a format which this version does not know
        self._skews = waiting.Skews()
        self._files = ThreadPoolExecutor(1, "files") if folder is not None else None
        self._seen = Seen(economics.repeat_after_s, folder, self._files)
        self._seen.load(connection, book.clock_s(connection))
        bounds = (("viewer", economics.viewer_day_max_pix), (ORIGIN, economics.address_day_max_pix),
                  ("segment", economics.segment_day_max_pix), ("creator", economics.creator_day_max_pix))  # fmt: skip
        self._caps = [Caps(kind, most_pix, folder, self._files) for kind, most_pix in bounds]
        self._networks = networks or SharedNetworks(economics)
        self._kind = "maturing" if economics.maturity_s else "payable"
        self._directories = {party: Directory(self._kind, party) for party in ("creator", "investor")}
        self.audience = Audience(economics, folder, self._files, self._networks)
        self.audience.load(connection)
        for cap in self._caps:
            cap.load(connection)
        connection.commit()

    def close(self) -> None:
        """End what is done beside folds."""
        self.audience.close()
        if self._files is not None:
            self._files.shutdown()

    def why_full(self) -> str:
        """Why nothing more may be folded now; nothing, where it may: there is room for what the next fold remembers."""
        stores = (self._seen.store, *(cap.store for cap in self._caps), *self.audience.stores)
        return next((store.why_full() for store in stores if not store.has_room()), "")

    def run_once(self) -> Folded | None:
        """Fold what is waiting, within the limits; None when nothing is."""
        for directory in self._directories.values():
            directory.forget()
        group, self._ahead = self._ahead or self._take(), None
        if group is None:
            self._connection.commit()
            return None
        with ThreadPoolExecutor(1, "pen") as executor:
            return self._folded(group, Pen(executor, self.stages))

    def _take(self) -> Group | None:
        with self.stages.time("read"):
            stored, is_full = waiting.waiting(self._connection, self._settings, self._stuck)
        return self._grouped(stored, is_full)

    def _grouped(self, stored: Sequence[Stored], is_full: bool) -> Group | None:
        """What can be folded of these, made ready; None where nothing can."""
        with self.stages.time("decode and sort"):
            read = waiting.read(stored)
            for incarnation, why in read.stuck.items():
                log.error(
                    "a replica's batches wait for a newer version: %s", why, extra={"incarnation": str(incarnation)}
                )
            self._stuck |= set(read.stuck)
            return waiting.grouped(read, is_full=is_full) if read.ends else None

    def _look_ahead(self, group: Group, pen: Pen) -> Future[tuple[list[Stored], bool]] | None:
        """Where there is more than one fold takes: read what follows, as if the cursors had moved."""
        if not group.is_full:
            return None
        return pen.give("read", waiting.waiting, self._connection, self._settings, self._stuck, group.read.ends)

    def _folded(self, group: Group, pen: Pen) -> Folded:
        shown = group.shown
        self._skews.note(group.skews_ms)
        outcome = np.full(len(shown.segment), Outcome.FUNDED, np.uint8)
        pool, now_s = self._pool(), book.clock_s(self._connection)
        stakes = self._stakes(shown.segment[group.parts.firsts])
        since_s = waiting.since_s(self._connection, now_s)
        since = since_s // DAY_S
        self._refuse_repeated(group, outcome)
        self._refuse_excess(group, outcome)
        # Before what was seen: an appearance that is worth nothing must not use up the day of one that is.
        outcome[(outcome == Outcome.FUNDED) & (shown.amount == 0)] = Outcome.UNEARNED
        with self.stages.time("seen"):
            news = self._refuse_seen(group, outcome)
        runs = pen.give("write seen", self._seen.remember, self._connection, news, since_s)
        ahead = self._look_ahead(group, pen)
        with self.stages.time("caps"):
            crowded = self._refuse_excess_of_day(group, outcome)
        self._spend(shown.amount, outcome, pool)
        paid = np.where(outcome == Outcome.FUNDED, shown.amount, 0)
        with self.stages.time("shares"):
            nets, rests = money.split_many(paid, self._economics.creator_share_ppm)
            earned = self._earned(group, paid, nets, rests, stakes)
        folded = Folded(len(group.stored), len(outcome), int((outcome == Outcome.FUNDED).sum()), earned.total)
        pen.give("write entry", self._write, group, folded, earned, outcome, nets)
        used = np.where(crowded, shown.amount, paid)
        sums = [
            pen.give("write caps", cap.remember, self._connection, group.tallies[cap.kind],
                     _bound(cap, group, paid if cap.kind in OF_OTHERS else used), since)
            for cap in self._caps
        ]  # fmt: skip
        with self.stages.time("pairs"):
            pairs = self._pairs(group, (outcome == Outcome.FUNDED) | crowded, nets)
        heard, following = pen.give("write pairs", self.audience.remember, self._connection, pairs, since), None
        if ahead is not None:
            following = self._grouped(*ahead.result())
        pen.give("commit", self._move_cursors, group.read.ends)
        pen.finish()
        with self.stages.time("commit"):
            book.commit(self._connection)
        self._seen.accept(runs.result())
        self.audience.accept(heard.result())
        for cap, kept in zip(self._caps, sums, strict=True):
            cap.accept(kept.result())
        for directory in self._directories.values():
            directory.accept()
        self._ahead = following
        return folded

    # ── Outcomes ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _refuse_repeated(self, group: Group, outcome: Outcomes) -> None:
        """The first search with an Idempotency-Key counts; every other one with it records nothing."""
        words = np.ascontiguousarray(group.heads["key"]).view("<u8").reshape(-1, 2)
        heads, repeated = group.heads, words.astype(np.bool_).max(axis=1)
        if not repeated.any():
            return
        named = {bytes(heads["key"][i]): int(i) for i in np.flatnonzero(repeated & ~self._is_late(group))[::-1]}
        rows = self._connection.execute(
            "INSERT INTO ledger.idempotency (key, content) SELECT * FROM unnest(%s::bytea[], %s::bytea[])"
            " ON CONFLICT DO NOTHING RETURNING key",
            (list(named), [bytes(heads["request"][i]) for i in named.values()]),
        )
        repeated[[named[bytes(row[0])] for row in rows]] = False
        outcome[repeated[group.shown.search]] = Outcome.REPEATED_KEY

    def _is_late(self, group: Group) -> Flags:
        """Searches as old as keys that are forgotten: each may have counted under its own, by a replica that was asked again.

        So late comes what lay on a disk that was away for weeks.
        """
        row = self._connection.execute(
            "SELECT (extract(epoch FROM least(forgotten_until, now())) * 1000)::bigint FROM ledger.retention"
            " WHERE name = 'idempotency' AND forgotten_until IS NOT NULL"
        ).fetchone()
        if row is None:
            return np.zeros(len(group.made_ms), np.bool_)
        return np.asarray(group.made_ms <= row[0] + RETRIED_MS)

    def _refuse_excess(self, group: Group, outcome: Outcomes) -> None:
        """Bounds of one search: how many appearances, and how much in all."""
        searches, search, amount = group.shown.searches, group.shown.search, group.shown.amount
        most = self._economics.search_appearances_max
        if most and (searches.sizes > most).any():
            place = np.arange(len(search)) - searches.bounds[search]
            outcome[(outcome == Outcome.FUNDED) & (place >= most)] = Outcome.CAPPED
        most = self._economics.search_amount_max_pix
        if most and (searches.sums(amount) > most).any():
            running = np.append(0, np.cumsum(amount))
            within = running[1:] - running[searches.bounds[search]]
            outcome[(outcome == Outcome.FUNDED) & (within > most)] = Outcome.CAPPED

    def _refuse_seen(self, group: Group, outcome: Outcomes) -> Run:
        asked, order = outcome == Outcome.FUNDED, group.by_key
        if not asked.all():
            order = order[asked[order]]
        rows, news = self._seen.sift(group.keys, group.shown.seconds[group.shown.search], order)
        asked[rows] = False
        outcome[asked] = Outcome.SEEN
        return news

    def _refuse_excess_of_day(self, group: Group, outcome: Outcomes) -> Flags:
        """Bounds of a UTC day, for each viewer, network of anonymous viewers, segment and creator.

        Returned is what was refused because other viewers had filled a bound: it is of its viewer's own day all the same, and
        takes the place of what turns out not to count (see `review`). A network of many people is not bounded below what they
        are worth (see `vouching`).
        """
        crowded = np.zeros(len(outcome), np.bool_)
        for cap in self._caps:
            asked = outcome == Outcome.FUNDED
            amounts = np.where(asked, group.shown.amount, 0)
            least = self._worth(group) if cap.kind == ORIGIN else 0
            rows = cap.excess(group.tallies[cap.kind], _bound(cap, group, amounts), least)
            refused = rows[asked[rows]]
            outcome[refused] = Outcome.CAPPED
            crowded[refused] = cap.kind in OF_OTHERS
        return crowded

    def _worth(self, group: Group) -> Amounts:
        """What the people of each network are worth in a day, of those of which an operator knows that there are many."""
        tally = group.tallies[ORIGIN]
        sources = pairs.keys_of(group.shown.origins[tally.groups.firsts, 0], tally.days)
        people = self._networks.people(sources, tally.days)
        return np.where(people > 1, people * min(self._economics.source_day_pix, SCALED_MAX), 0)

    def _spend(self, amount: Amounts, outcome: Outcomes, pool: int) -> None:
        """First come, first funded, until the pool is empty."""
        candidate = outcome == Outcome.FUNDED
        running = np.cumsum(np.where(candidate, amount, 0))
        outcome[candidate & (running > pool)] = Outcome.UNFUNDED

    def _pool(self) -> int:
        return book.balance(self._connection, book.account(self._connection, "reward_pool"))

    # ── Shares ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _earned(self, group: Group, paid: Amounts, nets: Amounts, rests: Amounts, stakes: Sequence[Stake]) -> Earned:
        """Creators' and investors' parts, summed per owner, and the platform's."""
        creators = group.shown.creator[group.parts.firsts][group.creators.firsts]
        parties = {"creator": _some(creators, group.creators.sums(group.parts.sums(nets)))}
        invested = self._invested(group, rests, stakes)
        investors = sorted(invested)
        amounts = np.array([invested[each] for each in investors], np.int64)
        parties["investor"] = _some(np.array(investors, np.int64), amounts)
        platform = int(rests.sum()) - int(amounts.sum())
        return Earned(int(paid.sum()), platform, parties, _by_day(group, nets))

    def _stakes(self, segments: Ids) -> list[Stake]:
        """Who has a stake in these segments, which stand in ascending order."""
        some = self._connection.execute("SELECT FROM ledger.segment_stakes ORDER BY segment_id LIMIT 1").fetchone()
        if some is None:
            return []
        rows = self._connection.execute(
            "SELECT segment_id, array_agg(investor_id ORDER BY investor_id),"
            " array_agg(pix_invested ORDER BY investor_id)"
            " FROM ledger.segment_stakes WHERE segment_id = ANY(%s) GROUP BY segment_id",
            (segments[changes(segments)].tolist(),),
        )
        return rows.fetchall()

    def _invested(self, group: Group, rests: Amounts, stakes: Sequence[Stake]) -> dict[int, int]:
        """Investors' part of the platform's, appearance by appearance, for the segments that have any."""
        found: dict[int, int] = {}
        segments = group.shown.segment[group.parts.firsts]
        for segment, investors, put_in in stakes:
            first, last = np.searchsorted(segments, segment), np.searchsorted(segments, segment, "right")
            rows, _ = group.parts.rows(np.arange(first, last))
            for part, times in zip(*np.unique(rests[rows], return_counts=True), strict=True):
                shared = money.split(int(part), (PPM - self._economics.investors_share_ppm,
                                                 self._economics.investors_share_ppm))[1]  # fmt: skip
                for investor, share in zip(investors, money.split(shared, put_in), strict=True):
                    found[investor] = found.get(investor, 0) + share * int(times)
        return found

    def _pairs(self, group: Group, counting: Flags, nets: Amounts) -> Pairs:
        """Who has earned whom how much; what was crowded out would have earned `gross`, and has earned nothing."""
        rows = np.flatnonzero(counting)
        search = group.shown.search[rows]
        shown = group.shown
        sources = np.where(shown.origins[:, 0] | shown.origins[:, 1] != 0, shown.origins[:, 0], shown.viewers[:, 0])
        viewers, days = sources[search], shown.days[search]  # cookies are made by the hundred: a network is one viewer
        return Pairs(viewers, group.shown.creator[rows], days, group.shown.amount[rows], nets[rows])

    # ── Writing ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _write(self, group: Group, folded: Folded, earned: Earned, outcome: Outcomes, nets: Amounts) -> None:
        stored = group.stored
        self._set_aside(group.read.damaged)
        entry_id = self._post(group, folded, earned, nets) if earned.total else None
        unfunded = int((outcome == Outcome.UNFUNDED).sum())
        with book.refusals():
            row = self._connection.execute(
                "INSERT INTO ledger.folds (entry_id, batches, appearances, funded, unfunded, amount_pix)"
                " VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
                (entry_id, folded.batches, folded.appearances, folded.funded, unfunded, folded.amount_pix),
            ).fetchone()
        assert row is not None
        self._keep_outcomes(stored, outcome, row[0])
        if unfunded:
            log.warning("reward_pool is empty", extra={"unfunded": unfunded})

    def _post(self, group: Group, folded: Folded, earned: Earned, nets: Amounts) -> int:
        """The entry of a fold, and the one that takes back what had been paid when a restore forgot it."""
        stored, connection = group.stored, self._connection
        pool = book.account(connection, "reward_pool")
        lines = [_lines([pool], [-earned.total])]
        if earned.platform:
            lines.append(_lines([book.account(connection, "platform")], [earned.platform]))
        of_party = {
            party: _lines(self._directories[party].accounts_of(connection, owners), amounts)
            for party, (owners, amounts) in earned.parties.items()
        }
        book.hold_end(connection)  # who adopts reads balances and notes advances under the same lock
        paid_before = advances.set_off(
            connection, lambda instant_ms: _shown_before(group, nets, instant_ms), matures=self._kind == "maturing"
        )
        if self._kind == "maturing":
            for party, some in of_party.items():
                self._ripen(party, some, earned.parties[party][0], earned, paid_before)
        digest = hashlib.sha256(b"".join(each.sha256 for each in stored)).hexdigest()
        document = {"batches": folded.batches, "appearances": folded.funded, "sha256": digest}
        key = f"fold:{stored[0].incarnation}:{stored[0].seq}"
        entry = book.post(
            connection, book.Entry("accrual", key, np.concatenate([*lines, *of_party.values()]), document)
        )
        if paid_before.total:
            whose, amounts = paid_before.by_creator
            accounts = of_party["creator"][np.searchsorted(earned.parties["creator"][0], whose), 0]
            taken = np.concatenate([_lines(accounts, -amounts), _lines([pool], [paid_before.total])])
            document = {"fold": key, "restores": [f"freeze-{each}" for each in paid_before.restores]}
            book.post(connection, book.Entry("set_off", f"{key}:set-off", taken, document))
            log.warning("searches come back that were paid before a restore: they are set off",
                        extra={"creators": len(whose), "pix": paid_before.total})  # fmt: skip
        return entry.id

    def _ripen(self, party: str, lines: Ids, owners: Ids, earned: Earned, paid_before: advances.SetOff) -> None:
        accounts, amounts = lines.T
        days = np.full(len(accounts), maturing.NO_DAY)  # of investors nothing is taken back
        if party == "creator":
            creators, days, amounts = paid_before.rest(earned.by_day)
            accounts = accounts[np.searchsorted(owners, creators)]
        maturing.ripen(
            self._connection, accounts, days, amounts, self._economics.maturity_s, self._economics.maturity_s
        )

    def _set_aside(self, damaged: Mapping[tuple[UUID, int], str]) -> None:
        """Leave what cannot be read to a person; the money of what follows on it does not wait for him."""
        for (incarnation, seq), why in damaged.items():
            log.error("a batch is damaged and set aside: %s", why, extra={"incarnation": str(incarnation), "seq": seq})
            self._connection.execute(
                "INSERT INTO ledger.set_aside (incarnation, seq, reason) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (incarnation, seq, why),
            )

    def _keep_outcomes(self, stored: Sequence[Stored], outcome: Outcomes, fold_id: int) -> None:
        at, kept = 0, memoryview(outcome.tobytes())
        query = "COPY ledger.outcomes (incarnation, seq, fold_id, outcome) FROM STDIN (FORMAT binary)"
        with self._connection.cursor().copy(query) as copy:
            copy.set_types(["uuid", "int8", "int8", "bytea"])
            for each in stored:
                copy.write_row((each.incarnation, each.seq, fold_id, kept[at : at + each.appearances]))
                at += each.appearances

    def _move_cursors(self, ends: Mapping[UUID, int]) -> None:
        """Last of all: replicas that record wait for it. What another transaction holds is noted beside (`cursors`)."""
        self._connection.execute(MOVED, {"ids": list(ends), "folded": list(ends.values())})


def mature(connection: Connection[Any]) -> int:
    """Make payable what has matured, the earliest buckets first; returns the amount. One entry, one transaction."""
    any_of = connection.execute("SELECT FROM ledger.maturing WHERE matures_at <= now() ORDER BY matures_at LIMIT 1")
    if any_of.fetchone() is None:
        connection.commit()
        return 0
    book.hold_end(connection)  # who adopts after a restore takes from the same buckets
    rows = connection.execute(  # in the order of the index, so that what is read is what is taken
        "SELECT m.account_id, a.party, a.owner, m.amount_pix, m.matures_at FROM"
        " (SELECT account_id, matures_at, amount_pix FROM ledger.maturing WHERE matures_at <= now()"
        "  ORDER BY matures_at LIMIT %s) m JOIN ledger.accounts a ON a.id = m.account_id ORDER BY m.account_id",
        (MATURED_MAX,),
    ).fetchall()
    if not rows:
        connection.commit()
        return 0
    sums: dict[tuple[str, int, int], int] = {}
    for account, party, owner, amount, _ in rows:
        sums[party, owner, account] = sums.get((party, owner, account), 0) + amount
    lines: list[tuple[int, int]] = []
    for party in ("creator", "investor"):
        some = {(owner, account): amount for (of, owner, account), amount in sums.items() if of == party and amount}
        payable = book.accounts_of(connection, "payable", party, [owner for owner, _ in some]) if some else {}
        for (owner, account), amount in some.items():
            lines += [(account, -amount), (payable[owner], amount)]
    if lines:
        newest = max(row[4] for row in rows)
        last = connection.execute("SELECT entry_id FROM ledger.chain_head").fetchone()
        assert last is not None
        book.post(connection, book.Entry("maturity", f"mature:{last[0]}", lines, {"until": newest.isoformat()}))
    connection.execute(
        "DELETE FROM ledger.maturing m USING unnest(%s::bigint[], %s::timestamptz[]) AS t (id, at)"
        " WHERE m.account_id = t.id AND m.matures_at = t.at",
        ([row[0] for row in rows], [row[4] for row in rows]),
    )
    book.commit(connection)
    return sum(amount for _, amount in lines if amount > 0)


def _shown_before(group: Group, nets: Amounts, instant_ms: int) -> tuple[Ids, Ids, Amounts]:
    """Each creator's part of what may have been shown before an instant, day by day."""
    return _by_day(group, np.where(group.shown_before(instant_ms), nets, 0))


def _by_day(group: Group, nets: Amounts) -> tuple[Ids, Ids, Amounts]:
    """Each creator's part of these amounts, day by day."""
    tally = group.tallies["creator"]
    amounts = tally.sums(nets)
    creators = group.shown.creator[group.parts.firsts][tally.groups.firsts]
    some = amounts > 0
    return creators[some], tally.days[some].astype(np.int64), amounts[some]


def _bound(cap: Caps, group: Group, amounts: Amounts) -> Amounts:
    """What of these amounts a bound holds for."""
    return np.where(group.shown.has_origin, amounts, 0) if cap.kind == ORIGIN else amounts


def _some(owners: Ids, amounts: Amounts) -> tuple[Ids, Amounts]:
    """Those who get anything."""
    some = amounts > 0
    return owners[some], amounts[some]


def _lines(accounts: Ids | Sequence[int], amounts: Amounts | Sequence[int]) -> Ids:
    return np.array([accounts, amounts], np.int64).T
