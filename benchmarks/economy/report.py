"""What many economies come to: the figures that are wanted, and a table of what each strategy lives on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from benchmarks.economy.world import SEARCHES_A_DAY, FarmResult, GriefResult, Result
from benchmarks.run import Figure
from ledger.settings import PIX, PPM

KEPT_MAX, LOST_MAX = 0.02, 0.01


def figures(results: Sequence[Result]) -> Iterator[Figure]:
    """The bars first, then a row for each strategy and each kind of grief."""
    everybody = [each for result in results for each in result.farms]
    every = [each for each in everybody if each.unrestrained]
    yield _kept("all farms", every, len(results))
    worst = max(every, key=_share)
    yield Figure(
        "the farm that kept most of its unrestrained take",
        f"{_share(worst):.2%} ({worst.strategy})",
        f"{KEPT_MAX:.0%} at most",
        _share(worst) / KEPT_MAX,
    )
    yield from _honest(results)
    for name in dict.fromkeys(each.strategy for each in every):
        yield _kept(name, [each for each in every if each.strategy == name], len(results))
    stuffed = [each for each in everybody if not each.unrestrained]
    if stuffed:
        kept, worth = sum(each.kept for each in stuffed), sum(each.worth for each in stuffed)
        value = f"{kept / max(1, worth):.1%} of what they would if words paid; no bound stops it ({len(stuffed)} farms)"
        yield Figure("moments that are found by stuffed words earn", value)
    griefs = [each for result in results for each in result.griefs]
    for name in dict.fromkeys(each.attack for each in griefs):
        yield _grief(name, [each for each in griefs if each.attack == name])


def _honest(results: Sequence[Result]) -> Iterator[Figure]:
    before, lost = sum(each.honest_before for each in results), sum(each.honest_lost for each in results)
    small, small_lost = sum(each.small_before for each in results), sum(each.small_lost for each in results)
    share = lost / max(1, before)
    yield Figure(
        "honest creators lose under attack",
        f"{share:.3%} (small ones {small_lost / max(1, small):.3%}; the worst economy"
        f" {max(each.honest_lost / max(1, each.honest_before) for each in results):.3%}, the worst creator"
        f" {max(each.worst_lost_ppm for each in results) / PPM:.2%})",
        f"{LOST_MAX:.0%} at most",
        share / LOST_MAX,
    )
    count = len(results)
    yield Figure(
        "honest creators, by the rules themselves",
        f"{sum(each.taken_before_ppm for each in results) / count / PPM:.3%} taken back without any attack;"
        f" {sum(each.held_before for each in results) / count:.1f} of 200 with a hold in an economy without attack,"
        f" {(sum(each.held_honest_in_part for each in results)) / count:.1f} with one of a part and"
        f" {sum(each.held_honest for each in results) / count:.1f} with a whole one under attack",
    )


def _kept(name: str, farms: Sequence[FarmResult], economies: int) -> Figure:
    kept, means = sum(each.kept for each in farms), sum(each.unrestrained for each in farms)
    worth, days = sum(each.worth for each in farms), sum(each.source_days for each in farms)
    stopped = Counter[str]()
    for each in farms:
        stopped.update(each.stopped)
    why = ", ".join(
        f"{reason} {amount / max(1, worth):.0%}" for reason, amount in stopped.most_common() if amount * 100 > worth
    )
    best = max(farms, key=lambda each: each.best_day / max(1, each.best_sources))
    return Figure(
        f"kept by {name}",
        f"{kept / max(1, means):.3%} of what its means would take at {SEARCHES_A_DAY} searches a day,"
        f" {kept / max(1, worth):.1%} of what it sent was worth; {kept / max(1, days) / PIX:.4f} PIX a day and network or key,"
        f" {best.best_day / max(1, best.best_sources) / PIX:.4f} in its best days"
        f" ({len(farms)} farms in {economies} economies; of what it sent: {why or 'nothing stopped'}; best tactic {best.best})",
        f"{KEPT_MAX:.0%} at most",
        kept / max(1, means) / KEPT_MAX,
    )


def _grief(name: str, griefs: Sequence[GriefResult]) -> Figure:
    before, lost = sum(each.before for each in griefs), sum(each.lost for each in griefs)
    after, days = sum(each.after for each in griefs), sum(each.network_days for each in griefs)
    return Figure(
        f"grief: {name}",
        f"victims lose {lost / max(1, before):.3%} ({lost / PIX:.3f} PIX, and own {(after - before) / PIX:+.3f} in all) for"
        f" {days:,} days of networks and {sum(each.searches for each in griefs):,} searches in {len(griefs)} economies",
    )


def _share(farm: FarmResult) -> float:
    return farm.kept / max(1, farm.unrestrained)
