"""Deletes old watch events of viewers; the feed needs only the recent ones.

Every replica tries now and then; only one deletes at a time, a bounded number of rows per statement. The feed's own figures
(`app.watched`) do not change by it, since an event is added to them when it arrives.
"""

from __future__ import annotations

import asyncio
import logging
import random

import psycopg
from psycopg import Connection

from cluster.errors import Temporary
from serve.http import deadlines
from serve.routes.services import Services

log = logging.getLogger(__name__)

LOOK_S = 600.0  # on average; randomised, so that replicas try at different times
PAUSE_S = 1.0  # while there are more rows to delete
DELETED_MAX = 5_000  # rows per statement
LOCK = 0x70697874  # advisory lock of the one replica that deletes
WATCHED = """
    DELETE FROM app.watch_events WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM app.watch_events WHERE at < now() - make_interval(days => %s) ORDER BY at LIMIT %s))"""


async def keep(services: Services) -> None:
    """Delete old events from time to time, for as long as the replica runs; when the database is away, try again later."""
    has_more = False
    while True:
        await asyncio.sleep(PAUSE_S if has_more else LOOK_S * random.uniform(0.5, 1.5))
        has_more = False
        try:
            with deadlines.unlimited():
                has_more = await services.threads.ask(delete_some, services.search.watch_events_keep_d)
        except (Temporary, psycopg.Error) as error:
            log.warning("what is old is not deleted now: %s", error)


def delete_some(connection: Connection, keep_d: int) -> bool:
    """Delete some events older than `keep_d` days (0: delete none); return whether there may be more."""
    if not keep_d or connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (LOCK,)).fetchone() != (True,):
        return False
    return connection.execute(WATCHED, (keep_d, DELETED_MAX)).rowcount >= DELETED_MAX
