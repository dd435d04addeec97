"""Who asks no more than is allowed is not sent away, also when they ask many things side by side."""

from __future__ import annotations

import asyncio
from collections import Counter
from urllib.parse import quote

import pytest

from tests.hostile.conftest import Scene
from tests.hostile.wire import connected, request

AT_ONCE, EACH = 32, 20  # 640 in all: below the burst of an address (1000) and of a key (2000)
SOURCES = {"key": "127.0.0.11", "address": "127.0.0.10"}  # of which nothing else is asked: their buckets are full


async def statuses(scene: Scene, source: str, headers: dict[str, str]) -> Counter[int]:
    """The same search over many connections side by side, several on each."""
    raw = request("GET", f"/v1/search?intent=typing&q={quote(scene.texts[0])}", headers, keep=True)

    async def client() -> list[int]:
        async with connected(scene.door, source) as wire:
            for _ in range(EACH):
                await wire.send(raw)
                await wire.read()
            return wire.seen

    found = await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return Counter(status for each in found for status in each)


@pytest.mark.parametrize("who", SOURCES)
async def test_many_side_by_side_within_the_allowance_are_all_answered(scene: Scene, who: str) -> None:
    headers = {"Authorization": f"Bearer {scene.key}"} if who == "key" else {}
    assert await statuses(scene, SOURCES[who], headers) == {200: AT_ONCE * EACH}
