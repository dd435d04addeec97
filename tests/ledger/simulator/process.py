"""One life of the ledger's process: its own parts, over connections and nodes that a world can take away at any step.

The parts are those of `ledger.rounds`, as the actor runs them; only where they find the clock, the nodes, the treasury and
the database is the world's. When one step ends the process, all parts end with it, and what they had begun is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import psycopg
from psycopg import Connection

from cluster.errors import Rejected, Temporary
from ledger import book, rounds, treasury
from ledger.book import Fenced
from ledger.chain import Chain, RpcRefusal
from ledger.rounds import Epoch, Folding, Part, Paying, Reconciling, Shared
from tests.ledger.simulator.baton import Hands
from tests.ledger.simulator.ground import Session

if TYPE_CHECKING:
    from tests.ledger.simulator.world import World

LOST = "server closed the connection unexpectedly"


class Crash(BaseException):
    """The process ends here."""


class Line(Session):
    """A connection of the process: it may be lost at any statement, before a commit and after it, and then is closed."""

    def __init__(self, world: World, raw: Connection[Any], *, is_shaky: bool) -> None:
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
        if self._world.loses_connection():
            self.close()
            raise psycopg.OperationalError(LOST)


class Process:
    """The parts of one life, with an epoch of its own."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.is_dead = False
        self.epoch, shared = Epoch(), Shared()
        self.epoch._lock = Hands(world.baton, self.check)  # type: ignore[assignment]
        shared.hands = Hands(world.baton, self.check)  # type: ignore[assignment]
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
        except (Temporary, RpcRefusal, psycopg.OperationalError, OSError):
            part.close()
        except Exception as bug:  # noqa: BLE001
            self._world.truth.found("broken", f"{part.name}: {type(bug).__name__}: {bug}", bug)
            self.is_dead = True

    def connect(self, part: Part) -> None:
        if part._connection is None or part._connection.closed:
            raw = self._world.ground.parts[part.name]
            line = Line(self._world, raw, is_shaky=part is not self.folding)
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
        for part in self.parts:
            part.close()
        for part in (self.paying, self.reconciling):
            part.chain.close()

    def haunt(self) -> None:
        """The dead process was only slow: it goes on under its epoch, and the database refuses whatever it wants to write."""
        payouts = self.paying._payouts
        if payouts is None or not self.epoch.number:
            return
        line = Line(self._world, self._world.ground.parts[self.paying.name], is_shaky=False)
        line.setting("ledger.epoch", str(self.epoch.number))
        before = self._written()
        payouts.connection, payouts.chain = line, self._world.new_chain()  # type: ignore[assignment]
        with suppress(Fenced, Rejected, Temporary, RpcRefusal, psycopg.OperationalError), book.refusals():
            payouts.run_once()
        line.close()
        line.setting("ledger.epoch", "")
        payouts.chain.close()
        if self._written() != before:
            self._world.truth.found("broken", "a process whose epoch is over has written")

    def _written(self) -> list[tuple[Any, ...]]:
        return self._world.ground.rows(
            "SELECT (SELECT count(*) FROM ledger.entries), (SELECT count(*) FROM ledger.attempts),"
            " (SELECT count(*) FROM ledger.batches)"
        )


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
        "Payouts": world.wrong.payouts,
    }
    with ExitStack() as stack:
        for name, value in here.items():
            stack.enter_context(patch.object(rounds, name, value))
        stack.enter_context(world.wrong.installed())
        yield
