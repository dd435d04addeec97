"""Log lines that may come by the hundred: each text is written once in a while, with how often it was left out since.

A refusal must cost less than what is refused, and a line of a log costs as much as either.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

EVERY_S = 1.0
TEXTS_MAX = 200  # that are remembered; the rest is written


@dataclass
class _Said:
    until_s: float
    left_out: int = 0


class Seldom:
    """Warnings of one logger. Used by one thread, or by several that may write a line too many."""

    def __init__(self, log: logging.Logger, every_s: float = EVERY_S) -> None:
        self._log, self._every_s = log, every_s
        self._said: dict[str, _Said] = {}

    def warning(self, text: str, request_id: str = "") -> None:
        """Write a text that was not written of late."""
        self._write(logging.WARNING, text, request_id)

    def error(self, text: str, request_id: str = "") -> None:
        """The same for what is wrong here, and not with who asks."""
        self._write(logging.ERROR, text, request_id)

    def _write(self, level: int, text: str, request_id: str) -> None:
        now_s, said = time.monotonic(), self._said.get(text)
        if said is not None and now_s < said.until_s:
            said.left_out += 1
            return
        more = f" (and {said.left_out} times more before)" if said is not None and said.left_out else ""
        if len(self._said) >= TEXTS_MAX:
            self._said.clear()
        self._said[text] = _Said(now_s + self._every_s)
        self._log.log(level, "%s%s", text, more, extra={"request_id": request_id})
