"""Alarms: money that waits in silence is the worst kind, so what has had no end for too long is said in the log.

Only reads. `pixr audit` says the same at any time; what to do about it is a person's to decide (`pixr payouts resolve`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from psycopg import Connection

from ledger import batches

log = logging.getLogger(__name__)

SAID_AGAIN_S = 3600.0


class StuckAlarm:
    """Names batches that have been open for longer than `open_max_s`, each once an hour."""

    def __init__(self, open_max_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._open_max_s, self._clock = open_max_s, clock
        self._again_at: dict[str, float] = {}

    def look(self, connection: Connection[Any]) -> list[str]:
        """Say what is stuck; returns the ids of the batches that were named this time. Ends the transaction."""
        found = batches.open_too_long(connection, self._open_max_s)
        connection.commit()
        now_s = self._clock()
        named = []
        for number, kind, state, attempts, age_s in found:
            if now_s >= self._again_at.get(number, now_s):
                about = {"batch": number, "kind": kind, "state": state, "attempts": attempts, "age_s": round(age_s)}
                log.error("a transaction has had no end for too long", extra=about)
                named.append(number)
                self._again_at[number] = now_s + SAID_AGAIN_S
        self._again_at = {number: self._again_at[number] for number, *_ in found}
        return named
