"""`/metrics` of a replica shows what the ledger has found open, and how long ago it looked."""

from __future__ import annotations

import re

from cluster.database import database
from cluster.settings import Settings
from ledger.audit import ages
from ledger.audit.alarms import AgeAlarm
from ledger.journal import book
from ledger.risk import stops
from ledger.settings import LedgerSettings
from serve.routes import opened as gauges
from tests.serve.doors import fill, opened, tiny


def sample(text: str, name: str, state: str = "") -> float | None:
    labels = re.escape(f'{{state="{state}"}}') if state else ""
    found = re.search(rf"^{name}{labels} ([-0-9.e+]+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


async def test_what_is_open_is_a_gauge_of_every_replica(settings: Settings) -> None:
    fill(settings)
    async with opened(settings, tiny) as doors:
        text = (await doors.http.get("/metrics")).text
        assert sample(text, "pixr_ledger_looked_seconds") is None
        with database.connect(settings.postgres.url) as connection:
            book.take_epoch(connection, "test")
            stops.hold(connection, 7, "asked")
            connection.commit()  # what began in this very transaction is not old
            AgeAlarm(LedgerSettings(stop_open_max_s=1e-9)).look(connection)
        doors.services.metrics.open.again_s = 0.0
        text = (await doors.http.get("/metrics")).text
        assert [sample(text, f"pixr_ledger_open{kind}", "on hold") for kind in ("", "_late")] == [1, 1]
        assert all(sample(text, "pixr_ledger_open", state) is not None for state in ages.STATES)
        assert sample(text, "pixr_ledger_open", "planned") == 0
        assert (sample(text, "pixr_ledger_open_seconds", "on hold") or -1) >= 0
        assert (sample(text, "pixr_ledger_looked_seconds") or 99) < 60
        with database.connect(settings.postgres.url) as connection:
            connection.execute("UPDATE ledger.holds SET released_at = now()")
        assert sample((await doors.http.get("/metrics")).text, "pixr_ledger_open", "on hold") == 1  # asked a moment ago
        assert gauges.LOOK_S < 60
