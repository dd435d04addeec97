"""The truth of a world, kept beside its database: who has earned and been sent what, and what was found wrong.

What a restore makes the journal forget is not forgotten here. `found` collects what must never be, each with its kind:

* double: a creator's wallets hold more than was ever earned, or than the journal knows of; phantom: less than it calls paid;
* lost: units that are neither paid nor owed; over: more than a day's limit was planned;
* booked: the journal has booked of the chain what the chain has not done;
* stopped: somebody was paid after they had been stopped, by bytes that left for the first time after that;
* stuck: something that never ends, and no alarm names it; unexplained: a freeze, a hold or a reversal without its cause;
* rent: a marker that nobody takes back; audit: what the product's own audit finds; broken: the process ended on a bug;
* locked: somebody waits for what is locked while a node is asked.

What has happened is noted by what it was about (`note`), so that a freeze or a hold is explained by the very thing that has
caused it (see `causes`), and never by that something of the kind happened once.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from tests.ledger.simulator.machine import State, Transition

KINDS = (
    "double",
    "phantom",
    "lost",
    "over",
    "booked",
    "stopped",
    "stuck",
    "unexplained",
    "rent",
    "audit",
    "broken",
    "locked",
)
FOUND_MAX = 20
DAY_S = 86_400
LEFT_OUT = "left out: "  # begins what is counted of worlds that have not all that others have


@dataclass(frozen=True)
class Outcome:
    """What one seed came to. `digest` is of the journal and of what has landed: the same seed has the same one."""

    seed: int
    problems: tuple[str, ...]
    counts: dict[str, int]
    states: frozenset[State]
    transitions: frozenset[Transition]
    digest: str
    traces: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems


class Earned(NamedTuple):
    """What a recorded batch has earned creators, by creator and UTC day; `end` is where its incarnation stands after it."""

    incarnation: UUID
    end: int
    amounts: dict[tuple[int, int], int]


@dataclass
class Kept:
    """What the database has to know: it goes back with it."""

    earned: dict[int, int] = field(default_factory=dict)
    shown: dict[tuple[int, int], datetime] = field(default_factory=dict)  # last time, by viewer and segment
    days: Counter[tuple[int, int]] = field(default_factory=Counter)  # earned, by creator and UTC day
    batches: list[Earned] = field(default_factory=list)
    maybe_before: Counter[int] = field(default_factory=Counter)  # earned by what may have been shown before a restore

    def copy(self) -> Kept:
        """As a restore brings it back: all of it was shown before."""
        return Kept(dict(self.earned), dict(self.shown), Counter(self.days), list(self.batches), Counter(self.earned))

    def folded(self, cursors: dict[UUID, int], creator: int, day: int) -> int:
        """What surely was folded of a creator's day, by where the incarnations' cursors stand."""
        done = [each for each in self.batches if each.end <= cursors.get(each.incarnation, 0)]
        return sum(each.amounts.get((creator, day), 0) for each in done)


@dataclass
class Truth:
    """What is so, whatever the database says."""

    kept: Kept = field(default_factory=Kept)
    ever: Counter[int] = field(default_factory=Counter)  # earned, by creator
    bought: Counter[int] = field(default_factory=Counter)  # of it by an audience that was bought
    wallets: dict[int, list[str]] = field(default_factory=dict)  # all that a creator has had, the last one now
    taken: Counter[str] = field(default_factory=Counter)  # out of token accounts that were closed, by address
    closed: set[str] = field(default_factory=set)  # wallets whose token account was closed by its owner
    batch_of: dict[str, str] = field(
        default_factory=dict
    )  # of each signature of ours whose bytes have left; "" of reclaims
    withdrawn: set[str] = field(default_factory=set)  # signatures of the treasury's owner
    tampered: int = 0  # lamports that came without a transaction
    prefunded: set[str] = field(default_factory=set)  # markers that strangers have paid for
    touched: set[int] = field(default_factory=set)  # creators whose token account was frozen or closed
    unpayable: dict[int, set[str]] = field(default_factory=dict)  # wallets of creators that cannot be paid
    moved: set[int] = field(default_factory=set)  # creators who have changed their wallet
    tick: int = 0  # of rounds
    noted: dict[tuple[str, object], int] = field(default_factory=dict)  # when something was so last
    events: Counter[str] = field(default_factory=Counter)  # what has happened, by name
    problems: list[str] = field(default_factory=list)
    seen_stops: set[tuple[str, datetime, str]] = field(default_factory=set)
    traces: list[str] = field(default_factory=list)

    def found(self, kind: str, what: str, error: BaseException | None = None) -> None:
        assert kind in KINDS
        if len(self.problems) < FOUND_MAX:
            self.problems.append(f"{kind}: {what}")
            if error is not None:
                self.traces.append("".join(traceback.format_exception(error)))

    def note(self, name: str, about: object = "") -> None:
        """It is so now."""
        self.noted[name, about] = self.tick

    def is_recent(self, name: str, about: object = "", ticks: int = 1) -> bool:
        """Whether it was so within so many rounds before this one."""
        return self.tick - self.noted.get((name, about), -ticks - 1) <= ticks

    def earn(self, creator: int, amount: int, *, is_back: bool = False) -> None:
        """`is_back`: it was earned before, and the database has forgotten it."""
        self.kept.earned[creator] = self.kept.earned.get(creator, 0) + amount
        self.ever[creator] += 0 if is_back else amount

    def groups(self) -> list[list[int]]:
        """Creators who have ever been paid at one wallet, together."""
        of_wallet: dict[str, int] = {}
        leader = {creator: creator for creator in self.wallets}

        def led_by(creator: int) -> int:
            while leader[creator] != creator:
                creator = leader[creator]
            return creator

        for creator, named in self.wallets.items():
            for wallet in named:
                leader[led_by(creator)] = led_by(of_wallet.setdefault(wallet, creator))
        together: dict[int, list[int]] = {}
        for creator in self.wallets:
            together.setdefault(led_by(creator), []).append(creator)
        return list(together.values())


def kinds_of(problems: Iterable[str]) -> set[str]:
    return {problem.partition(":")[0] for problem in problems}
