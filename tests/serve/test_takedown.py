"""A video that is taken down leaves every answer of every replica within five seconds, and every store for good."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import redis as redis_client
from psycopg import Connection, sql

from cluster.database import database
from cluster.settings import Settings
from tests.serve.doors import Doors, Shelf, fill, one, opened, tiny, without_store

FELT_WITHIN_S = 5.0
WORD = "zanzibar"


def prepare(settings: Settings) -> Shelf:
    """A video whose words are a mark, with vectors of two models, a redirect and an appearance."""
    shelf = fill(settings)
    with database.connect(settings.postgres.url) as connection:
        connection.execute(
            "UPDATE media.videos SET title = %s, description = %s, tags = %s WHERE id = %s",
            (f"{WORD} title", f"{WORD} description", [f"{WORD}tag"], shelf.video),
        )
        connection.execute(
            "UPDATE media.segments s SET description = v.description,"
            " search = media.search_text(v.language, v.title, v.tags, v.description)"
            " FROM media.videos v WHERE v.id = s.video_id"
        )
        other = one(connection, "SELECT media.register_model('other', 4, 'other')")
        connection.execute(
            "INSERT INTO media.embeddings SELECT %s, segment_id, video_id, creator_id, start_ms, end_ms, created_at,"
            " embedding FROM media.embeddings WHERE model_id = 1",
            (other,),
        )
        connection.execute(
            "INSERT INTO media.segment_lineage (old_id, new_id, overlap) VALUES (9000, %s, 1)", (shelf.moments[0],)
        )
    return shelf


def tables(connection: Connection[Any]) -> Iterator[sql.Identifier]:
    rows = connection.execute(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('media', 'app', 'ledger') ORDER BY 1, 2"
    ).fetchall()
    assert len(rows) > 15
    for schema, table in rows:
        yield sql.Identifier(schema, table)


def rows_with(connection: Connection[Any], text: str) -> list[str]:
    """Tables that have the text in any column of any row."""
    return [
        str(table)
        for table in tables(connection)
        if connection.execute(
            sql.SQL("SELECT EXISTS (SELECT FROM {} t WHERE t::text ILIKE %s)").format(table), (f"%{text}%",)
        ).fetchone()
        == (True,)
    ]


def names_with(doors: Doors, text: str) -> list[bytes]:
    """What Redis keeps for this deployment that has the text in it."""
    with redis_client.Redis.from_url(doors.settings.redis.url) as client:
        names = client.scan_iter(f"{doors.services.store.prefix}*")
        values = {name: client.get(name) for name in names if client.type(name) == b"string"}
    return [name for name, value in values.items() if isinstance(value, bytes) and text.encode() in value.lower()]


async def finds(doors: Doors) -> bool:
    """By words alone: an answer that lacks nothing, and so is kept."""
    answer = await doors.http.post("/v1/search", json={"text": WORD, "weights": {"vector": 0}})
    assert (answer.status_code, answer.json()["degraded"]) == (200, [])
    return bool(answer.json()["moments"])


async def kept_everywhere(*replicas: Doors) -> None:
    """What is found lies in every replica and in Redis."""
    for doors in replicas:
        assert await finds(doors)
        await doors.services.results.shared()
    assert names_with(replicas[0], WORD) != []


async def test_a_takedown_is_felt_everywhere_and_leaves_nothing(settings: Settings) -> None:
    shelf = prepare(settings)
    storage_prefix = f"s3://{settings.s3.bucket}"
    async with opened(settings, tiny) as doors, opened(settings, tiny) as elsewhere:
        await kept_everywhere(doors, elsewhere)
        similar = f"/v1/segments/{shelf.moments[0]}/similar"
        with doors.database() as connection:
            assert len(rows_with(connection, WORD)) >= 2
            row = connection.execute("SELECT source_uri FROM media.videos WHERE id = %s", (shelf.video,)).fetchone()
        assert row is not None
        owner = doors.key("creator", creator_id=shelf.ada)
        began = time.monotonic()
        assert (await doors.http.delete(f"/v1/videos/{shelf.video}", headers=owner)).status_code == 200
        for replica in (doors, elsewhere):
            while await finds(replica):
                assert time.monotonic() - began < FELT_WITHIN_S
                await asyncio.sleep(0.05)
        assert (await elsewhere.http.get(similar)).status_code == 404
        assert (await elsewhere.http.get(f"/v1/videos/{shelf.video}", headers=owner)).json()["title"] == ""
        with doors.database() as connection:
            assert rows_with(connection, WORD) == []
            for table, column in (("embeddings", "video_id"), ("segments", "video_id"), ("staging", "video_id")):
                left = connection.execute(f"SELECT count(*) FROM media.{table} WHERE {column} = {shelf.video}")  # type: ignore[arg-type]
                assert left.fetchone() == (0,)
            assert connection.execute("SELECT count(*) FROM media.segment_lineage").fetchone() == (0,)
        assert names_with(doors, WORD) == []
        storage = doors.services.storage
        assert not storage.exists(row[0])
        assert list(storage.list(f"{storage_prefix}/thumbnails/{shelf.video}/")) == []
        assert len(list(storage.list(f"{storage_prefix}/thumbnails/{shelf.other}/"))) == 2  # the other's are untouched
        again = await doors.http.delete(f"/v1/videos/{shelf.video}", headers=owner)
        assert again.status_code == 200


async def test_a_video_made_private_leaves_kept_answers_too(settings: Settings) -> None:
    shelf = prepare(settings)
    async with opened(settings, tiny) as doors, opened(settings, tiny) as elsewhere:
        await kept_everywhere(elsewhere)
        owner = doors.key("creator", creator_id=shelf.ada)
        began = time.monotonic()
        path = f"/v1/videos/{shelf.video}"
        assert (await doors.http.patch(path, json={"visibility": "private"}, headers=owner)).status_code == 200
        while await finds(elsewhere):
            assert time.monotonic() - began < FELT_WITHIN_S
            await asyncio.sleep(0.05)


async def test_a_takedown_whose_store_is_away_is_felt_and_is_finished_when_asked_again(settings: Settings) -> None:
    shelf = prepare(settings)
    path = f"/v1/videos/{shelf.video}"
    async with opened(settings, tiny) as doors:
        await kept_everywhere(doors)
        owner = doors.key("creator", creator_id=shelf.ada)
        pictures = f"s3://{settings.s3.bucket}/thumbnails/{shelf.video}/"
        async with without_store(doors) as http:
            answer = await http.delete(path, headers=owner)
        assert (answer.status_code, answer.json()["code"]) == (503, "temporary")
        assert "127.0.0.1" not in answer.text
        assert names_with(doors, WORD) == []  # before anything is asked again
        assert not await finds(doors)
        assert list(doors.services.storage.list(pictures)) != []
        assert (await doors.http.delete(path, headers=owner)).status_code == 200
        assert list(doors.services.storage.list(pictures)) == []
