"""A search says the same by `GET` as by `POST`, what is not understood is refused, and so is what contradicts itself."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel

from cluster.settings import Settings
from serve import app
from serve.routes import routing
from serve.search.query import Asked, Blend, Body, Narrowing, Parameters, Weights
from tests.serve.doors import Doors, Shelf, fill, listening, opened, tiny

NESTED: dict[str, tuple[type[BaseModel], str]] = {
    "filters": (Narrowing, "{}"),
    "weights": (Weights, "{}_weight"),
    "blend": (Blend, "{}_blend"),
}
NUMBERS = st.one_of(st.integers(-1, 3), st.sampled_from([500, 4000, 2**31]))
WEIGHTS = st.sampled_from([0, 0.5, 1, 100, 101, -0.1])
INSTANTS = st.sampled_from(["2020-01-01T00:00:00Z", "2030-01-01T00:00:00+02:00", "2026-01-01T00:00:00", "today"])
IDS = st.lists(st.sampled_from(["1", "2", "99", "x", "9" * 19]), max_size=2)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "text": st.sampled_from(["orchard", "harbour -night", "spring", "", "-night", "a\x1bb"]),
    "segment_id": st.sampled_from(["1", "3", "x"]),
    "negative": st.lists(st.sampled_from(["night", "", "\x07"]), max_size=2),
    "limit": NUMBERS,
    "group_by": st.sampled_from(["moment", "video", "channel"]),
    "explain": st.booleans(),
    "highlight": st.booleans(),
    "facets": st.booleans(),
    "intent": st.sampled_from(["search", "typing", "admin", "nothing"]),
    "relevance_min_ppm": st.sampled_from([0, 1, 1_000_001]),
    "language": st.sampled_from(["english", "german", "klingon"]),
    "filters": st.fixed_dictionaries(
        {},
        optional={
            "creator_id": IDS,
            "video_id": IDS,
            "tags": st.lists(st.sampled_from(["fruit", "none", ""]), max_size=2),
            "duration_min_ms": NUMBERS,
            "duration_max_ms": NUMBERS,
            "created_after": INSTANTS,
            "created_before": INSTANTS,
            "height_min": NUMBERS,
            "stake_min_pix": NUMBERS,
        },
    ),
    "weights": st.fixed_dictionaries({}, optional=dict.fromkeys(Weights.model_fields, WEIGHTS)),
    "blend": st.fixed_dictionaries({}, optional=dict.fromkeys(Blend.model_fields, WEIGHTS)),
}
BODIES = st.fixed_dictionaries({"text": FIELDS["text"]}, optional={k: v for k, v in FIELDS.items() if k != "text"})


def flat(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The parameters that say what a body says."""
    found: list[tuple[str, str]] = []
    for name, value in body.items():
        if name in NESTED:
            pattern = NESTED[name][1]
            found += flat({pattern.format(each): inner for each, inner in value.items()})
        elif isinstance(value, list):
            found += [(name, each) for each in value]
        else:
            found.append(("q" if name == "text" else name, str(value)))
    return found


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    fill(settings)
    with listening(settings, tiny) as url:
        yield url


def test_each_get_equals_its_post(url: str) -> None:
    with httpx.Client(base_url=url, timeout=30) as http:

        @given(BODIES)
        @hypothesis_settings(
            max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
        )
        def equal(body: dict[str, Any]) -> None:
            by_get, by_post = http.get("/v1/search", params=flat(body)), http.post("/v1/search", json=body)
            assert by_get.status_code == by_post.status_code, (body, by_get.text, by_post.text)
            if by_get.status_code == 200:
                one, other = (answer.json() | {"took_ms": 0, "next_cursor": None} for answer in (by_get, by_post))
                assert one == other, body

        equal()


def test_get_has_a_name_for_everything_that_post_can_say() -> None:
    names = {"q" if name == "text" else name for name in Body.model_fields if name not in NESTED}
    for kind, pattern in NESTED.values():
        names |= {pattern.format(each) for each in kind.model_fields}
    assert set(Parameters.model_fields) == names
    assert set(Asked.model_fields) < names


@pytest.fixture
async def room(settings: Settings) -> AsyncIterator[tuple[Doors, Shelf]]:
    shelf = fill(settings)
    async with opened(settings, tiny) as doors:
        yield doors, shelf


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("limt=3", "did you mean limit?"),
        ("heigth_min=99999", "did you mean height_min?"),
        ("creator=ana", "did you mean creator_id?"),
        ("duration=5", "did you mean duration_m"),
        ("filters.tags=a", "did you mean tags?"),
        ("image_url=a", "did you mean image?"),
    ],
)
async def test_an_unknown_parameter_is_refused_and_the_nearest_is_named(
    room: tuple[Doors, Shelf], query: str, named: str
) -> None:
    for path in ("/v1/search", "/v1/search/stream"):
        answer = await room[0].http.get(f"{path}?q=orchard&{query}")
        assert (answer.status_code, answer.json()["code"]) == (422, "unknown-parameter")
        assert named in answer.json()["hint"]


