"""The door answers as HTTP asks of it: HEAD, Allow, tags, compression, the right 4xx, and nothing that steers a terminal."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from cluster.errors import Rejected
from cluster.settings import Settings
from cluster.storage import split
from pipelines import manifest
from serve import app, routes_feed
from serve.cursors import Ranked
from serve.results import MADE, REPLICA, Page
from serve.search import CURSOR, Answer
from serve.settings import SearchSettings
from tests.serve.doors import Doors, Shelf, fill, opened, tiny

JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Room:
    doors: Doors
    shelf: Shelf

    @property
    def http(self) -> httpx.AsyncClient:
        return self.doors.http

    async def appearances(self) -> int:
        """What has been recorded, once nothing waits any more."""
        for _ in range(250):
            if not self.doors.services.recorder.waiting:
                break
            await asyncio.sleep(0.02)
        with self.doors.database() as connection:
            row = connection.execute("SELECT coalesce(sum(appearances), 0) FROM ledger.appearance_batches").fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
async def room(settings: Settings) -> AsyncIterator[Room]:
    calm = replace(settings.section(SearchSettings), generation_interval_s=30.0)
    shelf = fill(settings)
    async with opened(settings.with_section(calm), tiny) as doors:
        yield Room(doors, shelf)


async def test_every_get_has_its_head_and_no_body(room: Room) -> None:
    admin = room.doors.key("admin")
    routes = [each for module in app.ROUTERS for each in module.router(room.doors.services).routes]
    paths = ["/openapi.json", *(each.path for each in routes if isinstance(each, APIRoute) and "GET" in each.methods)]
    for path in paths:
        if path.startswith(("/media", "/v1/jobs/", "/v1/search/stream")):
            continue
        where = path.replace("{video_id}", "1").replace("{segment_id}", "1").replace("{creator_id}", "1")
        where += "?q=orchard" if path in ("/v1/search", "/v1/completions") else ""
        read = await room.http.get(where, headers=admin)
        head = await room.http.head(where, headers=admin)
        assert (read.status_code, head.status_code, head.content) == (200, 200, b""), path
        assert head.headers["content-type"] == read.headers["content-type"]


async def test_a_head_earns_nothing(room: Room) -> None:
    await room.http.head("/v1/search?q=orchard")
    await room.http.head("/v1/search?q=orchard")  # the short way
    assert await room.appearances() == 0
    await room.http.get("/v1/search?q=orchard")
    assert await room.appearances() > 0


async def test_what_a_page_of_another_site_has_strangers_ask_earns_nothing(room: Room) -> None:
    """As an `<img src=".../v1/search?q=...">` on a busy page: browsers say where a request comes from."""
    image = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    for path in ("/v1/search?q=orchard", "/v1/search?q=orchard", "/v1/search/stream?q=orchard"):
        answer = await room.http.get(path, headers=image | {"origin": "https://elsewhere.example"})
        assert answer.status_code == 200
    assert await room.appearances() == 0
    await room.http.get("/v1/search?q=orchard", headers=image | {"sec-fetch-site": "same-origin"})
    assert await room.appearances() > 0


@pytest.mark.parametrize(
    ("headers", "pays"),
    [
        ({}, True),
        ({"sec-fetch-site": "Cross-Site"}, False),
        ({"sec-fetch-site": "same-site", "origin": "http://other.pixr"}, False),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "same-origin", "origin": "https://before.the.proxy"}, True),
        ({"sec-fetch-site": "cross-site", "origin": "https://friend.example"}, True),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://pixr.evil.example"}, False),
        ({"origin": "http://pixr:8000"}, False),
        ({"origin": "https://friend.example"}, True),
        ({"origin": "http://pixr"}, True),
        ({"origin": "https://PIXR:443"}, True),
        ({"referer": "http://evil.example/page"}, False),
        ({"referer": "http://["}, False),
        ({"referer": "http://pixr/?q=orchard"}, True),
        ({"referer": "http://evil.example/", "origin": "http://pixr"}, True),
    ],
)
async def test_what_a_browser_says_of_the_page_that_asks_decides_whether_it_pays(
    settings: Settings, headers: dict[str, str], pays: bool
) -> None:
    """Also over plain HTTP, where browsers send no `Sec-Fetch-Site` to hosts other than loopback."""
    shelf = fill(settings)
    known = replace(settings.section(SearchSettings), cors_origins=("https://friend.example",))
    async with opened(settings.with_section(known), tiny) as doors:
        for path in ("/v1/search?q=orchard", "/v1/search?q=orchard", "/v1/search/stream?q=orchard"):
            assert (await doors.http.get(path, headers=headers)).status_code == 200
        await doors.http.post("/v1/search", json={"text": "orchard"}, headers=headers)
        assert (await Room(doors, shelf).appearances() > 0) == pays


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/search", "GET, HEAD, OPTIONS, POST"),
        ("/v1/jobs", "GET, HEAD, OPTIONS, POST"),
        ("/v1/keys", "GET, HEAD, OPTIONS, POST"),
        ("/v1/videos/1", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
        ("/", "GET, HEAD, OPTIONS"),
    ],
)
async def test_allow_names_every_method_of_a_path(room: Room, path: str, methods: str) -> None:
    options, other = await room.http.options(path), await room.http.request("LINK", path)
    assert (options.status_code, options.headers["allow"], options.content) == (204, methods, b"")
    assert (other.status_code, other.headers["allow"]) == (405, methods)
    assert other.headers["content-type"] == "application/problem+json"


async def test_a_path_with_a_slash_more_is_another_path(room: Room) -> None:
    answer = await room.http.get("/v1/search/?q=a", headers={"host": "evil.example"})
    assert (answer.status_code, "location" in answer.headers) == (404, False)
    assert (await room.http.options("/v1/nothing")).status_code == 404


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b'{"text": ', JSON, 400),
        (b"\xff\xfe", JSON, 400),
        (b'{"text": "a", "limit": ' + b"1" * 5000 + b"}", JSON, 400),
        (b'{"text": "a"}', {}, 415),
        (b'{"text": "a"}', {"content-type": "text/plain"}, 415),
        (b"text=a", {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b'{"text": "orchard"}', {"content-type": "application/vnd.pixr+json; charset=utf-8"}, 200),
        (b"", {}, 422),
        (b'{"text": 3}', JSON, 422),
    ],
)
async def test_a_body_that_cannot_be_read_has_a_status_of_its_own(
    room: Room, content: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await room.http.post("/v1/search", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert status == 200 or answer.headers["content-type"] == "application/problem+json"


async def test_a_wallet_that_is_none_is_refused_as_other_values_are(room: Room) -> None:
    hers, path = room.doors.key("creator", creator_id=room.shelf.ada), f"/v1/creators/{room.shelf.ada}/wallet"
    answer = await room.http.put(path, json={"wallet": "0" * 40}, headers=hers)
    assert (answer.status_code, answer.json()["code"]) == (422, "wallet-invalid")


async def test_the_same_answer_is_not_sent_twice(room: Room) -> None:
    video = room.shelf.video
    paths = ("/v1/search?q=orchard", f"/v1/videos/{video}", f"/v1/videos/{video}/segments", "/openapi.json", "/")
    for path in paths:
        first = await room.http.get(path)
        again = await room.http.get(path, headers={"if-none-match": f'"other", {first.headers["etag"]}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"]), path
        assert "content-length" not in again.headers
    changing = (f"/v1/videos/{video}", "/v1/videos", "/v1/feed", "/v1/search?q=orchard")
    before = {path: (await room.http.get(path)).headers["etag"] for path in changing}
    await room.http.patch(f"/v1/videos/{video}", json={"title": "Other orchard"}, headers=room.doors.key("admin"))
    for path, tag in before.items():
        after = await room.http.get(path, headers={"if-none-match": tag})
        assert (after.status_code, after.headers["etag"] != tag) == (200, True), path


async def test_a_tag_that_stands_for_any_answer_does_not_hide_what_pays(room: Room) -> None:
    whatever = {"if-none-match": "*"}
    for path in ("/v1/search?q=orchard", f"/v1/segments/{room.shelf.moments[0]}/similar"):
        for _ in range(2):  # the second is kept
            answer = await room.http.get(path, headers=whatever)
            assert (answer.status_code, bool(answer.content)) == (200, True), path
    assert (await room.http.get("/v1/videos", headers=whatever)).status_code == 304


async def test_the_tag_of_the_feed_knows_what_follows_and_is_younger_than_its_cursor(settings: Settings) -> None:
    shelf = fill(settings)
    short = replace(settings.section(SearchSettings), cursor_expires_s=4, feed_fresh_weight=0.0)
    async with opened(settings.with_section(short), tiny) as doors:

        async def ask(limit: int, tag: str = "") -> httpx.Response:
            return await doors.http.get("/v1/feed", params={"limit": limit}, headers={"if-none-match": tag})

        whole, first = await ask(100), await ask(1)
        assert (whole.json()["next_cursor"], bool(first.json()["next_cursor"])) == (None, True)
        await asyncio.sleep(2.1)
        assert (await ask(100, whole.headers["etag"])).status_code == 304
        second = await ask(1, first.headers["etag"])
        assert (second.status_code, second.json()["moments"]) == (200, first.json()["moments"])
        shown = int(first.json()["moments"][0]["video_id"])
        hidden = shelf.other if shown == shelf.video else shelf.video
        assert routes_feed._further([Ranked(1, 1.0, 0, ())], 900) != routes_feed._further([Ranked(2, 1.0, 0, ())], 900)
        with doors.database() as connection:
            connection.execute("UPDATE media.videos SET visibility = 'private' WHERE id = %s", (hidden,))
        third = await ask(1, second.headers["etag"])
        assert third.status_code == 200


async def test_keys_that_strangers_make_up_are_kept_for_a_short_while(settings: Settings) -> None:
    fill(settings)
    short = replace(settings.section(SearchSettings), idempotency_address_s=2)
    async with opened(settings.with_section(short), tiny) as doors:
        store, key = doors.services.store, {"idempotency-key": "k-3"}
        for headers, lasts_s in ((key, 2), (key | doors.key("search"), 86_400)):
            assert (await doors.http.get("/v1/search?q=orchard", headers=headers)).status_code == 200
            names = [each async for each in doors.services.redis.scan_iter(f"{store.prefix}idempotency:*")]
            assert max([await doors.services.redis.ttl(each) for each in names]) in range(lasts_s - 60, lasts_s + 1)
        for headers, status in ((key, 200), (key | doors.key("search"), 200)):
            assert (await doors.http.get("/v1/search?q=orchard", headers=headers)).status_code == status
        await asyncio.sleep(2.2)
        assert (await doors.http.get("/v1/search?q=harbour", headers=key)).status_code == 200
        assert (await doors.http.get("/v1/search?q=orchard", headers=key)).status_code == 422


async def test_an_empty_first_page_and_an_empty_further_page_have_tags_of_their_own() -> None:
    """One says that nothing matches, the other only that nothing follows."""
    page = Page(b"[]", (), None)
    first, further = Answer(page, MADE), Answer(page, CURSOR)
    assert (first.nothing_matches, further.nothing_matches) == (True, False)
    assert first.tag != further.tag
    assert first.tag == Answer(page, REPLICA).tag


async def test_large_answers_are_compressed_for_who_takes_it(room: Room) -> None:
    for path in ("/openapi.json", "/v1/search?q=orchard&limit=4"):
        plain = await room.http.get(path, headers={"accept-encoding": "identity"})
        small = await room.http.get(path, headers={"accept-encoding": "br, gzip"})
        assert "content-encoding" not in plain.headers
        assert "accept-encoding" in plain.headers["vary"].lower()
        assert small.headers["content-encoding"] == "gzip"
        assert int(small.headers["content-length"]) < len(plain.content) / 2
        assert small.json().keys() == plain.json().keys()
        assert small.headers["etag"] == plain.headers["etag"]
    refused = await room.http.get("/openapi.json", headers={"accept-encoding": "gzip;q=0"})
    assert "content-encoding" not in refused.headers
    tiny_one = await room.http.get("/healthz", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in tiny_one.headers
    stream = await room.http.get("/v1/search/stream?q=orchard", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in stream.headers


async def test_compressing_an_answer_costs_less_than_a_millisecond(room: Room) -> None:
    whole = (await room.http.get("/openapi.json", headers={"accept-encoding": "identity"})).content[:17_000]
    began = time.thread_time()
    for _ in range(50):
        gzip.compress(whole, SearchSettings().gzip_level, mtime=0)
    assert (time.thread_time() - began) / 50 < 0.001


async def test_answers_to_keys_are_kept_by_nobody_else(room: Room) -> None:
    for headers in ({}, room.doors.key("admin"), {"x-api-key": room.doors.key("ingest")["Authorization"][7:]}):
        for path in ("/v1/search?q=orchard", "/v1/videos/1", "/v1/feed"):
            answer = await room.http.get(path, headers=headers)
            assert answer.status_code == 200
            assert "private" in answer.headers["cache-control"]
            assert {"authorization", "x-api-key"} <= {
                each.strip() for each in answer.headers["vary"].lower().split(",")
            }
    made = await room.http.post("/v1/keys", json={"name": "n", "scopes": ["search"]}, headers=room.doors.key("admin"))
    assert made.headers["cache-control"] == "no-store"


async def test_nothing_is_sniffed(room: Room) -> None:
    for path in (
        "/v1/search?q=orchard",
        "/v1/search",
        "/healthz",
        "/metrics",
        "/",
        "/nothing",
        "/openapi.json",
        "/docs",
    ):
        assert (await room.http.get(path)).headers["x-content-type-options"] == "nosniff", path
    wrong = await room.http.get("/v1/search?q=a", headers={"authorization": "Bearer pixr_wrong"})
    assert (wrong.status_code, wrong.headers["x-content-type-options"]) == (401, "nosniff")


async def test_what_browsers_and_crawlers_ask_for_is_there(room: Room) -> None:
    robots = await room.http.get("/robots.txt")
    assert robots.text.startswith("User-agent: *\nDisallow: /v1/")
    icon = await room.http.get("/favicon.ico")
    assert (icon.status_code, icon.headers["content-type"]) == (200, "image/svg+xml")


async def test_the_documentation_asks_nobody_else(room: Room) -> None:
    page = await room.http.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    script = (await room.http.get("/web/docs.js")).text
    for text in (page.text, script, (await room.http.get("/web/docs.css")).text):
        assert "http://" not in text
        assert "https://" not in text
        assert "innerHTML" not in text
    assert 'fetch("/openapi.json")' in script


MARKS = ["\u200e", "\u200f", "\u061c", "\u2060", "\ufeff"]
INVISIBLE = [
    "\u200b",
    "\u2060",
    "\ufeff",
    "\u200d\u200c",
    "\u0301",
    "\u0e31\u0e34",
    "\u200f\u061c",
    "\u3164",
    "\u2800",
    "\ufe0f",
]
WRITTEN = [
    "ภาษาไทย\u200bน้ำผึ้ง", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "مرحبا 2024", "שלום עולם", "क्\u200dष हिन्दी",
    "👩\u200d🚀 🏳️\u200d🌈", "🏴\U000e0067\U000e0062\U000e007f", "1️⃣", "❤️", "Ünï Zoe\u0308", "ヤギ 🐐", "?", "soft\u00adly",
]  # fmt: skip
STEERING = ["a\x1b]0;PWNED\x07", "a\x9b2J", "a\u202eb", "a\u2028b", "a\x00"]


@pytest.mark.parametrize("text", STEERING)
async def test_texts_with_control_characters_are_refused(room: Room, text: str) -> None:
    admin, video = room.doors.key("admin"), f"/v1/videos/{room.shelf.video}"
    described = {"description": text} if "\u2028" not in text else {"title": text}  # in it, that is a line break
    for change in ({"title": text}, described, {"tags": [text]}):
        answer = await room.http.patch(video, json=change, headers=admin)
        assert answer.status_code == 422, change
        assert b"\x1b" not in answer.content
    for job in ({"source": "s3://pixr/a/", "creator": text}, {"source": f"s3://pixr/{text}/"}):
        assert (await room.http.post("/v1/jobs", json=job, headers=admin)).status_code == 422
    if "\u2028" not in text:  # white space of a query is a space
        assert (await room.http.get("/v1/search", params={"q": text})).status_code == 422
        assert (await room.http.post("/v1/search", json={"text": "a", "negative": [text]})).status_code == 422
    assert (await room.http.get("/v1/completions", params={"q": text})).status_code == 422


@pytest.mark.parametrize("text", INVISIBLE, ids=ascii)
async def test_what_shows_nothing_is_no_title_tag_name_or_search(room: Room, text: str) -> None:
    admin, video = room.doors.key("admin"), f"/v1/videos/{room.shelf.video}"
    for change in ({"title": text}, {"tags": [text]}, {"tags": ["a", text]}):
        answer = await room.http.patch(video, json=change, headers=admin)
        assert (answer.status_code, "shows nothing" in answer.json()["detail"]) == (422, True), change
    named = await room.http.post("/v1/keys", json={"name": text, "scopes": ["search"]}, headers=admin)
    assert (named.status_code, "shows nothing" in named.json()["detail"]) == (422, True)
    assert (await room.http.get("/v1/search", params={"q": text})).status_code == 422
    assert (await room.http.post("/v1/search", json={"text": "a", "negative": [text]})).status_code == 422
    job = {"source": "s3://pixr/a/", "creator": text}
    assert (await room.http.post("/v1/jobs", json=job, headers=admin)).json()["code"] == "bad-creator"
    manifest_row = json.dumps({"file": "a.mp4", "title": text})
    assert "shows nothing" in manifest.parse(manifest_row, "manifest.jsonl").refused[0].reason


@pytest.mark.parametrize("mark", MARKS, ids=ascii)
async def test_marks_that_nobody_sees_and_nothing_needs_are_left_out_where_texts_come_in(room: Room, mark: str) -> None:
    admin, video = room.doors.key("admin"), f"/v1/videos/{room.shelf.video}"
    change = {"title": f"{mark} Gr{mark}een ", "description": f"one\n{mark}two", "tags": [f"{mark}tag{mark}"]}
    answer = await room.http.patch(video, json=change, headers=admin)
    assert [answer.json().get(each) for each in change] == ["Green", "one\ntwo", ["tag"]]
    row = json.dumps({"file": "a.mp4", **change})
    [read] = manifest.parse(row, "manifest.jsonl").good
    assert (read.entry.title, read.entry.description, read.entry.tags) == ("Green", "one\ntwo", ("tag",))
    for asked in ({"tag": f"t{mark}ag"}, {"tag": "tag"}):
        assert [each["id"] for each in (await room.http.get("/v1/videos", params=asked)).json()["videos"]] == [
            str(room.shelf.video)
        ]
    found = await room.http.get("/v1/search", params={"q": f"gre{mark}en", "tags": f"{mark}tag", "intent": "typing"})
    assert {each["video_id"] for each in found.json()["moments"]} == {str(room.shelf.video)}


@pytest.mark.parametrize("text", WRITTEN)
async def test_every_script_is_written_as_it_should_be(room: Room, text: str) -> None:
    admin, video = room.doors.key("admin"), f"/v1/videos/{room.shelf.video}"
    answer = await room.http.patch(video, json={"title": text, "description": text, "tags": [text]}, headers=admin)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["title"], answer.json()["description"], answer.json()["tags"]) == (text, text, [text])
    [read] = manifest.parse(json.dumps({"file": "a.mp4", "title": text, "tags": [text]}), "manifest.jsonl").good
    assert (read.entry.title, read.entry.tags) == (text, (text,))
    assert (await room.http.get("/v1/search", params={"q": text, "intent": "typing"})).status_code == 200


@pytest.mark.parametrize(
    "change",
    [{"title": ""}, {"title": "  "}, {"title": "a" * 201}, {"tags": ["a", "A"]}, {"tags": [" "]}, {"tags": ["a" * 101]},
     {"tags": [str(each) for each in range(51)]}, {"description": "a" * 10_001}],
)  # fmt: skip
async def test_titles_and_tags_have_bounds(room: Room, change: dict[str, Any]) -> None:
    answer = await room.http.patch(f"/v1/videos/{room.shelf.video}", json=change, headers=room.doors.key("admin"))
    assert answer.status_code == 422


async def test_a_description_may_have_lines_and_a_title_is_trimmed(room: Room) -> None:
    change = {"title": "  Goat ", "description": "one\n\ttwo", "tags": ["a", "b"]}
    answer = await room.http.patch(f"/v1/videos/{room.shelf.video}", json=change, headers=room.doors.key("admin"))
    assert (answer.status_code, answer.json()["title"], answer.json()["description"]) == (200, "Goat", "one\n\ttwo")


async def test_an_address_that_leads_elsewhere_is_refused_at_once(room: Room) -> None:
    began = time.monotonic()
    for source in ("s3://pixr/../secret/", "s3://pixr/a/./b/", "s3://../pixr/"):
        body = {"source": source}
        assert (await room.http.post("/v1/jobs", json=body, headers=room.doors.key("ingest"))).status_code == 422
    assert time.monotonic() - began < 3
    with pytest.raises(Rejected):
        split("s3://pixr/\x1b")


async def test_what_was_removed_says_so_when_it_is_changed(room: Room) -> None:
    path, hers = f"/v1/videos/{room.shelf.video}", room.doors.key("admin")
    await room.http.delete(path, headers=hers)
    assert (await room.http.get(path, headers=hers)).json()["status"] == "removed"
    answer = await room.http.patch(path, json={"title": "Back"}, headers=hers)
    assert (answer.status_code, answer.json()["code"]) == (409, "removed")


async def test_an_idempotency_key_stands_for_one_search(room: Room) -> None:
    key = {"idempotency-key": "k-1"}
    for _ in range(3):
        assert (await room.http.get("/v1/search?q=orchard", headers=key)).status_code == 200
    for answer in (
        await room.http.get("/v1/search?q=harbour", headers=key),
        await room.http.post("/v1/search", json={"text": "harbour"}, headers=key),
        await room.http.get("/v1/search/stream?q=harbour", headers=key),
    ):
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency-key-reused")
    assert (await room.http.get("/v1/search?q=harbour", headers=key | room.doors.key("search"))).status_code == 200
    assert (await room.http.post("/v1/search", json={"text": "Orchard"}, headers=key)).status_code == 200


async def test_another_replica_knows_the_key_too(room: Room) -> None:
    key = {"idempotency-key": "k-2"}
    assert (await room.http.get("/v1/search?q=orchard", headers=key)).status_code == 200
    async with opened(room.doors.settings, tiny) as other:
        assert (await other.http.get("/v1/search?q=harbour", headers=key)).status_code == 422
        assert (await other.http.get("/v1/search?q=orchard", headers=key)).status_code == 200


async def test_figures_are_for_operators(room: Room) -> None:
    for address, seen in (("127.0.0.1", True), ("203.0.113.7", False)):
        transport = httpx.ASGITransport(room.doors.app, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://pixr") as http:
            ready = (await http.get("/readyz")).json()
            assert ("dependencies" in ready, ready["ready"]) == (seen, True)
            assert (await http.get("/metrics")).status_code == (200 if seen else 401)
            assert (await http.get("/metrics", headers=room.doors.key("search"))).status_code == (200 if seen else 403)
            assert (await http.get("/metrics", headers=room.doors.key("admin"))).status_code == 200
            assert "dependencies" in (await http.get("/readyz", headers=room.doors.key("admin"))).json()
            assert (await http.get("/healthz")).status_code == 200


BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"


@pytest.mark.parametrize(
    ("headers", "seen"),
    [
        ({"Host": "rebind.evil.example:8001", "User-Agent": BROWSER}, False),
        ({"Host": "rebind.evil.example:8001", "Sec-Fetch-Site": "same-origin"}, False),
        ({"Host": "rebind.evil.example:8001", "Origin": "http://rebind.evil.example:8001"}, False),
        ({"Host": "127.0.0.1.evil.example", "User-Agent": BROWSER}, False),
        ({"Host": "127.0.0.1:8001", "User-Agent": BROWSER, "Sec-Fetch-Site": "none"}, True),
        ({"Host": "[::1]:8001", "User-Agent": BROWSER}, True),
        ({"Host": "localhost:8001", "User-Agent": BROWSER}, True),
        ({"Host": "pixr.internal:8001", "User-Agent": "Prometheus/3.5.0"}, True),
    ],
)
async def test_what_a_network_may_read_is_not_read_by_a_page_whose_name_leads_a_browser_there(
    room: Room, headers: dict[str, str], seen: bool
) -> None:
    assert (await room.http.get("/metrics", headers=headers)).status_code == (200 if seen else 401)
    assert ("dependencies" in (await room.http.get("/readyz", headers=headers)).json()) is seen
    admin = room.doors.key("admin")
    assert (await room.http.get("/metrics", headers=headers | admin)).status_code == 200
