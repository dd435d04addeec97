"""One life of the ledger's process: its own parts, over connections and nodes that a world can take away at any step.

The parts are those of `ledger.rounds`, as the actor runs them; only where they find the clock, the nodes, the treasury and
the database is the world's. When one step ends the process, all parts end with it, and what they had begun is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import psycopg
from psycopg import Connection

from cluster.errors import Rejected, Temporary
from ledger import rounds
from ledger.accrual import fold, runstore
from ledger.accrual.fold import Fold
from ledger.journal import book
from ledger.journal.book import Fenced
from ledger.payouts import batches, payouts, signing
from ledger.payouts import reconcile as reconciling
from ledger.payouts.batches import Batch
from ledger.payouts.rail import Rail
from ledger.payouts.reconcile import reconcile
from ledger.risk import review
from ledger.rounds import Epoch, Folding, Part, Paying, Reconciling, Shared
from ledger.solana import treasury
from ledger.solana.chain import Chain, RpcRefusal
from ledger.solana_rail.solana_rail import SolanaRail
from tests.ledger.simulator.baton import Hands
from tests.ledger.simulator.ground import Session

if TYPE_CHECKING:
    from tests.ledger.simulator.world import World

LOST = "server closed the connection unexpectedly"


class Crash(BaseException):
    """The process ends here."""


class Line(Session):
    """A connection of the process: it may be lost at any statement, before a commit and after it, and then is closed."""

    def __init__(self, world: World, raw: Connection[Any], *, is_shaky: bool = True) -> None:
        super().__init__(world.ground, raw)
        self._world, self._is_shaky = world, is_shaky
        self._blocks = 0
        self.setting("ledger.epoch", "")

    def execute(self, *arguments: Any, **more: Any) -> Any:
        if self._is_shaky:
            self._step()
            self._maybe_lose()
        self._require_open()
        return super().execute(*arguments, **more)

    def cursor(self, *arguments: Any, **more: Any) -> Any:
        self._require_open()
        return super().cursor(*arguments, **more)

    def commit(self) -> None:
        self._require_open()
        self._step()
        self._maybe_lose()
        super().commit()
        self._maybe_lose()  # it was committed, and nobody was told
        self._step()

    def rollback(self) -> None:
        self._require_open()
        super().rollback()

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """A connection that is lost within loses what was begun before, too."""
        self._require_open()
        self._look_at_clock()
        try:
            with self.raw.transaction() as block:
                self._blocks += 1
                try:
                    yield block
                finally:
                    self._blocks -= 1
        except BaseException:
            if self.closed and not self._blocks:
                self.raw.rollback()
            raise

    def close(self) -> None:
        self.closed = True
        if not self._blocks:
            self.raw.rollback()

    def _step(self) -> None:
        self._world.step(is_idle=self.is_idle)

    def _require_open(self) -> None:
        if self.closed:
            raise psycopg.OperationalError("the connection is closed")

    def _maybe_lose(self) -> None:
        if self._world.loses_connection(self):
            self.close()
            raise psycopg.OperationalError(LOST)


class Process:
    """The parts of one life, with an epoch of its own."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.is_dead, self._ghost = False, Ghost()
        self.epoch, shared = Epoch(), Shared()
        self.epoch._lock = Hands(world.baton, self.check)  # type: ignore[assignment]
        shared.batches_lock = Hands(world.baton, self.check)  # type: ignore[assignment]
        self.folding = Folding(world.settings, self.epoch)
        self.paying = Paying(world.settings, self.epoch, shared)
        self.reconciling = Reconciling(world.settings, self.epoch, shared)
        self.parts: tuple[Part, ...] = (self.folding, self.paying, self.reconciling)

    def jobs(self) -> Mapping[str, Callable[[], None]]:
        """A round of each part."""
        return {part.name: lambda part=part: self.round(part) for part in self.parts}  # type: ignore[misc]

    def round(self, part: Part) -> None:
        """One round, with what the actor makes of what is raised (see `ledger.actor.Loop`)."""
        try:
            self.connect(part)
            part.round()
        except (Crash, Fenced):
            self.is_dead = True
            if part._connection is not None:
                part._connection.close()  # what it had locked is free
        except (Temporary, RpcRefusal, psycopg.OperationalError, OSError):
            part.close()
        except Exception as bug:  # noqa: BLE001
            self._world.truth.found("broken", f"{part.name}: {type(bug).__name__}: {bug}", bug)
            self.is_dead = True

    def connect(self, part: Part) -> None:
        if part._connection is None or part._connection.closed:
            raw = self._world.ground.parts[part.name]
            line = Line(self._world, raw)
            part._connection = line  # type: ignore[assignment]
            try:
                with book.refusals():
                    part.begin(line)  # type: ignore[arg-type]
            except BaseException:
                part.close()
                raise

    def check(self) -> None:
        if self.is_dead:
            raise Crash

    def end(self) -> None:
        """Whatever it had begun is lost."""
        self.is_dead = True
        self._ghost = Ghost(self.folding._fold, self.paying._rail, self.reconciling._rail)
        for part in self.parts:
            part.close()
        for part in (self.paying, self.reconciling):
            part.chain.close()

    def haunt(self) -> None:
        """The dead process was only slow: its parts go on under its epoch, and the database refuses what they want to write."""
        if not self.epoch.number:
            return
        before = self._written()
        for going_on in (self._fold_on, self._pay_on, self._reconcile_on):
            # Over a connection that the new process has not begun to use.
            line = Line(self._world, self._world.ground.parts[self.paying.name], is_shaky=False)
            line.setting("ledger.epoch", str(self.epoch.number))
            with suppress(Fenced, Rejected, Temporary, RpcRefusal, psycopg.OperationalError), book.refusals():
                going_on(line)
            line.close()
            line.setting("ledger.epoch", "")
        changed = sorted(name for name, rows in self._written().items() if before[name] != rows)
        if changed:
            self._world.truth.found("broken", f"a process whose epoch is over has written to {', '.join(changed)}")

    def _fold_on(self, line: Any) -> None:
        if self._ghost.fold is None:
            return
        self._ghost.fold._connection = line
        steps: list[Callable[[], object]] = [
            self._ghost.fold.run_once,
            lambda: review.review(line, self._ghost.fold.audience, self._world.economics),  # type: ignore[union-attr]
            lambda: fold.mature(line),
        ]
        for step in steps:
            with suppress(Fenced, Rejected, Temporary, OSError), book.refusals():  # its files may be another's by now
                step()
            line.rollback()

    def _pay_on(self, line: Any) -> None:
        rail = self._ghost.paying
        if rail is not None:
            with self._asking(rail, line):
                payouts.run_once(rail)

    def _reconcile_on(self, line: Any) -> None:
        rail = self._ghost.adopting
        if rail is not None:
            with self._asking(rail, line):
                reconcile(line, rail.chain, rail.treasury, opinions=rail.opinions)

    @contextmanager
    def _asking(self, rail: SolanaRail, line: Any) -> Iterator[None]:
        rail.connection, rail.chain = line, self._world.new_chain()
        try:
            yield
        finally:
            rail.chain.close()

    def _written(self) -> dict[str, Any]:
        """What is in the tables that only the holder of the epoch may write, each row with who wrote it last."""
        return {
            name: self._world.ground.rows(
                f"SELECT count(*), sum(hashtextextended(xmin::text || t::text, 0)::numeric) FROM ledger.{name} t"
            )
            for name in self._world.ground.fenced
        }


