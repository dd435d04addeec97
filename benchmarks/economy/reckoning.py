"""Compute what vouching alone does to earnings, in seconds, to choose settings: `python -m benchmarks.economy.reckoning`.

`ledger.accrual.vouching` counts honest days without a ledger. There are neither leaps nor holds, and the only bound is
that of a network's day, applied in proportion and not in the order of searches.

Two results are reported. The first is what honest creators lose. The second is what one bot earns the best known
creators if it looks at one or at several of them, as a share of what its looks are worth. This share grows with the
number of creators: a bot that spreads its looks over all creators cannot be told from people behind a carrier, who look
in the same way. A rule that counts these people counts the bot too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import click
import numpy as np

from benchmarks import economy
from benchmarks.economy import towns
from benchmarks.economy.catalogue import SEGMENTS_MAX, Ids
from benchmarks.economy.people import People
from benchmarks.economy.platform import FixedHashes, Searches
from benchmarks.economy.strategies import LOOKS_A_DAY, look_pix
from benchmarks.run import Figure, append, row
from ledger.accrual import vouching
from ledger.settings import PIX, Economics

FIRST_DAY = 20_000  # since 1970
LARGE = 2 * SEGMENTS_MAX * 1_000  # above all segments
PADDED = (1, 4, 12)  # the best known, together


@dataclass(frozen=True)
class Day:
    """What each source has earned each creator on a day.

    A source is a network or a key. The rows of one source follow each other.
    """

    sources: Ids
    creators: Ids
    gross: Ids
    are_networks: Ids  # of each row

    @classmethod
    def of(cls, slots: Sequence[Searches]) -> Day:
        """Make a day from its searches, slot by slot; only each viewer's first look at a moment counts."""
        words = [
            np.concatenate([getattr(each, name) for each in slots]).view("<u8")[:, 0] for name in ("viewers", "origins")
        ]
        counts, segments, creators, amounts = (
            np.concatenate([getattr(each, name) for each in slots])
            for name in ("counts", "segments", "creators", "amounts")
        )
        viewers = np.repeat(np.unique(words[0], return_inverse=True)[1], counts)
        first = np.unique(viewers * LARGE + segments, return_index=True)[1]
        origins = np.repeat(words[1], counts)[first]
        named = np.where(origins != 0, origins, np.repeat(words[0], counts)[first])
        number = np.unique(named, return_inverse=True)[1]
        pairs, row = np.unique(number * SEGMENTS_MAX + creators[first], return_inverse=True)
        are_networks = np.zeros(len(pairs), np.int64)
        are_networks[row] = origins != 0
        gross = np.bincount(row, amounts[first]).astype(np.int64)
        return cls(pairs // SEGMENTS_MAX, pairs % SEGMENTS_MAX, gross, are_networks)

    def beside(self, creators: Ids, each_pix: int) -> Day:
        """Return the day with one more network, which earns each of these creators `each_pix`."""
        more = np.full(len(creators), each_pix, np.int64)
        source = np.full(len(creators), self.sources[-1] + 1)
        return Day(np.append(self.sources, source), np.append(self.creators, creators), np.append(self.gross, more),
                   np.append(self.are_networks, np.ones(len(creators), np.int64)))  # fmt: skip

    def by_creator(self, count: int) -> Ids:
        return _summed(self.creators, self.gross, count)

    def counted(self, usual: Ids, economics: Economics) -> tuple[Ids, Ids]:
        """Return how much of each creator's earnings of the day counts, and how much is vouched for, (creators,) each.

        `usual` is the mean of what was vouched for on the days before, (creators,).
        """
        starts, gross = np.append(True, np.diff(self.sources) > 0), self.gross
        if economics.address_day_max_pix:
            sums = np.bincount(self.sources, gross)[self.sources]
            share = np.minimum(1.0, economics.address_day_max_pix / np.maximum(sums, 1))
            gross = np.where(self.are_networks > 0, gross * share, gross).astype(np.int64)
        parts = vouching.shares(starts, gross, np.ones(int(starts.sum()), np.int64), economics)
        vouched, beside = (_summed(self.creators, each, len(usual)) for each in (parts.vouched, parts.beside))
        return vouching.counts(vouched, usual, beside, np.zeros(len(usual), np.bool_), economics), vouched


def days_of(town: towns.Town, seed: int, days: int) -> tuple[People, list[Day]]:
    """Return the honest people of a seed, and their first `days` days."""
    people = People(seed, economy.ECONOMICS, FixedHashes(seed), 26, town)
    return people, [Day.of(people.day(number, FIRST_DAY + number)) for number in range(days)]


def reckoned(people: People, days: Sequence[Day], economics: Economics) -> str:
    """Return a line of text: what honest creators lose, and what a bot earns the best known creators on the last day."""
    count, seen = people.town.creators + 1, list[Ids]()
    got, income = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for day in days:
        usual = np.mean(seen[-vouching.USUAL_DAYS :], axis=0).astype(np.int64) if seen else np.zeros(count, np.int64)
        counts, vouched = day.counted(usual, economics)
        seen.append(vouched)
        got, income = got + counts, income + day.by_creator(count)
    lost, told = income - got, income > PIX
    shares = np.where(told, lost / np.maximum(income, 1), 0)
    worst = int(np.argmax(shares))
    loop = LOOKS_A_DAY * look_pix(economics)
    boundless = replace(
        economics, address_day_max_pix=0
    )  # which a loop would only reach together with honest networks' luck
    before = day.counted(usual, boundless)[0]
    padded = []
    for most in PADDED:
        best = np.argsort(-day.by_creator(count))[:most]
        after = day.beside(best, loop // most).counted(usual, boundless)[0]
        padded.append(f"{most}: {(after - before)[best].sum() / loop:.2%}")
    return (
        f"honest creators lose {lost.sum() / income.sum():.2%} of {income.sum() / PIX / len(days):.0f} PIX a day,"
        f" the worst one {shares[worst]:.0%} ({people.kinds.get(worst, 'usual')});"
        f" one loop, of which the best known keep {', '.join(padded)}"
    )


def _summed(creators: Ids, amounts: Ids, count: int) -> Ids:
    found: Ids = np.bincount(creators, amounts, count).astype(np.int64)
    return found


@click.command()
@click.option("--town", "names", multiple=True, default=[each.name for each in towns.TOWNS], help="Only this one.")
@click.option("--first", type=int, default=1, help="The first seed.")
@click.option("--seeds", type=click.IntRange(1), default=1, help="Of each town.")
@click.option("--days", type=click.IntRange(2, 26), default=12)
@click.option(
    "--set", "changes", multiple=True, metavar="NAME=PIX,…", help="Other settings; each one beside the defaults."
)
@click.option("--write", is_flag=True, help="Append to benchmarks/LOG.md.")
def main(names: Sequence[str], first: int, seeds: int, days: int, changes: Sequence[str], write: bool) -> None:
    """Report what settings of vouching cost honest creators, and what one bot earns the best known creators under them."""
    others = {each: replace(economy.ECONOMICS, **_changed(each)) for each in changes}
    for town in (each for each in towns.TOWNS if each.name in names):
        for seed in range(first, first + seeds):
            people, shown = days_of(town, seed, days)
            for name, economics in {"as they are": economy.ECONOMICS, **others}.items():
                figure = Figure(f"a {town.name} of seed {seed}, settings {name}", reckoned(people, shown, economics))
                line = row(figure, f"python -m benchmarks.economy.reckoning --days {days}")
                click.echo(line)
                if write:
                    append(line)


def _changed(text: str) -> dict[str, Any]:
    return {name.strip(): int(value) for name, _, value in (each.partition("=") for each in text.split(","))}


if __name__ == "__main__":
    main()
