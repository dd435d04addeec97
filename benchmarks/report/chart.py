"""A chart as SVG text: lines over numbers or names, or groups of bars. The same chart always gives the same bytes.

Written here because it is short, and because a page on GitHub needs what plotting libraries do not give: one file that
is legible on a light and on a dark page. The chart paints its own background, and its colours follow
`prefers-color-scheme`. Series differ by colour (for the colour-blind too, Okabe and Ito 2008) and by the shape of their
points. A baseline is grey and dashed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

from benchmarks.report.axes import Axis, linear_ticks, log_ticks, short

WIDTH, HEIGHT = 520, 380  # of the drawing's own units
SIZE = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="640" height="468"'  # larger than its units, and on a phone smaller
LEFT, RIGHT, BOTTOM = 62, 500, 314
LINE = 20  # of text
LETTER = 7.4  # a letter's mean width at 14 units
BARS_SHARE = 0.76  # of a group's place
NAMES_LARGE = 5  # as many have room for large letters

STYLE = """
.ground { fill: #ffffff; stroke: #d1d9e0 }
.ring { stroke: #ffffff; stroke-width: 1.5 }
.grid { stroke: #e3e8ed } .axis { stroke: #818b98 }
text { font: 14px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 } .soft { fill: #59636e } .small { font-size: 12px }
.line { fill: none; stroke: currentColor; stroke-width: 2.5; stroke-linejoin: round } .dashed { stroke-dasharray: 6 4 }
.mark { fill: currentColor }
.of0 { color: #0072b2 } .of1 { color: #d55e00 } .of2 { color: #00875f } .of3 { color: #b0508a } .base { color: #6e7781 }
@media (prefers-color-scheme: dark) {
.ground { fill: #0d1117; stroke: #3d444d } .ring { stroke: #0d1117 }
.grid { stroke: #272d35 } .axis { stroke: #656c76 }
text { fill: #f0f6fc } .soft { fill: #9198a1 }
.of0 { color: #56b4e9 } .of1 { color: #f0932b } .of2 { color: #2bc59a } .of3 { color: #e58fc4 } .base { color: #9198a1 }
}
"""
SHAPES = (  # of points, about (0, 0)
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
    "M-4 -4h8v8h-8z",
    "M0 -5.5l5 9h-10z",
    "M0 -5.5l5.5 5.5l-5.5 5.5l-5.5-5.5z",
)


@dataclass(frozen=True)
class Series:
    """Points of one kind, in the order in which a line joins them; in a chart over names, x is the name's index from 0."""

    name: str
    points: tuple[tuple[float, float], ...]
    is_baseline: bool = False


@dataclass(frozen=True)
class Chart:
    """What is drawn.

    `x` and `y` say what the axes measure, with the unit. If there are `names`, the x axis has these in place of
    numbers.
    """

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    source: str  # the rows that it is drawn from: commits and dates
    kind: Literal["lines", "bars"] = "lines"
    names: tuple[str, ...] = ()  # a line feed begins a second line
    from_zero: bool = True  # the y axis
    log_x: bool = False


def svg(chart: Chart) -> str:
    """Draw a chart.

    Raises:
        ValueError: the points do not have two different values for an axis to span.
    """
    legend, top = _legend(chart)
    x, y = _x_axis(chart), _y_axis(chart, top)
    parts = (
        [f'<svg xmlns="http://www.w3.org/2000/svg" {SIZE} role="img" aria-label={quoteattr(chart.title)}>'],
        [f"<style>{STYLE}</style>"],
        [f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="6"/>'],
        [_text(16, 26, chart.title, "title")],
        legend,
        _grid(chart, x, y),
        _bars(chart, x, y) if chart.kind == "bars" else _lines(chart, x, y),
        [_text(RIGHT, HEIGHT - 10, chart.source, "small soft", "end")],
        ["</svg>"],
    )
    return "\n".join(line for part in parts for line in part) + "\n"


def _text(x: float, y: float, text: str, classes: str = "", anchor: str = "start") -> str:
    return f'<text class="{classes}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _colour(chart: Chart, series: Series) -> str:
    own = [each for each in chart.series if not each.is_baseline]
    return "base" if series.is_baseline else f"of{own.index(series)}"


# ── Axes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _x_axis(chart: Chart) -> Axis:
    if chart.names:
        return Axis((-0.5, len(chart.names) - 0.5), LEFT, RIGHT)
    values = [x for series in chart.series for x, _ in series.points]
    ticks = (log_ticks if chart.log_x else linear_ticks)(min(values), max(values))
    return Axis(ticks, LEFT, RIGHT, chart.log_x)


def _y_axis(chart: Chart, top: float) -> Axis:
    values = [y for series in chart.series for _, y in series.points]
    return Axis(linear_ticks(0 if chart.from_zero else min(values), max(values)), BOTTOM, top)


def _grid(chart: Chart, x: Axis, y: Axis) -> Iterator[str]:
    """Yield the lines at the ticks of y, the axes, and their labels."""
    yield _text(16, y.stop - 14, chart.y, "soft")
    for tick in y.ticks:
        place = y.place(tick)
        yield f'<path class="grid" d="M{LEFT} {place:.1f}H{RIGHT}"/>'
        yield _text(LEFT - 8, place + 5, short(tick), "soft", "end")
    yield f'<path class="axis" d="M{LEFT} {BOTTOM}H{RIGHT}"/>'
    labels: list[tuple[float, str]] = [*enumerate(chart.names)] or [(tick, short(tick)) for tick in x.ticks]
    size = "small soft" if len(chart.names) > NAMES_LARGE else "soft"
    for value, label in labels:
        for number, line in enumerate(label.split("\n")):
            yield _text(x.place(value), BOTTOM + LINE * (number + 1) - 2, line, size, "middle")
    yield _text((LEFT + RIGHT) / 2, BOTTOM + LINE * 2, chart.x, "soft", "middle")


def _legend(chart: Chart) -> tuple[list[str], float]:
    """Return the legend, in as many lines as it needs, and the height below which the plot may begin."""
    parts: list[str] = []
    x, y = 16.0, 50.0
    for number, series in enumerate(chart.series):
        width = 30 + LETTER * len(series.name) + 14
        if x + width > WIDTH and x > 16:
            x, y = 16.0, y + LINE
        parts.append(f'<g class="{_colour(chart, series)}" transform="translate({x:.1f} {y - 5:.1f})">')
        if chart.kind == "bars":
            parts.append('<rect class="mark" x="6" y="-6" width="12" height="12" rx="2"/></g>')
        else:
            parts.append(f'<path class="{_line(series)}" d="M0 0H24"/>{_mark(number, 12, 0)}</g>')
        parts.append(_text(x + 30, y, series.name))
        x += width
    return parts, y + 42


# ── Series ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _line(series: Series) -> str:
    return "line dashed" if series.is_baseline else "line"


def _mark(number: int, x: float, y: float, title: str = "") -> str:
    inside = f"<title>{escape(title)}</title>" if title else ""
    shape = SHAPES[number % len(SHAPES)]
    return f'<path class="mark ring" transform="translate({x:.1f} {y:.1f})" d="{shape}">{inside}</path>'


def _lines(chart: Chart, x: Axis, y: Axis) -> Iterator[str]:
    for number, series in enumerate(chart.series):
        places = [(x.place(one), y.place(other)) for one, other in series.points]
        yield f'<g class="{_colour(chart, series)}">'
        yield f'<path class="{_line(series)}" d="M{"L".join(f"{one:.1f} {other:.1f}" for one, other in places)}"/>'
        for place, (one, other) in zip(places, series.points, strict=True):
            name = chart.names[int(one)] if chart.names else short(one)
            yield _mark(number, *place, f"{series.name}: {name}, {other:g}")
        yield "</g>"


def _bars(chart: Chart, x: Axis, y: Axis) -> Iterator[str]:
    """Yield the bars: those of one name side by side, each with its value on top."""
    wide = (x.place(1) - x.place(0)) * BARS_SHARE / len(chart.series)
    for number, series in enumerate(chart.series):
        offset = (number - len(chart.series) / 2) * wide
        for one, other in series.points:
            left, top = x.place(one) + offset + 1, y.place(other)
            outline = f"M{left:.1f} {BOTTOM}V{top:.1f}h{wide - 2:.1f}V{BOTTOM}z"
            yield f'<path class="mark {_colour(chart, series)}" d="{outline}"/>'
            yield _text(left + wide / 2 - 1, top - 6, short(other), "small", "middle")
