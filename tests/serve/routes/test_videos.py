"""A video is seen by who may see it and changed by who owns it; taken down, it leaves nothing in any store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from cluster.settings import Settings
from serve.media import links
from tests.serve.doors import Doors, Shelf, fill, opened, tiny


@dataclass(frozen=True)
class Room:
    doors: Doors
    shelf: Shelf
    ada: dict[str, str]
    bob: dict[str, str]
    ingest: dict[str, str]

    async def get(self, path: str, headers: dict[str, str] | None = None) -> int:
        return (await self.doors.http.get(path, headers=headers or {})).status_code

    async def finds(self, words: str) -> list[str]:
        """By words alone, in an answer that lacks nothing and so is kept."""
        body = {"text": words, "limit": 100, "weights": {"vector": 0}}
        answer = await self.doors.http.post("/v1/search", json=body)
        assert answer.json()["degraded"] == []
        return [moment["video_id"] for moment in answer.json()["moments"]]


@pytest.fixture
async def room(settings: Settings) -> AsyncIterator[Room]:
    shelf = fill(settings)
    async with opened(settings, tiny) as doors:
        ada, bob = (doors.key("creator", creator_id=each) for each in (shelf.ada, shelf.bob))
        yield Room(doors, shelf, ada, bob, doors.key("ingest"))


async def test_a_ready_video_is_open_to_all_and_tells_its_source_to_none_but_its_owner(room: Room) -> None:
    path = f"/v1/videos/{room.shelf.video}"
    for headers, told in (({}, False), (room.bob, False), (room.ada, True), (room.ingest, True)):
        video = (await room.doors.http.get(path, headers=headers)).json()
        assert (video["title"], video["segments"]) == ("Orchard in spring", 2)
        assert (video["source_uri"] is not None) is told
    assert len((await room.doors.http.get(f"{path}/segments")).json()["segments"]) == 2


@pytest.mark.parametrize("change", ["visibility = 'private'", "status = 'queued'"])
async def test_a_hidden_video_does_not_exist_for_others(room: Room, change: str) -> None:
    with room.doors.database() as connection:
        connection.execute(f"UPDATE media.videos SET {change} WHERE id = {room.shelf.video}")
    for path in (f"/v1/videos/{room.shelf.video}", f"/v1/videos/{room.shelf.video}/segments"):
        assert [await room.get(path, each) for each in ({}, room.bob, room.ada, room.ingest)] == [404, 404, 200, 200]


async def test_a_private_link_is_given_to_the_owner_and_opens(room: Room) -> None:
    patch = await room.doors.http.patch(
        f"/v1/videos/{room.shelf.video}", json={"visibility": "private"}, headers=room.ada
    )
    assert patch.json()["visibility"] == "private"
    segments = await room.doors.http.get(f"/v1/videos/{room.shelf.video}/segments", headers=room.ada)
    link = segments.json()["segments"][0]["play_url"].partition("#")[0]
    assert await room.get(link) == 307
    assert await room.get(links.signed(room.doors.settings, f"/media/videos/{room.shelf.video}")) == 404


async def test_only_its_owner_changes_a_video(room: Room) -> None:
    path = f"/v1/videos/{room.shelf.video}"
    statuses = [
        (await room.doors.http.patch(path, json={"title": "Mine"}, headers=headers)).status_code
        for headers in ({}, room.doors.key("search"), room.bob, room.ada)
    ]
    assert statuses == [401, 403, 403, 200]
    assert (await room.doors.http.patch(path, json={}, headers=room.ada)).status_code == 422
    assert (await room.doors.http.patch(path, json={"status": "ready"}, headers=room.ada)).status_code == 422


async def test_search_follows_changed_words_and_visibility_at_once(room: Room) -> None:
    path, name = f"/v1/videos/{room.shelf.video}", str(room.shelf.video)
    assert name in await room.finds("orchard")
    await room.doors.http.patch(path, json={"title": "Lighthouse"}, headers=room.ada)
    assert name not in await room.finds("orchard")
    assert name in await room.finds("lighthouse")
    await room.doors.http.patch(path, json={"visibility": "unlisted"}, headers=room.ada)
    assert name not in await room.finds("lighthouse")
    await room.doors.http.patch(path, json={"visibility": "public"}, headers=room.ada)
    assert name in await room.finds("lighthouse")


@pytest.mark.parametrize(
    "words",
    [
        {"title": "Goat \x1b]0;PWNED\x07\x1b[2J"}, {"title": ""}, {"title": " \u00a0 "}, {"title": "x" * 201},
        {"title": "\u202egnp.exe"}, {"title": "two\nlines"}, {"description": "\x1b[2J"}, {"tags": ["a\x9b2J"]},
        {"tags": [" "]},
    ],
)  # fmt: skip
async def test_words_that_would_command_a_terminal_or_have_no_end_are_refused(
    room: Room, words: dict[str, Any]
) -> None:
    path = f"/v1/videos/{room.shelf.video}"
    assert (await room.doors.http.patch(path, json=words, headers=room.ada)).status_code == 422


async def test_a_description_has_lines_and_tags_do_not_repeat(room: Room) -> None:
    words = {"title": "ヤギ 🐐 goat", "description": "one\n\ttwo", "tags": ["a", "b"]}
    path = f"/v1/videos/{room.shelf.video}"
    changed = await room.doors.http.patch(path, json=words, headers=room.ada)
    assert changed.status_code == 200, changed.text
    assert {name: changed.json()[name] for name in words} == words
    repeated = await room.doors.http.patch(path, json={"tags": ["a", "b", "a"]}, headers=room.ada)
    assert (repeated.status_code, repeated.json()["code"]) == (422, "invalid")
    assert "tags repeat" in repeated.json()["detail"]


async def test_an_ingest_key_sees_and_changes_videos_of_its_own_creators_alone(room: Room) -> None:
    with room.doors.database() as connection:
        connection.execute(f"UPDATE media.videos SET visibility = 'private' WHERE id = {room.shelf.video}")
        row = connection.execute("SELECT handle FROM media.creators WHERE id = %s", (room.shelf.ada,)).fetchone()
    assert row is not None
    path = f"/v1/videos/{room.shelf.video}"
    hers, anothers = (room.doors.key("ingest", creators=[handle]) for handle in (row[0], "nobody"))
    for headers, seen in ((hers, 200), (anothers, 404), (room.ingest, 200)):
        assert await room.get(path, headers) == seen
        listed = (await room.doors.http.get("/v1/videos", headers=headers, params={"limit": 100})).json()["videos"]
        assert (str(room.shelf.video) in {video["id"] for video in listed}) is (seen == 200)
        assert (await room.doors.http.get(f"/v1/creators/{room.shelf.ada}", headers=headers)).status_code in (200, seen)
        changed = await room.doors.http.patch(path, json={"title": "Mine"}, headers=headers)
        assert changed.status_code == seen
    assert (await room.doors.http.delete(path, headers=anothers)).status_code == 404
    assert (await room.doors.http.delete(path, headers=hers)).status_code == 200


async def test_a_language_is_changed_by_name_or_code_and_its_words_are_found_by_their_stems(room: Room) -> None:
    path, http = f"/v1/videos/{room.shelf.video}", room.doors.http
    assert (await http.patch(path, json={"title": "Rote Häuser"}, headers=room.ada)).status_code == 200
    assert str(room.shelf.video) not in await room.finds("Haus")
    for given in ("de", "German"):
        answer = await http.patch(path, json={"language": given}, headers=room.ada)
        assert (answer.status_code, answer.json()["language"]) == (200, "german"), answer.text
    for asked in ({"language": "de"}, {"language": "german"}):
        found = await http.get("/v1/search", params={"q": "Haus", "vector_weight": 0, **asked})
        assert str(room.shelf.video) in {each["video_id"] for each in found.json()["moments"]}, asked
    for odd in ("klingon", "", " ", "de\u0000"):
        refused = await http.patch(path, json={"language": odd}, headers=room.ada)
        assert refused.status_code == 422, odd
