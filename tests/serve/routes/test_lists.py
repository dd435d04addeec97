"""Lists show each row once, in order, whoever reads only what they may; a thing is reached by its public id, unlisted too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from cluster.database import database
from cluster.settings import Settings
from pipelines.catalog import listing
from pipelines.jobs import jobs
from serve.access import keys
from serve.settings import SearchSettings
from tests.serve.doors import Doors, Shelf, fill, one, opened, tiny

MORE = 7


@dataclass(frozen=True)
class Room:
    doors: Doors
    shelf: Shelf

    async def get(self, path: str, headers: dict[str, str] | None = None, **asked: Any) -> httpx.Response:
        return await self.doors.http.get(path, params=asked, headers=headers or {})

    async def all(
        self, path: str, name: str, headers: dict[str, str] | None = None, limit: int = 2, **asked: Any
    ) -> list[dict[str, Any]]:
        """Every row, page by page; each page says the same total and is full but for the last."""
        found: list[dict[str, Any]] = []
        page = (await self.get(path, headers, limit=limit, **asked)).json()
        total = page["total"]
        while True:
            assert page["total"] == total
            found += page[name]
            if page["next_cursor"] is None:
                assert len(found) == total
                return found
            assert len(page[name]) == limit
            page = (await self.get(path, headers, limit=limit, cursor=page["next_cursor"])).json()

    def hide(self, video: int, visibility: str = "unlisted") -> None:
        with self.doors.database() as connection:
            connection.execute("UPDATE media.videos SET visibility = %s WHERE id = %s", (visibility, video))
            connection.execute("UPDATE media.generation SET value = value + 1")

    def name(self, video: int) -> str:
        with self.doors.database() as connection:
            row = connection.execute("SELECT public_id FROM media.videos WHERE id = %s", (video,)).fetchone()
        assert row is not None
        return str(row[0])


@pytest.fixture
async def room(settings: Settings) -> AsyncIterator[Room]:
    shelf = fill(settings)
    with database.connect(settings.postgres.url) as connection:
        for number in range(MORE):
            one(
                connection,
                "INSERT INTO media.videos (creator_id, source_uri, title, tags, duration_ms, status, ready_at)"
                " VALUES (%s, %s, %s, %s, %s, 'ready', now()) RETURNING id",
                shelf.ada,
                f"s3://pixr/more/{number}.mp4",
                f"More {number % 3}",
                ["odd"] if number % 2 else ["even"],
                number * 1000 if number else None,
            )
    async with opened(settings, tiny) as doors:
        yield Room(doors, shelf)


async def test_a_list_of_videos_shows_each_once_in_its_order(room: Room) -> None:
    for sort, key in (("title", "title"), ("duration", "duration_ms"), ("created_at", "created_at")):
        rising = await room.all("/v1/videos", "videos", sort=sort)
        falling = await room.all("/v1/videos", "videos", sort=f"-{sort}")
        values = [(each[key] if each[key] is not None else -1, int(each["id"])) for each in rising]
        assert values == sorted(values)
        assert len({each["id"] for each in rising}) == 2 + MORE
        assert [each["id"] for each in falling] == [each["id"] for each in rising][::-1]


@pytest.mark.parametrize("letter", ["\u6f22", "\U0001f989", "\x01"])
async def test_a_list_by_titles_of_a_release_that_took_any_length_turns_pages(room: Room, letter: str) -> None:
    with room.doors.database() as connection:
        connection.execute(
            "UPDATE media.videos SET title = repeat(%s, 199) || id || repeat(%s, 9800)", (letter, letter)
        )
        connection.execute("UPDATE media.creators SET name = repeat(%s, 10000)", (letter,))
    for path, name, sort in (("/v1/videos", "videos", "title"), ("/v1/creators", "creators", "name")):
        for order in (sort, f"-{sort}"):
            found = await room.all(path, name, limit=1, sort=order)
            assert len({each["id"] for each in found}) == (2 + MORE if name == "videos" else 2)


async def test_a_list_is_filtered_by_creator_tag_status_and_visibility(room: Room) -> None:
    creator = (await room.get(f"/v1/creators/{room.shelf.ada}")).json()
    for name in (room.shelf.ada, creator["public_id"], "ada"):
        assert len(await room.all("/v1/videos", "videos", creator=name)) == 1 + MORE
    assert len(await room.all("/v1/videos", "videos", tag="odd")) == MORE // 2
    assert await room.all("/v1/videos", "videos", creator="nobody") == []
    assert await room.all("/v1/videos", "videos", status="failed") == []


async def test_a_tag_is_found_as_an_older_release_kept_it_and_as_it_is_kept_now(room: Room) -> None:
    """Direction marks are left out where tags come in now; what was there before has them, and answers show it so."""
    marked, shelf = "fruit\u200f", room.shelf
    with room.doors.database() as connection:
        connection.execute("UPDATE media.videos SET tags = %s WHERE id = %s", ([marked], shelf.other))
    for tag, expected in (
        (marked, {str(shelf.video), str(shelf.other)}),
        ("fruit", {str(shelf.video)}),
        ("\u200f", set()),
    ):
        assert {each["id"] for each in await room.all("/v1/videos", "videos", tag=tag)} == expected
        found = (await room.get("/v1/search", q="orchard", tags=tag, relevance_min_ppm=0)).json()["moments"]
        assert {each["video_id"] for each in found} == expected


async def test_each_sees_in_a_list_what_they_may(room: Room) -> None:
    room.hide(room.shelf.video)
    room.hide(room.shelf.other, "private")
    ada, bob = (room.doors.key("creator", creator_id=each) for each in (room.shelf.ada, room.shelf.bob))
    counts = {}
    for name, headers in (("all", {}), ("ada", ada), ("bob", bob), ("ingest", room.doors.key("ingest"))):
        counts[name] = len(await room.all("/v1/videos", "videos", headers))
    assert counts == {"all": MORE, "ada": MORE + 1, "bob": MORE + 1, "ingest": MORE + 2}
    assert [each["id"] for each in await room.all("/v1/videos", "videos", ada, visibility="unlisted")] == [
        str(room.shelf.video)
    ]
    assert await room.all("/v1/videos", "videos", visibility="unlisted") == []
    assert len(await room.all("/v1/creators", "creators")) == 1  # bob has nothing public any more
    assert len(await room.all("/v1/creators", "creators", bob)) == 2
    assert (await room.get(f"/v1/creators/{room.shelf.bob}")).status_code == 404


async def test_a_cursor_of_an_owner_shows_others_nothing_more(room: Room) -> None:
    room.hide(room.shelf.video, "private")
    page = (await room.get("/v1/videos", room.doors.key("ingest"), limit=1, sort="title")).json()
    rest = (await room.get("/v1/videos", limit=100, cursor=page["next_cursor"])).json()
    assert str(room.shelf.video) not in {each["id"] for each in rest["videos"]}
    assert len(rest["videos"]) == MORE


@pytest.mark.parametrize("beside", ["sort=title", "tag=odd", "creator=ada", "status=ready"])
async def test_nothing_stands_beside_the_cursor_of_a_list(room: Room, beside: str) -> None:
    cursor = (await room.get("/v1/videos", limit=1)).json()["next_cursor"]
    answer = await room.doors.http.get(f"/v1/videos?cursor={cursor}&{beside}")
    assert (answer.status_code, answer.json()["code"]) == (422, "bad-cursor")


async def test_a_cursor_is_good_for_its_own_list_alone(room: Room) -> None:
    admin = room.doors.key("admin")
    room.doors.key("ingest")
    cursor = (await room.get("/v1/videos", limit=1)).json()["next_cursor"]
    found = (await room.get("/v1/search", q="orchard", limit=1)).json()["next_cursor"]
    segments = (await room.get(f"/v1/videos/{room.shelf.video}/segments", limit=1)).json()["next_cursor"]
    fed = (await room.get("/v1/feed", limit=1)).json()["next_cursor"]
    assert all((cursor, found, segments, fed))
    for path, given in (
        ("/v1/creators", cursor), ("/v1/keys", cursor), ("/v1/jobs", cursor), ("/v1/videos", found), ("/v1/feed", found),
        ("/v1/search", fed), ("/v1/search", cursor), ("/v1/videos", cursor[:-2] + "AA"), ("/v1/videos", "Zm9yZ2Vk"),
        (f"/v1/videos/{room.shelf.other}/segments", segments), (f"/v1/creators/{room.shelf.ada}/payouts", cursor),
    ):  # fmt: skip
        answer = await room.get(path, admin, cursor=given)
        assert (answer.status_code, answer.json()["code"]) == (422, "bad-cursor"), path


async def test_moments_keys_jobs_and_payouts_turn_pages(room: Room) -> None:
    admin = room.doors.key("admin")
    for scope in ("search", "ingest"):
        room.doors.key(scope)
    with room.doors.database() as connection:
        for number in range(5):
            connection.execute(
                "INSERT INTO media.jobs (id, source, created_at) VALUES (%s, 's3://pixr/a/',"
                " '2026-01-01T00:00:00Z'::timestamptz + make_interval(mins => %s))",
                (f"ingest-{number}", number // 2),
            )
    keys = await room.all("/v1/keys", "keys", admin)
    assert [int(each["id"]) for each in keys] == sorted((int(each["id"]) for each in keys), reverse=True)
    jobs = await room.all("/v1/jobs", "jobs", admin)
    assert [each["id"] for each in jobs] == [f"ingest-{number}" for number in (4, 3, 2, 1, 0)]
    parts = await room.all(f"/v1/videos/{room.shelf.video}/segments", "segments", limit=1)
    assert [each["start_ms"] for each in parts] == [0, 2000]
    assert await room.all(f"/v1/creators/{room.shelf.ada}/payouts", "payouts", admin) == []


async def test_the_feed_turns_pages_and_says_its_limit(room: Room) -> None:
    whole = (await room.get("/v1/feed", limit=100)).json()
    assert whole["next_cursor"] is None
    first = (await room.get("/v1/feed", limit=1)).json()
    rest = (await room.get("/v1/feed", limit=100, cursor=first["next_cursor"])).json()
    shown = [each["segment_id"] for each in first["moments"] + rest["moments"]]
    assert shown == [each["segment_id"] for each in whole["moments"]]
    assert (await room.get("/v1/feed", limit=101)).status_code == 422
    document = (await room.get("/openapi.json")).json()
    limits = [
        each["schema"].get("maximum")
        for each in document["paths"]["/v1/feed"]["get"]["parameters"]
        if each["name"] == "limit"
    ]
    assert limits == [100]


async def test_what_is_unlisted_is_reached_by_its_public_id_alone(room: Room) -> None:
    video, moment = room.shelf.video, room.shelf.moments[0]
    room.hide(video)
    name, hers = room.name(video), room.doors.key("creator", creator_id=room.shelf.ada)
    numbers = (f"/v1/videos/{video}", f"/v1/videos/{video}/segments", f"/v1/segments/{moment}")
    names = (f"/v1/videos/{name}", f"/v1/videos/{name}/segments", f"/v1/segments/{name}.0")
    for path in numbers:
        for headers in ({}, room.doors.key("search"), room.doors.key("creator", creator_id=room.shelf.bob)):
            assert (await room.get(path, headers)).status_code == 404, path
        assert (await room.get(path, hers)).status_code == 200
    for path in names:
        assert (await room.get(path)).status_code == 200, path
    assert (await room.get(f"/v1/segments/{moment}/similar")).status_code == 404
    events = [
        (await room.doors.http.post("/v1/events", json={"segment_id": each})).status_code
        for each in (str(moment), f"{name}.0")
    ]
    assert events == [404, 204]
    assert (await room.get("/v1/search", q="orchard", video_id=video)).json()["moments"] == []


async def test_a_stranger_cannot_tell_what_is_unlisted_from_what_is_not_there(room: Room) -> None:
    room.hide(room.shelf.video)
    name, nobody = room.name(room.shelf.video), "x" * 22
    for there, none in (
        (f"/v1/segments/{name}.0/similar", f"/v1/segments/{nobody}.0/similar"),
        (f"/v1/videos/{room.shelf.video}", "/v1/videos/999999"),
        (f"/v1/segments/{room.shelf.moments[0]}", "/v1/segments/999999"),
        (f"/v1/segments/{room.shelf.moments[0]}/similar", "/v1/segments/999999/similar"),
    ):
        numbers = [path.removesuffix("/similar").rpartition("/")[2] for path in (there, none)]
        documents = [(await room.get(path)).json() for path in (there, none)]
        details = [each["detail"].replace(number, "N") for each, number in zip(documents, numbers, strict=True)]
        assert (details[0], documents[0]["code"]) == (details[1], documents[1]["code"])
    for visibility in ("unlisted", "private"):
        room.hide(room.shelf.video, visibility)
        answer = await room.doors.http.post("/v1/search", json={"segment_id": f"{name}.0"})
        assert (answer.status_code, answer.json()["detail"]) == (404, f"there is no segment {name}.0")


async def test_a_public_id_does_wherever_a_number_does(room: Room) -> None:
    ada = (await room.get(f"/v1/creators/{room.shelf.ada}")).json()["public_id"]
    name, hers = room.name(room.shelf.video), room.doors.key("creator", creator_id=room.shelf.ada)
    moment = f"{name}.2000"
    shown = (await room.get("/v1/search", q="orchard", video_id=name, limit=10)).json()["moments"]
    assert {each["public_id"] for each in shown} == {f"{name}.0", moment}
    assert {(each["video_public_id"], each["creator_public_id"]) for each in shown} == {(name, ada)}
    assert (await room.get("/v1/search", q="orchard", creator_id=ada)).json()["moments"]
    assert (await room.get("/v1/search", q="orchard", creator_id="x" * 22)).json()["moments"] == []
    body = {"segment_id": moment, "filters": {"video_id": [name, str(room.shelf.other)]}}
    assert (await room.doors.http.post("/v1/search", json=body)).status_code == 200
    assert (await room.get(f"/v1/segments/{moment}/similar")).status_code == 200
    assert (await room.get(f"/v1/segments/{moment}")).json()["segment_id"] == str(room.shelf.moments[1])
    for path in ("earnings", "earnings/live", "payouts", "statement.csv"):
        assert (await room.get(f"/v1/creators/{ada}/{path}", hers)).status_code == 200, path
    made = {"name": "n", "scopes": ["creator"], "creator_id": ada}
    key = await room.doors.http.post("/v1/keys", json=made, headers=room.doors.key("admin"))
    assert key.json()["creator_id"] == str(room.shelf.ada)
    changed = await room.doors.http.patch(f"/v1/videos/{name}", json={"title": "New"}, headers=hers)
    assert (changed.status_code, changed.json()["public_id"]) == (200, name)
    assert (await room.doors.http.delete(f"/v1/videos/{name}", headers=hers)).json()["public_id"] == name


async def test_a_public_id_of_nothing_is_404(room: Room) -> None:
    name, admin = "x" * 22, room.doors.key("admin")
    for path in (f"/v1/videos/{name}", f"/v1/segments/{name}.0", f"/v1/segments/{name}.0/similar",
                 f"/v1/creators/{name}", f"/v1/creators/{name}/earnings"):  # fmt: skip
        assert (await room.get(path, admin)).status_code == 404, path
    assert (await room.doors.http.post("/v1/search", json={"segment_id": f"{name}.0"})).status_code == 404


async def test_lists_that_wait_leave_searches_their_connections(settings: Settings) -> None:
    fill(settings)
    tight = replace(settings.section(SearchSettings), gate_wait_s=0.3, lists_max=2, lists_caller_max=1)
    async with opened(settings.with_section(tight), tiny) as doors, AsyncExitStack() as stack:
        gate = doors.services.gates.lists
        await doors.http.get("/v1/search?q=orchard")
        for name in ("one", "another"):
            await stack.enter_async_context(gate.passed(name))
        for path in ("/v1/videos?sort=duration", "/v1/creators", "/v1/creators/1"):
            answer = await doors.http.get(path)
            assert (answer.status_code, "retry-after" in answer.headers) == (503, True), path
        assert (await doors.http.get("/v1/search?q=harbour")).status_code == 200
        assert (await doors.http.get("/v1/videos/1")).status_code in (200, 404)
        await stack.aclose()
        assert (await doors.http.get("/v1/videos?sort=duration")).status_code == 200
        assert (gate.held, gate.waiting) == (0, 0)


async def test_what_is_counted_is_counted_up_to_a_bound(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = room.doors.key("admin")
    with room.doors.database() as connection:
        for number in range(5):
            keys.create(connection, f"key {number}", ["search"])
            connection.execute("INSERT INTO media.jobs (id, source) VALUES (%s, 's3://pixr/a/')", (f"job-{number}",))
    for module, name in ((listing, "OF_EACH_MAX"), (listing, "TOTAL_MAX"), (keys, "TOTAL_MAX"), (jobs, "TOTAL_MAX")):
        monkeypatch.setattr(module, name, 3)
    ada = (await room.get(f"/v1/creators/{room.shelf.ada}")).json()
    assert ada["videos"] == 3 < MORE
    listed = (await room.get("/v1/creators")).json()
    assert sorted(each["videos"] for each in listed["creators"]) == [1, 3]
    for path in ("/v1/videos", "/v1/keys", "/v1/jobs"):
        assert (await room.get(path, admin)).json()["total"] == 3, path


SORTED = {
    "media.videos v WHERE v.status = 'ready' AND v.visibility = 'public'": listing.VIDEO_SORTS,
    "media.creators c": listing.CREATOR_SORTS,
}


@pytest.mark.parametrize(("rows", "sorts"), SORTED.items())
def test_every_order_of_a_list_has_its_index(
    settings: Settings, rows: str, sorts: Mapping[str, tuple[str, str]]
) -> None:
    key = f"{rows.split()[1]}.id"
    with database.connect(settings.postgres.url) as connection:
        for each in ("seqscan", "bitmapscan"):
            connection.execute(f"SET enable_{each} = off")
        for expression, _ in sorts.values():
            for direction in ("ASC", "DESC"):
                query = f"EXPLAIN SELECT FROM {rows} ORDER BY {expression} {direction}, {key} {direction} LIMIT 21"
                plan = "\n".join(row[0] for row in connection.execute(query))  # type: ignore[call-overload]
                assert "Sort" not in plan, (expression, direction)
