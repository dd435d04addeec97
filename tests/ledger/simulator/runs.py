"""Many seeds, and their sum."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection

from cluster import database
from ledger.payouts import Payouts
from tests.ledger.simulator.protocols import WRONG
from tests.ledger.simulator.world import Outcome, World, prepare


@dataclass
class Tally:
    """What many seeds came to."""

    seeds: int = 0
    payouts: int = 0
    double: int = 0
    phantom: int = 0
    lost_units: int = 0
    stuck: int = 0
    frozen: int = 0
    crashes: int = 0
    expired: int = 0
    failing: list[int] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        for name in ("payouts", "double", "phantom", "lost_units", "stuck", "frozen", "crashes", "expired"):
            setattr(self, name, getattr(self, name) + getattr(outcome, name))
        if not outcome.ok:
            self.failing.append(outcome.seed)

    def join(self, other: Tally) -> None:
        """What another process has counted."""
        for name in ("seeds", "payouts", "double", "phantom", "lost_units", "stuck", "frozen", "crashes", "expired"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failing += other.failing

    def __str__(self) -> str:
        return (
            f"{self.seeds} seeds, {self.payouts} payouts: {self.double} double, {self.phantom} paid but not landed,"
            f" {self.lost_units} units lost, {self.stuck} stuck; {self.frozen} ended frozen, {self.crashes} crashes,"
            f" {self.expired} transactions expired"
        )


def tally(
    connection: Connection[Any],
    seeds: Iterable[int],
    protocol: type[Payouts] = Payouts,
    *,
    markers: bool | None = None,
    enough: int | None = None,
) -> Tally:
    """Run the seeds; `enough` failing ones end the run early."""
    prepare(connection)
    found = Tally()
    for seed in seeds:
        found.add(World(connection, seed, protocol, markers=markers).run())
        if enough is not None and len(found.failing) >= enough:
            break
    return found


def part_of(url: str, seeds: range, protocol: str | None) -> Tally:
    """One process's share; wrong protocols run without the second wall, the markers."""
    kinds = {kind.__name__: kind for kind in WRONG}
    with database.connect(url) as connection:
        return tally(connection, seeds, kinds[protocol], markers=False) if protocol else tally(connection, seeds)
