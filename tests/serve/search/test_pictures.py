"""A search can name a picture of the deployment's own store, and nothing else that lies there; texts wait for no pictures."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from cluster.errors import Temporary
from cluster.settings import Settings
from serve.access.viewers import Viewer
from serve.replica.encoder import Vector
from serve.replica.encoding import QueryEncoder, RemoteEncoding
from serve.routes.services import Services
from serve.search import answer
from serve.search import query as queries
from serve.search.answer import Caller
from serve.search.page import SearchResult
from serve.search.query import Body, Intent
from serve.settings import SearchSettings
from tests.serve.doors import Doors, MakeEncoding, near, opened, without_store
from tests.serve.scenes import Gallery, Scenes
from tests.serve.search.test_answer import Room, videos

HELD_S = 30.0
WRITTEN = ("thumbnails/1.png", "frames/1.png", "uploads/1.png", "ledger/1.png")


@pytest.fixture
async def room(hung: tuple[Settings, Gallery], model: QueryEncoder, painted: Scenes) -> AsyncIterator[Room]:
    small = dataclasses.replace(hung[0].section(SearchSettings), image_max_bytes=100_000)
    async with opened(hung[0].with_section(small), near(model)) as doors:
        doors.services.storage.ensure_bucket(doors.settings.s3.bucket)
        yield Room(doors, hung[1], painted)


def put(doors: Doors, key: str, data: bytes) -> str:
    uri = f"s3://{doors.settings.s3.bucket}/{key}"
    doors.services.storage.put_bytes(data, uri)
    return uri


async def asked(doors: Doors, **body: Any) -> httpx.Response:
    return await doors.http.post("/v1/search", json={"intent": "typing", **body})


async def test_a_picture_of_the_store_finds_its_like(room: Room) -> None:
    uri = put(room.doors, "queries/yellow/banana.png", room.painted.picture("banana"))
    answer = await asked(room.doors, image=uri, limit=2)
    assert answer.status_code == 200
    assert videos(answer.json())[0] == room.gallery.videos["banana"]
    assert answer.json()["degraded"] == []


async def test_another_picture_at_the_same_address_is_another_search(room: Room) -> None:
    uri = put(room.doors, "queries/changing.png", room.painted.picture("banana"))
    first = await asked(room.doors, image=uri, limit=1)
    put(room.doors, "queries/changing.png", room.painted.picture("rocket"))
    second = await asked(room.doors, image=uri, limit=1)
    assert [videos(each.json()) for each in (first, second)] == [
        [room.gallery.videos["banana"]], [room.gallery.videos["rocket"]],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("uri", "status", "said"),
    [
        ("s3://{bucket}/thumbnails/1.webp", 422, "no picture that a search can name"),
        ("s3://elsewhere/queries/a.png", 422, "no picture that a search can name"),
        ("s3://{bucket}/queries", 422, "no picture that a search can name"),
        ("s3://{bucket}/queries/", 422, "no picture that a search can name"),
        ("s3://{bucket}/queries/../thumbnails/1.webp", 422, "no picture that a search can name"),
        ("s3://", 422, "no picture that a search can name"),
        ("s3://{bucket}/queries/none.png", 404, "there is no such picture"),
        ("s3://{bucket}/queries/empty.png", 422, "has 0 bytes"),
        ("s3://{bucket}/queries/large.png", 422, "has 100001 bytes"),
        ("s3://{bucket}/queries/words.png", 422, "the image cannot be read"),
    ],
)
async def test_what_is_no_such_picture_is_refused(room: Room, uri: str, status: int, said: str) -> None:
    put(room.doors, "queries/empty.png", b"")
    put(room.doors, "queries/large.png", bytes(100_001))
    put(room.doors, "queries/words.png", b"no picture at all")
    answer = await asked(room.doors, image=uri.format(bucket=room.doors.settings.s3.bucket))
    assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text


async def test_what_pixr_wrote_is_not_named_where_all_of_the_bucket_may_be(
    hung: tuple[Settings, Gallery], model: QueryEncoder, painted: Scenes
) -> None:
    """A thumbnail may be of a private video."""
    everywhere = dataclasses.replace(hung[0].section(SearchSettings), image_folder="")
    async with opened(hung[0].with_section(everywhere), near(model)) as doors:
        doors.services.storage.ensure_bucket(doors.settings.s3.bucket)
        banana = painted.picture("banana")
        answers = {key: await asked(doors, image=put(doors, key, banana)) for key in ("mine/1.png", *WRITTEN)}
    codes = {key: (answer.status_code, answer.json().get("code")) for key, answer in answers.items()}
    assert codes == {"mine/1.png": (200, None)} | dict.fromkeys(WRITTEN, (422, "bad-image"))


async def test_a_store_that_is_away_is_said(room: Room) -> None:
    async with without_store(room.doors) as http:
        body = {"image": f"s3://{room.doors.settings.s3.bucket}/queries/a.png", "intent": "typing"}
        answer = await http.post("/v1/search", json=body)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "127.0.0.1" not in answer.text


@pytest.mark.parametrize("folder", ["queries", "/queries/", "/"])
def test_a_folder_that_would_open_others_is_refused(folder: str) -> None:
    with pytest.raises(ValueError, match="image_folder"):
        SearchSettings(image_folder=folder)


def held(model: QueryEncoder, may: threading.Event) -> MakeEncoding:
    """The real encoder, which looks at no picture before it may."""

    async def image(data: bytes, name: str) -> Vector:
        await asyncio.to_thread(may.wait, HELD_S)
        return await asyncio.to_thread(model.image, data, name)

    def made(of: Any, store: Any) -> RemoteEncoding:
        found: RemoteEncoding = near(model)(of, store)  # type: ignore[assignment]
        facts, text, _ = found._calls
        return RemoteEncoding(of, store, facts, text, image)

    return made


async def asked_by(services: Services, whose: str, **body: Any) -> SearchResult:
    query = queries.of(Body(intent=Intent.TYPING, **body), services.search)
    return await answer.answer(services, services.search, query, Caller(Viewer("address", whose, whose), share=whose))


async def test_new_texts_are_answered_beside_more_pictures_than_there_are_places_for_searches(
    hung: tuple[Settings, Gallery], model: QueryEncoder, painted: Scenes
) -> None:
    """Each picture from an address of its own, so that none has had more turns than who asks for a text."""
    may, patient = threading.Event(), dataclasses.replace(
        hung[0].section(SearchSettings), gate_wait_s=2.0, image_timeout_s=HELD_S, deadline_s=HELD_S, encode_timeout_s=HELD_S
    )  # fmt: skip
    async with opened(hung[0].with_section(patient), held(model, may)) as doors:
        services, picture = doors.services, base64.b64encode(painted.picture("banana")).decode()
        strangers = [
            asyncio.create_task(asked_by(services, f"stranger {number}", image=picture, limit=number + 1))
            for number in range(24)
        ]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        for number in range(6):
            assert (await asked_by(services, "quiet", text=f"a rocket {number}")).page.degraded == ()
        assert time.monotonic() - began < patient.gate_wait_s  # no text has waited for the end of another's patience
        assert services.gate.held <= services.search.searches_max // 2
        may.set()
        ended = await asyncio.gather(*strangers, return_exceptions=True)
        assert {type(each) for each in ended} <= {SearchResult, Temporary}
        assert [type(each) for each in ended].count(SearchResult) >= services.gates.pictures._strangers_max
        assert services.gate.held == services.gates.pictures.held == services.gates.pictures.waiting == 0
