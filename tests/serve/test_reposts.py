"""Copies earn nothing: of moments that show the same pictures one does, and no creator earns by another one's file."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from psycopg import Connection

from cluster.errors import Temporary
from cluster.settings import Settings
from pipelines.catalog import catalog
from pipelines.index import vectors
from serve.replica.encoding import QueryEncoder
from tests.serve.doors import uncut
from tests.serve.scenes import Scenes
from tests.serve.test_money import Room, furnished

SHA = "f" * 64


@pytest.fixture
async def room(settings: Settings, model: QueryEncoder, painted: Scenes) -> AsyncIterator[Room]:
    async with furnished(uncut(settings), model, painted) as made:
        yield made


def copied(room: Room, name: str, creator: int, count: int = 1, *, noise: float = 0.0) -> list[int]:
    """Videos with the moments of one of the gallery, a little later; their moments' vectors differ by so much."""
    rng, found = np.random.default_rng(5), []
    with room.doors.database() as connection:
        for _ in range(count):
            row = connection.execute(
                "INSERT INTO media.videos (creator_id, source_uri, title, tags, duration_ms, width, height, fps, has_audio,"
                " status, ready_at, pipeline_version) SELECT %s, 's3://pixr/copies/' || gen_random_uuid(), 'x', tags,"
                " duration_ms, width, height, fps, has_audio, status, now(), 1 FROM media.videos WHERE id = %s RETURNING id",
                (creator, room.gallery.videos[name]),
            ).fetchone()
            assert row is not None
            found += [_moment(connection, room, row[0], of, noise, rng) for of in room.gallery.moments[name]]
        catalog.bump_generation(connection)
    room.doors.services.generation.expire()
    return found


def _moment(
    connection: Connection[Any], room: Room, video: int, of: int, noise: float, rng: np.random.Generator
) -> int:
    row = connection.execute(
        "INSERT INTO media.segments (video_id, creator_id, start_ms, end_ms, best_frame_ms, description, search,"
        " pipeline_version) SELECT v.id, v.creator_id, s.start_ms, s.end_ms, s.best_frame_ms, '', s.search, 1"
        " FROM media.segments s, media.videos v WHERE s.id = %s AND v.id = %s RETURNING id",
        (of, video),
    ).fetchone()
    vector = connection.execute("SELECT embedding::text FROM media.embeddings WHERE segment_id = %s", (of,)).fetchone()
    assert row is not None
    assert vector is not None
    values = np.array(vector[0].strip("[]").split(","), np.float64)
    aside = rng.normal(size=len(values))
    aside -= values * (aside @ values)
    values += aside / np.linalg.norm(aside) * noise
    values /= np.linalg.norm(values)
    connection.execute(
        "INSERT INTO media.embeddings (model_id, segment_id, video_id, creator_id, start_ms, end_ms, embedding)"
        " SELECT %s, id, video_id, creator_id, start_ms, end_ms, %s::halfvec FROM media.segments WHERE id = %s",
        (room.gallery.model_id, "[" + ",".join(f"{value:.6g}" for value in values) + "]", row[0]),
    )
    return int(row[0])


async def everything(room: Room, **more: Any) -> dict[int, int]:
    return await room.earned({"text": "banana", "limit": 100, **more})


@pytest.mark.parametrize("creator", [0, 1], ids=["of another creator", "of its own creator"])
async def test_copies_of_a_video_make_a_view_earn_no_more(room: Room, creator: int) -> None:
    before = await everything(room)
    made = copied(room, "banana", room.gallery.creators[creator], count=3, noise=0.05)
    answer = await room.doors.http.get("/v1/search", params={"q": "banana", "limit": 100})
    assert {int(each["segment_id"]) for each in answer.json()["moments"]} >= {*before, *made}
    assert await everything(room) == before


