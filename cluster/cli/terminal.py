"""What may be printed on a terminal: texts from outside (titles, names, reasons) without what would command it.

A title may hold the escape sequences that clear a screen or set a window's title, or marks that turn the order of letters
around. Everything that `pixr` prints for people goes through here; JSON is escaped by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from cluster.characters import TURNING

# C0 and C1 controls but for tab and newline, and the marks by which text changes its direction (Unicode TR 9, TR 36).
COMMANDING = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{TURNING}]")


def printable(text: str) -> str:
    """A text without control characters."""
    return COMMANDING.sub("", text)


class Printer(Console):
    """A console that prints nothing which would command the terminal, but for its own colours."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or not COMMANDING.search(segment.text):
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)
