"""The OpenAPI document holds against the live application: no 5xx, no undocumented status, no answer off its schema."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS as CHECKS_OF_ALL
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cluster.database import database
from cluster.settings import Settings
from serve.access import keys
from serve.replica.encoding import QueryEncoder
from serve.settings import SearchSettings
from tests.serve.doors import listening, near
from tests.serve.scenes import Gallery, Scenes, hang

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 12
SLOW_EXAMPLES = 100
Found = tuple[str, str, str]  # path, method, check
SEARCHES = (("/v1/search", "get"), ("/v1/search", "post"), ("/v1/search/stream", "get"))
PAGED = ("/v1/feed", "/v1/videos", "/v1/videos/{video_id}/segments", "/v1/jobs", "/v1/creators",
         "/v1/creators/{creator_id}/payouts", "/v1/keys")  # fmt: skip
SIGNED = "which cursors are signed by this deployment no schema says"
ONE_OF = "a search needs a text, a picture or a moment, or a cursor alone: parameters have no way to say one of them"
TOO_LONG = "a request line above 64 KiB is refused by the server's parser; a deployment's door answers 414 before it"
# Failures that stay, each with the reason: by path, method and check.
LISTED: dict[Found, str] = {
    **{(path, method, "RejectedPositiveData"): ONE_OF for path, method in SEARCHES},
    **{(path, method, "UndefinedStatusCode"): TOO_LONG for path, method in SEARCHES if method == "get"},
    **{(path, "get", "RejectedPositiveData"): SIGNED for path in PAGED},
    ("/v1/segments/{segment_id}/similar", "get", "RejectedPositiveData"): "an Idempotency-Key stands for one search",
    (
        "/v1/completions",
        "get",
        "RejectedPositiveData",
    ): "control characters; a pattern would refuse them without a name",
    ("/v1/videos/{video_id}", "patch", "RejectedPositiveData"): "a null changes nothing, and one change is needed",
    ("/v1/creators/{creator_id}/wallet", "put", "RejectedPositiveData"): "a wallet is a point on a curve",
    ("/v1/creators/{creator_id}/wallet/challenge", "post", "RejectedPositiveData"): "a wallet is a point on a curve",
    ("/v1/keys", "post", "RejectedPositiveData"): "scopes creator and ingest need creators; a principal has one",
}


@dataclass(frozen=True)
class Live:
    """The application on a port, its document, and keys for it."""

    url: str
    document: dict[str, Any]
    admin: str
    gallery: Gallery


@pytest.fixture
def live(settings: Settings, model: QueryEncoder, painted: Scenes) -> Iterator[Live]:
    with database.connect(settings.postgres.url) as connection:
        gallery = hang(connection, painted)
        admin = keys.create(connection, "admin", ["admin"])[1]
    made = dataclasses.replace(
        settings.section(SearchSettings),
        address_burst=10**6,
        key_burst=10**6,
        wrong_burst=10**6,
        generation_interval_s=1e-6,
    )
    with listening(settings.with_section(made), near(model)) as url:
        yield Live(url, httpx.get(f"{url}/openapi.json").json(), admin, gallery)


def operations(document: dict[str, Any]) -> list[tuple[str, str]]:
    # A submitted job needs the cluster that runs it; what the door checks of it is in tests of its own.
    closed = {("/v1/jobs", "post")}
    return [(path, name) for path, item in document["paths"].items() for name in item if (path, name) not in closed]


def run(live: Live, path: str, method: str, headers: dict[str, str], examples: int) -> int:
    """Ask one operation for whatever its document allows; how often."""
    schema = schemathesis.openapi.from_dict(live.document)
    schema.config.update(base_url=live.url)
    asked = 0

    @given(case=schema[path][method.upper()].as_strategy())
    @hypothesis_settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate),
        derandomize=True,
    )
    def each(case: schemathesis.Case) -> None:
        nonlocal asked
        asked += 1
        answer = case.call(headers=headers, timeout=30)
        case.validate_response(answer, checks=CHECKS)

    each()
    return asked


def test_whatever_the_document_allows_is_answered_as_it_says(live: Live) -> None:
    for headers in ({}, {"Authorization": f"Bearer {live.admin}"}):
        for path, method in operations(live.document):
            assert run(live, path, method, headers, EXAMPLES) > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("who", ["anonymous", "admin"])
def test_every_check_holds_for_what_is_allowed_and_for_what_is_not(live: Live, who: str) -> None:
    """All checks of Schemathesis, a hundred examples a call that the document allows and a hundred that it does not."""
    headers = {"Authorization": f"Bearer {live.admin}"} if who == "admin" else {}
    found: dict[Found, str] = {}
    for path, method in operations(live.document):
        for mode in GenerationMode:
            found |= failures(live, path, method, headers, mode)
    unlisted = {name: said for name, said in found.items() if name not in LISTED}
    assert not unlisted, "\n".join(f"{name}: {said}" for name, said in unlisted.items())


def failures(live: Live, path: str, method: str, headers: dict[str, str], mode: GenerationMode) -> dict[Found, str]:
    """What Schemathesis finds wrong with one operation, each kind with an example."""
    schema = schemathesis.openapi.from_dict(live.document)
    schema.config.update(base_url=live.url)
    operation = schema[path][method.upper()]
    found: dict[Found, str] = {}

    @given(case=operation.as_strategy(generation_mode=mode))
    @hypothesis_settings(
        max_examples=SLOW_EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,),
        derandomize=True,
    )
    def each(case: schemathesis.Case) -> None:
        answer = case.call(headers=headers, timeout=30)
        try:
            case.validate_response(answer, checks=CHECKS_OF_ALL.get_all(), headers=headers)
        except FailureGroup as group:
            for failure in group.exceptions:
                said = f"{mode.value}: {answer.status_code} {failure} {case.as_curl_command()[:600]}"
                found.setdefault((path, method, type(failure).__name__), said)

    try:
        each()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, (path, method)  # nothing that it takes can be wrong
    return found


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": "a", "weights": {"vector": NaN}}',
        b'{"text": "a", "weights": {"vector": 1e999}}',
        b'{"text": "a", "blend": {"text": -0.1}}',
        b'{"text": "' + b"a" * 10_000_000 + b'"}',
        b'{"image": "' + base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(1000)) + b'"}',
        b'{"image": "' + base64.b64encode(b"BM" + bytes(1000)) + b'"}',
        b'{"text": "a", "filters": {"tags": ["\\u0000"]}}',
        b'{"text": "a", "filters": {"video_id": ["1 OR 1=1"]}}',
        b'{"text": "a", "filters": {"creator_id": ["99999999999999999999"]}}',
        b'{"text": "a", "filters": {"nothing; DROP TABLE media.videos": 1}}',
        b'{"cursor": "Zm9yZ2Vk"}',
        b'{"text": "\\ud800"}',
        b"[" * 100_000,
        b"{",
        b"\xff\xfe",
    ],
)
def test_what_no_document_allows_is_refused_and_breaks_nothing(live: Live, body: bytes) -> None:
    answer = httpx.post(f"{live.url}/v1/search", content=body, headers={"Content-Type": "application/json"}, timeout=30)
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:200])
    assert answer.headers["content-type"] == "application/problem+json"
    assert json.loads(answer.content)["request_id"]
    assert len(answer.content) < 10_000


VISIBILITIES, STATUSES = ("public", "unlisted", "private"), ("queued", "processing", "ready", "failed", "removed")
SCOPES = (None, "search", "ingest", "admin", "hers", "another's")


def test_a_key_never_sees_what_its_scope_or_a_videos_visibility_forbids(live: Live, settings: Settings) -> None:
    with database.connect(settings.postgres.url, autocommit=True) as connection:
        tokens = {scope: keys.create(connection, scope, [scope])[1] for scope in ("search", "admin")}
        tokens["ingest"] = keys.create(connection, "ingest", ["ingest"], creators=keys.ANY)[1]
        for name, creator in zip(("hers", "another's"), live.gallery.creators, strict=True):
            tokens[name] = keys.create(connection, name, ["creator"], creator_id=creator)[1]
        moment, video = live.gallery.moments["apple"][0], live.gallery.videos["apple"]

        row = connection.execute("SELECT public_id FROM media.videos WHERE id = %s", (video,)).fetchone()
        assert row is not None
        public = row[0]

        @given(st.sampled_from(VISIBILITIES), st.sampled_from(STATUSES), st.sampled_from(SCOPES))
        @hypothesis_settings(max_examples=40, deadline=None, database=None)
        def holds(visibility: str, status: str, scope: str | None) -> None:
            connection.execute(
                "UPDATE media.videos SET visibility = %s, status = %s WHERE id = %s", (visibility, status, video)
            )
            connection.execute("UPDATE media.generation SET value = value + 1")
            headers = {"Authorization": f"Bearer {tokens[scope]}"} if scope else {}
            with httpx.Client(base_url=live.url, headers=headers, timeout=30) as http:
                ready, owner = status == "ready", scope in ("ingest", "admin", "hers")
                seen = owner or (ready and visibility != "private")
                by_number = owner or (ready and visibility == "public")
                for names, is_seen in (((video, moment), by_number), ((public, f"{public}.0"), seen)):
                    assert (http.get(f"/v1/videos/{names[0]}").status_code == 200) is is_seen
                    assert (http.get(f"/v1/videos/{names[0]}/segments").status_code == 200) is is_seen
                    assert (http.get(f"/v1/segments/{names[1]}").status_code == 200) is is_seen
                found = http.get("/v1/videos", params={"limit": 100, "status": status}).json()["videos"]
                assert any(each["id"] == str(video) for each in found) is by_number
                answer = http.get("/v1/search", params={"q": "reel", "limit": 100}).json()
                listed = any(each["video_id"] == str(video) for each in answer["moments"])
                assert listed is (ready and visibility == "public")
                similar = http.get(f"/v1/segments/{moment}/similar").status_code
                assert (similar == 200) is (ready and visibility == "public")
                assert (http.get("/v1/jobs").status_code == 200) is (scope in ("ingest", "admin"))
                earned = http.get(f"/v1/creators/{live.gallery.creators[0]}/earnings").status_code
                assert (earned == 200) is (scope in ("admin", "hers"))

        holds()
