"""What `pixr bench report` draws of LOG.md: the same bytes each time, every miss marked, no row lost in silence."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import command, search
from benchmarks.report import axes, chart, page, plots, table
from benchmarks.report.headline import LESS, LESS_IS_BETTER, MORE, Bar, Headline, Suite
from benchmarks.report.headlines import HEADLINES
from benchmarks.report.rows import Row, read
from benchmarks.run import HEAD, LOG, Figure, row
from cluster.cli.context import Context
from cluster.errors import Rejected

PAGE = f"# By hand\n\nBefore.\n\n{page.BEGIN}\n\nold\n\n{page.END}\n\nAfter.\n"
NOT_MEASURED_TODAY = {  # nothing may join them; those that are measured may leave
    "ledger beside 5 million creators: p99 of a round",
    "ledger beside 5 million creators: memory of its own",
    "ledger beside 5 million creators: a plan with nothing due",
    "ledger beside 5 million creators: a plan with 10,000 due",
    "ledger beside 5 million creators: a start",
    "ledger's tests: mutants noticed",
    "economy: kept by the farm that keeps most",
    "economy: honest creators of a hamlet lose",
    "economy: honest creators of a village lose",
    "economy: honest creators of a town lose",
}
SUITE = Suite("rope", ("`pixr bench rope`",))


def log(*cells: Sequence[str]) -> str:
    """LOG.md with rows of commit, command, figure, baseline and ratio."""
    return HEAD + "".join(
        f"| 2026-11-0{number} | {commit} | `{said}` | 2 cores | {figure} | {baseline} | {ratio} |\n"
        for number, (commit, said, figure, baseline, ratio) in enumerate(cells, 1)
    )


def ef(commit: str, ef_search: int, recall: float, cpu_ms: float, more: str = "") -> tuple[str, str, str, str, str]:
    name = f"100,000 x 512 synthetic, near, vectors alone, ef {ef_search}: recall@10 {recall}"
    return commit, "pixr bench search", f"{name}: {cpu_ms} CPU ms{more}", "", ""


def fold(commit: str, rate: str, bare: str, ratio: str) -> tuple[str, str, str, str, str]:
    figure = f"recorded batches to folded journal: {rate} accruals/s (9 funded)"
    return commit, "pixr bench ledger", figure, f"{bare}/s bare batched INSERT of the same bytes", ratio


SMALL = log(
    ef("aaaaaaa", 50, 0.5, 9.0),
    ef("bbbbbbb", 50, 0.8, 1.0),
    ef("bbbbbbb", 100, 0.9, 2.0),
    fold("ccccccc", "1,000", "2,000", "0.50"),
    fold("ddddddd", "1,300", "2,000", "0.65"),
)


def results(text: str, *headlines: Headline) -> list[str]:
    return [table.line(each, read(text)).result for each in headlines]


def test_a_report_is_the_same_each_time_and_over_itself() -> None:
    once = page.draw(SMALL, PAGE)
    assert page.draw(SMALL, PAGE) == once
    assert page.draw(SMALL, once[page.PAGE]) == once
    assert set(once) == {page.PAGE, "plots/search-recall-cpu.svg", "plots/ledger-fold-insert.svg"}


def test_words_by_hand_stay_and_those_between_the_marks_go() -> None:
    drawn = page.draw(SMALL, PAGE)[page.PAGE]
    assert drawn.startswith(f"# By hand\n\nBefore.\n\n{page.BEGIN}\n")
    assert drawn.endswith(f"{page.END}\n\nAfter.\n")
    assert "old" not in drawn.split()


def test_a_page_without_a_place_for_the_report_is_left_alone() -> None:
    with pytest.raises(Rejected, match="no place for the report"):
        page.draw(SMALL, "# By hand\n")


def test_what_lacks_its_rows_is_said_to_be_not_measured() -> None:
    drawn = page.draw(SMALL, PAGE)[page.PAGE]
    unmeasured = re.findall(r"^(.*): .*\*\*Not measured yet\*\*: the next `(.*)` writes", drawn, re.MULTILINE)
    assert [name for _, name in unmeasured] == ["pixr bench search", "pixr bench search", "pixr bench ingest"]
    assert "| encoder: the text of a query | - | - | not measured yet | - | - | - |" in drawn


def test_the_newest_row_of_a_figure_counts_and_misses_are_marked() -> None:
    folded = next(each for each in HEADLINES if each.name == "appearances folded into the journal")
    newer = table.line(folded, read(SMALL))
    assert (newer.value, newer.ratio, newer.result) == ("1,300 accruals/s", "0.65", table.MET)
    assert newer.source == "2026-11-05, ddddddd, 2 cores"
    worse = SMALL + log(fold("eeeeeee", "1,100", "2,000", "0.55")).removeprefix(HEAD)
    assert table.line(folded, read(worse)).result == table.MISSED == "**MISSED**"


def test_bars_are_of_a_value_of_a_ratio_or_stated_by_the_baseline() -> None:
    text = log(
        ("a", "pixr bench rope", "length: 1,200.5 m (of two)", "1,200 m wanted", "1.00"),
        ("a", "pixr bench rope", "weight: 3.1 kg", "3 kg wanted", "1.03"),
        ("a", "pixr bench rope", "price: 12", "10 beside others", "1.20"),
    )
    assert results(
        text,
        Headline(SUITE, "", "length", MORE),
        Headline(SUITE, "", "length", LESS),
        Headline(SUITE, "", "weight", LESS),
        Headline(SUITE, "", "weight", Bar("less", 4, text="4 kg at most")),
        Headline(SUITE, "", "price", Bar("less", 1.2, of="ratio", text="1.2 times at most")),
        Headline(SUITE, "", "price", LESS_IS_BETTER),
        Headline(SUITE, "", "price"),
        Headline(SUITE, "", "colour"),
    ) == ["met", "**MISSED**", "**MISSED**", "met", "met", "**behind**", "no bar", "not measured yet"]


def test_a_figure_beside_another_baseline_is_another_figure() -> None:
    text = log(
        ("a", "pixr bench rope", "length: 1 m", "2 m of ours", "0.50"),
        ("b", "pixr bench rope", "length: 1 m", "9 m of theirs", "0.11"),
    )
    assert table.line(Headline(SUITE, "", "length", baseline=".* of ours"), read(text)).ratio == "0.50"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("| 2026-11-25 | abc | `x` | 2 cores | a: 1 s | |", "line 7: 6 cells"),
        ("| 2026-11-25 | abc | `x` | 2 cores | a: 1 s | | | |", "line 7: 8 cells"),
        ("| 25 November | abc | `x` | 2 cores | a: 1 s | | |", "line 7: Invalid isoformat"),
        ("| 2026-11-25 | abc | `x` | 2 cores |  | | |", "line 7: no figure"),
        ("2026-11-25 | abc | `x` | 2 cores | a: 1 s | | |", "line 7: "),
        ("Remarks.", "line 7: 0 cells"),
        ("", "line 7: 0 cells"),
    ],
)
def test_a_malformed_row_is_named_by_its_line(line: str, said: str) -> None:
    good = log(("a", "x", "a: 1 s", "", "")).removeprefix(HEAD)
    with pytest.raises(Rejected, match=re.escape(said)):
        page.draw(HEAD + line + "\n" + good, PAGE)


def test_all_malformed_rows_are_named_at_once() -> None:
    with pytest.raises(Rejected, match=r"line 7: .*; line 8: "):
        read(HEAD + "one\ntwo\n")


def test_a_row_without_the_number_that_its_bar_needs_is_named_by_its_line() -> None:
    text = log(("a", "x", "other: 1 s", "", ""), ("a", "pixr bench rope", "length: long", "3 m wanted", ""))
    with pytest.raises(Rejected, match=r"line 8: no number in 'long'"):
        results(text, Headline(SUITE, "", "length", MORE))


def test_rows_are_read_as_they_are_written() -> None:
    [found] = read(HEAD + row(Figure("a | b", "1 s", "2 s", 0.5), "pixr bench x") + "\n")
    assert (found.line, found.command, found.figure) == (7, "`pixr bench x`", "a / b: 1 s")
    assert (found.baseline, found.ratio) == ("2 s", "0.50")


# ── Plots ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_curve_is_of_one_run_of_the_code() -> None:
    drawn = plots.recall_cpu(read(SMALL))
    assert drawn is not None
    assert [series.points for series in drawn.series] == [((1.0, 0.8), (2.0, 0.9))]
    assert drawn.source == "bbbbbbb (2026-11-02), bbbbbbb (2026-11-03)"


def test_the_search_suite_writes_what_the_plot_of_recall_and_latency_needs() -> None:
    points = [search.Point(50, 0.8, 1.0, 1.5, 2.5), search.Point(100, 0.9, 2.0, 2.75, 3.5)]
    corpus: Any = SimpleNamespace(rows=100_000, near=None, far=None)
    figures = itertools.islice(search.sql(corpus, points, []), len(points))
    rows = read(HEAD + "".join(row(each, "pixr bench search") + "\n" for each in figures))
    drawn = plots.recall_latency(rows)
    assert drawn is not None
    assert [series.points for series in drawn.series] == [((1.5, 0.8), (2.75, 0.9))]
    assert plots.recall_latency(read(SMALL)) is None


@pytest.mark.parametrize("plot", plots.PLOTS, ids=lambda plot: str(plot.file))
def test_a_plot_is_whole_xml_for_light_and_dark_pages(plot: plots.Plot) -> None:
    drawn = plot.chart(read(LOG.read_text(encoding="utf-8")))
    if drawn is None:
        pytest.skip("not measured yet")
    text = chart.svg(drawn)
    tree = ET.fromstring(text)  # noqa: S314  our own text
    words = {each.text for each in tree.iter("{http://www.w3.org/2000/svg}text")}
    assert {drawn.title, drawn.y, *(series.name for series in drawn.series)} <= words
    assert "prefers-color-scheme: dark" in text
    places = [float(each) for each in re.findall(r"translate\(([\d.-]+) ", text)]
    assert all(0 <= place <= chart.WIDTH for place in places)


@given(st.floats(0, 1e9), st.floats(1e-3, 1e9))
def test_ticks_span_what_is_drawn(low: float, more: float) -> None:
    high = low + more
    ticks = axes.linear_ticks(low, high)
    assert 2 <= len(ticks) <= 2 * axes.TICKS
    assert list(ticks) == sorted(set(ticks))
    assert ticks[0] <= low + 1e-9 * high
    assert ticks[-1] >= high - 1e-9 * high


@given(st.floats(1e-3, 1e6), st.floats(1.001, 1e4))
def test_logarithmic_ticks_span_what_is_drawn(low: float, times: float) -> None:
    ticks = axes.log_ticks(low, low * times)
    assert ticks[0] <= low
    assert low * times <= ticks[-1]
    assert list(ticks) == sorted(set(ticks))


# ── What is committed ──────────────────────────────────────────────────────────────────────────────────────────────


def committed_rows() -> list[Row]:
    return read(LOG.read_text(encoding="utf-8"))


def test_every_figure_of_the_table_has_a_row_but_for_those_that_nobody_has_measured() -> None:
    lines = [table.line(each, committed_rows()) for each in HEADLINES]
    assert {each.name for each in lines if each.result == table.NOT_MEASURED} <= NOT_MEASURED_TODAY
    names = [each.name for each in lines]
    assert len(names) == len(set(names))


def test_the_committed_page_and_plots_are_those_of_the_committed_log() -> None:
    """Only a row of a figure of the table or of a plot changes them. `pixr bench report` mends this."""
    folder = LOG.parent
    drawn = page.draw(LOG.read_text(encoding="utf-8"), (folder / page.PAGE).read_text(encoding="utf-8"))
    lagging = [name for name, text in drawn.items() if not is_as_drawn(folder / name, text)]
    assert lagging == [], "run `pixr bench report` and commit what it writes"
    assert {f"plots/{file.name}" for file in (folder / "plots").iterdir()} == set(drawn) - {page.PAGE}


def is_as_drawn(file: Path, text: str) -> bool:
    return file.exists() and file.read_text(encoding="utf-8") == text


def test_the_command_writes_what_has_changed_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "LOG.md").write_text(SMALL, encoding="utf-8")
    (tmp_path / page.PAGE).write_text(PAGE, encoding="utf-8")
    assert {file.name for file in page.write(tmp_path / "LOG.md")} == {
        page.PAGE,
        "search-recall-cpu.svg",
        "ledger-fold-insert.svg",
    }
    assert page.write(tmp_path / "LOG.md") == []
    monkeypatch.setattr(page, "write", lambda: [tmp_path / page.PAGE])
    said = CliRunner().invoke(command.bench, ["report"], obj=Context(None))
    assert (said.exit_code, "README.md" in said.output) == (0, True)
