"""Turns: several threads of which one runs at a time; a seed decides which goes on when one gives up its turn.

So what the ledger's parts, the chain and people do at the same time happens in an order that a seed repeats.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from types import TracebackType


class Baton:
    """The right to run: one thread has it, the others wait until it is passed to them."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._turns: dict[str, threading.Semaphore] = {}
        self._live: list[str] = []
        self._names: dict[int, str] = {}  # of jobs, by thread
        self._ended = threading.Semaphore(0)
        self._errors: list[BaseException] = []

    @property
    def holder(self) -> str:
        """The job that this thread runs; empty outside of `run`, and in threads that a job has started."""
        return self._names.get(threading.get_ident(), "")

    def run(self, jobs: Mapping[str, Callable[[], None]]) -> None:
        """Run these jobs, each in a thread, until all have ended.

        Raises:
            BaseException: what the first job has raised that raised anything.
        """
        self._turns = {name: threading.Semaphore(0) for name in jobs}
        self._live, self._errors = list(jobs), []
        threads = [threading.Thread(target=self._do, args=(name, job), daemon=True) for name, job in jobs.items()]
        for thread in threads:
            thread.start()
        self._hand_on()
        self._ended.acquire()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def pass_on(self, chance: float = 1.0) -> None:
        """Let the seed choose whether another job goes on or this one; does nothing in a thread without a job."""
        me = self.holder
        if not me or len(self._live) < 2 or (chance < 1.0 and self._rng.random() >= chance):
            return
        other = self._rng.choice(self._live)
        if other != me:
            self._turns[other].release()
            self._turns[me].acquire()

    def wait(self) -> None:
        """Let another job go on, since this one waits for it."""
        me = self.holder
        others = [name for name in self._live if name != me]
        assert me, "nobody else runs who could end this wait"
        assert others, f"{me} waits for what nobody else will do"
        self._turns[self._rng.choice(others)].release()
        self._turns[me].acquire()

    def _do(self, name: str, job: Callable[[], None]) -> None:
        self._turns[name].acquire()
        self._names[threading.get_ident()] = name
        try:
            job()
        except BaseException as error:  # noqa: BLE001
            self._errors.append(error)
        finally:
            del self._names[threading.get_ident()]
            self._live.remove(name)
            self._hand_on()

    def _hand_on(self) -> None:
        if self._live:
            self._turns[self._rng.choice(self._live)].release()
        else:
            self._ended.release()


class Hands:
    """A lock among jobs: a job that waits for it lets the others go on. `check` may end the wait by raising."""

    def __init__(self, baton: Baton, check: Callable[[], None]) -> None:
        self._baton, self._check = baton, check
        self._is_held = False

    def __enter__(self) -> None:
        while self._is_held:
            self._check()
            self._baton.wait()
        self._check()
        self._is_held = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_held = False
