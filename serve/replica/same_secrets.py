"""Whether a replica has the secrets of its deployment; one with others is of no use, and what it records would be paid again.

The database is asked before the first request, and where it does not answer, until it does. What it has not noted is no concern
here: Serve's keeper notes it before there is a replica (see `cluster.database.fingerprints`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import psycopg
from psycopg import AsyncConnection

from cluster.database import fingerprints
from cluster.errors import Rejected, Temporary
from cluster.settings import Settings
from serve.replica.readers import Readers

log = logging.getLogger(__name__)

START_S = 1.0  # for the first look: a database that is away must not keep a replica from saying so
AGAIN_S = 2.0


class SameSecrets:
    """One replica's. Used inside one event loop: `await start()` before the first request, `until_known` beside them."""

    def __init__(self, settings: Settings, readers: Readers) -> None:
        self._here = fingerprints.of(settings)
        self._readers = readers
        self._is_known = False
        self._refusal: Rejected | None = None

    async def start(self) -> None:
        """Look once, for a moment.

        Raises:
            Rejected: the deployment has other secrets.
        """
        try:
            async with asyncio.timeout(START_S):
                await self._look()
        except (Temporary, psycopg.Error, TimeoutError) as error:
            log.warning("whether the secrets are the deployment's is not known yet: %s", error)

    async def until_known(self) -> None:
        """Go on looking until the database has answered; `check` says what came of it."""
        while not self._is_known:
            await asyncio.sleep(AGAIN_S)
            try:
                await self.start()
            except Rejected as error:
                log.error("%s", error)
                self._is_known, self._refusal = True, error

    def check(self) -> None:
        """For Serve, which ends a replica of which this raises.

        Raises:
            Rejected: the deployment has other secrets.
        """
        if self._refusal is not None:
            raise self._refusal

    async def _look(self) -> None:
        async def compared(connection: AsyncConnection[Any]) -> list[tuple[str, bool | None]]:
            return await (await connection.execute(fingerprints.COMPARED, self._here)).fetchall()

        fingerprints.refuse(dict(await self._readers.primary(compared)))
        self._is_known = True