async def test_moments_of_one_video_that_show_the_same_each_earn(room: Room) -> None:
    """A camera that stands still, or comes back to where it was, is no copy; one video beside it is, of the first of them."""
    before = await everything(room)
    first, second = room.gallery.moments["banana"]
    with room.doors.database() as connection:
        connection.execute(
            "UPDATE media.embeddings e SET embedding = o.embedding FROM media.embeddings o"
            " WHERE e.segment_id = %s AND o.segment_id = %s",
            (second, first),
        )
        catalog.bump_generation(connection)
    room.doors.services.generation.expire()
    after = await everything(room)
    assert after[second] == after[first] == before[first] > 0
    copied(room, "banana", room.gallery.creators[0], noise=0.05)
    assert await everything(room) == after


async def test_what_only_resembles_earns_for_itself(room: Room) -> None:
    """Another take of the same thing has another vector."""
    before = await everything(room)
    made = copied(room, "banana", room.gallery.creators[0], noise=0.35)  # a cosine of 0.94
    after = await everything(room)
    assert {each: after[each] for each in before} == before
    assert all(after[each] > 0 for each in made)


async def test_more_like_an_original_pays_no_copy_of_it_and_more_like_the_copy_pays_the_original(room: Room) -> None:
    first = room.gallery.moments["banana"][0]
    like_original = await room.earned({"segment_id": str(first), "limit": 100})
    made = copied(room, "banana", room.gallery.creators[0], noise=0.05)
    after = await room.earned({"segment_id": str(first), "limit": 100})
    assert after == like_original  # nor a copy of its creator's other moment, which is shown and earns nothing
    like_copy = await room.earned({"segment_id": str(made[0]), "limit": 100})
    assert like_copy[first] > 0


@pytest.mark.parametrize("is_slow", [False, True])
async def test_where_copies_cannot_be_told_apart_nothing_is_earned(
    room: Room, monkeypatch: pytest.MonkeyPatch, is_slow: bool
) -> None:
    """And the answer is not kept, so that the same search earns a little later."""

    async def away(*_: Any) -> Any:
        raise Temporary("the database is away")

    async def silent(*_: Any) -> Any:
        await asyncio.sleep(60)

    with monkeypatch.context() as patched:
        patched.setattr(vectors, "alike", silent if is_slow else away)
        answer = await room.doors.http.get("/v1/search", params={"q": "banana", "limit": 100})
        assert answer.json()["moments"]
        assert answer.json()["degraded"] == ["relevance"]
        assert room.recorded() == []
    assert await everything(room)


async def test_another_creators_file_earns_nothing_until_an_administrator_accepts_it(room: Room) -> None:
    other = room.gallery.creators[0]  # the original is the second one's
    original = room.gallery.videos["banana"]
    made = copied(room, "banana", other)
    with room.doors.database() as connection:
        (video,) = connection.execute("SELECT video_id FROM media.segments WHERE id = %s", (made[0],)).fetchone() or ()

        def change(query: str, *values: Any) -> None:
            connection.execute(query, values)
            catalog.bump_generation(connection)
            room.doors.services.generation.expire()

        only_its = {"filters": {"creator_id": [str(other)]}}
        assert set(made) <= set(await everything(room, **only_its))  # another file
        change("UPDATE media.videos SET content_hash = %s WHERE id = ANY(%s)", SHA, [original, video])
        assert not set(made) & set(await everything(room, **only_its))
        assert set(room.gallery.moments["banana"]) <= set(await everything(room))
        path, body = f"/v1/videos/{video}", {"repost_accepted": True}
        admin, own = room.doors.key("admin"), room.doors.key("creator", creator_id=other)
        shown = (await room.doors.http.get(path, headers=own)).json()
        assert (shown["repost_of"], shown["repost_accepted"]) == (public_id(connection, original), False)
        told = (await room.doors.http.get(path)).json()
        assert (told["repost_of"], told["repost_accepted"]) == (None, None)
        for key in (own, room.doors.key("ingest")):
            assert (await room.doors.http.patch(path, json=body, headers=key)).status_code == 403
        for visibility in ("private", "unlisted"):
            change("UPDATE media.videos SET visibility = %s WHERE id = %s", visibility, original)
            assert set(made) <= set(await everything(room, **only_its))  # nobody hears of what they may not see
        change("UPDATE media.videos SET visibility = 'public' WHERE id = %s", original)
        assert not set(made) & set(await everything(room, **only_its))
        assert (await room.doors.http.patch(path, json=body, headers=admin)).json()["repost_accepted"] is True
        assert set(made) <= set(await everything(room, **only_its))
        assert not set(made) & set(await everything(room))  # beside the original it shows the same pictures


