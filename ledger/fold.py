"""Folding: recorded batches become journal entries. Cursor, journal, balances and outcomes move in one transaction.

Each incarnation's batches are taken in order, from where its cursor stands; a gap stops that incarnation, so nothing
is skipped. Every appearance gets one outcome; those that are funded are split exactly and summed per creator. The
`reward_pool` pays for all of it and never goes below zero: when it is empty an appearance is kept, unfunded.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from ledger import book, caps, money, spool
from ledger.caps import DAY_S, Caps, Days
from ledger.money import Amounts
from ledger.review import Audience, Pairs
from ledger.seen import Flags, Seen, keys_of
from ledger.settings import PPM, Economics, LedgerSettings

log = logging.getLogger(__name__)

MATURITY_BUCKET_S = 600


class Outcome(IntEnum):
    """What became of an appearance; the byte that `ledger.outcomes` keeps."""

    FUNDED = 0
    REPEATED_KEY = 1  # the search's Idempotency-Key had been used
    SEEN = 2  # the viewer has seen this segment within 24 hours
    CAPPED = 3
    UNFUNDED = 4  # `reward_pool` was empty
    UNEARNED = 5  # earns nothing: no relevance, or an anonymous viewer


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
    """The appearances of many batches, one row each; `search` numbers the search a row belongs to."""

    search: NDArray[np.int64]
    place: NDArray[np.int64]
    segment: NDArray[np.int64]
    creator: NDArray[np.int64]
    amount: Amounts
    seconds: NDArray[np.uint32]
    viewers: NDArray[np.void]


@dataclass(frozen=True)
class Folded:
    """What one fold did."""

    batches: int
    appearances: int
    funded: int
    amount_pix: int


class Fold:
    """The accountant of appearances; one per holder of the epoch."""

    def __init__(self, connection: Connection[Any], economics: Economics, settings: LedgerSettings) -> None:
        self._connection, self._economics, self._settings = connection, economics, settings
        self._seen = Seen(economics.repeat_after_s)
        self._seen.load(connection)
        bounds = (("viewer", economics.viewer_day_max_pix), ("segment", economics.segment_day_max_pix),
                  ("creator", economics.creator_day_max_pix))  # fmt: skip
        self._caps = [Caps(kind, most_pix) for kind, most_pix in bounds]
        self.audience = Audience()
        self.audience.load(connection)
        for cap in self._caps:
            cap.load(connection)
        connection.commit()

    def run_once(self) -> Folded | None:
        """Fold what is waiting, within the limits; None when nothing is."""
        stored = waiting(self._connection, self._settings)
        if not stored:
            self._connection.commit()
            return None
        heads, shown = _decoded(stored)
        outcome = np.full(len(shown.segment), Outcome.FUNDED, np.uint8)
        self._refuse_repeated(heads, shown, outcome)
        self._refuse_excess(shown, outcome)
        keys = keys_of(shown.viewers, shown.segment)
        fresh = np.zeros(len(keys), np.bool_)
        asked = outcome == Outcome.FUNDED
        fresh[asked] = self._seen.fresh(keys[asked], shown.seconds[asked])
        outcome[asked & ~fresh] = Outcome.SEEN
        outcome[(outcome == Outcome.FUNDED) & (shown.amount == 0)] = Outcome.UNEARNED
        days = self._refuse_excess_of_day(shown, outcome)
        self._spend(shown, outcome)
        runs = self._seen.remember(self._connection, keys[fresh], shown.seconds[fresh])
        sums = self._remember_day(shown, days, outcome == Outcome.FUNDED)
        pairs = self._remember_audience(shown, days, outcome == Outcome.FUNDED)
        folded = self._write(stored, shown, outcome)
        book.commit(self._connection)
        self.audience.accept(pairs)
        self._seen.accept(runs)
        for cap, kept in zip(self._caps, sums, strict=True):
            cap.accept(kept)
        return folded

    # ── Outcomes ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _refuse_repeated(self, heads: NDArray[np.void], shown: Shown, outcome: NDArray[np.uint8]) -> None:
        """The first search with an Idempotency-Key counts; every other one with it records nothing."""
        keys = [bytes(key) for key in heads["key"]]
        named = {key: index for index, key in reversed(list(enumerate(keys))) if key != spool.NO_KEY}
        if not named:
            return
        requests = [bytes(heads["request"][index]) for index in named.values()]
        rows = self._connection.execute(
            "INSERT INTO ledger.idempotency (key, content) SELECT * FROM unnest(%s::bytea[], %s::bytea[])"
            " ON CONFLICT DO NOTHING RETURNING key",
            (list(named), requests),
        )
        first = {named[bytes(row[0])] for row in rows}
        repeated = [i for i, key in enumerate(keys) if key != spool.NO_KEY and i not in first]
        outcome[np.isin(shown.search, repeated)] = Outcome.REPEATED_KEY

    def _refuse_excess(self, shown: Shown, outcome: NDArray[np.uint8]) -> None:
        """Bounds of one search: how many appearances, and how much in all."""
        most = self._economics.search_appearances_max
        if most:
            outcome[(outcome == Outcome.FUNDED) & (shown.place >= most)] = Outcome.CAPPED
        most = self._economics.search_amount_max_pix
        if most and len(shown.amount):
            running = np.cumsum(shown.amount)
            first = np.arange(len(shown.place)) - shown.place  # row of the search's first appearance
            within = running - (running - shown.amount)[first]
            outcome[(outcome == Outcome.FUNDED) & (within > most)] = Outcome.CAPPED

    def _refuse_excess_of_day(self, shown: Shown, outcome: NDArray[np.uint8]) -> Days:
        """Bounds of a UTC day, for each viewer, segment and creator; the days of the appearances are returned."""
        days = (shown.seconds // DAY_S).astype(np.uint16)
        for cap in self._caps:
            asked = np.flatnonzero(outcome == Outcome.FUNDED)
            keys = caps.keys_of(_subjects(shown, cap.kind)[asked], days[asked])
            outcome[asked[~cap.within(keys, shown.amount[asked])]] = Outcome.CAPPED
        return days

    def _remember_day(self, shown: Shown, days: Days, funded: Flags) -> list[list[caps.Run]]:
        return [
            cap.remember(
                self._connection,
                caps.keys_of(_subjects(shown, cap.kind)[funded], days[funded]),
                days[funded],
                shown.amount[funded],
            )
            for cap in self._caps
        ]

    def _remember_audience(self, shown: Shown, days: Days, funded: Flags) -> list[Pairs]:
        gross = shown.amount[funded]
        net, _ = money.split_many(gross, self._economics.creator_share_ppm)
        halves = np.ascontiguousarray(shown.viewers[funded]).view("<u8").reshape(-1, 2)
        return self.audience.remember(
            self._connection, Pairs(halves[:, 0], shown.creator[funded], days[funded], gross, net)
        )

    def _spend(self, shown: Shown, outcome: NDArray[np.uint8]) -> None:
        """First come, first funded, until the pool is empty."""
        pool = book.balance(self._connection, book.account(self._connection, "reward_pool"))
        candidate = outcome == Outcome.FUNDED
        running = np.cumsum(np.where(candidate, shown.amount, 0))
        outcome[candidate & (running > pool)] = Outcome.UNFUNDED

    # ── Writing ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _write(self, stored: Sequence[Stored], shown: Shown, outcome: NDArray[np.uint8]) -> Folded:
        funded = outcome == Outcome.FUNDED
        total = int(shown.amount[funded].sum())
        entry_id = self._post(stored, shown, funded, total) if total else None
        unfunded = int((outcome == Outcome.UNFUNDED).sum())
        with book.refusals():
            row = self._connection.execute(
                "INSERT INTO ledger.folds (entry_id, batches, appearances, funded, unfunded, amount_pix)"
                " VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
                (entry_id, len(stored), len(outcome), int(funded.sum()), unfunded, total),
            ).fetchone()
        assert row is not None
        self._keep_outcomes(stored, outcome, row[0])
        self._move_cursors(stored)
        if unfunded:
            log.warning("reward_pool is empty", extra={"unfunded": unfunded})
        return Folded(len(stored), len(outcome), int(funded.sum()), total)

    def _post(self, stored: Sequence[Stored], shown: Shown, funded: Flags, total: int) -> int:
        earned, platform = self._shares(shown, funded)
        kind = "maturing" if self._economics.maturity_s else "payable"
        lines = [(book.account(self._connection, "reward_pool"), -total)]
        if platform:
            lines.append((book.account(self._connection, "platform"), platform))
        for party, (owners, amounts) in earned.items():
            known = book.accounts_of(self._connection, kind, party, [int(owner) for owner in owners])
            added = [(known[int(o)], int(a)) for o, a in zip(owners, amounts, strict=True) if a]
            lines += added
            if kind == "maturing":
                self._ripen(added)
        digest = hashlib.sha256(b"".join(each.sha256 for each in stored)).hexdigest()
        document = {"batches": len(stored), "appearances": int(funded.sum()), "sha256": digest}
        first = stored[0]
        key = f"fold:{first.incarnation}:{first.seq}"
        return book.post(self._connection, book.Entry("accrual", key, lines, document)).id

    def _shares(self, shown: Shown, funded: Flags) -> tuple[dict[str, tuple[NDArray[np.int64], Amounts]], int]:
        """Creators' and investors' parts, summed per owner, and the platform's."""
        creators, rest = money.split_many(shown.amount[funded], self._economics.creator_share_ppm)
        earned = {"creator": _summed(shown.creator[funded], creators)}
        platform = int(rest.sum())
        invested = self._invested(shown.segment[funded], rest)
        if invested:
            owners = np.array(list(invested), np.int64)
            amounts = np.array(list(invested.values()), np.int64)
            earned["investor"] = (owners, amounts)
            platform -= int(amounts.sum())
        return earned, platform

    def _invested(self, segments: NDArray[np.int64], rest: Amounts) -> dict[int, int]:
        """Investors' part of the platform's, appearance by appearance, for the segments that have any."""
        rows = self._connection.execute(
            "SELECT segment_id, array_agg(investor_id ORDER BY investor_id),"
            " array_agg(pix_invested ORDER BY investor_id)"
            " FROM ledger.segment_stakes GROUP BY segment_id"
        ).fetchall()
        found: dict[int, int] = {}
        for segment, investors, stakes in rows:
            for part in rest[segments == segment]:
                shared = money.split(int(part), (PPM - self._economics.investors_share_ppm,
                                                 self._economics.investors_share_ppm))[1]  # fmt: skip
                for investor, share in zip(investors, money.split(shared, stakes), strict=True):
                    found[investor] = found.get(investor, 0) + share
        return {investor: amount for investor, amount in found.items() if amount}

    def _ripen(self, lines: Sequence[tuple[int, int]]) -> None:
        self._connection.execute(
            "INSERT INTO ledger.maturing AS m (account_id, matures_at, amount_pix)"
            " SELECT account, to_timestamp(ceil((extract(epoch FROM now()) + %s) / %s) * %s), amount"
            " FROM unnest(%s::bigint[], %s::bigint[]) AS t (account, amount)"
            " ON CONFLICT (account_id, matures_at) DO UPDATE SET amount_pix = m.amount_pix + excluded.amount_pix",
            (self._economics.maturity_s, MATURITY_BUCKET_S, MATURITY_BUCKET_S, *map(list, zip(*lines, strict=True))),
        )

    def _keep_outcomes(self, stored: Sequence[Stored], outcome: NDArray[np.uint8], fold_id: int) -> None:
        at = 0
        with self._connection.cursor().copy(
            "COPY ledger.outcomes (incarnation, seq, fold_id, outcome) FROM STDIN"
        ) as copy:
            for each in stored:
                copy.write_row((each.incarnation, each.seq, fold_id, outcome[at : at + each.appearances].tobytes()))
                at += each.appearances

    def _move_cursors(self, stored: Sequence[Stored]) -> None:
        ends = {each.incarnation: each.seq + each.searches for each in stored}
        self._connection.execute(
            "UPDATE ledger.incarnations i SET folded = t.folded"
            " FROM unnest(%s::uuid[], %s::bigint[]) AS t (id, folded) WHERE i.id = t.id",
            (list(ends), list(ends.values())),
        )


