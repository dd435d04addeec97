"""A change of model under load: no search fails or is degraded, each answer is wholly of one model; back again alike."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any

from psycopg import Connection

from cluster.database import database
from cluster.settings import Settings
from pipelines.index import admin as index_admin
from pipelines.models.encoder import MODELS
from pipelines.settings import ModelSettings
from serve.replica.encoding import QueryEncoder
from serve.settings import SearchSettings
from tests.serve.doors import Doors, near, opened
from tests.serve.scenes import Scenes, hang

BUNDLED = MODELS / "pixr-emoji"


def cover(connection: Connection[Any], name: str, painted: Scenes) -> None:
    """A second model's vectors: the first one's, turned round, so that a mixture would be seen at once."""
    facts = painted.facts
    row = connection.execute(
        "SELECT media.register_model(%s, %s, %s)", (name, facts.dimensions, facts.fingerprint)
    ).fetchone()
    assert row is not None
    connection.execute(
        "INSERT INTO media.embeddings (model_id, segment_id, video_id, creator_id, start_ms, end_ms, embedding)"
        " SELECT %s, segment_id, video_id, creator_id, start_ms, end_ms,"
        " (SELECT array_agg(-x ORDER BY n)::real[]::vector::halfvec"
        "  FROM unnest(embedding::vector::real[]) WITH ORDINALITY AS turned(x, n))"
        " FROM media.embeddings WHERE model_id = 1",
        (row[0],),
    )


async def ask(doors: Doors, number: int) -> tuple[str, list[str]]:
    """The model of an answer, and what it found."""
    answer = await doors.http.get("/v1/search", params={"q": f"banana {number}", "limit": 3})
    assert answer.status_code == 200, answer.text
    assert answer.json()["degraded"] == []
    return answer.headers["x-pixr-model"], [moment["segment_id"] for moment in answer.json()["moments"]]


async def test_a_switch_under_load_fails_nobody_and_mixes_nothing(
    settings: Settings, model: QueryEncoder, painted: Scenes, tmp_path: Path
) -> None:
    other = str(shutil.copytree(BUNDLED, tmp_path / "next"))
    with database.connect(settings.postgres.url, autocommit=True) as connection:
        gallery = hang(connection, painted)
        cover(connection, other, painted)
    banana = {str(each) for each in gallery.moments["banana"]}
    quick = dataclasses.replace(settings.section(SearchSettings), generation_interval_s=0.05, encode_timeout_s=30.0)
    held = QueryEncoder(settings.section(ModelSettings), quick.image_pixels_max)
    async with opened(settings.with_section(quick), near(held)) as doors:
        await _prepared(doors, other)  # before anybody has searched
        seen: list[tuple[str, bool]] = []
        stop = asyncio.Event()

        async def load(worker: int) -> None:
            number = worker
            while not stop.is_set():
                number += 10
                used, found = await ask(doors, number)
                seen.append((used, bool(banana & set(found))))

        workers = [asyncio.create_task(load(worker)) for worker in range(3)]
        for name in (other, "pixr-emoji", other):
            await _answers(seen, 20)
            await asyncio.to_thread(_switch, settings.postgres.url, name)
        await _answers(seen, 20)
        stop.set()
        await asyncio.gather(*workers)
    # The first model finds the banana first of all; for the second one, turned round, it is the furthest.
    right = [near_it for used, near_it in seen if used == "pixr-emoji"]
    wrong = [near_it for used, near_it in seen if used != "pixr-emoji"]
    assert len(right) >= 20
    assert len(wrong) >= 20
    assert all(right)
    assert not any(wrong)


def _switch(url: str, name: str) -> None:
    with database.connect(url, autocommit=True) as connection:
        index_admin.switch(connection, name)


async def _prepared(doors: Doors, name: str) -> None:
    """Until the other model is loaded beside the traffic."""
    deadline = time.monotonic() + 60
    kept: Any = doors.services.encoding
    while name not in kept._facts:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def _answers(seen: list[tuple[str, bool]], more: int) -> None:
    before, deadline = len(seen), time.monotonic() + 60
    while len(seen) < before + more:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
