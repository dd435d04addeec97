"""`pixr bench`: run benchmarks and append what they measured to LOG.md, one row a figure.

A benchmark is a module here with `run(settings) -> Iterable[Figure]` and a line in `NAMES`. Rows are never removed:
a figure that disappoints stays beside the one that follows it.
"""

from __future__ import annotations

import datetime as dt
import importlib
import os
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import Rejected
from cluster.settings import ROOT, Settings

LOG = ROOT / "benchmarks" / "LOG.md"
NAMES = {
    "stack": "benchmarks.stack",
    "ingest": "benchmarks.ingest",
    "ingest-large": "benchmarks.ingest_large",
    "ingest-short": "benchmarks.ingest_short",
    "ingest-decode": "benchmarks.ingest_decode",
    "ingest-shots": "benchmarks.ingest_shots",
    "ingest-listing": "benchmarks.ingest_listing",
    "search": "benchmarks.search",
    "search-words": "benchmarks.search_words",
    "ledger": "benchmarks.ledger",
    "ledger-scale": "benchmarks.ledger_scale",
    "moments": "benchmarks.moments",
    "encoder": "benchmarks.encoder",
    "mutations": "benchmarks.mutations",
    "economy": "benchmarks.economy",
}
ONLY_BY_NAME = ("ledger-scale", "mutations", "economy")  # of many gigabytes; of hours
HEAD = """# Measured

One row a figure, newest last. Machines are shared and noisy: read the ratio before the figure.

| date | commit | command | machine | figure | baseline | ratio |
|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Figure:
    """One row of the log: `name`, its value and baseline with units as text, and their ratio where both are numbers."""

    name: str
    value: str
    baseline: str = ""
    ratio: float | None = None


def run(settings: Settings, name: str | None, *, write: bool, say: Callable[[str], None]) -> None:
    """Run one benchmark, or all except those that are run only by name.

    Raises:
        Rejected: no benchmark has that name.
    """
    if name is not None and name not in NAMES:
        raise Rejected(f"no benchmark {name!r}", hint=f"there are {', '.join(NAMES)}")
    for each in [name] if name else [each for each in NAMES if each not in ONLY_BY_NAME]:
        figures: Iterable[Figure] = importlib.import_module(NAMES[each]).run(settings)
        for figure in figures:
            line = row(figure, f"pixr bench {each}")
            say(line)
            if write:
                append(line)


def row(figure: Figure, command: str) -> str:
    """Return a figure as one line of LOG.md."""
    today = dt.datetime.now(dt.UTC).date().isoformat()
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    measured = f"{figure.name}: {figure.value}"
    cells = (today, _commit(), f"`{command}`", _machine(), measured, figure.baseline, ratio)
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def append(line: str, log: Path = LOG) -> None:
    if not log.exists():
        log.write_text(HEAD, encoding="utf-8")
    with open(log, "a", encoding="utf-8") as handle:
        handle.write(line + "\n")


def _commit() -> str:
    done = subprocess.run(
        ("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"), capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "none"


def _machine() -> str:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory_gib:.0f} GiB"
