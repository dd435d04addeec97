"""How long Serve keeps what grows by itself: events of viewers, of which the feed needs the youngest.

Every replica looks now and then, and one at a time deletes, a bounded number of rows a statement: the feed's own figures
(`app.watched`) lose nothing by it, since an event counts there when it comes.
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

LOOK_S = 600.0  # about; replicas look at different moments
PAUSE_S = 1.0  # while there is more
DELETED_MAX = 5_000  # rows a statement
LOCK = 0x70697874  # of the one replica that deletes
WATCHED = """
    DELETE FROM app.watch_events WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM app.watch_events WHERE at < now() - make_interval(days => %s) ORDER BY at LIMIT %s))"""


async def keep(services: Services) -> None:
    """Delete what is kept no longer, for good; a database that is away is asked again later."""
    is_more = False
    while True:
        await asyncio.sleep(PAUSE_S if is_more else LOOK_S * random.uniform(0.5, 1.5))
        is_more = False
        try:
            with deadlines.unlimited():
                is_more = await services.threads.ask(delete_some, services.search.watch_events_keep_d)
        except (Temporary, psycopg.Error) as error:
            log.warning("what is old is not deleted now: %s", error)


def delete_some(connection: Connection, keep_d: int) -> bool:
    """Delete some events that are older than that many days (0: none); whether there may be more."""
    if not keep_d or connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (LOCK,)).fetchone() != (True,):
        return False
    return connection.execute(WATCHED, (keep_d, DELETED_MAX)).rowcount >= DELETED_MAX
