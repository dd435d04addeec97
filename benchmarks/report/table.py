"""The table of headline figures: each figure's newest row, its baseline, and whether its bar is met."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.report.headline import Headline
from benchmarks.report.rows import Match, Row, matching, number

NONE = "-"
MET, MISSED, NO_BAR, NOT_MEASURED = "met", "**MISSED**", "no bar", "not measured yet"
AHEAD, LEVEL, BEHIND = "ahead", "level", "**behind**"
HEAD = """| figure | measured | wanted | result | baseline | ratio | date, commit, machine |
|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Line:
    """A line of the table; `result` is one of this module's constants from `MET` to `BEHIND`."""

    name: str
    value: str
    wanted: str
    result: str
    baseline: str
    ratio: str
    source: str

    def __str__(self) -> str:
        cells = (self.name, self.value, self.wanted, self.result, self.baseline, self.ratio, self.source)
        return "| " + " | ".join(cells) + " |"


def table(rows: Sequence[Row], headlines: Sequence[Headline]) -> Iterator[str]:
    """Yield the page's lines: how many bars are met, then the table.

    Raises:
        Rejected: a row has no number where its bar needs one.
    """
    lines = [line(each, rows) for each in headlines]
    counts = Counter(each.result for each in lines)
    yield (
        f"Of {counts[MET] + counts[MISSED]} bars {counts[MET]} are met and **{counts[MISSED]} missed**. Of"
        f" {counts[AHEAD] + counts[LEVEL] + counts[BEHIND]} figures beside a baseline, without a bar, {counts[AHEAD]} are"
        f" ahead of it, {counts[LEVEL]} level and {counts[BEHIND]} behind. {counts[NOT_MEASURED]} are not measured yet."
    )
    yield ""
    yield HEAD
    yield from map(str, lines)


def newest(headline: Headline, rows: Sequence[Row]) -> Match | None:
    """Find the newest row whose command, figure and baseline match a headline's patterns; None if there is none."""
    found = matching(rows, headline.suite.commands, headline.pattern)
    return next((each for each in reversed(found) if re.fullmatch(headline.baseline, each[0].baseline)), None)


def line(headline: Headline, rows: Sequence[Row]) -> Line:
    """Make a figure's line.

    Raises:
        Rejected: its row has no number where its bar needs one.
    """
    name, found, bar = f"{headline.suite.name}: {headline.name}", newest(headline, rows), headline.bar
    if found is None:
        return Line(name, NONE, bar.text if bar and bar.text else NONE, NOT_MEASURED, NONE, NONE, NONE)
    row, match = found
    is_stated = bar is not None and bar.is_binding and not bar.text  # the baseline says what is wanted
    is_of_another = not is_stated and row.baseline.endswith("at most")  # a row by hand, with bars of several figures
    return Line(
        name=name,
        value=match["value"],
        wanted=row.baseline if is_stated else bar.text or NONE if bar else NONE,
        result=_result(headline, row, match["value"]),
        baseline=NONE if is_stated or is_of_another else row.baseline or NONE,
        ratio=NONE if is_of_another else row.ratio or NONE,
        source=f"{row.date}, {row.commit}, {row.machine}",
    )


def _result(headline: Headline, row: Row, value: str) -> str:
    bar = headline.bar
    if bar is None:
        return NO_BAR
    limit = number(row.baseline, row) if bar.limit is None else bar.limit
    measured = number(value if bar.of == "value" else row.ratio, row)
    if bar.is_binding:
        return MET if bar.is_met(measured, limit) else MISSED
    return LEVEL if measured == limit else AHEAD if bar.is_met(measured, limit) else BEHIND