@pytest.mark.parametrize("name", ["offset", "page", "skip", "start", "Page"])
async def test_a_page_that_is_counted_is_refused_with_how_pages_are_asked(room: tuple[Doors, Shelf], name: str) -> None:
    for path in ("/v1/search?q=orchard", "/v1/search/stream?q=orchard", "/v1/videos?limit=1"):
        answer = await room[0].http.get(f"{path}&{name}=10")
        assert (answer.status_code, answer.json()["code"]) == (422, "unknown-parameter")
        assert answer.json()["hint"].startswith("pages are asked by cursor: give it next_cursor of the answer before")
    answer = await room[0].http.get(f"/v1/completions?q=orchard&{name}=10")  # it has no pages
    assert answer.json()["hint"] == "known: limit, q"


@pytest.mark.parametrize(
    ("body", "where", "said"),
    [
        (
            {"offset": 10},
            "body.offset",
            "is unknown; pages are asked by cursor: give it next_cursor of the answer before",
        ),
        ({"filers": {}}, "body.filers", "is unknown; did you mean filters? known: blend, cursor, "),
        ({"creator_id": ["1"]}, "body.creator_id", "is unknown; did you mean filters.creator_id? known: blend, "),
        (
            {"filters": {"tag": "a"}},
            "body.filters.tag",
            "is unknown; did you mean filters.tags? known: filters.created_",
        ),
        ({"weights": {"foo": 1}}, "body.weights.foo", "is unknown; known: weights.text, weights.vector"),
    ],
)
async def test_an_unknown_field_of_a_body_is_refused_and_the_nearest_is_named(
    room: tuple[Doors, Shelf], body: dict[str, Any], where: str, said: str
) -> None:
    answer = await room[0].http.post("/v1/search", json={"text": "orchard", **body})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    (error,) = answer.json()["errors"]
    assert error["where"] == where
    assert error["message"].startswith(said)


async def test_a_body_of_many_unknown_fields_is_explained_as_far_as_it_is_shown(room: tuple[Doors, Shelf]) -> None:
    """To look for what each of thousands might mean would keep everybody waiting."""
    body = {"text": "orchard"} | {f"creator_{number}": 0 for number in range(1900)} | {"a" * 4_000: 0}
    answer = await room[0].http.post("/v1/search", json=body)
    assert (answer.status_code, len(answer.json()["errors"])) == (422, 20)
    errors = [{"type": "extra_forbidden", "loc": ("body", name), "msg": ""} for name in body if name != "text"]
    began = time.process_time()
    explained = routing.explained(errors, {"text": False, "filters.creator_id": True})
    assert time.process_time() - began < 0.05
    assert [bool(each["msg"]) for each in explained] == [True] * 20 + [False] * 1881


@pytest.mark.parametrize("name", ["text", "sort", "size", "color", "page_size", "foo"])
async def test_a_parameter_that_is_near_to_none_is_refused_without_a_guess(
    room: tuple[Doors, Shelf], name: str
) -> None:
    answer = await room[0].http.get(f"/v1/search?q=orchard&{name}=10")
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown-parameter")
    assert answer.json()["hint"].startswith("known: ")


async def test_no_route_ignores_a_parameter_that_it_does_not_know(room: tuple[Doors, Shelf]) -> None:
    doors, admin = room[0], room[0].key("admin")
    routes = [each for module in app.ROUTERS for each in module.router(doors.services).routes]
    asked = 0
    for route in routes:
        if not isinstance(route, APIRoute) or not route.include_in_schema:
            continue
        path = route.path
        for name in route.param_convertors:
            path = path.replace(f"{{{name}}}", "1")
        for method in route.methods - {"HEAD"}:
            body = {"json": {}} if route.body_field is not None else {}
            answer = await doors.http.request(method, f"{path}?nonsense=1", headers=admin, **body)
            assert answer.status_code == 422, (method, path, answer.text)
            assert answer.json()["code"] == "unknown-parameter"
            asked += 1
    assert asked > 20
    assert (await doors.http.get("/openapi.json?nonsense=1")).status_code == 422


async def test_a_parameter_with_one_value_is_given_once(room: tuple[Doors, Shelf]) -> None:
    assert (await room[0].http.get("/v1/search?q=a&limit=1&limit=2")).status_code == 422
    assert (await room[0].http.get("/v1/search?q=orchard&tags=fruit&tags=fruit")).status_code == 200


