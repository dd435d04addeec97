"""One seed's world: a chain, its nodes, a ledger that is killed and started, and the count of what is true at the end."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
from psycopg import Connection

from cluster.errors import Temporary
from ledger import adoption, book
from ledger.book import Fenced
from ledger.chain import RpcRefusal
from ledger.payouts import Payouts
from ledger.reconcile import reconcile
from tests.ledger.chains import EAGER, FINAL_BLOCKS, Rig, new_chain
from tests.ledger.simulator.nodes import CALM, Node
from tests.ledger.snapshots import Snapshot

ROUNDS = 30
QUIET_ROUNDS_MAX = 60
CREATORS = 4
CRASH = 0.004
DATABASE_FAULT = 0.004
RESTORING = 0.3  # of the worlds
SNAPSHOT, RESTORE = 0.15, 0.06  # a round of those
SNAPSHOTS_MAX = 3

# `now()` of the simulated ledger: found before the real one, so that clocks can be made to jump.
CLOCK = """
    CREATE SCHEMA IF NOT EXISTS sim;
    CREATE OR REPLACE FUNCTION sim.now() RETURNS timestamptz LANGUAGE sql STABLE AS
        $$ SELECT current_setting('sim.now')::timestamptz $$;"""


class Crash(BaseException):
    """The process ends here."""


def prepare(connection: Connection[Any]) -> None:
    """Once a database: the clock, and a session that does not wait for the disk."""
    connection.execute(CLOCK)
    connection.execute("SET search_path = sim, pg_catalog")
    connection.execute("SET synchronous_commit = off")
    connection.commit()


def clear(connection: Connection[Any]) -> None:
    """An empty ledger, as the migrations leave it. Only here are the triggers that forbid this switched off."""
    connection.rollback()
    tables = connection.execute(
        "SELECT string_agg(format('DELETE FROM ledger.%I', c.relname), ';') FROM pg_catalog.pg_class c"
        " WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind = 'r' AND c.relname NOT IN ('fence', 'chain_head')"
    ).fetchone()
    sequences = connection.execute(
        "SELECT string_agg(format('ALTER SEQUENCE ledger.%I RESTART', c.relname), ';') FROM pg_catalog.pg_class c"
        " WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind = 'S'"
    ).fetchone()
    assert tables is not None
    assert sequences is not None
    connection.execute("SET session_replication_role = replica")
    connection.execute(tables[0])
    connection.execute(sequences[0])
    connection.execute(
        "UPDATE ledger.chain_head SET entry_id = 0, hash = decode(repeat('00', 32), 'hex');"
        "UPDATE ledger.fence SET epoch = 0, owner = '';"
        "INSERT INTO ledger.accounts (kind, asset) VALUES ('chain', 'PIX'), ('chain', 'SOL'), ('reward_pool', 'PIX'),"
        " ('in_flight', 'PIX'), ('platform', 'PIX'), ('platform', 'SOL');"
        "INSERT INTO ledger.owed_least DEFAULT VALUES; INSERT INTO ledger.stakes_version DEFAULT VALUES"
    )
    connection.execute("SET session_replication_role = DEFAULT")
    connection.commit()


class Shaky:
    """A connection that may be lost at any statement, before a commit and after it."""

    def __init__(self, connection: Connection[Any], rng: random.Random, step: Callable[[], None]) -> None:
        self._connection, self._rng, self._step = connection, rng, step
        self.faults = DATABASE_FAULT
        self._blocks = 0

    def execute(self, *arguments: Any) -> Any:
        self._step()
        self._maybe_lose()
        return self._connection.execute(*arguments)

    def commit(self) -> None:
        self._step()
        self._maybe_lose()
        self._connection.commit()
        self._maybe_lose()  # it was committed, and nobody was told
        self._step()

    def rollback(self) -> None:
        self._connection.rollback()

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """A connection that is lost within loses what was begun before, too."""
        try:
            with self._connection.transaction() as block:
                self._blocks += 1
                try:
                    yield block
                finally:
                    self._blocks -= 1
        except psycopg.OperationalError:
            if not self._blocks:
                self._connection.rollback()
            raise

    def _maybe_lose(self) -> None:
        if self._rng.random() < self.faults:
            if not self._blocks:
                self._connection.rollback()
            raise psycopg.OperationalError("server closed the connection unexpectedly")


@dataclass(frozen=True)
class Outcome:
    """What one seed came to, in payments and units."""

    seed: int
    payouts: int
    double: int
    phantom: int
    lost_units: int
    stuck: int
    frozen: bool
    crashes: int
    expired: int

    @property
    def ok(self) -> bool:
        return not (self.double or self.phantom or self.lost_units or self.stuck)


class World:
    """Runs one seed."""

    def __init__(
        self,
        connection: Connection[Any],
        seed: int,
        protocol: type[Payouts] = Payouts,
        *,
        markers: bool | None = None,
        restoring: bool | None = None,
    ) -> None:
        self.seed, self.protocol = seed, protocol
        self.rng = random.Random(seed)
        self.connection = connection
        self.hostile = False
        self.crashes = 0
        self.clock = datetime(2026, 11, 1, 12, tzinfo=UTC)
        clear(connection)
        self._tick(timedelta())
        self.epoch = book.take_epoch(connection, "sim")
        chain = new_chain(seed.to_bytes(8, "big"))
        marked = self.rng.random() < 0.7 if markers is None else markers
        liars = self.rng.choice((1, 2) if marked else (1,)) if self.rng.random() < 0.35 else 0
        count = 3 if liars else self.rng.randint(1, 3)
        self.nodes = [Node(f"node {i}", chain, self.rng, self._step, liar=i < liars) for i in range(count)]
        self.rng.shuffle(self.nodes)
        for node in self.nodes:
            node.weather = CALM
        settings = replace(EAGER, marker_accounts=marked, batches_live_max=6)
        self.fate = random.Random(f"restores of {seed}")
        self.is_restoring = liars < 2 and (self.fate.random() < RESTORING if restoring is None else restoring)
        self.snapshots: list[tuple[Snapshot, dict[int, int]]] = []
        self.restores, self.agreed = 0, True
        self.rig = Rig(connection, chain, self.nodes, settings=settings)
        self.earned = dict.fromkeys(range(1, CREATORS + 1), 0)
        self.ever = dict(self.earned)  # with what a restore has made the journal forget
        for creator in self.earned:
            self.rig.creator(creator, 0, account=self.rng.random() < 0.8)
            self._earn(creator)
        self.shaky = Shaky(connection, self.rng, self._step)
        self.payouts = self._start()

    def run(self) -> Outcome:
        self._storm(True)
        for _ in range(ROUNDS):
            self._nature()
            self._go_back_maybe()
            self._guarded(self._work)
        self._storm(False)
        for creator in self.earned:
            self._freeze_account(creator, False)
        for _ in range(QUIET_ROUNDS_MAX):
            self._advance(FINAL_BLOCKS)
            self._guarded(self._work)
            if self._quiet():
                break
        self._advance(FINAL_BLOCKS)
        found = self._outcome()
        self.rig.rpc.close()
        return found

    # ── The ledger's process ───────────────────────────────────────────────────────────────────────────────────────

    def _start(self) -> Payouts:
        return self.protocol(self.shaky, self.rig.rpc, self.rig.treasury, self.rig.economics, self.rig.settings)  # type: ignore[arg-type]

    def _work(self) -> None:
        self.payouts.run_once(plan=self.agreed)
        if self.hostile and self.rng.random() >= 0.3:
            return
        adopt = partial(adoption.adopt, self.payouts)
        adoption.retry(self.payouts)
        finding = reconcile(self.shaky, self.rig.rpc, self.rig.treasury, adopt)  # type: ignore[arg-type]
        adoption.end(self.payouts, finding)
        self.agreed = finding.ok if finding.conclusive else self.agreed

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Crash:
            self.crashes += 1
            self.connection.rollback()
            zombie, before = self.payouts, self.epoch
            self.epoch = book.take_epoch(self.connection, "sim")
            self.payouts = self._start()
            if self.rng.random() < 0.3:
                self._haunt(zombie, before)
        except (Temporary, RpcRefusal, psycopg.OperationalError):
            self.connection.rollback()
        finally:
            self.connection.rollback()

    def _haunt(self, zombie: Payouts, epoch: int) -> None:
        """The old process was only slow: it goes on, and the database refuses whatever it wants to write."""
        book.hold_epoch(self.connection, epoch)
        before = self.rig.rows("SELECT count(*) FROM ledger.entries")
        with suppress(Fenced, Temporary, RpcRefusal, psycopg.OperationalError, Crash):
            zombie.run_once()
        self.connection.rollback()
        assert self.rig.rows("SELECT count(*) FROM ledger.entries") == before, "a zombie wrote"
        book.hold_epoch(self.connection, self.epoch)

    def _step(self) -> None:
        if self.hostile and self.rng.random() < CRASH:
            raise Crash

    def _go_back_maybe(self) -> None:
        """The database is restored to an earlier moment; the chain and whatever is on its way to it go on."""
        if not self.is_restoring:
            return
        if self.fate.random() < SNAPSHOT:
            self.snapshots = [*self.snapshots[1 - SNAPSHOTS_MAX :], (Snapshot(self.connection), dict(self.earned))]
        if not self.snapshots or self.fate.random() >= RESTORE:
            return
        snapshot, self.earned = self.fate.choice(self.snapshots)
        self.earned = dict(self.earned)
        zombie, before = self.payouts, self.epoch
        snapshot.bring_back(self.connection)
        adoption.begin(self.connection, {"by": "the simulation"})
        self.epoch = book.take_epoch(self.connection, "sim")
        self.payouts, self.agreed = self._start(), False
        self.restores += 1
        if self.fate.random() < 0.5:
            self._haunt(zombie, before)

    # ── Everything else ────────────────────────────────────────────────────────────────────────────────────────────

    def _storm(self, on: bool) -> None:
        self.hostile = on
        self.shaky.faults = DATABASE_FAULT if on else 0.0
        for node in self.nodes:
            node.weather = node.storm if on else CALM

    def _nature(self) -> None:
        luck = self.rng.random()
        self._advance(self.rng.randint(60, 190) if luck < 0.25 else self.rng.randint(0, 12))
        if self.rng.random() < 0.12:
            for transaction in self.rig.chain.abandon(self.rng.randint(1, 20)):
                if self.rng.random() < 0.5:
                    self.rig.chain.enqueue(transaction)
        if self.rng.random() < 0.15:
            self._earn(self.rng.choice(list(self.earned)))
        if self.rng.random() < 0.05:
            self._freeze_account(self.rng.choice(list(self.earned)), True)
        self._tick(timedelta(hours=self.rng.randint(-30, 30)) if self.rng.random() < 0.05 else timedelta(seconds=2))

    def _advance(self, count: int) -> None:
        for _ in range(count):
            for node in self.nodes:
                node.deliver()
            self.rig.chain.produce(self.rig.chain.height)

    def _earn(self, creator: int) -> None:
        amount = self.rng.choice([1, 7, 100, 100, 12_345])
        self.rig.earn(creator, amount, f"earned:{creator}:{self.ever[creator]}")
        self.earned[creator] += amount
        self.ever[creator] += amount

    def _freeze_account(self, creator: int, frozen: bool) -> None:
        address = self.rig.address_of(creator)
        account = self.rig.chain.svm.get_account(address)
        if account is not None and account.lamports and len(account.data) == 165:
            data = bytearray(account.data)
            data[108] = 2 if frozen else 1
            self.rig.chain.svm.set_account(address, type(account)(account.lamports, bytes(data), account.owner))

    def _tick(self, by: timedelta) -> None:
        self.clock += by
        self.connection.rollback()
        self.connection.execute("SELECT set_config('sim.now', %s, false)", (self.clock.isoformat(),))
        self.connection.commit()

    # ── What came of it ────────────────────────────────────────────────────────────────────────────────────────────

    def _quiet(self) -> bool:
        """Nothing is under way and nothing is due; or payouts are frozen and whatever was sent has ended."""
        live = self.rig.rows("SELECT count(*) FROM ledger.attempts WHERE state = 'live'")[0][0]
        if freezes := self.rig.freezes():
            return not live and freezes != [adoption.RESTORED]
        open_batches = self.rig.rows("SELECT count(*) FROM ledger.batches WHERE ended_at IS NULL")[0][0]
        return not live and not open_batches and not self._due()

    def _due(self) -> int:
        held = self.rig.holds()
        return sum(self.rig.balance("payable", creator) for creator in self.earned if creator not in held)

    def _outcome(self) -> Outcome:
        rows = self.rig.rows(
            "SELECT p.creator_id, coalesce(sum(p.amount_pix) FILTER (WHERE t.state = 'posted'), 0)::bigint,"
            " coalesce(sum(p.amount_pix) FILTER (WHERE t.state = 'pending'), 0)::bigint"
            " FROM ledger.payouts p JOIN ledger.transfers t ON t.id = p.transfer_id GROUP BY 1"
        )
        posted, pending = {row[0]: row[1] for row in rows}, {row[0]: row[2] for row in rows}
        adopted = dict(
            self.rig.rows(
                "SELECT a.owner, sum(p.amount)::bigint FROM ledger.entries e JOIN ledger.postings p ON p.entry_id = e.id"
                " JOIN ledger.accounts a ON a.id = p.account_id"
                " WHERE e.kind = 'adopted_accrual' AND a.kind = 'payable' GROUP BY 1"
            )
        )
        double = phantom = lost = 0
        for creator, earned in self.earned.items():
            paid, waiting = posted.get(creator, 0), pending.get(creator, 0)
            landed = self.rig.on_chain(creator)
            earned += adopted.get(creator, 0)
            double += landed > paid + waiting or earned > self.ever[creator]
            phantom += paid > landed
            lost += abs(earned - paid - waiting - self.rig.balance("payable", creator))
        counted = self.rig.rows(
            "SELECT (SELECT count(*)::int FROM ledger.payouts), (SELECT count(*)::int"
            " FROM ledger.attempts WHERE state = 'expired')"
        )[0]
        frozen = self.rig.freezes() not in ([], [adoption.RESTORED])
        stuck = 0 if frozen or self._quiet() else 1
        return Outcome(self.seed, counted[0], double, phantom, lost, stuck, frozen, self.crashes, counted[1])