async def test_who_has_anothers_file_takes_no_place_from_those_who_earn(room: Room) -> None:
    """A thief's copy of a file earns nothing, and is no original to the next film of the one whose file it is."""
    other, owner = room.gallery.creators
    repost, later = copied(room, "banana", other), copied(room, "banana", owner, noise=0.05)
    with room.doors.database() as connection:
        video, new = (
            (connection.execute("SELECT video_id FROM media.segments WHERE id = %s", (each[0],)).fetchone() or ())[0]
            for each in (repost, later)
        )
        connection.execute(
            "UPDATE media.videos SET content_hash = %s WHERE id = ANY(%s)",
            (SHA, [room.gallery.videos["banana"], video]),
        )
        catalog.bump_generation(connection)
    room.doors.services.generation.expire()
    earned = await everything(room, filters={"video_id": [str(video), str(new)]})
    assert set(earned) == set(later)
    assert min(earned.values()) > 0


async def test_a_film_that_was_coded_again_is_still_the_first(room: Room) -> None:
    """Whoever has copied it before that gains nothing by it."""
    before = await everything(room)
    copied(room, "banana", room.gallery.creators[0], noise=0.05)
    with room.doors.database() as connection:
        film = room.gallery.videos["banana"]
        connection.execute(
            "UPDATE media.segments s SET shown_since = v.created_at FROM media.videos v"
            " WHERE v.id = s.video_id AND v.id = %s",
            (film,),
        )
        connection.execute("UPDATE media.videos SET content_at = clock_timestamp() WHERE id = %s", (film,))
        catalog.bump_generation(connection)
    room.doors.services.generation.expire()
    assert await everything(room) == before


async def test_whatever_is_said_a_copy_earns_no_more_than_it_shows_and_not_beside_its_original(room: Room) -> None:
    """A filter that leaves the original out lets the copy earn instead of it, and nothing lets both."""
    copies_of = {
        name: (room.gallery.moments[name], copied(room, name, room.gallery.creators[0], noise=0.05))
        for name in ("banana", "rocket")
    }
    alone: dict[int, int] = {}
    with room.doors.database() as connection:
        rows = connection.execute("SELECT id, video_id FROM media.segments").fetchall()
    for video in {video for _, video in rows}:
        alone |= await everything(room, filters={"video_id": [str(video)]})
    pairs = [pair for originals, made in copies_of.values() for pair in zip(originals, made, strict=True)]
    rng = random.Random(7)
    for _ in range(60):
        said = {
            "limit": rng.randint(1, 40),
            "weights": {"vector": rng.choice((0.0, 1e-6, 1.0, 100.0)), "text": rng.choice((0.0, 1.0, 100.0))},
            "negative": rng.sample(("rocket", "night"), rng.randint(0, 2)),
            "group_by": rng.choice(("moment", "video")),
            "relevance_min_ppm": rng.choice((None, 1, 100_000)),
            "filters": rng.choice((
                {},
                {"creator_id": [str(room.gallery.creators[0])]},
                {"video_id": sorted({str(video) for _, video in rng.sample(rows, 6)})},
                {"tags": ["row0"]},
            )),
        }  # fmt: skip
        if not any(said["weights"].values()):
            continue
        earned = await everything(room, **said)
        assert all(amount <= alone[each] for each, amount in earned.items()), said
        assert all(not (earned.get(one) and earned.get(other)) for one, other in pairs), said


def public_id(connection: Connection[Any], video: int) -> str:
    row = connection.execute("SELECT public_id FROM media.videos WHERE id = %s", (video,)).fetchone()
    assert row is not None
    return str(row[0])
