"""Folding: recorded batches become journal entries. Cursors, journal, balances and outcomes change in one transaction.

Each incarnation's batches are taken in order, from its cursor on; a gap stops that incarnation, so that nothing is
skipped. Every appearance gets one outcome. The amounts of funded appearances are split exactly and summed per owner.
The `reward_pool` pays all of them and never goes below zero: when it is empty, appearances are recorded and earn
nothing.

A second thread runs the SQL statements in order, while the main thread computes the values of the next ones. If more
batches wait than one fold takes, the main thread also prepares the next group. It commits once everything is written.
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

from cluster.observability.stopwatch import Stopwatch
from ledger import money
from ledger.accrual import maturing, pairs, waiting
from ledger.accrual.audience import Audience
from ledger.accrual.caps import DAY_S, Caps
from ledger.accrual.groups import Flags, changes
from ledger.accrual.pairs import Pairs
from ledger.accrual.runfiles import Run
from ledger.accrual.seen import Seen
from ledger.accrual.shared_networks import SharedNetworks
from ledger.accrual.vouching import SCALED_MAX
from ledger.accrual.waiting import Group, Ids, Stored
from ledger.journal import book
from ledger.journal.directory import Directory
from ledger.money import Amounts
from ledger.settings import PPM, Economics, LedgerSettings

log = logging.getLogger(__name__)

MATURED_MAX = 10_000  # buckets of `ledger.maturing` that one call of `mature` takes
RETRIED_MS = 3_600_000  # before it is carried here, a search may have counted elsewhere under the same key
ORIGIN = "origin"  # the cap that applies to anonymous viewers alone
OF_OTHERS = ("segment", "creator")  # caps that other viewers can fill
# Move the cursor in the incarnation's row, or, while a replica holds that row, in `ledger.cursors`; the greater one counts.
# So a fold never waits for a replica that records.
MOVED = """
    WITH ends AS (SELECT * FROM unnest(%(ids)s::uuid[], %(folded)s::bigint[]) AS e (id, folded)),
    free AS (SELECT i.id, e.folded FROM ledger.incarnations i JOIN ends e USING (id) WHERE e.folded <= i.recorded
             ORDER BY i.id FOR NO KEY UPDATE OF i SKIP LOCKED),
    moved AS (UPDATE ledger.incarnations i SET folded = f.folded FROM free f WHERE i.id = f.id RETURNING i.id)
    INSERT INTO ledger.cursors (incarnation, folded) SELECT id, folded FROM ends WHERE id NOT IN (SELECT id FROM moved)
    ON CONFLICT (incarnation) DO UPDATE SET folded = excluded.folded"""
Result = TypeVar("Result")
Stake = tuple[int, list[int], list[int]]  # segment, its investors, what each has put in (base units of PIX)


class Outcome(IntEnum):
    """What became of an appearance; the byte that `ledger.outcomes` stores."""

    FUNDED = 0
    REPEATED_KEY = 1  # the search's Idempotency-Key had been used
    SEEN = 2  # the viewer had seen this segment within `repeat_after_s`
    CAPPED = 3  # a bound of the search, or a cap of the day, was reached
    UNFUNDED = 4  # `reward_pool` was empty
    UNEARNED = 5  # worth 0: no relevance, or an anonymous viewer


Outcomes = NDArray[np.uint8]  # (rows,), an `Outcome` each


@dataclass(frozen=True)
class Folded:
    """What one fold did: how many batches and appearances it took, how many of these earned, and the total amount."""

    batches: int
    appearances: int
    funded: int
    amount_pix: int


@dataclass(frozen=True)
class Earned:
    """What the funded appearances of a fold earn, in base units of PIX."""

    total: int
    platform: int
    parties: dict[str, tuple[Ids, Amounts]]  # of "creator" and "investor": owners and their amounts, (owners,) each
    by_day: tuple[Ids, Ids, Amounts]  # creators, the UTC days on which they were shown, and their parts of these


class Writer:
    """The thread that talks to the database: calls run one after the other, each timed as a stage of the fold."""

    def __init__(self, executor: ThreadPoolExecutor, stages: Stopwatch) -> None:
        self._executor, self._stages = executor, stages
        self._calls: list[Future[Any]] = []

    def submit(self, stage: str, write: Callable[..., Result], *values: Any) -> Future[Result]:
        """Queue the call `write(*values)`, to be timed as `stage`; return its future result."""

        def timed() -> Result:
            with self._stages.time(stage):
                return write(*values)

        self._calls.append(self._executor.submit(timed))
        return self._calls[-1]

    def finish(self) -> None:
        """Wait for all calls; raise the first error of any."""
        for call in self._calls:
            call.result()


class Fold:
    """The conversion of recorded batches into journal entries, used from one thread of the holder of the epoch."""

    def __init__(
        self,
        connection: Connection[Any],
        economics: Economics,
        settings: LedgerSettings,
        folder: Path | None = None,
        networks: SharedNetworks | None = None,
    ) -> None:
        """Read what earlier folds have kept: seen keys, sums of the day, pairs, totals.

        Args:
            connection: holds the epoch; outside of a transaction.
            economics: the rules.
            settings: the limits of one fold.
            folder: where files of runs lie; None keeps all runs in memory (see `runstore`).
            networks: the networks that many people share; without it every source counts as one person.
        """
        self._connection, self._economics, self._settings = connection, economics, settings
        self.stages = Stopwatch()
        self._next_group: Group | None = None  # prepared while the last fold was written
        self._stuck: set[UUID] = set()  # incarnations whose next batch has a format that this version does not know
        self._skews = waiting.Skews()
        self._files = ThreadPoolExecutor(1, "files") if folder is not None else None
        self._seen = Seen(economics.repeat_after_s, folder, self._files)
        self._seen.load(connection, book.clock_s(connection))
        bounds = (("viewer", economics.viewer_day_max_pix), (ORIGIN, economics.address_day_max_pix),
                  ("segment", economics.segment_day_max_pix), ("creator", economics.creator_day_max_pix))  # fmt: skip
        self._caps = [Caps(kind, max_pix, folder, self._files) for kind, max_pix in bounds]
        self._networks = networks or SharedNetworks(economics)
        self._kind = "maturing" if economics.maturity_s else "payable"
        self._directories = {party: Directory(self._kind, party) for party in ("creator", "investor")}
        self.audience = Audience(economics, folder, self._files, self._networks)
        self.audience.load(connection)
        for cap in self._caps:
            cap.load(connection)
        connection.commit()

    def close(self) -> None:
        """Wait for files that are being made, and end their threads."""
        self.audience.close()
        if self._files is not None:
            self._files.shutdown()

    def why_full(self) -> str:
        """Return why nothing more may be folded now; empty if there is room for what the next fold has to remember."""
        stores = (self._seen.store, *(cap.store for cap in self._caps), *self.audience.stores)
        return next((store.why_full() for store in stores if not store.has_room()), "")

    def run_once(self) -> Folded | None:
        """Fold one group of waiting batches, within the limits of the settings, and commit.

        Returns None if no batch waits. After an error the caller rolls back and makes another `Fold`.
        """
        for directory in self._directories.values():
            directory.forget()
        group, self._next_group = self._next_group or self._take(), None
        if group is None:
            self._connection.commit()
            return None
        with ThreadPoolExecutor(1, "pen") as executor:
            return self._folded(group, Writer(executor, self.stages))

    def _take(self) -> Group | None:
        with self.stages.time("read"):
            stored, is_full = waiting.waiting(self._connection, self._settings, self._stuck)
        return self._grouped(stored, is_full)

    def _grouped(self, stored: Sequence[Stored], is_full: bool) -> Group | None:
        """Decode and group batches; return None if none of them can be folded."""
        with self.stages.time("decode and sort"):
            read = waiting.read(stored)
            for incarnation, why in read.stuck.items():
                log.error(
                    "a replica's batches wait for a newer version: %s", why, extra={"incarnation": str(incarnation)}
                )
            self._stuck |= set(read.stuck)
            return waiting.grouped(read, is_full=is_full) if read.ends else None

    def _read_ahead(self, group: Group, writer: Writer) -> Future[tuple[list[Stored], bool]] | None:
        """If more batches wait than one fold takes, start to read those that follow this group; else return None."""
        if not group.is_full:
            return None
        return writer.submit("read", waiting.waiting, self._connection, self._settings, self._stuck, group.read.ends)

    def _folded(self, group: Group, writer: Writer) -> Folded:
        """Fold one group: decide outcomes here, in order of the rules, while the writer thread writes what is decided."""
        shown = group.shown
        self._skews.note(group.skews_ms)
        outcome = np.full(len(shown.segment), Outcome.FUNDED, np.uint8)
        pool, now_s = self._pool(), book.clock_s(self._connection)
        stakes = self._stakes(shown.segment[group.parts.firsts])
        since_s = waiting.since_s(self._connection, now_s)
        since = since_s // DAY_S
        self._refuse_repeated(group, outcome)
        self._refuse_excess(group, outcome)
        # Before repeats: an appearance worth 0 must not make a later one within the day, worth more, a repeat.
        outcome[(outcome == Outcome.FUNDED) & (shown.amount == 0)] = Outcome.UNEARNED
        with self.stages.time("seen"):
            first_views = self._refuse_seen(group, outcome)
        seen_run = writer.submit("write seen", self._seen.remember, self._connection, first_views, since_s)
        ahead = self._read_ahead(group, writer)
        with self.stages.time("caps"):
            crowded = self._refuse_excess_of_day(group, outcome)
        self._spend(shown.amount, outcome, pool)
        paid = np.where(outcome == Outcome.FUNDED, shown.amount, 0)
        with self.stages.time("shares"):
            nets, rests = money.split_many(paid, self._economics.creator_share_ppm)
            earned = self._earned(group, paid, nets, rests, stakes)
        folded = Folded(len(group.stored), len(outcome), int((outcome == Outcome.FUNDED).sum()), earned.total)
        writer.submit("write entry", self._write, group, folded, earned, outcome)
        used = np.where(crowded, shown.amount, paid)  # (rows,) a viewer's own cap counts what others' caps refused
        cap_runs = [
            writer.submit("write caps", cap.remember, self._connection, group.tallies[cap.kind],
                          _subject_to(cap, group, paid if cap.kind in OF_OTHERS else used), since)
            for cap in self._caps
        ]  # fmt: skip
        with self.stages.time("pairs"):
            pairs = self._pairs(group, (outcome == Outcome.FUNDED) | crowded, nets)
        pair_run = writer.submit("write pairs", self.audience.remember, self._connection, pairs, since)
        next_group = self._grouped(*ahead.result()) if ahead is not None else None
        writer.submit("commit", self._move_cursors, group.read.ends)
        writer.finish()
        with self.stages.time("commit"):
            book.commit(self._connection)
        self._seen.accept(seen_run.result())
        self.audience.accept(pair_run.result())
        for cap, cap_run in zip(self._caps, cap_runs, strict=True):
            cap.accept(cap_run.result())
        for directory in self._directories.values():
            directory.accept()
        self._next_group = next_group
        return folded

    # ── Outcomes ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _refuse_repeated(self, group: Group, outcome: Outcomes) -> None:
        """Refuse every search whose Idempotency-Key was used by an earlier search, of this group or an earlier fold."""
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
        """Flag searches so old that an earlier use of their Idempotency-Key may have been deleted already.

        Such a search may have been recorded before, under the same key, at another replica. Searches arrive this late
        from a disk that was away for weeks. Returns bool, (searches,).
        """
        row = self._connection.execute(
            "SELECT (extract(epoch FROM least(forgotten_until, now())) * 1000)::bigint FROM ledger.retention"
            " WHERE name = 'idempotency' AND forgotten_until IS NOT NULL"
        ).fetchone()
        if row is None:
            return np.zeros(len(group.made_ms), np.bool_)
        return np.asarray(group.made_ms <= row[0] + RETRIED_MS)

    def _refuse_excess(self, group: Group, outcome: Outcomes) -> None:
        """Refuse what exceeds the bounds of one search: how many appearances, and how much in all."""
        searches, search, amount = group.shown.searches, group.shown.search, group.shown.amount
        rows_max = self._economics.search_appearances_max
        if rows_max and (searches.sizes > rows_max).any():
            place = np.arange(len(search)) - searches.bounds[search]  # (rows,) from 0 within the search
            outcome[(outcome == Outcome.FUNDED) & (place >= rows_max)] = Outcome.CAPPED
        max_pix = self._economics.search_amount_max_pix
        if max_pix and (searches.sums(amount) > max_pix).any():
            running = np.append(0, np.cumsum(amount))
            so_far = running[1:] - running[searches.bounds[search]]  # (rows,) of the search, with the row
            outcome[(outcome == Outcome.FUNDED) & (so_far > max_pix)] = Outcome.CAPPED

    def _refuse_seen(self, group: Group, outcome: Outcomes) -> Run:
        """Refuse appearances of segments that their viewer has seen within `repeat_after_s`.

        Returns the keys of all other appearances, as a run.
        """
        repeated, order = outcome == Outcome.FUNDED, group.by_key
        if not repeated.all():
            order = order[repeated[order]]
        rows, first_views = self._seen.sift(group.keys, group.shown.seconds[group.shown.search], order)
        repeated[rows] = False
        outcome[repeated] = Outcome.SEEN
        return first_views

    def _refuse_excess_of_day(self, group: Group, outcome: Outcomes) -> Flags:
        """Refuse what exceeds a day's cap of its viewer, network of anonymous viewers, segment or creator.

        Returns flags, (rows,): True for appearances that the cap of a segment or a creator refused. Other viewers had
        used up that cap. These appearances still count towards their own viewer's caps. If a review finds that some of
        what used up the cap does not count, they take its place, up to the cap (see `risk.review`). The cap of a
        network that many people share is never below `_worth`.
        """
        crowded = np.zeros(len(outcome), np.bool_)
        for cap in self._caps:
            funded = outcome == Outcome.FUNDED
            amounts = np.where(funded, group.shown.amount, 0)
            least = self._worth(group) if cap.kind == ORIGIN else 0
            rows = cap.excess(group.tallies[cap.kind], _subject_to(cap, group, amounts), least)
            refused = rows[funded[rows]]
            outcome[refused] = Outcome.CAPPED
            crowded[refused] = cap.kind in OF_OTHERS
        return crowded

    def _worth(self, group: Group) -> Amounts:
        """Return the least day's cap of each network, (keys,): `source_day_pix` for each of its people.

        It is 0 unless an operator has configured the network as shared by many people.
        """
        tally = group.tallies[ORIGIN]
        sources = pairs.keys_of(group.shown.origins[tally.groups.firsts, 0], tally.days)
        people = self._networks.people(sources, tally.days)
        return np.where(people > 1, people * min(self._economics.source_day_pix, SCALED_MAX), 0)

    def _spend(self, amount: Amounts, outcome: Outcomes, pool: int) -> None:
        """Fund appearances in their order until `pool` (base units of PIX) is spent; the others are unfunded."""
        candidate = outcome == Outcome.FUNDED
        running = np.cumsum(np.where(candidate, amount, 0))
        outcome[candidate & (running > pool)] = Outcome.UNFUNDED

    def _pool(self) -> int:
        return book.balance(self._connection, book.account(self._connection, "reward_pool"))

    # ── Shares ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _earned(self, group: Group, paid: Amounts, nets: Amounts, rests: Amounts, stakes: Sequence[Stake]) -> Earned:
        """Sum the parts of creators and investors per owner; the platform gets what remains of `rests`.

        `paid`, `nets` and `rests` are (rows,), in base units of PIX: an appearance's amount, the creator's part, the
        remainder.
        """
        creators = group.shown.creator[group.parts.firsts][group.creators.firsts]
        parties = {"creator": _some(creators, group.creators.sums(group.parts.sums(nets)))}
        invested = self._invested(group, rests, stakes)
        investors = sorted(invested)
        amounts = np.array([invested[investor] for investor in investors], np.int64)
        parties["investor"] = _some(np.array(investors, np.int64), amounts)
        platform = int(rests.sum()) - int(amounts.sum())
        return Earned(int(paid.sum()), platform, parties, _by_day(group, nets))

    def _stakes(self, segments: Ids) -> list[Stake]:
        """Return the stakes in these segments; `segments` ascend and may repeat."""
        any_stake = self._connection.execute("SELECT FROM ledger.segment_stakes ORDER BY segment_id LIMIT 1").fetchone()
        if any_stake is None:
            return []
        rows = self._connection.execute(
            "SELECT segment_id, array_agg(investor_id ORDER BY investor_id),"
            " array_agg(pix_invested ORDER BY investor_id)"
            " FROM ledger.segment_stakes WHERE segment_id = ANY(%s) GROUP BY segment_id",
            (segments[changes(segments)].tolist(),),
        )
        return rows.fetchall()

    def _invested(self, group: Group, rests: Amounts, stakes: Sequence[Stake]) -> dict[int, int]:
        """Return each investor's share of `rests` (rows,), in base units of PIX; every appearance is split by itself."""
        shares_pix: dict[int, int] = {}
        segments = group.shown.segment[group.parts.firsts]  # (parts,), ascending
        for segment, investors, put_in in stakes:
            first, last = np.searchsorted(segments, segment), np.searchsorted(segments, segment, "right")
            rows, _ = group.parts.rows(np.arange(first, last))
            for part, times in zip(*np.unique(rests[rows], return_counts=True), strict=True):
                shared = money.split(int(part), (PPM - self._economics.investors_share_ppm,
                                                 self._economics.investors_share_ppm))[1]  # fmt: skip
                for investor, share in zip(investors, money.split(shared, put_in), strict=True):
                    shares_pix[investor] = shares_pix.get(investor, 0) + share * int(times)
        return shares_pix

    def _pairs(self, group: Group, counting: Flags, nets: Amounts) -> Pairs:
        """Return the pairs of source and creator of the flagged rows.

        If the cap of a segment or a creator refused a row, its `gross` is its amount and its `net` is 0. The source of
        an anonymous viewer is their network, if it is known, since one person can have hundreds of cookies; the source
        of any other viewer is the viewer.
        """
        rows = np.flatnonzero(counting)
        search = group.shown.search[rows]
        shown = group.shown
        sources = np.where(shown.origins[:, 0] | shown.origins[:, 1] != 0, shown.origins[:, 0], shown.viewers[:, 0])
        viewers, days = sources[search], shown.days[search]  # (rows that count,)
        return Pairs(viewers, group.shown.creator[rows], days, group.shown.amount[rows], nets[rows])

    # ── Writing ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _write(self, group: Group, folded: Folded, earned: Earned, outcome: Outcomes) -> None:
        """Write the journal entry, the row of `ledger.folds` and the outcomes; set damaged batches aside."""
        stored = group.stored
        self._set_aside(group.read.damaged)
        entry_id = self._post(stored, folded, earned) if earned.total else None
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

    def _post(self, stored: Sequence[Stored], folded: Folded, earned: Earned) -> int:
        lines = [_lines([book.account(self._connection, "reward_pool")], [-earned.total])]
        if earned.platform:
            lines.append(_lines([book.account(self._connection, "platform")], [earned.platform]))
        for party, (owners, amounts) in earned.parties.items():
            lines.append(_lines(self._directories[party].accounts_of(self._connection, owners), amounts))
            if self._kind == "maturing":
                self._add_maturing(party, lines[-1], owners, earned)
        digest = hashlib.sha256(b"".join(each.sha256 for each in stored)).hexdigest()
        document = {"batches": folded.batches, "appearances": folded.funded, "sha256": digest}
        key = f"fold:{stored[0].incarnation}:{stored[0].seq}"
        return book.post(self._connection, book.Entry("accrual", key, np.concatenate(lines), document)).id

    def _add_maturing(self, party: str, lines: Ids, owners: Ids, earned: Earned) -> None:
        """Store when amounts mature and of which UTC days they are; `lines` is (lines, 2): account and amount."""
        accounts, amounts = lines.T
        days = np.full(len(accounts), maturing.NO_DAY)  # of investors nothing is taken back
        if party == "creator":
            creators, days, amounts = earned.by_day
            accounts = accounts[np.searchsorted(owners, creators)]
        maturing.ripen(
            self._connection, accounts, days, amounts, self._economics.maturity_s, self._economics.maturity_s
        )

    def _set_aside(self, damaged: Mapping[tuple[UUID, int], str]) -> None:
        """Log damaged batches and leave them to a person; the batches after them are folded."""
        for (incarnation, seq), why in damaged.items():
            log.error("a batch is damaged and set aside: %s", why, extra={"incarnation": str(incarnation), "seq": seq})
            self._connection.execute(
                "INSERT INTO ledger.set_aside (incarnation, seq, reason) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (incarnation, seq, why),
            )

    def _keep_outcomes(self, stored: Sequence[Stored], outcome: Outcomes, fold_id: int) -> None:
        first, outcomes = 0, memoryview(outcome.tobytes())
        query = "COPY ledger.outcomes (incarnation, seq, fold_id, outcome) FROM STDIN (FORMAT binary)"
        with self._connection.cursor().copy(query) as copy:
            copy.set_types(["uuid", "int8", "int8", "bytea"])
            for each in stored:
                copy.write_row((each.incarnation, each.seq, fold_id, outcomes[first : first + each.appearances]))
                first += each.appearances

    def _move_cursors(self, ends: Mapping[UUID, int]) -> None:
        """Move the cursors to the ends of the folded batches.

        This is the last statement before the commit, since replicas that record batches wait for these rows.
        """
        self._connection.execute(MOVED, {"ids": list(ends), "folded": list(ends.values())})


