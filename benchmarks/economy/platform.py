"""The platform of an economy: the ledger's own code over a database, on a clock that the economy moves.

Searches become batches as replicas record them. The fold, the bounds, the review, the holds and the choice of due
creators are the real ones, and the ledger is restarted now and then. Only the chain is left out: a payout that is due
is made at once. Everything follows from the seed, even the ids of replicas.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection, sql

from ledger.accrual.caps import DAY_S
from ledger.accrual.fold import Fold, Outcome, mature
from ledger.appearances import spool
from ledger.appearances.appearances import Hashes, parameters
from ledger.creators import wallets
from ledger.journal import book
from ledger.payouts import owed
from ledger.risk import stops
from ledger.risk.review import FAN_IN, review
from ledger.settings import PPM, Economics, LedgerSettings
from ledger.solana.localnet import inside

Ids = NDArray[np.int64]
Bytes = NDArray[np.uint8]

HONEST = 0  # whose searches a batch holds: everybody's who is no farm
REPLICAS = 3
POOL_PIX = 10**15
DUE_MAX = 100_000
BEFORE_S = 2_700  # a batch holds the searches of the time before it, which is less than replicas are believed
# `now()` of the economy: found before the real one by sessions, columns' defaults and functions alike.
CLOCK = """
    CREATE SCHEMA IF NOT EXISTS economy;
    GRANT USAGE ON SCHEMA economy TO PUBLIC;
    CREATE OR REPLACE FUNCTION economy.now() RETURNS timestamptz LANGUAGE sql STABLE AS $$
        SELECT coalesce(nullif(current_setting('economy.now', true), '')::timestamptz, pg_catalog.now()) $$;
    CREATE OR REPLACE FUNCTION economy.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
        $$ SELECT economy.now() $$"""
DEFAULTS = """
    SELECT format('ALTER TABLE %s ALTER %I SET DEFAULT economy.now()', c.oid::regclass, a.attname)
    FROM pg_attrdef d JOIN pg_class c ON c.oid = d.adrelid
    JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
    WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind IN ('r', 'p')
      AND pg_get_expr(d.adbin, d.adrelid) ~ '^(pg_catalog\\.)?(now|clock_timestamp)\\(\\)$'"""
FUNCTIONS = """
    SELECT format('ALTER FUNCTION %s SET search_path = economy, pg_catalog, pg_temp', p.oid::regprocedure)
    FROM pg_proc p, unnest(p.proconfig) AS setting
    WHERE p.pronamespace = 'ledger'::regnamespace AND setting LIKE 'search_path=%'"""
TABLES = """
    SELECT c.relname FROM pg_class c
    WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind = 'r' ORDER BY c.relname"""
NUMBERED = """
    SELECT column_name FROM information_schema.columns
    WHERE table_schema = 'ledger' AND table_name = %s AND is_identity = 'YES'"""
# What was folded is read no more: without it a world of millions of searches stays small.
FOLDED = "TRUNCATE ledger.appearance_batches, ledger.outcomes, ledger.set_aside"
SETTLED = """
    SELECT c.id, coalesce(a.balance, 0),
           CASE WHEN bool_or(h.partial) THEN ledger.withheld(c.id) ELSE 0 END, coalesce(bool_or(NOT h.partial), false)
    FROM unnest(%s::bigint[]) WITH ORDINALITY AS c (id, place)
    LEFT JOIN ledger.accounts a ON (a.kind, a.party, a.owner, a.asset) = ('payable', 'creator', c.id, 'PIX')
    LEFT JOIN ledger.holds h ON h.creator_id = c.id AND h.released_at IS NULL
    GROUP BY c.id, c.place, a.balance ORDER BY c.place"""
RECORDED = """
    INSERT INTO ledger.appearance_batches
        (incarnation, seq, searches, appearances, format, payload, sha256, adopted, recorded_at)
    VALUES (%(incarnation)s, %(seq)s, %(searches)s, %(appearances)s, %(format)s, %(payload)s, %(sha256)s, %(adopted)s,
            to_timestamp(%(at_s)s))"""


class FixedHashes(Hashes):
    """Keyed hashes of viewers under a key that follows from the economy's seed."""

    def __init__(self, seed: int, *, has_networks: bool = True) -> None:
        """Derive the key; without `has_networks`, replicas do not know addresses."""
        self._secret = hashlib.sha256(f"economy {seed}".encode()).digest()
        self._has_networks = has_networks

    def origin(self, prefix: str, at_s: float | None = None) -> bytes:
        return super().origin(prefix, at_s) if self._has_networks else spool.NO_ORIGIN


