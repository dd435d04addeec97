"""Readiness: each dependency asked once, side by side, within a short time, and at most once a second.

The answer is public: a reason says what kind of fault it is, never where a dependency is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

from cluster.errors import Temporary
from serve.http import deadlines
from serve.routes.services import Services

TIMEOUT_S = 2.0
KEPT_S = 1.0
NEEDED = ("postgres", "index", "tasks")


class Readiness:
    """One replica's readiness, as it was a moment ago; those that ask at once share an answer."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._until_s = float("-inf")
        self._looking: asyncio.Task[dict[str, Any]] | None = None

    async def now(self) -> dict[str, Any]:
        """What `look` found, now or within the last second."""
        if self._looking is None or (self._looking.done() and time.monotonic() >= self._until_s):
            with deadlines.unlimited():  # shared by all who ask, so that it is nobody's request
                self._looking = self._services.tasks.spawn("readiness", self._look())
        return await asyncio.shield(self._looking)

    async def _look(self) -> dict[str, Any]:
        try:
            return await look(self._services)
        finally:
            self._until_s = time.monotonic() + KEPT_S


async def look(services: Services) -> dict[str, Any]:
    """`{"ready": …, "dependencies": {name: {"ok": …, "reason": …}}}`; ready when what is needed is there."""
    asked = {
        "postgres": _postgres(services),
        "index": services.warming.look(),
        "redis": services.store.ping(),
        "s3": services.objects.run(services.storage.exists, f"s3://{services.settings.s3.bucket}"),
        "encoder": services.encoding.answers(),
        "recorder": _recorder(services),
        "tasks": _tasks(services),
    }
    reasons = dict(zip(asked, await asyncio.gather(*(_reason(each) for each in asked.values())), strict=True))
    return {
        "ready": not any(reasons[name] for name in NEEDED),
        "dependencies": {name: {"ok": not reason, "reason": reason} for name, reason in reasons.items()},
    }


async def _postgres(services: Services) -> None:
    await services.readers.primary(lambda connection: connection.execute("SELECT 1"))


async def _tasks(services: Services) -> None:
    """The background tasks: one that fails again and again is a fault, though requests are still answered."""
    if failing := services.failing():
        raise Temporary(f"{', '.join(sorted(failing))} failed; the log says why")


async def _recorder(services: Services) -> None:
    """Appearances reach the database. Where they do not they wait in the spool, and searches go on until it is full."""
    if failing := services.recorder.failing:
        raise Temporary(f"{', '.join(sorted(failing))} failed; the log says why")
    if services.recorder.is_full:
        raise Temporary("the spool is full")


async def _reason(question: Awaitable[Any]) -> str:
    try:
        await asyncio.wait_for(question, TIMEOUT_S)
    except Temporary as error:
        return error.public
    except Exception as error:  # noqa: BLE001  whatever it is, it is the answer to the question
        return type(error).__name__
    return ""
