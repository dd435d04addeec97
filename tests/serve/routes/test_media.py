"""Signed links lead to the object in the store, as long as it may be seen; no replica sends its bytes."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from cluster import runtime
from cluster.settings import EMBEDDED, Settings
from pipelines.index import vectors
from serve.media import links as media
from serve.media import objects
from serve.media.sources import Sources
from serve.settings import SearchSettings
from tests.serve.doors import PICTURE, Doors, Shelf, fill, opened, without_store

VIDEO = bytes(range(256)) * 8192
HOST = {"Host": "pixr.example:8000"}


@dataclass(frozen=True)
class Room:
    doors: Doors
    shelf: Shelf

    @property
    def video(self) -> str:
        return media.signed(self.doors.settings, f"/media/videos/{self.shelf.video}")

    @property
    def picture(self) -> str:
        return media.signed(self.doors.settings, f"/media/thumbnails/{self.shelf.moments[0]}")


@pytest.fixture
async def room(settings: Settings) -> AsyncIterator[Room]:
    shelf = fill(settings, video=VIDEO)
    async with opened(settings) as doors:
        yield Room(doors, shelf)


async def followed(answer: httpx.Response, **headers: str) -> httpx.Response:
    """What the store answers where an answer leads."""
    assert answer.status_code == 307, answer.text
    assert answer.content == b""
    async with httpx.AsyncClient() as store:
        return await store.request(answer.request.method, answer.headers["location"], headers=headers)


async def test_a_video_is_read_at_the_store_whole_or_in_part(room: Room) -> None:
    answer = await room.doors.http.get(room.video)
    whole = await followed(answer)
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, VIDEO, "video/mp4")
    assert whole.headers["accept-ranges"] == "bytes"
    part = await followed(answer, Range="bytes=1000000-1100000")
    assert (part.status_code, part.content) == (206, VIDEO[1000000:1100001])
    assert (await followed(answer, **{"If-None-Match": whole.headers["etag"]})).status_code == 304


async def test_head_leads_to_the_length(room: Room) -> None:
    head = await followed(await room.doors.http.head(room.video))
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(VIDEO)))


async def test_a_picture_is_what_was_stored(room: Room) -> None:
    answer = await followed(await room.doors.http.get(room.picture))
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, PICTURE, "image/webp")


async def test_a_redirect_is_kept_for_a_moment_and_by_its_caller_alone(room: Room) -> None:
    answers = [await room.doors.http.get(room.video) for _ in range(3)]
    assert answers[0].headers["cache-control"] == "private, max-age=60"
    assert (
        len({each.headers["location"] for each in answers}) < 3
    )  # the time of signing moves on at most once meanwhile


async def test_behind_the_door_the_link_is_relative_and_for_the_host_that_was_used(
    settings: Settings, ground: Settings
) -> None:
    """With the embedded store, whose gateway the door asks with the client's own Host header."""
    shelf = fill(settings, video=VIDEO)
    embedded = settings.with_section(dataclasses.replace(settings.s3, url=EMBEDDED))
    async with opened(settings) as doors:
        services = dataclasses.replace(doors.services, settings=embedded)
        assert services.storage.endpoint == runtime.endpoints(ground).s3
        from serve import app

        transport = httpx.ASGITransport(app.build(services))
        async with httpx.AsyncClient(transport=transport, base_url="http://pixr.example:8000") as client:
            link = media.signed(settings, f"/media/videos/{shelf.video}")
            answer = await client.get(link)
            page = await client.get("/")
    location = answer.headers["location"]
    assert location.startswith(f"/{settings.s3.bucket}/uploads/")
    assert "img-src 'self'; media-src 'self'" in page.headers["content-security-policy"]
    store = services.storage.endpoint.url
    async with httpx.AsyncClient() as gateway:
        assert (await gateway.get(store + location, headers=HOST)).content == VIDEO
        assert (await gateway.get(store + location, headers={"Host": "elsewhere.example"})).status_code == 403


def test_a_store_by_url_is_read_there_or_where_browsers_reach_it(settings: Settings) -> None:
    endpoint = runtime.endpoints(settings).s3

    def link(given: Settings) -> str:
        return objects.location(given, endpoint, "s3://pixr/a/b.mp4", host="door", content_type="video/mp4", now_s=0.0)

    assert link(settings).startswith(f"{settings.s3.url}/pixr/a/b.mp4?X-Amz-")
    public = settings.with_section(dataclasses.replace(settings.s3, public_url="https://cdn.example/media/"))
    assert link(public).startswith("https://cdn.example/media/pixr/a/b.mp4?X-Amz-")
    assert objects.public_origin(public.s3) == "https://cdn.example"


async def test_the_page_may_show_what_links_lead_to(room: Room) -> None:
    policy = (await room.doors.http.get("/")).headers["content-security-policy"]
    assert f"media-src 'self' {room.doors.settings.s3.url};" in policy


async def test_a_link_that_nobody_signed_opens_nothing(room: Room) -> None:
    for link in (room.video, room.picture):
        assert (await room.doors.http.get(link.replace("signature=", "signature=A"))).status_code == 403
        assert (await room.doors.http.get(link.replace("expires=", "expires=1"))).status_code == 403
        assert (await room.doors.http.get(link.replace("&signature", "&private=1&signature"))).status_code == 403
        assert (await room.doors.http.get(link.partition("?")[0])).status_code == 422


