"""Text for terminals: texts from outside (titles, names, reasons) without characters that control the terminal.

A title may contain the escape sequences that clear a screen or set a window's title, or marks that change the direction
of text. Everything that `pixr` prints for people goes through here; JSON escapes such characters by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from cluster.characters import TURNING

# C0 and C1 controls except tab and newline, and marks that change the direction of text (Unicode TR 9, TR 36).
CONTROLLING = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{TURNING}]")


def printable(text: str) -> str:
    """Return a text without control characters."""
    return CONTROLLING.sub("", text)


class Printer(Console):
    """A console that removes control characters from all texts; its own colours stay."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of a renderable, their texts made printable."""
        for segment in super().render(renderable, options):
            if segment.control or not CONTROLLING.search(segment.text):
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)
