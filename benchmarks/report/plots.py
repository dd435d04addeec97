"""The plots: which rows of LOG.md each is drawn from. A plot whose rows are not there is not drawn, and the page says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.report.axes import short
from benchmarks.report.chart import Chart, Series
from benchmarks.report.headlines import GROWTH, INGEST, LEDGER, SEARCH
from benchmarks.report.rows import Match, Row, matching, newest_run

EF = (
    r"(?P<rows>[\d,]+) x 512 synthetic, (?P<kind>near|far)(?: \(text-like\))?, vectors alone, ef \d+:"
    r" recall@10 (?P<recall>[\d.]+): (?P<cpu_ms>[\d.]+) CPU ms(?:, p50 (?P<p50_ms>[\d.]+) ms.*)?"
)
REQUEST = (
    r"(?P<rows>[\d,]+) x 512 synthetic, near, {}, vectors by table, over HTTP, 4 clients, uncached:"
    r" CPU ms a request: (?P<cpu_ms>.+)"
)
WORD_CPU = r"(?P<rows>[\d,]+) moments, words, three words \(as the load asks\): .* videos: (?P<cpu_ms>[\d.]+) CPU ms"
AT_RECALL = (
    r"CPU of PostgreSQL a query at recall@10 0\.95 .*, (?P<few>[\d,]+) \(.*"
    r" to (?P<many>[\d,]+) rows .*: (?P<cpu_ms>[\d.]+) ms"
)
STEADY = r"ingest job, .*, 1080p, (?P<model>[^,]+)(?:, .*)?: frames a (?P<unit>second|CPU second), steady: (?P<frames>\d+) .*"
FOLD = r"recorded batches to folded journal: (?P<rate>[\d,]+) accruals/s.*"
SEARCH_WORDS = ("`pixr bench search-words`",)  # which asks two catalogues in one run
RUNS_MAX = 7  # the newest, of the ledger


@dataclass(frozen=True)
class Plot:
    """A plot: its SVG file, its caption, and the function that draws it from the rows of LOG.md.

    Args:
        file: Its name under `plots/`.
        caption: What it shows and how to read it; also shown while the plot has no rows.
        command: The benchmark that writes the rows that it needs.
        chart: Makes the chart; returns None where LOG.md has too few rows for it.
    """

    file: str
    caption: str
    command: str
    chart: Callable[[Sequence[Row]], Chart | None]


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _sources(matches: Sequence[Match]) -> str:
    return ", ".join(dict.fromkeys(f"{row.commit} ({row.date})" for row, _ in matches))


# ── Search ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def recall_latency(rows: Sequence[Row]) -> Chart | None:
    """Plot recall over the median time of a query, with one point for each `ef`."""
    return _recall(rows, "p50_ms", "median ms of a query by SQL, one connection", "Recall against latency, by ef")


def recall_cpu(rows: Sequence[Row]) -> Chart | None:
    """Plot recall over CPU time, with one point for each `ef`."""
    return _recall(rows, "cpu_ms", "CPU ms of PostgreSQL a query", "Recall against CPU, by ef")


def _recall(rows: Sequence[Row], group: str, x: str, title: str) -> Chart | None:
    found = [each for each in newest_run(matching(rows, SEARCH.commands, EF)) if each[1][group]]
    curves: dict[str, list[tuple[float, float]]] = {}
    for _, match in found:
        curve = curves.setdefault(f"{match['kind']}, {short(_number(match['rows']))}", [])
        curve.append((float(match[group]), float(match["recall"])))
    if not curves or min(map(len, curves.values())) < 2:
        return None
    series = tuple(Series(name, tuple(points)) for name, points in curves.items())
    return Chart(title, x, "recall@10", series, _sources(found), from_zero=False, log_x=True)


def cpu_rows(rows: Sequence[Row]) -> Chart | None:
    """Plot CPU time over the size of the catalogue: of whole requests, and of their parts in PostgreSQL."""
    whole = {
        "whole request, text and vectors": newest_run(matching(rows, SEARCH_WORDS, REQUEST.format("hybrid"))),
        "whole request, vectors alone": newest_run(matching(rows, SEARCH.commands, REQUEST.format("vectors alone"))),
        "PostgreSQL, words": newest_run(matching(rows, SEARCH_WORDS, WORD_CPU)),
    }
    curves = {
        name: {_number(match["rows"]): _sum(match["cpu_ms"]) for _, match in found} for name, found in whole.items()
    }
    growth = matching(rows, GROWTH.commands, AT_RECALL)[-1:]
    for row, match in growth:
        few_ms = _number(row.baseline.partition(" ")[0])
        points = {_number(match["few"]): few_ms, _number(match["many"]): float(match["cpu_ms"])}
        curves["PostgreSQL, vectors at recall@10 0.95"] = points
    series = tuple(Series(name, tuple(sorted(points.items()))) for name, points in curves.items() if len(points) > 1)
    if not series:
        return None
    sources = _sources([each for found in (*whole.values(), growth) for each in found])
    return Chart("CPU against moments in the catalogue", "moments", "CPU ms", series, sources, log_x=True)


def _sum(stages: str) -> float:
    """Sum the numbers in `replica 2.65, encoder 0.05, …`; a number alone is its own sum."""
    return round(sum(float(stage.split()[-1]) for stage in stages.split(", ")), 2)


# ── Ingest and ledger ──────────────────────────────────────────────────────────────────────────────────────────────


def frames_bare(rows: Sequence[Row]) -> Chart | None:
    """Plot frames per second and per CPU second, the newest row of each model beside the bare loop of the same run."""
    groups: dict[str, Match] = {}
    for row, match in matching(rows, INGEST.commands, STEADY):
        if row.baseline.endswith(" bare loop"):
            groups[f"{match['model']}\na {match['unit']}"] = (row, match)
    if not groups:
        return None
    names = tuple(sorted(groups, key=lambda name: (name.endswith("CPU second"), name)))
    job = tuple((float(n), float(groups[name][1]["frames"])) for n, name in enumerate(names))
    bare = tuple((float(n), _number(groups[name][0].baseline.split()[0])) for n, name in enumerate(names))
    series = (Series("ingest job", job), Series("bare loop", bare, is_baseline=True))
    return Chart("Ingest: frames beside a bare loop", "", "frames", series, _sources([*groups.values()]), "bars", names)


def fold_insert(rows: Sequence[Row]) -> Chart | None:
    """Plot, run by run, what the fold does in a second beside bare INSERTs of the same bytes."""
    runs = [each for each in matching(rows, LEDGER.commands, FOLD) if "bare batched INSERT" in each[0].baseline]
    if len(runs) < 2:
        return None
    del runs[:-RUNS_MAX]
    fold = tuple((float(n), _number(match["rate"])) for n, (_, match) in enumerate(runs))
    bare = tuple((float(n), _number(row.baseline.partition("/s")[0])) for n, (row, _) in enumerate(runs))
    series = (Series("folded into the journal", fold), Series("bare batched INSERT", bare, is_baseline=True))
    names = tuple(row.commit for row, _ in runs)
    dates = " to ".join(dict.fromkeys((runs[0][0].date, runs[-1][0].date)))
    return Chart("Fold against a bare INSERT", "run, by commit", "appearances a second", series, dates, names=names)


PLOTS = (
    Plot(
        "search-recall-latency.svg",
        "Recall against latency, by `hnsw.ef_search`: how long a query by vectors takes for which share of the true ten"
        " nearest.",
        "pixr bench search",
        recall_latency,
    ),
    Plot(
        "search-recall-cpu.svg",
        "Recall against CPU, by `hnsw.ef_search` (50 to 800): what PostgreSQL spends on a query by vectors for which share of"
        " the true ten nearest; near queries are like the rows, far ones like texts. Higher and further left is better.",
        "pixr bench search",
        recall_cpu,
    ),
    Plot(
        "search-cpu-rows.svg",
        "CPU against rows: what a search that is not kept takes of all processes, and of PostgreSQL for its two lists."
        " Lower and flatter is better.",
        "pixr bench search",
        cpu_rows,
    ),
    Plot(
        "ingest-bare-loop.svg",
        "Frames beside the bare loop: the whole job, steady, and the same decoding and model in plain processes without Ray,"
        " database or S3, in turns. Two models; the hours of a shared machine differ, the two bars of a pair are of one.",
        "pixr bench ingest",
        frames_bare,
    ),
    Plot(
        "ledger-fold-insert.svg",
        "Fold against a bare INSERT: appearances that become journal entries, beside the same bytes in bare batched INSERTs"
        f" of the same run; the last {RUNS_MAX} runs.",
        "pixr bench ledger",
        fold_insert,
    ),
)
