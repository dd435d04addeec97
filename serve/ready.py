"""Readiness: each dependency asked once, side by side, within a short time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from serve.services import Services

TIMEOUT_S = 2.0
NEEDED = ("postgres", "index")


async def look(services: Services) -> dict[str, Any]:
    """`{"ready": …, "dependencies": {name: {"ok": …, "reason": …}}}`; ready when what is needed is there."""
    asked = {
        "postgres": _postgres(services),
        "index": services.warming.look(),
        "redis": services.redis.ping(),
        "s3": asyncio.to_thread(services.storage.exists, f"s3://{services.settings.s3.bucket}"),
        "encoder": services.encoding.answers(),
    }
    reasons = dict(zip(asked, await asyncio.gather(*(_reason(each) for each in asked.values())), strict=True))
    return {
        "ready": not any(reasons[name] for name in NEEDED),
        "dependencies": {name: {"ok": not reason, "reason": reason} for name, reason in reasons.items()},
    }


async def _postgres(services: Services) -> None:
    async with services.pool.connection(timeout=TIMEOUT_S) as connection:
        await connection.execute("SELECT 1")


async def _reason(question: Awaitable[Any]) -> str:
    try:
        await asyncio.wait_for(question, TIMEOUT_S)
    except Exception as error:  # noqa: BLE001  whatever it is, it is the answer to the question
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ""
