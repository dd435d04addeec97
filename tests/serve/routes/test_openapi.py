"""The OpenAPI document names every route, every error and every scope, and its examples are valid answers."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.routing import APIRoute

from cluster.settings import Settings
from serve import app
from serve.routes import openapi
from tests.serve.doors import opened

CONTRACT = {
    (method, path)
    for path, methods in {
        "/v1/search": "get post",
        "/v1/search/stream": "get",
        "/v1/segments/{segment_id}": "get",
        "/v1/segments/{segment_id}/similar": "get",
        "/v1/videos": "get",
        "/v1/videos/{video_id}": "get patch delete",
        "/v1/creators": "get",
        "/v1/creators/{creator_id}": "get",
        "/v1/videos/{video_id}/segments": "get",
        "/v1/jobs": "get post",
        "/v1/jobs/{job_id}": "get delete",
        "/v1/creators/{creator_id}/earnings": "get",
        "/v1/creators/{creator_id}/earnings/live": "get",
        "/v1/creators/{creator_id}/statement.csv": "get",
        "/v1/creators/{creator_id}/payouts": "get",
        "/v1/keys": "get post",
        "/v1/keys/{key_id}": "delete",
        "/v1/keys/{key_id}/rotate": "post",
        "/healthz": "get",
        "/readyz": "get",
        "/metrics": "get",
    }.items()
    for method in methods.split()
}


@pytest.fixture
async def document(settings: Settings) -> dict[str, Any]:
    async with opened(settings) as doors:
        return dict((await doors.http.get("/openapi.json")).json())


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, name, item[name]) for path, item in document["paths"].items() for name in item if name != "parameters"
    ]


async def test_every_route_is_in_the_document(settings: Settings) -> None:
    async with opened(settings) as doors:
        made = [route for module in app.ROUTERS for route in module.router(doors.services).routes]
        named = set((await doors.http.get("/openapi.json")).json()["paths"])
    assert {route.path for route in made if isinstance(route, APIRoute) and route.include_in_schema} == named


async def test_every_call_of_the_contract_is_there(document: dict[str, Any]) -> None:
    found = {(name, path) for path, name, _ in operations(document)}
    assert {call for call in CONTRACT if call not in found} == set()


async def test_every_error_is_a_problem_and_waiting_says_how_long(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    for path, name, operation in operations(document):
        errors = {status: found for status, found in operation["responses"].items() if int(status) >= 400}
        assert errors, (path, name)
        for status, found in errors.items():
            if (path, status) == ("/readyz", "503"):
                continue
            assert found["content"].keys() == {"application/problem+json"}, (path, name, status)
            assert ("Retry-After" in found.get("headers", {})) == (status in ("429", "503")), (path, name, status)


async def test_what_needs_a_key_says_which(document: dict[str, Any]) -> None:
    for path, name, operation in operations(document):
        is_open = path in ("/v1/creators", "/v1/creators/{creator_id}")
        closed = (path.startswith(("/v1/jobs", "/v1/creators", "/v1/keys")) and not is_open) or (
            path.startswith("/v1/videos") and name != "get"
        )
        if closed:
            assert {} not in operation["security"], (path, name)
            assert "Needs a key of scope" in operation["description"], (path, name)
        elif path.startswith("/v1/"):
            assert {} in operation["security"], (path, name)


async def test_examples_have_what_their_schemas_require(document: dict[str, Any]) -> None:
    schemas, seen = document["components"]["schemas"], 0
    for _path, _name, operation in operations(document):
        for found in operation["responses"].values():
            content = found.get("content", {}).get("application/json", {})
            example, reference = content.get("example"), content.get("schema", {}).get("$ref", "")
            if example is not None and reference:
                required = schemas[reference.rsplit("/", 1)[1]].get("required", [])
                assert set(required) <= example.keys(), (reference, set(required) - example.keys())
                seen += 1
    assert seen >= 8
    assert openapi.EXAMPLES


async def test_no_request_waits_for_the_document_to_be_made(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes longer than a request may on a busy machine, so it is there before the first one comes."""
    async with opened(settings) as doors:

        def late(*_: object) -> None:
            raise AssertionError("it is made for a request")

        monkeypatch.setattr(openapi, "document", late)
        assert (await doors.http.get("/openapi.json")).status_code == 200
