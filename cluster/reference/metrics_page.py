"""The page of all metrics: name, kind, labels and help text, by the process that has them.

Metrics are described by the packages that have them; this module writes the page. Knows no metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HEAD = """# Metrics

Every metric, from the code that counts it. This page is written by `pixr docs metrics --write` (`make docs`); a test fails
where it lags behind the code. Units stand last in the names: `_seconds`, `_bytes`, `_mb`, `_usd`; a `_ratio` or a `_share` is
from 0 to 1.
"""
TAIL = """
## The door, Ray

The door has HAProxy's own metrics (`haproxy_…`), on a socket of its machine: `curl --unix-socket .pixr/run/door/own.sock
http://door/metrics`. Ray has its own too (`ray_…`), on the same port of each node as those of ingest jobs.
"""
COLUMNS = "| metric | kind | labels | meaning |\n|---|---|---|---|"


@dataclass(frozen=True)
class Metric:
    """One metric, as Prometheus reads it."""

    name: str  # of its sample; the samples of a histogram end in `_bucket`, `_count` and `_sum`
    kind: str  # "counter", "gauge" or "histogram"
    meaning: str  # its help text
    labels: Mapping[str, Sequence[str]]  # the values of each label; none where the code does not limit them


def page(by_process: Mapping[str, tuple[str, Sequence[Metric]]]) -> str:
    """Return the page as Markdown.

    `by_process` maps the name of each process to the text that says where its metrics are read, and to its metrics.
    """
    lines = [HEAD]
    for process, (where, metrics) in by_process.items():
        lines += [f"## {process}\n", f"{where}\n", COLUMNS]
        lines += [
            f"| `{each.name}` | {each.kind} | {_labels(each.labels)} | {_sentence(each.meaning)} |" for each in metrics
        ]
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n" + TAIL


def _sentence(meaning: str) -> str:
    return meaning[:1].upper() + meaning[1:].rstrip(".")


def _labels(labels: Mapping[str, Sequence[str]]) -> str:
    shown = [f"`{name}`" + (f": {', '.join(values)}" if values else "") for name, values in labels.items()]
    return "; ".join(shown)