def mature(connection: Connection[Any]) -> int:
    """Move matured earnings to `payable`, the earliest buckets first, in one entry and one transaction.

    Takes `MATURED_MAX` buckets at most and commits. Returns the amount in base units of PIX; 0 when nothing has matured.
    """
    first_due = connection.execute("SELECT FROM ledger.maturing WHERE matures_at <= now() ORDER BY matures_at LIMIT 1")
    if first_due.fetchone() is None:
        connection.commit()
        return 0
    book.hold_end(connection)  # adoption after a restore takes from the same buckets
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
        owed = {(owner, account): amount for (of, owner, account), amount in sums.items() if of == party and amount}
        payable = book.accounts_of(connection, "payable", party, [owner for owner, _ in owed]) if owed else {}
        for (owner, account), amount in owed.items():
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


def _by_day(group: Group, nets: Amounts) -> tuple[Ids, Ids, Amounts]:
    """Sum net amounts, (rows,), by creator and UTC day; return creators, days and sums, without zeros."""
    tally = group.tallies["creator"]
    amounts = tally.sums(nets)
    creators = group.shown.creator[group.parts.firsts][tally.groups.firsts]
    some = amounts > 0
    return creators[some], tally.days[some].astype(np.int64), amounts[some]


def _subject_to(cap: Caps, group: Group, amounts: Amounts) -> Amounts:
    """Return `amounts`, (rows,), set to 0 in the rows that a cap does not apply to."""
    return np.where(group.shown.has_origin, amounts, 0) if cap.kind == ORIGIN else amounts


def _some(owners: Ids, amounts: Amounts) -> tuple[Ids, Amounts]:
    """Leave out owners whose amount is 0; both arrays are (owners,)."""
    some = amounts > 0
    return owners[some], amounts[some]


def _lines(accounts: Ids | Sequence[int], amounts: Amounts | Sequence[int]) -> Ids:
    """Return the lines of an entry, (lines, 2): account and amount."""
    return np.array([accounts, amounts], np.int64).T