@dataclass(frozen=True)
class Searches:
    """Searches in arrays: one row each, and their appearances one after another."""

    viewers: Bytes  # (searches, 16)
    origins: Bytes  # (searches, 16), zero for who has a key
    keys: Bytes  # (searches, 16), zero without an Idempotency-Key
    counts: Ids
    segments: Ids
    creators: Ids
    amounts: Ids
    skew_ms: int = 0  # how far the replica's clock is ahead

    def __len__(self) -> int:
        return len(self.counts)

    def where(self, chosen: NDArray[np.bool_]) -> Searches:
        """Return the searches that are flagged in `chosen`, (searches,)."""
        rows = np.repeat(chosen, self.counts)
        return replace(
            self, viewers=self.viewers[chosen], origins=self.origins[chosen], keys=self.keys[chosen],
            counts=self.counts[chosen], segments=self.segments[rows], creators=self.creators[rows],
            amounts=self.amounts[rows],
        )  # fmt: skip


@dataclass
class Sent:
    """The worth of the appearances that a party has sent for its own creators, in base units of PIX, by their outcome."""

    creators: Ids
    by_outcome: dict[Outcome, int] = field(default_factory=dict)

    @property
    def worth(self) -> int:
        """The worth of all these appearances together, in base units of PIX, paid or not."""
        return sum(self.by_outcome.values())


