"""The OpenAPI 3.1 document at `/openapi.json`: what FastAPI knows of the routes, completed.

Adds what a reader needs and FastAPI cannot know: the scopes that each call needs, every error as a problem document,
examples of answers. The document is made from the routes themselves, so that it cannot fall behind them, and before the
first request comes, since making it takes longer than a request may on a busy machine.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from serve.access import admission
from serve.http import problems
from serve.routes.routing import Route

DESCRIPTION = """Finds moments in videos by what they show, and pays the people whose moments are shown.

Ids are strings: numbers, and beside them public ids that cannot be guessed; every call takes either, and what is unlisted has
only the latter. Money is whole base units of PIX (six decimals), in strings. Offsets into a video are milliseconds;
instants are RFC 3339, UTC. Every error is a problem document (RFC 9457) with the request's id; 429 and 503 say in
Retry-After when to come again. Search, public videos and health are open; the rest needs an API key with the scope
that is named (search, ingest, creator; admin may do everything)."""
LIMIT_HEADERS: dict[str, Any] = {
    "RateLimit-Policy": {"schema": {"type": "string", "examples": ['"address";q=1000;w=10']}},
    "RateLimit": {"schema": {"type": "string", "examples": ['"address";r=0;t=10']}},
}
MADE_MAX = 4
_MADE: dict[tuple[object, ...], bytes] = {}  # documents of this process, by the limit and the routes that are in them
METHODS = ("get", "put", "post", "delete", "patch")
NEEDS_KEY = {"/v1/jobs": "ingest", "/v1/creators": "creator", "/v1/keys": "admin"}  # scopes by the beginning of a path
OPEN = ("/v1/creators", "/v1/creators/{creator_id}")  # need no key, though the paths below them do
CHANGES = ("put", "patch", "delete")

PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "What went wrong (RFC 9457).",
    "required": ["type", "title", "status", "detail", "request_id"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:pixr:problem:not-found"]},
        "title": {"type": "string", "examples": ["Not Found"]},
        "status": {"type": "integer", "examples": [404]},
        "detail": {"type": "string", "examples": ["there is no video 7"]},
        "request_id": {"type": "string", "examples": ["0f9c2a7be1d84c55a1b2c3d4"]},
        "code": {"type": "string", "examples": ["not-found"]},
        "hint": {"type": "string", "description": "What to do about it."},
        "errors": {
            "type": "array",
            "description": "One for each field that is wrong.",
            "items": {
                "type": "object",
                "properties": {"where": {"type": "string"}, "message": {"type": "string"}},
                "required": ["where", "message"],
            },
        },
    },
}

JOB = {
    "id": "ingest-20261124-021500-a1b2c3",
    "status": "running",
    "source": "s3://pixr/incoming/",
    "videos": {"total": 8, "ready": 5, "failed": 0, "quarantined": 1, "skipped": 0, "removed": 0},
    "segments": 41,
    "started_at": "2026-11-24T02:15:02+00:00",
    "finished_at": None,
    "error": None,
    "failures": [
        {
            "video_id": "6",
            "source_uri": "s3://pixr/incoming/empty.mp4",
            "outcome": "quarantined",
            "code": "empty",
            "reason": "the file has no bytes",
        }
    ],
}
VIDEO_NAME, CREATOR_NAME = "Vx3nQ8bTjK2mZr5cL0aWdw", "Cq7YtR1uEo9sHf4gXk6iPw"  # public ids, of the examples
VIDEO = {
    "id": "7", "public_id": VIDEO_NAME, "creator_id": "2", "creator_public_id": CREATOR_NAME,
    "creator": "ada", "title": "Orchard", "description": "", "tags": ["fruit"],
    "language": "english", "duration_ms": 12000, "width": 640, "height": 360, "fps": 25.0, "has_audio": True,
    "visibility": "public", "status": "ready", "error": None, "segments": 4,
    "created_at": "2026-11-24T02:15:03+00:00", "ready_at": "2026-11-24T02:15:09+00:00",
}  # fmt: skip
MOMENT = {
    "segment_id": "42", "public_id": f"{VIDEO_NAME}.3000", "video_id": "7", "video_public_id": VIDEO_NAME,
    "creator_id": "2", "creator_public_id": CREATOR_NAME, "creator": "Ada", "title": "Orchard", "description": "",
    "tags": ["fruit"],
    "start_ms": 3000, "end_ms": 6500, "best_frame_ms": 4200, "score": 0.027869, "relevance_ppm": 914000,
    "thumbnail_url": "/media/thumbnails/42?expires=1795488000&signature=Yk3v…",
    "play_url": "/media/videos/7?expires=1795488000&signature=Qm9x…#t=3.000,6.500", "matched": ["vector", "text"],
}  # fmt: skip
ANSWER = {
    "query": "a red apple", "moments": [MOMENT], "next_cursor": None, "degraded": [], "nothing_matches": False,
    "took_ms": 7.4,
}  # fmt: skip
EARNINGS = {
    "creator_id": "2", "creator_public_id": CREATOR_NAME,
    "pending": "0", "accrued": "125000", "payable": "1000", "in_flight": "0", "paid": "124000",
    "on_chain": "124000", "withheld": "0", "payouts": 1, "wallet": "4Nd1mBQtrMJVYVfKf2PJy9NZUZdTAsp7D4xWLs4gDB4T", "held": None,
    "currency": "PIX", "decimals": 6,
}  # fmt: skip
KEY = {
    "id": "3", "name": "web", "scopes": ["search"], "creator_id": None, "creators": None, "folders": None,
    "created_at": "2026-11-24T02:15:03+00:00", "expires_at": None, "revoked_at": None, "key": None,
}  # fmt: skip
CREATOR = {
    "id": "2", "public_id": CREATOR_NAME, "handle": "ada", "name": "Ada", "videos": 3,
    "created_at": "2026-11-24T02:15:03+00:00",
}  # fmt: skip
LISTED = {"total": 1, "next_cursor": None}
EXAMPLES: dict[tuple[str, str, str], Any] = {
    ("get", "/v1/search", "200"): ANSWER,
    ("post", "/v1/search", "200"): ANSWER,
    ("get", "/v1/segments/{segment_id}/similar", "200"): ANSWER,
    ("post", "/v1/jobs", "202"): JOB | {"status": "queued"},
    ("get", "/v1/jobs", "200"): LISTED | {"jobs": [JOB]},
    ("get", "/v1/jobs/{job_id}", "200"): JOB,
    ("delete", "/v1/jobs/{job_id}", "200"): JOB | {"status": "cancelled", "finished_at": "2026-11-24T02:16:00+00:00"},
    ("get", "/v1/videos", "200"): LISTED | {"videos": [VIDEO]},
    ("get", "/v1/videos/{video_id}", "200"): VIDEO,
    ("get", "/v1/creators", "200"): LISTED | {"creators": [CREATOR]},
    ("get", "/v1/creators/{creator_id}", "200"): CREATOR,
    ("patch", "/v1/videos/{video_id}", "200"): VIDEO,
    ("delete", "/v1/videos/{video_id}", "200"): {"id": "7", "public_id": VIDEO_NAME, "status": "removed"},
    ("get", "/v1/creators/{creator_id}/earnings", "200"): EARNINGS,
    ("get", "/v1/keys", "200"): LISTED | {"keys": [KEY]},
    ("post", "/v1/keys", "201"): KEY | {"key": "pixr_VwJ1…"},
    ("post", "/v1/keys/{key_id}/rotate", "201"): KEY | {"id": "4", "key": "pixr_a8Qk…"},
    ("delete", "/v1/keys/{key_id}", "200"): KEY | {"revoked_at": "2026-11-25T08:00:00+00:00"},
}


def install(app: FastAPI, limit_max: int) -> list[BaseRoute]:
    """Make the document of an application that has all its routes, add a route that serves it, and return that route."""
    made = _made(app, limit_max)

    async def read(_: Request) -> Response:
        return Response(made, media_type="application/json")

    routes = APIRouter(route_class=Route)
    routes.add_api_route("/openapi.json", read, include_in_schema=False)
    app.include_router(routes)
    return routes.routes


def _made(app: FastAPI, limit_max: int) -> bytes:
    """Return the document as it is sent. Applications of one process that have the same routes share it."""
    routes = [(route.path, *sorted(route.methods or ())) for route in app.routes if isinstance(route, APIRoute)]
    known = (limit_max, *routes)
    if known not in _MADE:
        _MADE[known] = orjson.dumps(document(app, limit_max))
        while len(_MADE) > MADE_MAX:
            del _MADE[next(iter(_MADE))]
    return _MADE[known]


def document(app: FastAPI, limit_max: int) -> dict[str, Any]:
    """Return the complete document; `limit_max` is the most moments that a search may ask for."""
    made: dict[str, Any] = copy.deepcopy(
        get_openapi(
            title="Pixr", version=version("pixr"), openapi_version="3.1.0", description=DESCRIPTION, routes=app.routes
        )
    )
    parts = made.setdefault("components", {})
    schemas = parts.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = PROBLEM
    parts["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same, as a header."},
    }
    made["servers"] = [{"url": "/"}]
    for path, method, operation in _operations(made):
        _complete(path, method, operation)
    _bound(made, limit_max)
    return made


def _bound(document: dict[str, Any], limit_max: int) -> None:
    """Set the maximum of every `limit` of a search in the document to `limit_max`, which comes from the settings."""
    schemas = [document["components"]["schemas"]["Body"]["properties"]["limit"]]
    for path in ("/v1/search", "/v1/search/stream", "/v1/segments/{segment_id}/similar"):
        parameters = document["paths"][path]["get"]["parameters"]
        schemas += [parameter["schema"] for parameter in parameters if parameter["name"] == "limit"]
    for schema in schemas:
        next(each for each in schema["anyOf"] if each.get("type") == "integer")["maximum"] = limit_max


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the path, method and object of each operation."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    """Add to an operation who may call it, the request id, an example, and every error."""
    scope = _scope(path, method)
    either: list[dict[str, list[str]]] = [{"bearer": []}, {"header": []}]
    if scope:
        operation["security"] = either
        operation["description"] = f"{operation.get('description', '')}\n\nNeeds a key of scope {scope}.".strip()
    elif path.startswith("/v1/"):
        operation["security"] = [{}, *either]
    responses = operation["responses"]
    for status, response in responses.items():
        response.setdefault("headers", {})["X-Request-Id"] = {"schema": {"type": "string"}}
        example = EXAMPLES.get((method, path, status))
        if example is not None:
            response["content"]["application/json"]["example"] = example
    for status in _errors(path, method, operation, scope):
        if path != "/readyz" or status != 503:  # whose 503 is a document of its dependencies
            responses[str(status)] = _problem(status)


def _scope(path: str, method: str) -> str:
    """Return the scope that an operation needs, as readers see it; "" for none."""
    for prefix, scope in NEEDS_KEY.items():
        if path not in OPEN and path.startswith(prefix):
            return scope
    return "ingest, or the creator's own key" if path.startswith("/v1/videos") and method in CHANGES else ""


def _errors(path: str, method: str, operation: dict[str, Any], scope: str) -> list[int]:
    """Return every status of an error that an operation can end with."""
    if path == admission.EXEMPT:
        return [422, 500, 503]
    errors = [401, 429, 500, 503]
    errors.append(422)  # of an unknown parameter, at the least
    if path == admission.METRICS:
        errors.append(403)
    if not path.startswith(("/v1/", "/media/")):
        return sorted(errors)
    if scope or path.startswith("/media/"):
        errors.append(403)
    if "{" in path or method == "post":
        errors.append(404)
    if path.startswith("/v1/search") or path.endswith("/similar"):
        errors += [403, 404]  # an intent that the caller may not state; a moment or a picture that does not exist
    if "requestBody" in operation:
        errors += [400, 408, 413, 415]
    if method in ("put", "post", "patch", "delete"):
        errors.append(409)
    return sorted(set(errors))


def _problem(status: int) -> dict[str, Any]:
    """Return the response object of an error."""
    title = HTTPStatus(status).phrase
    headers: dict[str, Any] = {"X-Request-Id": {"schema": {"type": "string"}}}
    if status in (429, 503):
        headers["Retry-After"] = {"schema": {"type": "integer"}, "description": "Seconds."}
    if status == 429:
        headers |= LIMIT_HEADERS
    example = {
        "type": f"urn:pixr:problem:{title.lower().replace(' ', '-')}",
        "title": title,
        "status": status,
        "detail": "what is wrong, in one line",
        "request_id": "0f9c2a7be1d84c55a1b2c3d4",
    }
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
    return {"description": title, "headers": headers, "content": {problems.MEDIA_TYPE: content}}