async def test_a_filter_that_nothing_passes_leaves_nothing(room: tuple[Doors, Shelf]) -> None:
    for narrow in ("height_min=99999", "created_after=2090-01-01T00:00:00Z", "duration_min_ms=999999", "creator_id=99"):
        answer = await room[0].http.get(f"/v1/search?q=orchard&{narrow}")
        assert (answer.status_code, answer.json()["moments"]) == (200, []), narrow


async def test_filters_and_weights_beside_a_cursor_are_refused(room: tuple[Doors, Shelf]) -> None:
    http = room[0].http
    cursor = (await http.get("/v1/search?q=orchard&limit=1")).json()["next_cursor"]
    assert cursor
    for beside in (
        "creator_id=3",
        "tags=fruit",
        "height_min=1",
        "vector_weight=1",
        "negative=night",
        "text_blend=2",
        "group_by=video",
    ):
        assert (await http.get(f"/v1/search?cursor={cursor}&{beside}")).status_code == 422, beside
    assert (await http.post("/v1/search", json={"cursor": cursor, "filters": {"tags": ["fruit"]}})).status_code == 422
    assert (await http.get(f"/v1/search?cursor={cursor}&limit=2&explain=true")).status_code == 200


async def test_a_cursor_goes_by_video_or_by_moment_as_its_search_did(room: tuple[Doors, Shelf]) -> None:
    """Said again beside it, that contradicts nothing; else it is refused."""
    http = room[0].http
    first = (await http.get("/v1/search?q=fruit&limit=1&group_by=video")).json()
    cursor = first["next_cursor"]
    assert cursor
    pages = [
        (await http.get(f"/v1/search?cursor={cursor}")).json(),
        (await http.get(f"/v1/search?cursor={cursor}&group_by=video")).json(),
        (await http.post("/v1/search", json={"cursor": cursor, "group_by": "video"})).json(),
    ]
    assert pages[0]["moments"] == pages[1]["moments"] == pages[2]["moments"] != []
    videos = [each["video_id"] for each in (*first["moments"], *pages[0]["moments"])]
    assert len(videos) == len(set(videos))
    for answer in (
        await http.get(f"/v1/search?cursor={cursor}&group_by=moment"),
        await http.get(f"/v1/search/stream?cursor={cursor}&group_by=moment"),
        await http.post("/v1/search", json={"cursor": cursor, "group_by": "moment"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (422, "bad-query")
    by_moment = (await http.get("/v1/search?q=fruit&limit=1")).json()["next_cursor"]
    assert (await http.get(f"/v1/search?cursor={by_moment}&group_by=moment")).status_code == 200
    for _ in range(2):  # also of a page behind it
        answer = await http.get(f"/v1/search?cursor={by_moment}&group_by=video")
        assert (answer.status_code, answer.json()["code"]) == (422, "bad-query")
        by_moment = (await http.get(f"/v1/search?cursor={by_moment}&limit=1")).json()["next_cursor"]


@pytest.mark.parametrize(
    "body",
    [
        {"text": "a", "weights": {"vector": 0, "text": 0}},
        {"image": "s3://pixr/queries/a.png", "weights": {"vector": 0}},
        {"text": "a", "filters": {"duration_min_ms": 5, "duration_max_ms": 4}},
        {
            "text": "a",
            "filters": {"created_after": "2026-02-01T00:00:00Z", "created_before": "2026-01-01T00:00:00Z"},
        },
        {"text": "a", "blend": {"segment": 2}},
        {"text": "a", "blend": {"image": 1}},
        {"text": "a", "blend": {"negative": 0.5}},
        {"segment_id": "1", "blend": {"text": 1}},
        {"segment_id": "1", "language": "english"},
        {"segment_id": "1", "weights": {"text": 2}},
        {"text": "-night", "segment_id": "1", "weights": {"text": 0}},
    ],
)
async def test_a_contradiction_is_said(room: tuple[Doors, Shelf], body: dict[str, Any]) -> None:
    answers = [
        await room[0].http.post("/v1/search", json=body),
        await room[0].http.get("/v1/search", params=flat(body)),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (422, "bad-query"), answer.text
    assert answers[0].json()["detail"] == answers[1].json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {"text": "orchard -night", "blend": {"negative": 1, "text": 2}, "language": "german"},
        {"segment_id": "1", "negative": ["night"], "blend": {"negative": 1, "segment": 3}, "language": "german"},
        {"segment_id": "1", "text": "orchard", "blend": {"text": 1}, "weights": {"text": 2, "vector": 1}},
    ],
)
async def test_what_is_said_of_a_part_that_is_there_is_taken(room: tuple[Doors, Shelf], body: dict[str, Any]) -> None:
    for answer in (
        await room[0].http.post("/v1/search", json=body),
        await room[0].http.get("/v1/search", params=flat(body)),
    ):
        assert answer.status_code == 200, answer.text
