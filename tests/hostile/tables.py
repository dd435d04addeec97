"""What a test saw, as tables that can stand in a log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.hostile.asking import Kind, Seen
from tests.hostile.crowd import Report
from tests.hostile.gauges import Gauges

COMMON_MAX = 12


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns of text: the first to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for first, *rest in cells:
        lines.append("  ".join((first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True)))))
    return "\n".join(lines)


def of_clients(clients: Mapping[str, Seen]) -> str:
    """How each client's requests ended, and how long they took (ms)."""
    head = ("client", "sent", *(kind.value for kind in Kind), "p50", "p95", "max")
    rows = []
    for name, seen in clients.items():
        times = [f"{seen.took_s(quantile) * 1000:.0f}" for quantile in (0.5, 0.95, 1.0)]
        rows.append((name, len(seen.rows), *(seen.kinds[kind] for kind in Kind), *times))
    return table(head, rows)


def of_gauges(before: Gauges, after: Gauges) -> str:
    rows = [(name, f"{stood:.0f}", f"{after.get(name, float('nan')):.0f}") for name, stood in before.items()]
    return table(("gauge", "before", "after"), rows)


def of_crowd(report: Report) -> str:
    """The strangers, what they were answered most often, and what the network said to them."""
    many = f"strangers: {report.started.total()} of {len(report.started)} kinds in {report.seconds:.0f} s"
    bounds = f"{report.connected} connected, at most {report.at_once} at once, {report.skipped} left out"
    lines = [f"{many}, {bounds}; CPU {100 * report.cpu_share:.0f} % of a core"]
    for name, counts in (("answers", report.answers), ("network", report.failures)):
        common = ", ".join(f"{what}: {count}" for what, count in counts.most_common(COMMON_MAX))
        lines.append(f"{name}: {common or 'none'}")
    return "\n".join(lines)
