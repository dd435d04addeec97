"""The interface of a service: what to run, how its health is checked, what it needs.

A service is one foreground process with a health check. This package brings PostgreSQL, Redis, S3, Ray and the one-shot
step `schema`; other packages add theirs under the entry point group `pixr.services`, as a factory that takes the
settings and returns a `Service`, or None when the settings name an external one. Does not know how services are kept
running.
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
    """A process to run in the foreground.

    `env` is added to the supervisor's environment. To end the process, `stop_signal` is sent; after `stop_timeout_s`
    seconds (default: the supervisor's) it is killed.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    stop_signal: int = signal.SIGTERM
    stop_timeout_s: float | None = None


@runtime_checkable
class Service(Protocol):
    """What the supervisor runs.

    `needs` are the names of services that must be healthy before this one starts; those that run elsewhere are skipped.
    `start_timeout_s` is how many seconds after its start it must be healthy.
    """

    name: str
    needs: tuple[str, ...]
    start_timeout_s: float

    def prepare(self) -> None:
        """Create folders, keys and ports. Called before every start, so running it again must be safe."""

    def command(self) -> Command | None:
        """Return what to run; None when `prepare` is all there is to do."""

    def check(self) -> None:
        """Return if the service is healthy; raise `Temporary` with the reason if it is not."""

    def address(self) -> str:
        """Return the address to show in `pixr status`, without a password."""


@runtime_checkable
class Dependent(Protocol):
    """A service that cannot work without others.

    After it has ended, it is restarted only while the services in `lives_on` are healthy.
    """

    lives_on: tuple[str, ...]


@runtime_checkable
class Patient(Protocol):
    """A service that repairs by itself what its check finds missing.

    It is restarted only after `check_failures_max` failed checks in a row.
    """

    check_failures_max: int


@runtime_checkable
class Degradable(Protocol):
    """A service that still answers, but less completely, while one of its dependencies is away."""

    def check_alive(self) -> None:
        """Return if the service answers, with or without its dependencies; else raise `Temporary` with the reason."""

    def degraded(self) -> tuple[str, ...]:
        """Return the names of the dependencies that it lacks at present; raise `Temporary` if it cannot tell."""


@runtime_checkable
class Talkative(Protocol):
    """A service that shows further lines in `pixr status`."""

    def notes(self) -> Mapping[str, str]:
        """Return the further lines, by title; raise `Temporary` if they cannot be determined."""


@runtime_checkable
class Tidy(Protocol):
    """A service that leaves files outside of the data folder."""

    def tidy(self) -> None:
        """Remove files that only the running process needed. Called when all services have ended for good."""


Factory = Callable[[Settings], Service | None]


def ordered(services: Sequence[Service]) -> list[Service]:
    """Return the services in the order in which to start them (topological by `needs`; otherwise as given).

    Raises:
        Rejected: services need each other in a circle.
    """
    waiting, done, names = list(services), list[Service](), {service.name for service in services}
    while waiting:
        done_names = {service.name for service in done}
        ready = [
            service for service in waiting if all(need in done_names or need not in names for need in service.needs)
        ]
        if not ready:
            raise Rejected(f"services wait for each other: {', '.join(service.name for service in waiting)}")
        done += ready
        waiting = [service for service in waiting if service not in ready]
    return done