def waiting(connection: Connection[Any], settings: LedgerSettings) -> list[Stored]:
    """Batches that were recorded and not folded, each incarnation's in order and without a gap."""
    rows = connection.execute(
        "SELECT i.id, i.folded, b.seq, b.searches, b.appearances, b.format, b.payload, b.sha256"
        " FROM ledger.incarnations i, LATERAL (SELECT * FROM ledger.appearance_batches b"
        "   WHERE b.incarnation = i.id AND b.seq >= i.folded ORDER BY b.seq LIMIT %s) b"
        " WHERE i.folded < i.recorded ORDER BY i.started_at, i.id, b.seq LIMIT %s",
        (settings.fold_batches_max, settings.fold_batches_max),
    )
    found: list[Stored] = []
    expected: dict[UUID, int] = {}
    count = 0
    for number, folded, seq, searches, appearances, form, payload, sha256 in rows:
        if seq != expected.get(number, folded) or count > settings.fold_appearances_max:
            continue
        expected[number] = seq + searches
        count += appearances
        found.append(Stored(number, seq, searches, appearances, form, bytes(payload), bytes(sha256)))
    return found


def mature(connection: Connection[Any]) -> int:
    """Make payable what has matured; returns the amount. One entry, one transaction."""
    rows = connection.execute(
        "SELECT m.account_id, a.party, a.owner, sum(m.amount_pix)::bigint, max(m.matures_at)"
        " FROM ledger.maturing m JOIN ledger.accounts a ON a.id = m.account_id WHERE m.matures_at <= now()"
        " GROUP BY m.account_id, a.party, a.owner ORDER BY m.account_id LIMIT 10000"
    ).fetchall()
    if not rows:
        connection.commit()
        return 0
    lines: list[tuple[int, int]] = []
    for party in ("creator", "investor"):
        owners = [row[2] for row in rows if row[1] == party]
        payable = book.accounts_of(connection, "payable", party, owners) if owners else {}
        for account, _, owner, amount, _ in (row for row in rows if row[1] == party and row[3]):
            lines += [(account, -amount), (payable[owner], amount)]
    if lines:
        newest = max(row[4] for row in rows)
        last = connection.execute("SELECT entry_id FROM ledger.chain_head").fetchone()
        assert last is not None
        book.post(connection, book.Entry("maturity", f"mature:{last[0]}", lines, {"until": newest.isoformat()}))
    connection.execute(
        "DELETE FROM ledger.maturing m USING unnest(%s::bigint[], %s::timestamptz[]) AS t (id, until)"
        " WHERE m.account_id = t.id AND m.matures_at <= t.until",
        ([row[0] for row in rows], [row[4] for row in rows]),
    )
    book.commit(connection)
    return sum(amount for _, amount in lines if amount > 0)


