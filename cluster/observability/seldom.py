"""Log lines that may repeat hundreds of times a second: each text is written once a second, with a count of omissions.

Refusing a request must cost less than serving it, and writing a log line costs as much as either.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

EVERY_S = 1.0
TEXTS_MAX = 200  # texts that are remembered; when there are more, all are forgotten and written again


@dataclass
class _Written:
    """When a text may be written again (monotonic seconds), and how often it was omitted since it was written."""

    again_at_s: float
    omitted: int = 0


class Seldom:
    """A logger that writes each text at most once every `every_s` seconds.

    Threads may share it; a text may then be written a little more often.
    """

    def __init__(self, log: logging.Logger, every_s: float = EVERY_S) -> None:
        self._log, self._every_s = log, every_s
        self._written: dict[str, _Written] = {}

    def warning(self, text: str, request_id: str = "") -> None:
        """Log a warning, unless the same text was written less than `every_s` seconds ago."""
        self._write(logging.WARNING, text, request_id)

    def error(self, text: str, request_id: str = "") -> None:
        """Log an error in the same way; it is for faults of this process, a warning for faults of its callers."""
        self._write(logging.ERROR, text, request_id)

    def _write(self, level: int, text: str, request_id: str) -> None:
        now_s, before = time.monotonic(), self._written.get(text)
        if before is not None and now_s < before.again_at_s:
            before.omitted += 1
            return
        suffix = f" (and {before.omitted} times more before)" if before is not None and before.omitted else ""
        if len(self._written) >= TEXTS_MAX:
            self._written.clear()
        self._written[text] = _Written(now_s + self._every_s)
        self._log.log(level, "%s%s", text, suffix, extra={"request_id": request_id})
