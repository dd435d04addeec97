"""The report over many economies: bars, each with its value and by how much it is missed, and further figures.

The bars:

* Each strategy, and the farm that keeps most, keeps at most 2 % of its uncapped take (10 % if it stuffs pages).
* The honest creators of each town together lose at most 1 %.
* No honest creator with an income loses more than a tenth, or has at any time been paid a tenth less than without the
  attack.
* The victims of each attack lose at most a tenth.

The bound for one creator is a tenth because a creator's weeks differ by more than that anyway: a smaller loss cannot be
told from chance. One more bar is not computed here: that of a ring of the best known creators (`reckoning`). It is
missed where people behind a shared network count, and no rule can prevent that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.economy.compare import INCOME_PIX, CreatorResult, FarmResult, GriefResult, Result
from benchmarks.economy.strategies import BY_NAME, LOOKS_A_DAY
from benchmarks.run import Figure
from ledger.settings import PIX, PPM

KEPT_MAX, LOST_MAX, CREATOR_LOST_MAX = 0.02, 0.01, 0.1
STUFFED_MAX = (
    0.1  # these are no made views: people do see the moment, and the model says that it is not what they asked for
)
LIST_MAX = 3


@dataclass(frozen=True)
class Bar:
    """A bar: `value` must be at most `most`. Both are shares (0 to 1)."""

    name: str
    value: float
    most: float
    text: str = ""  # behind the value

    @property
    def is_met(self) -> bool:
        return self.value <= self.most

    @property
    def figure(self) -> Figure:
        missed = "" if self.is_met else f"; MISSED by {self.value - self.most:.2%}"
        return Figure(
            self.name, f"{self.value:.3%}{self.text}{missed}", f"{self.most:.0%} at most", self.value / self.most
        )


def figures(results: Sequence[Result]) -> Iterator[Figure]:
    """Yield the figures of the bars, then the further figures."""
    yield from (bar.figure for bar in bars(results))
    yield from _behind(results)


def missed(results: Sequence[Result]) -> list[Bar]:
    """Return the bars that are missed."""
    return [bar for bar in bars(results) if not bar.is_met]


def bars(results: Sequence[Result]) -> Iterator[Bar]:
    """Yield all bars, met or not."""
    farms = [each for result in results for each in result.farms]
    yield from _kept(farms)
    yield from _honest(results)
    griefs = [each for result in results for each in result.griefs]
    for name in dict.fromkeys(each.attack for each in griefs):
        yield _grief(name, [each for each in griefs if each.attack == name])


def _kept(farms: Sequence[FarmResult]) -> Iterator[Bar]:
    bots = [each for each in farms if not BY_NAME[each.strategy].stuffs]
    for name in dict.fromkeys(each.strategy for each in farms):
        some = [each for each in farms if each.strategy == name]
        yield Bar(f"kept by {name}", _share(some), KEPT_MAX if some[0] in bots else STUFFED_MAX, _details(some))
    if bots:
        worst = max(bots, key=lambda each: each.share)
        text = (
            f" ({worst.strategy}; {worst.kept / PIX:.3f} PIX a day of {worst.sources} networks and keys; {worst.best})"
        )
        yield Bar("kept by the farm that keeps most of its uncapped take", worst.share, KEPT_MAX, text)


def _details(farms: Sequence[FarmResult]) -> str:
    sources = sum(each.sources for each in farms)
    best = max(farms, key=lambda each: each.share)
    all_sent = sum(each.stopped["all"] for each in farms)
    stopped = Counter[str]()
    for each in farms:
        stopped.update({reason: amount for reason, amount in each.stopped.items() if reason != "all"})
    why = ", ".join(
        f"{reason} {amount / max(1, all_sent):.0%}" for reason, amount in stopped.most_common(LIST_MAX) if amount
    )
    return (
        f" of {sum(each.uncapped for each in farms) / max(1, sources) / PIX:.2f} PIX a day and source;"
        f" {sum(each.kept for each in farms) / max(1, sources) / PIX:.4f} kept, at most {best.share:.2%}"
        f" ({len(farms)} farms, {min(each.evaluations for each in farms)} tries or more; of what was sent: {why or 'all paid'};"
        f" best tactic {best.best})"
    )


def _honest(results: Sequence[Result]) -> Iterator[Bar]:
    for town in dict.fromkeys(each.town for each in results):
        creators = [each for result in results if result.town == town for each in result.honest]
        free = max(1, sum(each.free for each in creators))
        by_rules, by_attack = (
            sum(amounts) / free
            for amounts in ([each.lost_by_rules for each in creators], [each.lost_by_attack for each in creators])
        )
        text = f" ({by_rules:.3%} by the rules without an attack, {by_attack:.3%} by the attack)"
        yield Bar(f"honest creators of a {town} lose", sum(each.lost for each in creators) / free, LOST_MAX, text)
    told = [each for result in results for each in result.honest if each.free >= INCOME_PIX]
    if told:
        yield from _worst(told)


def _worst(told: Sequence[CreatorResult]) -> Iterator[Bar]:
    """Yield two bars on honest creators with an income: the largest loss, and the largest delay of payments by attacks."""
    worst = max(told, key=lambda each: each.lost / each.free)
    over = Counter(each.kind for each in told if each.lost > CREATOR_LOST_MAX * each.free)
    who = ", ".join(f"{count} {kind}" for kind, count in over.most_common()) or "none"
    text = (
        f" (audience: {worst.kind}; {worst.free / PIX:.2f} PIX, by rules alone {worst.lost_by_rules / worst.free:.2%};"
        f" of {len(told)} lose more than a tenth: {who})"
    )
    yield Bar("the honest creator with an income who loses most", worst.lost / worst.free, CREATOR_LOST_MAX, text)
    latest = max(told, key=lambda each: each.behind_ppm)
    yield Bar(
        "the honest creator with an income whom attacks keep most behind, at any time", latest.behind_ppm / PPM,
        CREATOR_LOST_MAX, f" (audience: {latest.kind}; {latest.free / PIX:.2f} PIX)",
    )  # fmt: skip


def _grief(name: str, griefs: Sequence[GriefResult]) -> Bar:
    lost, base = sum(each.lost for each in griefs), sum(each.base for each in griefs)
    text = (
        f" ({lost / PIX:.3f} of {base / PIX:.2f} PIX, for {sum(each.source_days for each in griefs):,} days of sources"
        f" and {sum(each.searches for each in griefs):,} searches in {len(griefs)} economies)"
    )
    return Bar(f"victims lose: {name}", lost / max(1, base), CREATOR_LOST_MAX, text)


def _behind(results: Sequence[Result]) -> Iterator[Figure]:
    """Yield figures that are not bars: what all farms together keep, how losses are spread, how many holds there are."""
    farms = [each for result in results for each in result.farms if not BY_NAME[each.strategy].stuffs]
    if farms:
        loop = sum(each.uncapped for each in farms) / max(1, sum(each.sources for each in farms)) / PIX
        yield Figure(
            "all farms together keep",
            f"{_share(farms):.3%} of {loop:.2f} PIX a day and source, which is {LOOKS_A_DAY:,} looks less repeats",
        )
    told = [each for result in results for each in result.honest if each.free >= INCOME_PIX]
    for kind in dict.fromkeys(each.kind for each in told):
        losses = np.array([each.lost / each.free for each in told if each.kind == kind])
        yield Figure(
            f"honest creators with an income, audience: {kind}",
            f"lose {np.median(losses):.2%} (median), {np.percentile(losses, 99):.2%} (99 of 100), of {len(losses)}",
        )
    count = max(1, len(results))
    yield Figure(
        "honest creators with a hold in the end",
        f"{sum(each.held_calm for each in results) / count:.1f} in an economy without attack,"
        f" {sum(each.held_loud for each in results) / count:.1f} with it",
    )


def _share(farms: Sequence[FarmResult]) -> float:
    return sum(each.kept for each in farms) / max(1, sum(each.uncapped for each in farms))
