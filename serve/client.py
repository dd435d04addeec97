"""A small typed client of the HTTP interface. Knows nothing of the server's insides.

    with Client("http://127.0.0.1:8000") as pixr:
        for moment in pixr.search("a red bicycle").moments:
            print(moment.title, moment.start_ms)

Problems become the same errors as everywhere: `Rejected` for the caller's fault, `Temporary` for what may pass.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from cluster.errors import Rejected, Temporary

TIMEOUT_S = 30.0
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Moment:
    """One moment of a video that matches."""

    segment_id: str
    video_id: str
    creator_id: str
    creator: str
    title: str
    description: str
    tags: list[str]
    start_ms: int
    end_ms: int
    best_frame_ms: int
    score: float
    relevance_ppm: int
    thumbnail_url: str
    play_url: str
    matched: list[str]


@dataclass(frozen=True)
class Answer:
    """What a search found. `degraded` names what was skipped; `document` is the answer as it came.

    `nothing_matches`: everything was asked, and nothing has the words or is near enough to be shown.
    """

    moments: list[Moment]
    next_cursor: str | None
    degraded: list[str]
    nothing_matches: bool
    took_ms: float
    document: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """How an ingest job stands."""

    id: str
    status: str
    source: str
    videos: dict[str, int]
    segments: int
    started_at: str | None
    finished_at: str | None
    error: str | None
    failures: list[dict[str, Any]]

    @property
    def finished(self) -> bool:
        return self.status in ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Earnings:
    """Base units (six decimals)."""

    creator_id: str
    pending: int
    accrued: int
    in_flight: int
    paid: int
    on_chain: int
    wallet: str | None


class Client:
    """One server. `key` is an API key; a search needs none."""

    def __init__(self, url: str, key: str = "", *, timeout_s: float = TIMEOUT_S) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._url = url
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def search(
        self,
        text: str = "",
        *,
        image: bytes | str = "",
        limit: int = 20,
        cursor: str = "",
        intent: str = "search",
        idempotency_key: str = "",
    ) -> Answer:
        """The moments that match a text or a picture best, or those after them by the cursor of an earlier answer.

        `image` is a picture's bytes, or its address in the deployment's own store (`s3://…`). Searches with the same
        Idempotency-Key count as one, however often they are sent.
        """
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        if image:
            picture = image if isinstance(image, str) else base64.b64encode(image).decode()
            body = {"text": text, "image": picture, "limit": limit, "intent": intent}
            return _answer(self._call("POST", "/v1/search", json=body, headers=headers))
        led_by = {"cursor": cursor} if cursor else {"q": text}
        parameters = led_by | {"limit": str(limit), "intent": intent}
        found = self._call("GET", "/v1/search", params=parameters, headers=headers)
        return _answer(found)

    def stream(
        self, text: str, *, limit: int = 20, intent: str = "search", idempotency_key: str = ""
    ) -> Iterator[tuple[str, Answer]]:
        """The same in parts: `text` with what the words find, if that is there first, then `fused` with everything."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        asked = {"q": text, "limit": str(limit), "intent": intent}
        try:
            with self._http.stream("GET", "/v1/search/stream", params=asked, headers=headers) as answer:
                if answer.is_error:
                    answer.read()
                    raise problem(answer)
                name = ""
                for line in answer.iter_lines():
                    if line.startswith("event: "):
                        name = line.removeprefix("event: ")
                    elif line.startswith("data: "):
                        document = json.loads(line.removeprefix("data: "))
                        if name == "error":
                            raise _error(int(document["status"]), document, 1.0)
                        yield name, _answer(document)
        except httpx.TransportError as error:
            raise Temporary(f"Pixr does not answer at {self._url}: {type(error).__name__}") from error

    def submit(self, source: str, *, creator: str = "", manifest: str = "", model: str = "") -> Job:
        """Submit an ingest job; needs a key of scope ingest."""
        body = {"source": source, "creator": creator, "manifest": manifest, "model": model}
        return _as(Job, self._call("POST", "/v1/jobs", json={name: text for name, text in body.items() if text}))

    def job(self, job_id: str) -> Job:
        return _as(Job, self._call("GET", f"/v1/jobs/{job_id}"))

    def jobs(self, limit: int = 20) -> list[Job]:
        """The newest first."""
        return [_as(Job, each) for each in self._call("GET", "/v1/jobs", params={"limit": limit})["jobs"]]

    def cancel(self, job_id: str) -> Job:
        return _as(Job, self._call("DELETE", f"/v1/jobs/{job_id}"))

    def earnings(self, creator_id: str) -> Earnings:
        """Needs the creator's own key, or an administrator's."""
        found = self._call("GET", f"/v1/creators/{creator_id}/earnings")
        amounts = {name: int(found[name]) for name in ("pending", "accrued", "in_flight", "paid", "on_chain")}
        return Earnings(creator_id=found["creator_id"], wallet=found["wallet"], **amounts)

    def _call(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, **how)
        except httpx.TransportError as error:
            raise Temporary(f"Pixr does not answer at {self._url}: {type(error).__name__}") from error
        if answer.is_error:
            raise problem(answer)
        found: dict[str, Any] = answer.json()
        return found


def problem(answer: httpx.Response) -> Rejected | Temporary:
    """The error that an answer stands for."""
    try:
        document = answer.json()
    except ValueError:
        document = {}
    document.setdefault("detail", f"HTTP {answer.status_code} {answer.reason_phrase}")
    after = answer.headers.get("retry-after", "")
    return _error(answer.status_code, document, float(after) if after.isdigit() else 1.0)


def _error(status: int, document: Mapping[str, Any], retry_after_s: float) -> Rejected | Temporary:
    detail = str(document["detail"])
    if status in (429, 500, 502, 503, 504):
        return Temporary(detail, retry_after_s=retry_after_s)
    code, hint = str(document.get("code") or "bad-request"), str(document.get("hint") or "")
    return Rejected(detail, status=status, code=code, hint=hint)


def _answer(document: dict[str, Any]) -> Answer:
    moments = [_as(Moment, each) for each in document["moments"]]
    told = {name: document[name] for name in ("next_cursor", "degraded", "nothing_matches", "took_ms")}
    return Answer(moments, **told, document=document)


def _as(kind: type[Kind], document: Mapping[str, Any]) -> Kind:
    """A value of what is known of a document; fields that are added later do no harm."""
    return kind(**{field.name: document[field.name] for field in fields(kind)})  # type: ignore[arg-type]
