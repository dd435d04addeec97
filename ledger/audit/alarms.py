"""Alarms: log what has been open for too long, so that no money waits unnoticed.

`pixr audit` and `pixr status` show the same at any time. A person decides what to do about it (`pixr payouts stops`,
`resolve`, `order`). Knows the ages of states, not what they mean.
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
    """A log of states in which something is open for too long.

    A state is logged once an hour, and at once when another thing in it is late.
    """

    def __init__(self, settings: LedgerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._logged: dict[str, tuple[float, tuple[str, ...]]] = {}  # by state: when it was logged last, what names

    def look(self, connection: Connection[Any]) -> list[str]:
        """Measure all states, note their ages, log those in which something is late, and commit.

        Returns the states that were logged.
        """
        measured = ages.measure(connection, self._settings)
        ages.note(connection, measured)
        book.commit(connection)
        now_s, logged = self._clock(), []
        for age in measured:
            if not age.late:
                self._logged.pop(age.state, None)
                continue
            logged_s, names = self._logged.get(age.state, (now_s - SAID_AGAIN_S, ()))
            if now_s - logged_s >= SAID_AGAIN_S or set(age.names) - set(names):
                fields = {"state": age.state, "late": age.late, "oldest_s": round(age.oldest_s), "names": age.names}
                log.error("what is open for too long: %s", age, extra=fields)
                logged.append(age.state)
                self._logged[age.state] = (now_s, age.names)
        return logged
