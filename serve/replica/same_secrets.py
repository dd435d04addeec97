"""Checks that a replica has the secrets of its deployment; with others, appearances it records would be paid twice.

The database has fingerprints of the secrets (`cluster.database.fingerprints`). They are compared before the first
request and, if the database does not answer, again until it does. A secret without a fingerprint is not compared;
`serve.service` notes all fingerprints before there is a replica.
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

START_S = 1.0  # for a look, so that a replica starts, and can report it, while the database is away
AGAIN_S = 2.0  # between looks


class SameSecrets:
    """The comparison of one replica's secrets.

    Used inside one event loop: `start` before the first request, then `until_known` in the background.
    """

    def __init__(self, settings: Settings, readers: Readers) -> None:
        self._here = fingerprints.of(settings)
        self._readers = readers
        self._is_known = False
        self._refusal: Rejected | None = None

    async def start(self) -> None:
        """Compare the secrets once, for `START_S` at most.

        Raises:
            Rejected: the deployment has other secrets.
        """
        try:
            async with asyncio.timeout(START_S):
                await self._look()
        except (Temporary, psycopg.Error, TimeoutError) as error:
            log.warning("whether the secrets are the deployment's is not known yet: %s", error)

    async def until_known(self) -> None:
        """Repeat the comparison until the database has answered; from then on `check` raises if the secrets differ."""
        while not self._is_known:
            await asyncio.sleep(AGAIN_S)
            try:
                await self.start()
            except Rejected as error:
                log.error("%s", error)
                self._is_known, self._refusal = True, error

    def check(self) -> None:
        """Check that the secrets are those of the deployment; Serve replaces a replica that raises.

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
