"""What pays is what the model saw: no weight, word, filter, header, cookie or address raises what a moment earns."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import random
import time
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cluster.database import database
from cluster.settings import Settings
from ledger.accrual.fold import Outcome
from ledger.appearances import spool
from ledger.journal import book
from ledger.settings import Economics
from serve.access import viewers
from serve.replica.encoder import Encoding
from serve.replica.encoding import QueryEncoder
from serve.settings import SearchSettings
from tests.ledger.accrual.test_fold import folded
from tests.ledger.journal.test_book import fund
from tests.serve.doors import Doors, near, opened, uncut
from tests.serve.scenes import Gallery, Scenes, hang
from tests.serve.test_degradation import Switched

PAID = Economics(anonymous_weight_ppm=1_000_000)
STUFFED = "castle"  # its title says of it what others show
TEXTS = ("banana", "rocket banana", "a red apple", "banana number4", "Straße", "strasse", "penguin")
NEGATIVES = ("night", "banana", "rocket")
SAYS = {"group_by": ("moment", "video"), "language": ("english", "german", "simple"), "explain": (False, True)}


@dataclass(frozen=True)
class Room:
    """Doors at which everybody is paid in full, with a gallery behind them."""

    doors: Doors
    gallery: Gallery
    painted: Scenes
    encoder: Switched

    def recorded(self) -> list[dict[int, int]]:
        """Amounts by moment of each search in the spool."""
        return [
            {int(row["segment_id"]): int(row["amount_pix"]) for row in rows}
            for _, rows in searches(self.doors.settings)
        ]

    async def earned(self, body: Mapping[str, Any], **asked: Any) -> dict[int, int]:
        """What the moments of one search earn, as it stands in the spool."""
        before = len(self.recorded())
        answer = await self.doors.http.post("/v1/search", json=dict(body), **asked)
        assert answer.status_code == 200, answer.text
        shown = {int(each["segment_id"]): each["relevance_ppm"] for each in answer.json()["moments"]}
        after = self.recorded()
        assert len(after) <= before + 1
        found = after[-1] if len(after) > before else {}
        assert all(shown[segment_id] * PAID.rate_pix // 1_000_000 == amount for segment_id, amount in found.items())
        return found

    def image(self, name: str) -> str:
        return base64.b64encode(self.painted.picture(name)).decode()


def searches(settings: Settings) -> list[tuple[Any, Any]]:
    """Head and rows of every search in this deployment's spools, as they come."""
    found = []
    for path in sorted((settings.data_dir / "spool").glob("*.spool*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            length, checksum = spool.FRAME.unpack_from(data, at)
            record = data[at + spool.FRAME.size : at + spool.FRAME.size + length]
            assert zlib.crc32(record) == checksum
            head = np.frombuffer(record, spool.SEARCH, 1)[0]
            found.append((head, np.frombuffer(record, spool.SHOWN, offset=spool.SEARCH.itemsize)))
            at += spool.FRAME.size + length
    return found


@asynccontextmanager
async def furnished(settings: Settings, model: QueryEncoder, painted: Scenes) -> AsyncIterator[Room]:
    free = dataclasses.replace(settings.section(SearchSettings), address_rate_per_s=10_000, address_burst=100_000)
    encoders: list[Switched] = []

    def switched(search: Any, store: Any) -> Encoding:
        encoders.append(Switched(near(model)(search, store)))
        return encoders[0]

    async with opened(settings.with_section(PAID).with_section(free), switched) as doors:
        with doors.database() as connection:
            gallery = hang(connection, painted)
            connection.execute(
                "UPDATE media.videos SET title = 'banana penguin strasse' WHERE id = %s", (gallery.videos[STUFFED],)
            )
            connection.execute(
                "UPDATE media.segments s SET search = media.search_text(v.language, v.title, v.tags, v.description)"
                " FROM media.videos v WHERE v.id = s.video_id"
            )
        yield Room(doors, gallery, painted, encoders[0])


@pytest.fixture
async def room(settings: Settings, model: QueryEncoder, painted: Scenes) -> AsyncIterator[Room]:
    """Nothing is cut, so that all money can be seen; what the cut leaves of it: below, and `test_cut`."""
    async with furnished(uncut(settings), model, painted) as made:
        yield made


async def test_weights_change_the_order_and_no_money(room: Room) -> None:
    plain = await room.earned({"text": "banana", "limit": 100})
    words = await room.earned({"text": "banana", "limit": 100, "weights": {"vector": 0}})
    assert words == {segment_id: plain[segment_id] for segment_id in room.gallery.moments[STUFFED]}
    narrow = {
        "text": "number4",
        "weights": {"vector": 0},
        "filters": {"video_id": [str(room.gallery.videos["bicycle"])]},
    }
    everything = await room.earned({"text": "number4", "limit": 100})
    assert await room.earned(narrow) == {each: everything[each] for each in room.gallery.moments["bicycle"]}


async def test_a_word_in_a_title_does_not_pay_for_what_is_not_seen(room: Room) -> None:
    for weights in ({}, {"vector": 0}, {"vector": 1e-9, "text": 100}):
        earned = await room.earned({"text": "banana", "weights": weights})
        assert all(earned[each] < 50 for each in room.gallery.moments[STUFFED])


async def test_while_the_encoder_is_away_nothing_is_earned(room: Room) -> None:
    room.encoder.on = False
    answer = (await room.doors.http.get("/v1/search", params={"q": "banana"})).json()
    assert answer["degraded"] == ["vector"]
    assert {int(each["segment_id"]) for each in answer["moments"]} == set(room.gallery.moments[STUFFED])
    assert {each["relevance_ppm"] for each in answer["moments"]} == {0}
    weighted = {"text": "banana", "weights": {"vector": 0}}
    assert (await room.doors.http.post("/v1/search", json=weighted)).json()["degraded"] == ["vector"]
    assert room.recorded() == []  # nor does it use up the day of the same search a little later
    room.encoder.on = True
    assert set((await room.earned(weighted)).values()) != {0}  # what was answered without vectors was not kept


async def test_blends_and_negatives_change_the_order_and_no_money(room: Room) -> None:
    plain = await room.earned({"text": "banana", "limit": 100})
    for more in (
        {"negative": ["rocket"]},
        {"negative": ["banana"], "blend": {"negative": 0.9}},
        {"blend": {"text": 7}},
    ):
        earned = await room.earned({"text": "banana", "limit": 100, **more})
        assert earned.items() <= plain.items()  # a moment whose words are excluded is not shown at all
        assert len(earned) >= len(plain) - 2
    assert await room.earned({"text": "banana -rocket", "limit": 100}) == {
        each: amount for each, amount in plain.items() if each in room.recorded()[-1]
    }


async def test_of_several_parts_the_least_relevant_one_pays(room: Room) -> None:
    text = await room.earned({"text": "banana", "limit": 100})
    image = await room.earned({"image": room.image("rocket"), "limit": 100})
    for blend in ({}, {"image": 0.0}, {"text": 0.0}):
        both = await room.earned({"text": "banana", "image": room.image("rocket"), "blend": blend, "limit": 100})
        assert both == {each: min(text[each], image[each]) for each in both}
        assert len(both) == len(text)


async def test_more_like_a_moment_pays_other_creators_alone(room: Room) -> None:
    first, second = room.gallery.moments["banana"]
    answer = await room.doors.http.get(f"/v1/segments/{first}/similar", params={"limit": 100})
    shown = {int(each["segment_id"]): each["relevance_ppm"] for each in answer.json()["moments"]}
    assert shown[second] > 0  # it is shown for what it is
    (paid,) = room.recorded()
    with room.doors.database() as connection:
        rows = connection.execute("SELECT id, creator_id FROM media.segments").fetchall()
    creator = {int(segment): int(owner) for segment, owner in rows}
    others = {each: ppm // 1000 for each, ppm in shown.items() if creator[each] != creator[first]}
    assert paid == others
    assert 0 < len(others) < len(shown) - 1  # also other videos of the same creator, which may be copies
    grouped = await room.earned({"segment_id": str(first), "text": "banana", "group_by": "video", "limit": 100})
    assert second not in grouped


async def test_letters_that_only_fold_alike_are_other_searches(room: Room) -> None:
    sharp = await room.earned({"text": "straße", "limit": 100})
    double = await room.earned({"text": "strasse", "limit": 100})
    assert sharp != double
    assert await room.earned({"text": "STRASSE", "limit": 100}) == double


async def test_the_early_part_of_a_stream_is_no_answer_to_a_search_by_words(room: Room) -> None:
    """It is there before any relevance is known: what it shows as 0 is worth what it is worth in an answer."""
    plain = await room.earned({"text": "banana", "limit": 20})
    parts = [line async for line in _lines(room, "banana ", limit=19)]
    assert parts[-1].startswith("data: ")
    words = await room.earned({"text": "banana", "limit": 19, "weights": {"vector": 0}})
    assert words == {each: plain[each] for each in room.gallery.moments[STUFFED]}


async def _lines(room: Room, q: str, **parameters: Any) -> AsyncIterator[str]:
    async with room.doors.http.stream("GET", "/v1/search/stream", params={"q": q, **parameters}) as answer:
        async for line in answer.aiter_lines():
            if line:
                yield line


@pytest.mark.parametrize("intent", ["probe", "admin", "benchmark"])
async def test_an_intent_of_operations_needs_an_administrators_key(room: Room, intent: str) -> None:
    http, admin = room.doors.http, room.doors.key("admin")
    first = room.gallery.moments["banana"][0]
    await http.get("/v1/search", params={"q": "banana"})
    for headers, status in (({}, 403), (room.doors.key("search"), 403), (room.doors.key("ingest"), 403), (admin, 200)):
        answers = [
            await http.get("/v1/search", params={"q": "banana", "intent": intent}, headers=headers),
            await http.get("/v1/search", params={"q": "banana", "intent": intent}, headers=headers),  # kept by now
            await http.post("/v1/search", json={"text": "banana", "intent": intent}, headers=headers),
            await http.get(f"/v1/segments/{first}/similar", params={"intent": intent}, headers=headers),
            await http.get("/v1/search/stream", params={"q": "banana", "intent": intent}, headers=headers),
        ]
        assert [each.status_code for each in answers] == [status] * 5
        if status == 403:
            assert {each.json()["code"] for each in answers} == {"scope-missing"}
    assert len(room.recorded()) == 1


async def test_open_intents_pay_nobody(room: Room) -> None:
    for intent in ("typing", "suggestion", "feed"):
        assert await room.earned({"text": "banana", "intent": intent}) == {}
    assert room.recorded() == []


async def test_viewers_of_one_network_share_an_origin_whatever_cookies_they_have(room: Room) -> None:
    key = viewers.key_of(room.doors.settings)
    transports = [
        httpx.ASGITransport(room.doors.app, client=(each, 1)) for each in ("192.0.2.7", "192.0.2.99", "192.0.3.7")
    ]
    for transport in transports:
        for cookie in ("", viewers.new_cookie(key)):
            cookies = {viewers.COOKIE: cookie} if cookie else {}
            async with httpx.AsyncClient(transport=transport, base_url="http://pixr", cookies=cookies) as client:
                forged = {
                    "X-Forwarded-For": "198.51.100.1",
                    "Forwarded": "for=198.51.100.1",
                    "X-Real-IP": "198.51.100.1",
                }
                assert (await client.get("/v1/search", params={"q": "banana"}, headers=forged)).status_code == 200
    await room.doors.http.get("/v1/search", params={"q": "banana"}, headers=room.doors.key("search"))
    heads = [head for head, _ in searches(room.doors.settings)]
    origins = [bytes(head["origin"]) for head in heads]
    assert len({bytes(head["viewer"]) for head in heads}) == 7
    assert len(set(origins[:4])) == 1
    assert len(set(origins[4:6])) == 1
    assert len(set(origins)) == 3
    assert origins[6] == spool.NO_ORIGIN
    assert spool.NO_ORIGIN not in origins[:6]


async def test_an_answer_that_the_client_has_already_earns_what_one_that_is_sent_does(room: Room) -> None:
    """A 304 is a search whose moments are shown from the client's cache: to the same viewer again, they earn nothing."""
    key, http = viewers.key_of(room.doors.settings), room.doors.http
    mine, others = ({"Cookie": f"{viewers.COOKIE}={viewers.new_cookie(key)}"} for _ in range(2))
    sent = await http.get("/v1/search", params={"q": "banana"}, headers=mine)
    known = {"If-None-Match": sent.headers["etag"]}
    for headers in (mine | known, mine | known, others | known, others | known):
        answer = await http.get("/v1/search", params={"q": "banana"}, headers=headers)
        assert (answer.status_code, answer.content) == (304, b"")
    searched = room.recorded()
    assert len(searched) == 5
    assert all(each == searched[0] for each in searched)
    paying = [amount > 0 for amount in searched[0].values()]
    first, again = (
        [outcome if pays else Outcome.UNEARNED for pays in paying] for outcome in (Outcome.FUNDED, Outcome.SEEN)
    )
    assert await outcomes(room, 5) == [*first, *again, *again, *first, *again]


async def outcomes(room: Room, count: int) -> list[int]:
    """What became of the appearances of so many searches, once they are in the database and folded."""
    until_s = time.monotonic() + 60
    with room.doors.database() as connection:
        while connection.execute("SELECT sum(recorded) FROM ledger.incarnations").fetchone() != (count,):
            assert time.monotonic() < until_s
            await asyncio.sleep(0.05)
    with database.connect(room.doors.settings.postgres.url) as connection:
        book.take_epoch(connection, "test")
        fund(connection, 10**9)
        return folded(connection, PAID)


@contextmanager
def full(room: Room) -> Iterator[None]:
    """A disk on which the spool has no more room: a file system of its own is what a test may not have everywhere."""
    import resource

    (path,) = (room.doors.settings.data_dir / "spool").glob("*.spool*")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_on_a_full_disk_committed_searches_wait_and_others_are_answered(room: Room) -> None:
    http = room.doors.http
    assert (await http.get("/v1/search", params={"q": "banana"})).status_code == 200
    with full(room):
        refused = await http.get("/v1/search", params={"q": "banana"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert refused.headers["content-type"] == "application/problem+json"
        assert (await http.get("/v1/search", params={"q": "banana", "intent": "typing"})).status_code == 200
    assert (await http.get("/v1/search", params={"q": "banana"})).status_code == 200
    assert len(room.recorded()) == 2  # readable to its end


def cased(text: str, seed: int) -> str:
    rng = random.Random(seed)
    return "".join(each.upper() if len(each.upper()) == 1 and rng.random() < 0.5 else each for each in text)


# The parts cancel each other out; no list has a weight; the key was sent with another search.
REFUSED = ("cancel", "nothing can be found", "idempotency-key-reused")


@st.composite
def asks(draw: st.DrawFn) -> dict[str, Any]:
    """A search with whatever a caller may say; `plain` are the plain searches by its parts."""
    text, image = draw(st.sampled_from(("", *TEXTS))), draw(st.sampled_from(("", "", "banana", "rocket")))
    segment = draw(st.sampled_from(("", "", "", "banana")))
    if not (text or image or segment):
        text = TEXTS[0]
    weight = st.sampled_from((0.0, 0.0, 1e-6, 0.3, 1.0, 100.0))
    body: dict[str, Any] = {
        "weights": draw(st.fixed_dictionaries({}, optional={"vector": weight, "text": weight})),
        "blend": draw(
            st.fixed_dictionaries({}, optional=dict.fromkeys(("text", "image", "segment", "negative"), weight))
        ),
        "negative": draw(st.lists(st.sampled_from(NEGATIVES), max_size=2)),
        "filters": draw(st.sampled_from(({}, {"tags": ["row0"]}, {"duration_min_ms": 10}, {"height_min": 100}))),
        "limit": draw(st.integers(1, 100)),
        "relevance_min_ppm": draw(st.sampled_from((None, 0, 1, 500_000))),
        "intent": draw(st.sampled_from(("search", "search", "search", "typing", "feed"))),
        **{name: draw(st.sampled_from(values)) for name, values in SAYS.items()},
    }
    excluded = draw(st.sampled_from(("", "", " -night", " -rocket")))
    if text:
        body["text"] = cased(text + excluded, draw(st.integers(0, 99)))
    else:
        body["weights"].pop("text", None)
    negative = body["negative"] or (text and excluded)
    parts = {"text": text, "image": image, "segment": segment, "negative": negative}
    body["blend"] = {part: value for part, value in body["blend"].items() if parts[part]}
    if not (text or negative):
        del body["language"]
    headers = draw(st.fixed_dictionaries({}, optional={
        "idempotency-key": st.sampled_from(("a", "b")),
        "x-forwarded-for": st.sampled_from(("198.51.100.1", "127.0.0.1")),
        "cookie": st.sampled_from((f"{viewers.COOKIE}=forged.signature", f"{viewers.COOKIE}=")),
    }))  # fmt: skip
    return {"body": body, "text": text, "image": image, "segment": segment, "headers": headers,
            "away": draw(st.sampled_from((False, False, False, True)))}  # fmt: skip


@pytest.mark.parametrize("cut", [-1, 0, 300_000])
def test_nothing_that_is_said_beside_text_and_picture_raises_what_a_moment_earns(
    settings: Settings, model: QueryEncoder, painted: Scenes, cut: int
) -> None:
    settings = settings.with_section(dataclasses.replace(settings.section(SearchSettings), relevance_min_ppm=cut))
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        room = runner.run(stack.enter_async_context(furnished(settings, model, painted)))
        plain: dict[tuple[str, str], dict[int, int]] = {}

        def said(kind: str, name: str) -> str:
            return {"text": str, "image": room.image, "segment_id": lambda each: _moment(room, each)}[kind](name)

        async def bound(kind: str, name: str) -> dict[int, int]:
            """What the plain search by one part gives each moment; nothing to those of the given moment's video."""
            if (kind, name) not in plain:
                plain[kind, name] = await room.earned({kind: said(kind, name), "limit": 100})
            return plain[kind, name]

        async def compared(asked: dict[str, Any]) -> None:
            room.encoder.on = True
            parts = (("text", asked["text"].lower()), ("image", asked["image"]), ("segment_id", asked["segment"]))
            bounds = [await bound(kind, name) for kind, name in parts if name]
            body = asked["body"] | {kind: said(kind, name) for kind, name in parts[1:] if name}
            room.encoder.on = not asked["away"]
            before = len(room.recorded())
            answer = await room.doors.http.post("/v1/search", json=body, headers=asked["headers"])
            assert answer.status_code in (200, 422, 503), answer.text
            assert answer.status_code != 422 or any(each in answer.text for each in REFUSED), answer.text
            rows = room.recorded()[before:]
            assert len(rows) <= (1 if body["intent"] == "search" and answer.status_code == 200 else 0)
            for segment_id, amount in (pair for row in rows for pair in row.items()):
                assert amount <= min(each.get(segment_id, 0) for each in bounds)

        @hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(asks())
        def check(asked: dict[str, Any]) -> None:
            runner.run(compared(asked))

        try:
            check()
        finally:
            runner.run(stack.aclose())


def _moment(room: Room, name: str) -> str:
    return str(room.gallery.moments[name][0])