class Platform:
    """One ledger, from its first day on. Not for several threads."""

    def __init__(self, connection: Connection[Any], economics: Economics, seed: int, start_day: int) -> None:
        self._connection, self.economics = connection, economics
        self.sent: dict[int, Sent] = {}
        self.received: dict[int, int] = {}  # by creator, what has left `payable` for them
        self.now_s = start_day * DAY_S
        self._rng = np.random.default_rng([seed, 6])
        empty(connection)
        book.take_epoch(connection, "economy")  # by the real clock: the fence's guard knows no other
        self.pass_to(self.now_s)
        lines = [(book.account(connection, "chain"), -POOL_PIX), (book.account(connection, "reward_pool"), POOL_PIX)]
        book.post(connection, book.Entry("deposit", "deposit", lines))
        self._replicas: list[tuple[UUID, int]] = [(self._incarnation(), 0) for _ in range(REPLICAS)]
        book.commit(connection)
        self._fold = Fold(connection, economics, LedgerSettings())

    def restart(self) -> None:
        """Replace the fold by a new one, which knows only what the database has kept."""
        self._fold.close()
        self._fold = Fold(self._connection, self.economics, LedgerSettings())

    def forget_folded(self) -> None:
        """Delete the batches that were folded and their outcomes."""
        self._connection.execute("SET session_replication_role = replica")
        self._connection.execute(FOLDED)
        self._connection.execute("SET session_replication_role = DEFAULT")
        self._connection.commit()

    def pass_to(self, at_s: int) -> None:
        """Set the clock to a time in seconds since 1970."""
        self.now_s = at_s
        moment = datetime.fromtimestamp(at_s, UTC).isoformat()
        self._connection.execute("SELECT set_config('economy.now', %s, false)", (moment,))
        self._connection.commit()

    def sign_up(self, creators: Sequence[int]) -> None:
        """Give each of these creators a wallet."""
        with self._connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO ledger.wallets (creator_id, wallet, set_by) VALUES (%s, %s, 'creator')",
                [(creator, _wallet(creator, 0)) for creator in creators],
            )
        self._connection.commit()

    # ── What is shown ──────────────────────────────────────────────────────────────────────────────────────────────

    def show(self, shown: Sequence[tuple[int, Searches]], rng: np.random.Generator) -> None:
        """Record searches (each party's are spread over all replicas), then let the ledger fold and do its round."""
        parts = [(party, part) for party, searches in shown for part in self._parts(searches, rng)]
        kept = [(party, part, *self._record(part, rng)) for party, part in parts]
        while self._fold.run_once() is not None:
            pass
        self.do_round()
        for party, part, incarnation, seq in kept:
            self._note(party, part, incarnation, seq)
        self._connection.commit()

    def do_round(self) -> None:
        """Run the review and let earnings mature, as the ledger does between folds."""
        review(self._connection, self._fold.audience, self.economics)
        while mature(self._connection):
            pass

    def _parts(self, searches: Searches, rng: np.random.Generator) -> list[Searches]:
        """Split searches over the replicas; those with a clock of their own (`skew_ms`) all go to one replica."""
        if searches.skew_ms or len(searches) < REPLICAS:
            return [searches]
        over = rng.integers(0, REPLICAS, len(searches))
        return [searches.where(over == which) for which in range(REPLICAS)]

    def _record(self, searches: Searches, rng: np.random.Generator) -> tuple[UUID, int]:
        which = int(rng.integers(0, REPLICAS))
        incarnation, seq = self._replicas[which]
        if not len(searches):
            return incarnation, -1
        at_ms = (self.now_s - rng.integers(1, BEFORE_S, len(searches))) * 1000 + searches.skew_ms
        values = parameters(incarnation, seq, _batch(searches, np.sort(at_ms))) | {"at_s": self.now_s}
        self._connection.execute(RECORDED, values)
        self._connection.execute(
            "UPDATE ledger.incarnations SET recorded = recorded + %s WHERE id = %s", (len(searches), incarnation)
        )
        self._connection.commit()
        self._replicas[which] = incarnation, seq + len(searches)
        return incarnation, seq

    def _note(self, party: int, searches: Searches, incarnation: UUID, seq: int) -> None:
        if seq < 0 or party not in self.sent:
            return
        sent = self.sent[party]
        row = self._connection.execute(
            "SELECT outcome FROM ledger.outcomes WHERE incarnation = %s AND seq = %s", (incarnation, seq)
        ).fetchone()
        assert row is not None
        outcomes = np.frombuffer(row[0], np.uint8)
        own = np.isin(searches.creators, sent.creators)
        for outcome in Outcome:
            some = int(searches.amounts[own & (outcomes == outcome)].sum())
            sent.by_outcome[outcome] = sent.by_outcome.get(outcome, 0) + some

    def _incarnation(self) -> UUID:
        number = UUID(bytes=self._rng.bytes(16), version=4)
        self._connection.execute(
            "INSERT INTO ledger.incarnations (id, spool, started_at) VALUES (%s, 'economy', to_timestamp(%s))",
            (number, self.now_s),
        )
        return number

    # ── What is paid ───────────────────────────────────────────────────────────────────────────────────────────────

    def pay(self) -> None:
        """Pay everything that is due at once, as if the transfers had landed."""
        due = owed.due(self._connection, self.economics, "economy", DUE_MAX)
        if due:
            total = sum(each.amount_pix for each in due)
            lines = [(each.account_id, -each.amount_pix) for each in due]
            lines.append((book.account(self._connection, "in_flight"), total))
            book.post(self._connection, book.Entry("payout", f"payout:{self.now_s}", lines))
        book.commit(self._connection)
        for each in due:
            self.received[each.creator_id] = self.received.get(each.creator_id, 0) + each.amount_pix

    def change_wallet(self, creator: int, number: int) -> None:
        wallets.change(self._connection, self.economics, creator, _wallet(creator, number), "creator")
        self._connection.commit()

    def release(self, creators: Sequence[int]) -> int:
        """Release the holds of these creators, as a person does whom a farm has deceived; return how many there were."""
        held = [each for each in stops.in_force(self._connection) if each.creator_id in creators]
        for each in held:
            stops.release(self._connection, each.name, "a person")
        self._connection.commit()
        return len(held)

    def believe(self, creators: Sequence[int]) -> None:
        """Release these creators' holds after a person has looked at their audience and believes it.

        A partial hold for suspected fan-in (`FAN_IN`) is placed and released, so that the review trusts the creator for
        a while.
        """
        stops.hold_in_part(self._connection, creators, FAN_IN)
        self.release(creators)

    def settled(self, creators: Sequence[int]) -> NDArray[np.int64]:
        """Return the final earnings of each of these creators, in base units of PIX: received, or payable and not withheld.

        Maturing earnings are left out, since they may still be taken back.
        """
        rows = self._connection.execute(SETTLED, ([int(creator) for creator in creators],)).fetchall()
        self._connection.commit()
        return np.array(
            [
                self.received.get(creator, 0) + (0 if is_held else max(0, payable - withheld))
                for creator, payable, withheld, is_held in rows
            ],
            np.int64,
        )

    def held(self) -> tuple[set[int], set[int]]:
        """Return the creators with a hold in force, as two sets: first those who are paid nothing, then those paid a part."""
        rows = self._connection.execute(
            "SELECT creator_id, partial FROM ledger.holds WHERE released_at IS NULL"
        ).fetchall()
        self._connection.commit()
        return {creator for creator, partial in rows if not partial}, {creator for creator, partial in rows if partial}

    def taken_back(self) -> dict[int, int]:
        """Return what was taken back from each creator, in base units of PIX."""
        rows = self._connection.execute(
            "SELECT creator_id, sum(reversed_pix)::bigint FROM ledger.suspicions GROUP BY creator_id ORDER BY creator_id"
        ).fetchall()
        self._connection.commit()
        return dict(rows)


