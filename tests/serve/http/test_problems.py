"""What goes wrong is told as a problem document, with a request id, and never with more than the caller may know."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from psycopg import OperationalError
from pydantic import BaseModel

from cluster.door.config import OVERREAD_BYTES
from cluster.errors import Rejected, Temporary
from serve.http import problems

FIELDS = {"type", "title", "status", "detail", "request_id"}


class Word(BaseModel, extra="forbid"):
    word: str
    count: int


def application() -> FastAPI:
    app = FastAPI()
    problems.install(app, cors_origins=("https://pixr.example",))
    raised = {
        "rejected": Rejected("no such thing", status=404, code="not-found", hint="look elsewhere"),
        "temporary": Temporary("the store at secret:9000 rests", retry_after_s=2.4, public="the store rests"),
        "database": OperationalError("password of postgres://secret@host"),
        "bug": KeyError("secret"),
        "long": Rejected("x" * 100_000, hint="\0" * 100_000),
    }

    @app.get("/raise/{name}")
    async def _raise(name: str) -> None:
        raise raised[name]

    @app.post("/words")
    async def _words(word: Word) -> Word:
        return word

    return app


@pytest.fixture
def client() -> httpx.AsyncClient:
    transport = httpx.ASGITransport(application(), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://pixr")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/raise/rejected", 404, "not-found"),
        ("/raise/temporary", 503, "temporary"),
        ("/raise/database", 503, "temporary"),
        ("/raise/bug", 500, "internal-server-error"),
        ("/nowhere", 404, "not-found"),
    ],
)
async def test_every_error_is_a_problem_document(client: httpx.AsyncClient, path: str, status: int, code: str) -> None:
    answer = await client.get(path)
    document = answer.json()
    assert answer.status_code == document["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert document.keys() >= FIELDS
    assert document["type"] == f"urn:pixr:problem:{code}"
    assert document["request_id"] == answer.headers["x-request-id"] != ""


async def test_no_error_takes_a_thread_for_its_answer(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal costs less than what is refused: a thread for each was a tenth of a replica's work under attack."""

    async def threaded(*_: object, **__: object) -> None:
        raise AssertionError("an answer was made in a thread")

    monkeypatch.setattr("starlette._exception_handler.run_in_threadpool", threaded)
    monkeypatch.setattr("starlette.middleware.errors.run_in_threadpool", threaded)
    for name, status in (("rejected", 404), ("temporary", 503), ("database", 503), ("bug", 500)):
        assert (await client.get(f"/raise/{name}")).status_code == status


async def test_a_hint_says_what_to_do(client: httpx.AsyncClient) -> None:
    assert (await client.get("/raise/rejected")).json()["hint"] == "look elsewhere"


async def test_what_may_pass_says_when_to_come_again(client: httpx.AsyncClient) -> None:
    assert (await client.get("/raise/temporary")).headers["retry-after"] == "3"
    assert (await client.get("/raise/database")).headers["retry-after"] == "1"


async def test_errors_of_ours_tell_no_secret(client: httpx.AsyncClient) -> None:
    for path in ("/raise/temporary", "/raise/database", "/raise/bug"):
        assert "secret" not in (await client.get(path)).text


async def test_a_wrong_field_is_named(client: httpx.AsyncClient) -> None:
    answer = await client.post("/words", json={"word": "a", "count": "many"})
    assert answer.status_code == 422
    assert [each["where"] for each in answer.json()["errors"]] == ["body.count"]


async def test_no_problem_is_longer_than_the_door_says_again(client: httpx.AsyncClient) -> None:
    """What callers write stands in it: cut by the door it was no JSON."""
    unknown = {str(number) + "\u20ac" * 60_000: 1 for number in range(problems.FIELDS_SHOWN_MAX)}
    answer = await client.post("/words", json={"word": "a", "count": 1, **unknown})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["where"].startswith("body.0\u20ac\u20ac")
    for each in (answer, await client.get("/raise/long")):
        assert each.json()["detail"]
        assert len(each.content) < OVERREAD_BYTES  # a part of the door's buffers


async def test_a_request_id_is_kept_when_it_is_well_formed(client: httpx.AsyncClient) -> None:
    given = {"X-Request-Id": "run-7.b"}
    assert (await client.get("/nowhere", headers=given)).json()["request_id"] == "run-7.b"
    for wrong in ("a b", "x" * 65, "<script>"):
        assert (await client.get("/nowhere", headers={"X-Request-Id": wrong})).headers["x-request-id"] != wrong


async def test_only_the_named_origins_may_ask_from_a_browser(client: httpx.AsyncClient) -> None:
    known = await client.get("/nowhere", headers={"Origin": "https://pixr.example"})
    assert known.headers["access-control-allow-origin"] == "https://pixr.example"
    strange = await client.get("/nowhere", headers={"Origin": "https://elsewhere.example"})
    assert "access-control-allow-origin" not in strange.headers
