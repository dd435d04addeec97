"""Readiness: each dependency asked once, side by side, within a short time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from cluster.errors import Temporary
from serve.services import Services

TIMEOUT_S = 2.0
NEEDED = ("postgres", "index", "tasks")


async def look(services: Services) -> dict[str, Any]:
    """`{"ready": …, "dependencies": {name: {"ok": …, "reason": …}}}`; ready when what is needed is there."""
    asked = {
        "postgres": _postgres(services),
        "index": services.warming.look(),
        "redis": services.store.ping(),
        "s3": services.objects.run(services.storage.exists, f"s3://{services.settings.s3.bucket}"),
        "encoder": services.encoding.facts(),
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
        raise Temporary("; ".join(f"{name}: {reason}" for name, reason in failing.items()))


async def _recorder(services: Services) -> None:
    """Appearances reach the database. Where they do not they wait in the spool, and searches go on until it is full."""
    failing = services.recorder.failing
    if failing or services.recorder.is_full:
        raise Temporary("; ".join(f"{name}: {reason}" for name, reason in failing.items()) or "the spool is full")


async def _reason(question: Awaitable[Any]) -> str:
    try:
        await asyncio.wait_for(question, TIMEOUT_S)
    except Exception as error:  # noqa: BLE001  whatever it is, it is the answer to the question
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ""