def prepare(connection: Connection[Any]) -> None:
    """Prepare a database once: replace its clock, keep a copy of the rows that migrations have left, and set up the session."""
    connection.execute(CLOCK)
    for query in (DEFAULTS, FUNCTIONS):
        for (statement,) in connection.execute(query).fetchall():
            connection.execute(statement)
    for (table,) in connection.execute(TABLES).fetchall():
        connection.execute(
            sql.SQL("CREATE TABLE IF NOT EXISTS {} AS SELECT * FROM {}").format(
                sql.Identifier("economy", f"first_{table}"), sql.Identifier("ledger", table)
            )
        )
    connection.execute("SET search_path = economy, pg_catalog")
    connection.execute("SET synchronous_commit = off")
    connection.commit()


def empty(connection: Connection[Any]) -> None:
    """Empty the ledger's tables except for the rows that migrations make.

    Triggers forbid this; they are switched off only here.
    """
    connection.rollback()
    connection.execute("SELECT set_config('economy.now', '', false)")
    connection.execute("SET session_replication_role = replica")
    tables = [table for (table,) in connection.execute(TABLES).fetchall()]
    named = sql.SQL(", ").join(sql.Identifier("ledger", table) for table in tables)
    connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY").format(named))
    for table in tables:
        first, own = sql.Identifier("economy", f"first_{table}"), sql.Identifier("ledger", table)
        count = connection.execute(
            sql.SQL("INSERT INTO {} OVERRIDING SYSTEM VALUE SELECT * FROM {}").format(own, first)
        ).rowcount
        if count:
            _number_on(connection, table)
    connection.execute("SET session_replication_role = DEFAULT")
    connection.commit()


def _number_on(connection: Connection[Any], table: str) -> None:
    """Set a table's sequences, so that its next row gets the number after the largest one stored."""
    for (column,) in connection.execute(NUMBERED, (table,)).fetchall():
        connection.execute(
            sql.SQL("SELECT setval(pg_get_serial_sequence({}, {}), max({})) FROM {}").format(
                sql.Literal(f"ledger.{table}"), sql.Literal(column), sql.Identifier(column),
                sql.Identifier("ledger", table),
            )
        )  # fmt: skip


def _batch(searches: Searches, at_ms: Ids) -> spool.AppearanceBatch:
    heads = np.zeros(len(searches), spool.SEARCH)
    for name in ("viewer", "origin", "key"):
        heads[name] = np.ascontiguousarray(getattr(searches, f"{name}s")).view("V16").reshape(-1)
    heads["at_ms"], heads["count"] = at_ms, searches.counts
    rows = np.zeros(len(searches.segments), spool.SHOWN)
    rows["segment_id"], rows["creator_id"] = searches.segments, searches.creators
    rows["relevance_ppm"], rows["amount_pix"] = np.minimum(searches.amounts * 1000, PPM), searches.amounts
    payload = spool.HEAD.pack(len(heads), len(rows)) + heads.tobytes() + rows.tobytes()
    return spool.AppearanceBatch(len(heads), len(rows), payload)


def _wallet(creator: int, number: int) -> str:
    return str(inside.Key(f"creator {creator} {number}").pubkey)
