"""The page: `benchmarks/README.md` between its two marks, and the plots beside it. What is written by hand stays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.report import chart
from benchmarks.report.headlines import HEADLINES
from benchmarks.report.plots import PLOTS
from benchmarks.report.rows import Row, read
from benchmarks.report.table import table
from benchmarks.run import LOG
from cluster.errors import Rejected

PAGE = "README.md"
BEGIN = "<!-- begin: `pixr bench report` writes from here -->"
END = "<!-- end: `pixr bench report` writes to here -->"


def draw(log: str, page: str) -> dict[str, str]:
    """Draw the page and its plots.

    Args:
        log: The text of LOG.md.
        page: The text of the page as it is.

    Returns:
        Texts by file name under `benchmarks/`; the same arguments give the same bytes.

    Raises:
        Rejected: the log has a malformed row, or the page does not have its two marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise Rejected(f"benchmarks/{PAGE} has no place for the report", hint=f"it stands between {BEGIN} and {END}")
    rows = read(log)
    plots = {f"plots/{plot.file}": plot.chart(rows) for plot in PLOTS}
    drawn = {name: chart.svg(each) for name, each in plots.items() if each}
    written = "\n".join(_lines(rows, drawn))
    return {PAGE: f"{before}{BEGIN}\n\n{written}\n\n{END}{after}", **drawn}


def _lines(rows: Sequence[Row], drawn: dict[str, str]) -> Iterator[str]:
    yield "## Headline figures"
    yield ""
    yield from table(rows, HEADLINES)
    yield ""
    yield "## Plots"
    for plot in PLOTS:
        yield ""
        if f"plots/{plot.file}" in drawn:
            yield f"![{plot.caption.partition(':')[0]}](plots/{plot.file})"
            yield ""
            yield plot.caption
        else:
            yield f"{plot.caption} **Not measured yet**: the next `{plot.command}` writes the rows that this plot needs."


def write(log: Path = LOG) -> list[Path]:
    """Draw the page beside a log; return the files that have changed.

    Raises:
        Rejected: see `draw`.
    """
    page = log.with_name(PAGE)
    drawn = draw(log.read_text(encoding="utf-8"), page.read_text(encoding="utf-8"))
    changed = []
    for name, text in drawn.items():
        file = log.parent / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
            changed.append(file)
    return changed