async def test_a_link_dies_when_its_video_becomes_private(room: Room) -> None:
    links = (room.video, room.picture)
    with room.doors.database() as connection:
        connection.execute("UPDATE media.videos SET visibility = 'private' WHERE id = %s", (room.shelf.video,))
    assert [(await room.doors.http.get(link)).status_code for link in links] == [404, 404]


async def test_a_link_to_the_store_that_was_given_before_lives_for_its_few_seconds_and_no_longer(
    settings: Settings,
) -> None:
    shelf = fill(settings, video=VIDEO)
    brief = dataclasses.replace(settings.section(SearchSettings), object_link_expires_s=15, generation_interval_s=0.2)
    async with opened(settings.with_section(brief)) as doors, httpx.AsyncClient() as store:
        paths = (f"/media/videos/{shelf.video}", f"/media/thumbnails/{shelf.moments[0]}")
        links = [media.signed(settings, each) for each in paths]
        answers = [await doors.http.get(link) for link in links]
        assert {each.headers["cache-control"] for each in answers} == {"private, max-age=5"}
        given = [each.headers["location"] for each in answers]
        opened_at_first = [await store.get(each) for each in given]
        assert {each.headers["cache-control"] for each in opened_at_first} == {"private, max-age=15"}
        owner = doors.key("creator", creator_id=shelf.ada)
        await doors.http.patch(f"/v1/videos/{shelf.video}", json={"visibility": "private"}, headers=owner)
        assert [(await doors.http.get(link)).status_code for link in links] == [404, 404]
        async with asyncio.timeout(60):
            while [(await store.get(each)).status_code for each in given] != [403, 403]:  # noqa: ASYNC110  has no event
                await asyncio.sleep(0.5)


def test_a_link_to_the_store_lives_for_minutes_unless_that_is_set_otherwise() -> None:
    assert SearchSettings().object_link_expires_s <= 300


async def asked_of(doors: Doors, monkeypatch: pytest.MonkeyPatch, link: str, times: int = 50) -> dict[str, int]:
    """How many questions a link costs each kind of database, when it is opened so many times."""
    asked = {"primary": 0, "ask": 0}
    for name in asked:
        real = getattr(doors.services.readers, name)

        async def counted(*arguments: Any, name: str = name, real: Any = real, **named: Any) -> Any:
            asked[name] += 1
            return await real(*arguments, **named)

        monkeypatch.setattr(doors.services.readers, name, counted)
    answers = await asyncio.gather(*(doors.http.get(link) for _ in range(times)))
    assert {each.status_code for each in answers} == {307}
    monkeypatch.undo()
    return asked


async def test_a_link_that_is_opened_again_costs_the_primary_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = fill(settings, video=VIDEO)
    slow = dataclasses.replace(settings.section(SearchSettings), generation_interval_s=60.0)
    async with opened(settings.with_section(slow)) as doors:
        await doors.services.generation.now()
        for path in (f"/media/videos/{shelf.video}", f"/media/thumbnails/{shelf.moments[0]}"):
            link = media.signed(settings, path)
            await doors.http.get(link)
            assert await asked_of(doors, monkeypatch, link) == {"primary": 0, "ask": 0}
            granted = media.signed(settings, path, private=True)
            assert (await asked_of(doors, monkeypatch, granted, 5))["primary"] == 5


async def test_a_link_that_was_just_opened_dies_with_its_video_within_the_interval(
    settings: Settings,
) -> None:
    shelf = fill(settings, video=VIDEO)
    quick = dataclasses.replace(settings.section(SearchSettings), generation_interval_s=0.2)
    async with opened(settings.with_section(quick)) as doors, opened(settings.with_section(quick)) as elsewhere:
        paths = (f"/media/videos/{shelf.video}", f"/media/thumbnails/{shelf.moments[0]}")
        links = [media.signed(settings, each) for each in paths]
        for replica in (doors, elsewhere):
            assert [(await replica.http.get(link)).status_code for link in links] == [307, 307]
        owner = doors.key("creator", creator_id=shelf.ada)
        changed = await doors.http.patch(f"/v1/videos/{shelf.video}", json={"visibility": "private"}, headers=owner)
        assert changed.status_code == 200
        assert [(await doors.http.get(link)).status_code for link in links] == [404, 404]  # its own change, at once
        began = time.monotonic()
        while {(await elsewhere.http.get(link)).status_code for link in links} != {404}:
            assert time.monotonic() - began < 5.0
            await asyncio.sleep(0.02)


async def test_what_a_lagging_replica_does_not_have_yet_is_asked_of_the_primary(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = room.doors.services.readers.ask

    async def lagging(question: Any, **named: Any) -> Any:
        return await real(question, **named) if question is vectors.state else None

    monkeypatch.setattr(room.doors.services.readers, "ask", lagging)
    assert (await room.doors.http.get(room.picture)).status_code == 307


async def test_a_replica_remembers_so_many_links_and_no_more(room: Room) -> None:
    services = room.doors.services
    sources = Sources(services.readers, services.generation, 2)
    for moment in room.shelf.moments:
        assert await sources.picture(moment, private=False) is not None
    assert list(sources._cache) == [("picture", each) for each in room.shelf.moments[-2:]]


async def test_a_store_that_is_away_holds_no_replica(room: Room) -> None:
    async with without_store(room.doors) as http:
        for link in (room.video, room.picture):
            assert (await http.get(link)).status_code == 307
