"""The typed client has a call for everything that the document has, and its values are what the server sends."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import fields, is_dataclass
from typing import Any

import httpx
import pytest

from cluster.database import database
from cluster.errors import Rejected, Temporary
from cluster.settings import Settings
from serve import client_values
from serve.access import keys
from serve.client import CALL, Client, problem
from serve.search.query import Parameters
from tests.serve.doors import fill, listening, opened, tiny

NOT_CALLED = ("/healthz", "/readyz", "/metrics", "/media/")  # for operators' own tools, and for <video>
OWN_NAMES = {"q": "text", "idempotency-key": "idempotency_key"}


async def document_of(settings: Settings) -> dict[str, Any]:
    async with opened(settings, tiny) as doors:
        found: dict[str, Any] = (await doors.http.get("/openapi.json")).json()
        return found


@pytest.fixture
def document(settings: Settings) -> dict[str, Any]:
    return asyncio.run(document_of(settings))


def calls() -> dict[str, Any]:
    """The client's methods by the operations that they call."""
    methods = [method for _, method in inspect.getmembers(Client, inspect.isfunction)]
    return {operation: method for method in methods for operation in getattr(method, CALL, ())}


def test_every_operation_of_the_document_has_a_call_and_no_other_has(document: dict[str, Any]) -> None:
    operations = {
        f"{method.upper()} {path}"
        for path, item in document["paths"].items()
        for method in item
        if not path.startswith(NOT_CALLED)
    }
    assert calls().keys() == operations


def test_a_call_takes_every_parameter_of_its_operation(document: dict[str, Any]) -> None:
    for operation, method in calls().items():
        verb, path = operation.split()
        found = document["paths"][path][verb.lower()]
        known = {OWN_NAMES.get(each["name"], each["name"]) for each in found.get("parameters", [])}
        taken = set(inspect.signature(method).parameters)
        if "parameters" in taken:  # all others of `GET /v1/search`, which refuses those that it does not know
            assert known <= taken | set(Parameters.model_fields), operation
            continue
        assert known <= taken, operation


def test_values_have_no_field_that_the_document_does_not_know(document: dict[str, Any]) -> None:
    schemas, seen = document["components"]["schemas"], 0
    for name, kind in inspect.getmembers(client_values, is_dataclass):
        if name in schemas:
            own = {field.name for field in fields(kind)} - {"document"}
            assert own <= schemas[name]["properties"].keys(), name
            seen += 1
    assert seen >= 9


@pytest.mark.parametrize("image", [b"a picture", "s3://pixr/queries/a.png"])
def test_a_picture_beside_a_cursor_is_refused_as_the_interface_refuses_it(
    settings: Settings, image: bytes | str
) -> None:
    fill(settings)
    with listening(settings, tiny) as url, Client(url) as pixr:
        cursor = pixr.search("orchard", limit=1).next_cursor
        assert cursor
        own = httpx.post(f"{url}/v1/search", json={"cursor": cursor, "image": "s3://pixr/queries/a.png"}).json()
        for text in ("", "orchard"):
            with pytest.raises(Rejected) as caught:
                pixr.search(text, image=image, cursor=cursor)
            refused = {name: getattr(caught.value, name) for name in ("status", "code", "detail", "hint")}
            assert refused == {name: own[name] for name in refused}
            assert (refused["status"], refused["code"]) == (422, "bad-query")
        assert pixr.search(cursor=cursor).moments


@pytest.mark.parametrize("status", [429, 500, 501, 502, 503, 504, 507, 520, 599])
def test_a_fault_of_the_server_may_pass(status: int) -> None:
    error = problem(httpx.Response(status, headers={"retry-after": "7"}, text="<html>"))
    assert isinstance(error, Temporary)
    assert error.retry_after_s == 7


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
def test_a_fault_of_the_caller_stays_one(status: int) -> None:
    error = problem(httpx.Response(status, json={"detail": "no", "code": "bad", "hint": "ask otherwise"}))
    assert isinstance(error, Rejected)
    assert (error.status, error.code, error.hint) == (status, "bad", "ask otherwise")


def test_the_client_talks_to_the_real_thing(settings: Settings) -> None:
    shelf = fill(settings)
    with database.connect(settings.postgres.url, autocommit=True) as connection:
        admin = keys.create(connection, "admin", ["admin"])[1]
    with listening(settings, tiny) as url, Client(url, admin) as pixr:
        assert [each.title for each in pixr.videos(sort="title", limit=1).rows] == ["Harbour at night"]
        page = pixr.videos(sort="title", limit=1)
        assert page.total == 2
        assert pixr.videos(limit=1, cursor=page.next_cursor or "").rows[0].title == "Orchard in spring"
        found = pixr.search("orchard", tags=["fruit"], video_id=[page.rows[0].public_id, str(shelf.video)])
        assert {each.video_id for each in found.moments} <= {str(shelf.video), page.rows[0].id}
        assert pixr.search("orchard", height_min=99999).moments == []
        with pytest.raises(Rejected, match="unknown"):
            pixr.search("orchard", heigth_min=99999)
        assert pixr.segment(found.moments[0].public_id).segment_id == found.moments[0].segment_id
        assert pixr.segments(str(shelf.video), limit=1).total == 2
        assert pixr.creator(pixr.creators().rows[0].public_id).handle == "ada"
        assert pixr.change(str(shelf.video), tags=["b"]).tags == ["b"]
        assert [each.public_id for each in pixr.feed(limit=1).moments]
        pixr.note(found.moments[0].segment_id)
        assert pixr.earnings(str(shelf.ada)).accrued >= 0
        assert pixr.earnings(str(shelf.ada)).creator_public_id == pixr.creator(str(shelf.ada)).public_id
        assert pixr.earned(str(shelf.ada)) >= 0
        assert pixr.statement(str(shelf.ada)).startswith("at,")
        assert pixr.payouts(str(shelf.ada)).rows == []
        made = pixr.make_key("web", ["search"])
        assert pixr.rotate_key(made.id).key
        assert pixr.revoke_key(made.id).revoked_at
        assert pixr.keys(limit=1).total == 3
        assert pixr.jobs().rows == []
        pixr.remove(str(shelf.video))
        assert pixr.video(str(shelf.video)).status == "removed"
