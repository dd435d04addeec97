"""What a service is.

A service is one foreground process with a health check. The ground brings PostgreSQL, Redis, S3, Ray and the one-shot
`schema` step; packages add theirs under the entry point group `pixr.services`, as a factory that takes the settings and
returns a `Service`, or None when the user named a URL of his own. Knows what to run, not how it is kept running.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from cluster.errors import Rejected
from cluster.settings import Settings


@dataclass(frozen=True)
class Command:
    """A process to run in the foreground. `env` is added to the supervisor's environment.

    It is ended by `stop_signal` and, if it is still there after `stop_timeout_s` (default: the supervisor's), killed.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    stop_signal: int = signal.SIGTERM
    stop_timeout_s: float | None = None


@runtime_checkable
class Service(Protocol):
    """See the module's text. `needs` are names that must be healthy first; those that run elsewhere are skipped."""

    name: str
    needs: tuple[str, ...]
    start_timeout_s: float

    def prepare(self) -> None:
        """Make folders, keys and ports; safe to run again. Called before every start."""

    def command(self) -> Command | None:
        """What to run; None when `prepare` was all there is to do."""

    def check(self) -> None:
        """Return when healthy; raise `Temporary` with the reason when not."""

    def address(self) -> str:
        """Where it is, for the table. Never contains a password."""


@runtime_checkable
class Dependent(Protocol):
    """A service that cannot live without others: when it ends, it is started again only while those are healthy."""

    lives_on: tuple[str, ...]


@runtime_checkable
class Patient(Protocol):
    """A service that mends by itself what its check finds missing; only after so many failed checks it is ended."""

    check_failures_max: int


@runtime_checkable
class Degradable(Protocol):
    """A service that also answers while something behind it is away."""

    def check_alive(self) -> None:
        """Return when it answers, whatever it lacks; raise `Temporary` with the reason when not."""

    def degraded(self) -> tuple[str, ...]:
        """Return the names of what it lacks at present; raise `Temporary` when it does not say."""


@runtime_checkable
class Talkative(Protocol):
    """A service with more to say in `pixr status` than whether it is well."""

    def notes(self) -> Mapping[str, str]:
        """Return lines by what they are about; raise `Temporary` when they cannot be had."""


@runtime_checkable
class Tidy(Protocol):
    """A service that leaves something outside of the data folder."""

    def tidy(self) -> None:
        """Remove what only the process needed; called after the end of all, when none is to be started again."""


Factory = Callable[[Settings], Service | None]


def ordered(services: Sequence[Service]) -> list[Service]:
    """Topological order; services at the same depth keep their place."""
    waiting, done, names = list(services), list[Service](), {service.name for service in services}
    while waiting:
        placed = {service.name for service in done}
        ready = [each for each in waiting if all(need in placed or need not in names for need in each.needs)]
        if not ready:
            raise Rejected(f"services wait for each other: {', '.join(each.name for each in waiting)}")
        done += ready
        waiting = [each for each in waiting if each not in ready]
    return done
