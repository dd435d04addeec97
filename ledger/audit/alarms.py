"""Alarms: money that waits in silence is the worst kind, so what has been open for too long is said in the log.

`pixr audit` and `pixr status` say the same at any time; what to do about it is a person's to decide (`pixr payouts stops`,
`resolve`, `order`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from psycopg import Connection

from ledger.audit import ages
from ledger.journal import book
from ledger.settings import LedgerSettings

log = logging.getLogger(__name__)

SAID_AGAIN_S = 3600.0


class AgeAlarm:
    """Names the states in which something has been open for too long, each once an hour, and sooner where it is another."""

    def __init__(self, settings: LedgerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._said: dict[str, tuple[float, tuple[str, ...]]] = {}

    def look(self, connection: Connection[Any]) -> list[str]:
        """Measure what is open, note it and say what is late; the states that were named this time. Ends the transaction."""
        found = ages.measure(connection, self._settings)
        ages.note(connection, found)
        book.commit(connection)
        now_s, named = self._clock(), []
        for each in found:
            if not each.late:
                self._said.pop(each.state, None)
                continue
            said_s, names = self._said.get(each.state, (now_s - SAID_AGAIN_S, ()))
            if now_s - said_s >= SAID_AGAIN_S or set(each.names) - set(names):
                about = {"state": each.state, "late": each.late, "oldest_s": round(each.oldest_s), "names": each.names}
                log.error("what is open for too long: %s", each, extra=about)
                named.append(each.state)
                self._said[each.state] = (now_s, each.names)
        return named