def _decoded(stored: Sequence[Stored]) -> tuple[NDArray[np.void], Shown]:
    parts = [spool.unpack(each.payload, each.format) for each in stored]
    heads = np.concatenate([head for head, _ in parts])
    rows = np.concatenate([body for _, body in parts])
    counts = heads["count"].astype(np.int64)
    search = np.repeat(np.arange(len(heads)), counts)
    starts = np.cumsum(counts) - counts
    shown = Shown(
        search=search,
        place=np.arange(len(rows)) - np.repeat(starts, counts),
        segment=rows["segment_id"].astype(np.int64),
        creator=rows["creator_id"].astype(np.int64),
        amount=rows["amount_pix"].astype(np.int64),
        seconds=np.repeat((heads["at_ms"] // 1000).astype(np.uint32), counts),
        viewers=np.repeat(heads["viewer"], counts),
    )
    return heads, shown


def _subjects(shown: Shown, kind: str) -> NDArray[Any]:
    return {"viewer": shown.viewers, "segment": shown.segment, "creator": shown.creator}[kind]


def _summed(owners: NDArray[np.int64], amounts: Amounts) -> tuple[NDArray[np.int64], Amounts]:
    """Amounts summed per owner, in exact integers."""
    unique, inverse = np.unique(owners, return_inverse=True)
    sums = np.zeros(len(unique), np.int64)
    np.add.at(sums, inverse, amounts)
    return unique, sums
