"""Pictures and videos come through signed links, whole or in part, from S3; not once they may no longer be seen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from cluster.settings import Settings
from serve import media
from tests.serve.doors import PICTURE, Doors, Shelf, fill, opened, without_store

VIDEO = bytes(range(256)) * 8192  # 2 MB: more than one piece


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


async def test_a_video_comes_whole_or_in_the_part_asked_for(room: Room) -> None:
    whole = await room.doors.http.get(room.video)
    assert (whole.status_code, whole.content) == (200, VIDEO)
    assert whole.headers["accept-ranges"] == "bytes"
    part = await room.doors.http.get(room.video, headers={"Range": "bytes=1000000-1100000"})
    assert (part.status_code, part.content) == (206, VIDEO[1000000:1100001])
    assert part.headers["content-range"] == f"bytes 1000000-1100000/{len(VIDEO)}"
    outside = await room.doors.http.get(room.video, headers={"Range": f"bytes={len(VIDEO)}-"})
    assert (outside.status_code, outside.headers["content-range"]) == (416, f"bytes */{len(VIDEO)}")


async def test_what_a_browser_has_is_not_sent_again(room: Room) -> None:
    for link in (room.video, room.picture):
        etag = (await room.doors.http.get(link)).headers["etag"]
        assert (await room.doors.http.get(link, headers={"If-None-Match": etag})).status_code == 304
    stale = await room.doors.http.get(room.video, headers={"Range": "bytes=0-9", "If-Range": '"old"'})
    assert (stale.status_code, len(stale.content)) == (200, len(VIDEO))


async def test_head_tells_the_length_and_sends_nothing(room: Room) -> None:
    head = await room.doors.http.head(room.video)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(VIDEO)))


async def test_a_picture_is_what_was_stored(room: Room) -> None:
    answer = await room.doors.http.get(room.picture)
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, PICTURE, "image/webp")


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


async def test_an_object_that_is_gone_is_a_clean_error(room: Room) -> None:
    with room.doors.database() as connection:
        row = connection.execute("SELECT source_uri FROM media.videos WHERE id = %s", (room.shelf.video,)).fetchone()
    assert row is not None
    room.doors.services.storage.delete(row[0])
    answer = await room.doors.http.get(room.video)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert "127.0.0.1" not in answer.text
    assert row[0] not in answer.text


async def test_a_store_that_is_away_is_said_without_its_address(room: Room) -> None:
    async with without_store(room.doors) as http:
        for link in (room.video, room.picture):
            answer = await http.get(link)
            assert (answer.status_code, answer.json()["code"]) == (503, "temporary")
            assert int(answer.headers["retry-after"]) >= 1
            assert "127.0.0.1" not in answer.text
