"""Signed links lead to the object in the store, as long as it may be seen; no replica sends its bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from cluster import runtime
from cluster.settings import EMBEDDED, Settings
from serve import media, objects
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
    first, again = [await room.doors.http.get(room.video) for _ in range(2)]
    assert first.headers["cache-control"] == "private, max-age=60"
    assert first.headers["location"] == again.headers["location"]


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


async def test_a_store_that_is_away_holds_no_replica(room: Room) -> None:
    async with without_store(room.doors) as http:
        for link in (room.video, room.picture):
            assert (await http.get(link)).status_code == 307