@dataclass(frozen=True)
class Ghost:
    """What a process that has ended was doing."""

    fold: Fold | None = None
    paying: SolanaRail | None = None
    adopting: SolanaRail | None = None


class Inline:
    """A pool of threads that is none: what it is given is done at once, so that its statements are steps like any others."""

    def __init__(self, *_: Any) -> None:
        pass

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *values: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(work(*values))
        except Exception as error:  # noqa: BLE001
            done.set_exception(error)
        return done

    def shutdown(self, *_: Any, **__: Any) -> None:
        pass


@contextmanager
def standing_on(world: World) -> Iterator[None]:
    """The parts find the world's clock, nodes, treasury, secret and protocol while this goes on."""

    def opened(connection: Any, chain: Chain, _: Any) -> treasury.Treasury:
        treasury.bind(connection, chain.genesis(), world.treasury.payer, world.secret)
        return world.opened_treasury()

    here = {
        "time": SimpleNamespace(monotonic=lambda: world.monotonic_s),
        "backoff_s": lambda *_: 0.5,
        "open_chain": lambda *_: world.new_chain(),
        "open_treasury": opened,
        "runtime": SimpleNamespace(secret=lambda *_: world.secret),
        "SolanaRail": world.wrong.rail,
    }
    with ExitStack() as stack:
        for name, value in here.items():
            stack.enter_context(patch.object(rounds, name, value))
        for module in (reconciling, runstore):
            if hasattr(module, "time"):  # of their pauses
                stack.enter_context(patch.object(module, "time", here["time"]))
        stack.enter_context(patch.object(fold, "ThreadPoolExecutor", Inline))
        stack.enter_context(world.wrong.installed())
        stack.enter_context(_unsent_noted(world))
        yield


@contextmanager
def _unsent_noted(world: World) -> Iterator[None]:
    """The world knows over which connection something was signed a moment ago whose bytes nobody has asked for yet."""
    sign, due_to_send = signing.sign, batches.due_to_send

    def signed(rail: Rail, just_planned: Sequence[Batch] = ()) -> list[str]:
        names = sign(rail, just_planned)
        world.unsent_on = rail.connection if names else None
        return names

    def due(connection: Any, resend_interval_s: float, just_signed: Collection[str] = ()) -> list[tuple[str, bytes]]:
        found = due_to_send(connection, resend_interval_s, just_signed)
        world.unsent_on = None
        return found

    with patch.object(signing, "sign", signed), patch.object(batches, "due_to_send", due):
        yield
