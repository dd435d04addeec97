"""A small typed client of the HTTP interface. Knows nothing of the server's insides.

    with Client("http://127.0.0.1:8000") as pixr:
        for moment in pixr.search("a red bicycle").moments:
            print(moment.title, moment.start_ms)

Ids are numbers or public ids, as strings. Problems become the same errors as everywhere: `Rejected` for the caller's fault,
`Temporary` for what may pass. Each call names its operation of the OpenAPI document (`call`); a test walks the document and
finds every one of them here.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from cluster.errors import Rejected, Temporary
from serve.client_values import (
    Answer,
    Creator,
    Earnings,
    Job,
    Key,
    Page,
    Payout,
    Segment,
    Video,
    Wallet,
    WalletChallenge,
    answer_of,
    of,
    page_of,
)

TIMEOUT_S = 30.0
CALL = "call"  # the attribute of a method that names its operations
Method = TypeVar("Method", bound=Callable[..., Any])


def call(*operations: str) -> Callable[[Method], Method]:
    """Name the operations of the document that a method calls: `GET /v1/videos/{video_id}`."""

    def named(method: Method) -> Method:
        setattr(method, CALL, operations)
        return method

    return named


class Client:
    """One server. `key` is an API key; a search needs none. `verify` is how its certificate is verified, as httpx takes it."""

    def __init__(
        self, url: str, key: str = "", *, timeout_s: float = TIMEOUT_S, verify: ssl.SSLContext | bool = True
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._url = url
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, trust_env=False, verify=verify)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # ── Searching ──────────────────────────────────────────────────────────────────────────────────────────────────

    @call("GET /v1/search", "POST /v1/search")
    def search(
        self,
        text: str = "",
        *,
        image: bytes | str = "",
        limit: int = 20,
        cursor: str = "",
        intent: str = "search",
        idempotency_key: str = "",
        **narrowed: Any,
    ) -> Answer:
        """The moments that match a text or a picture best, or those after them by the cursor of an earlier answer.

        `image` is a picture's bytes, or its address in the deployment's own store (`s3://…`). Searches with the same
        Idempotency-Key count as one, however often they are sent. `narrowed` is whatever else `GET /v1/search` knows:
        `tags=["fruit"]`, `height_min=720`, `vector_weight=0`, `segment_id="42"`, `group_by="video"` …

        A cursor carries its search: a text beside it is not sent, a picture beside it is refused by the server.
        """
        headers = _keyed(idempotency_key)
        if isinstance(image, bytes) and image:
            if narrowed:
                raise Rejected("a search by a picture's bytes takes no filters here; name it as s3://…")
            encoded = base64.b64encode(image).decode()
            body = _given({"text": text, "image": encoded, "cursor": cursor, "limit": limit, "intent": intent})
            return answer_of(self._call("POST", "/v1/search", json=body, headers=headers))
        led_by = {"cursor": cursor, "image": image} if cursor else {"q": text, "image": image}
        asked = _given(led_by | {"limit": limit, "intent": intent} | narrowed)
        return answer_of(self._call("GET", "/v1/search", params=asked, headers=headers))

    @call("GET /v1/search/stream")
    def stream(
        self, text: str, *, limit: int = 20, intent: str = "search", idempotency_key: str = "", **narrowed: Any
    ) -> Iterator[tuple[str, Answer]]:
        """The same in parts: `text` with what the words find, if that is there first, then `fused` with everything."""
        asked = _given({"q": text, "limit": limit, "intent": intent} | narrowed)
        try:
            with self._http.stream("GET", "/v1/search/stream", params=asked, headers=_keyed(idempotency_key)) as answer:
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
                        yield name, answer_of(document)
        except httpx.TransportError as error:
            raise Temporary(f"Pixr does not answer at {self._url}: {type(error).__name__}") from error

    @call("GET /v1/segments/{segment_id}/similar")
    def similar(self, segment_id: str, *, limit: int = 20, intent: str = "search", idempotency_key: str = "") -> Answer:
        """Moments that look like one."""
        asked, path = {"limit": limit, "intent": intent}, f"/v1/segments/{segment_id}/similar"
        return answer_of(self._call("GET", path, params=asked, headers=_keyed(idempotency_key)))

    @call("GET /v1/completions")
    def completions(self, text: str, *, limit: int = 8) -> list[str]:
        """How a search might go on."""
        found: list[str] = self._call("GET", "/v1/completions", params={"q": text, "limit": limit})["completions"]
        return found

    @call("GET /v1/feed")
    def feed(self, *, limit: int = 20, cursor: str = "") -> Answer:
        """What is worth seeing without a query."""
        return answer_of(self._call("GET", "/v1/feed", params=_given({"limit": limit, "cursor": cursor})))

    @call("POST /v1/events")
    def note(self, segment_id: str, *, kind: str = "play", watched_ms: int = 0) -> None:
        """Note that a moment was watched ("play", "finish", "like")."""
        self._call("POST", "/v1/events", json={"segment_id": segment_id, "kind": kind, "watched_ms": watched_ms})

    # ── Videos and creators ────────────────────────────────────────────────────────────────────────────────────────

    @call("GET /v1/videos")
    def videos(
        self,
        *,
        creator: str = "",
        status: str = "",
        visibility: str = "",
        tag: str = "",
        sort: str = "",
        limit: int = 20,
        cursor: str = "",
    ) -> Page[Video]:
        """Videos, the newest first; with a cursor alone, the page behind an earlier one."""
        asked = {"creator": creator, "status": status, "visibility": visibility, "tag": tag, "sort": sort}
        found = self._call("GET", "/v1/videos", params=_given(asked | {"limit": limit, "cursor": cursor}))
        return page_of(Video, "videos", found)

    @call("GET /v1/videos/{video_id}")
    def video(self, video_id: str) -> Video:
        return of(Video, self._call("GET", f"/v1/videos/{video_id}"))

    @call("GET /v1/videos/{video_id}/segments")
    def segments(self, video_id: str, *, limit: int = 1000, cursor: str = "") -> Page[Segment]:
        """The moments of a video, in the order of time."""
        asked = _given({"limit": limit, "cursor": cursor})
        return page_of(Segment, "segments", self._call("GET", f"/v1/videos/{video_id}/segments", params=asked))

    @call("GET /v1/segments/{segment_id}")
    def segment(self, segment_id: str) -> Segment:
        return of(Segment, self._call("GET", f"/v1/segments/{segment_id}"))

    @call("PATCH /v1/videos/{video_id}")
    def change(
        self,
        video_id: str,
        *,
        title: str | None = None,
        description: str | None = None,
        tags: Sequence[str] | None = None,
        visibility: str | None = None,
        language: str | None = None,
    ) -> Video:
        """Change what is given; needs the creator's own key, or scope ingest."""
        new = {"title": title, "description": description, "tags": tags, "visibility": visibility, "language": language}
        body = {name: value for name, value in new.items() if value is not None}
        return of(Video, self._call("PATCH", f"/v1/videos/{video_id}", json=body))

    @call("DELETE /v1/videos/{video_id}")
    def remove(self, video_id: str) -> None:
        """Take a video down for good."""
        self._call("DELETE", f"/v1/videos/{video_id}")

    @call("GET /v1/creators")
    def creators(self, *, sort: str = "", limit: int = 20, cursor: str = "") -> Page[Creator]:
        """Creators by name; with a cursor alone, the page behind an earlier one."""
        asked = _given({"sort": sort, "limit": limit, "cursor": cursor})
        return page_of(Creator, "creators", self._call("GET", "/v1/creators", params=asked))

    @call("GET /v1/creators/{creator_id}")
    def creator(self, creator_id: str) -> Creator:
        return of(Creator, self._call("GET", f"/v1/creators/{creator_id}"))

    # ── Money: needs the creator's own key, or an administrator's ──────────────────────────────────────────────────

    @call("GET /v1/creators/{creator_id}/earnings")
    def earnings(self, creator_id: str) -> Earnings:
        found = self._call("GET", f"/v1/creators/{creator_id}/earnings")
        amounts = {name: int(found[name]) for name in ("pending", "accrued", "in_flight", "paid", "on_chain")}
        creator_id, public_id, wallet = (found[name] for name in ("creator_id", "creator_public_id", "wallet"))
        return Earnings(creator_id=creator_id, creator_public_id=public_id, wallet=wallet, **amounts)

    @call("GET /v1/creators/{creator_id}/earnings/live")
    def earned(self, creator_id: str) -> int:
        """Earned so far, in base units."""
        return int(self._call("GET", f"/v1/creators/{creator_id}/earnings/live")["earned"])

    @call("GET /v1/creators/{creator_id}/statement.csv")
    def statement(self, creator_id: str) -> str:
        """Every movement of the creator's money, as CSV."""
        return self._asked("GET", f"/v1/creators/{creator_id}/statement.csv").text

    @call("GET /v1/creators/{creator_id}/payouts")
    def payouts(self, creator_id: str, *, limit: int = 100, cursor: str = "") -> Page[Payout]:
        """The newest first."""
        asked = _given({"limit": limit, "cursor": cursor})
        return page_of(Payout, "payouts", self._call("GET", f"/v1/creators/{creator_id}/payouts", params=asked))

    @call("PUT /v1/creators/{creator_id}/wallet")
    def change_wallet(self, creator_id: str, wallet: str, *, nonce: str = "", signature: str = "") -> Wallet:
        """Name a wallet; with the signature (in base58) of a challenge's message, as one whose key the creator holds."""
        body: dict[str, Any] = {"wallet": wallet}
        if nonce or signature:
            body["proof"] = {"nonce": nonce, "signature": signature}
        return of(Wallet, self._call("PUT", f"/v1/creators/{creator_id}/wallet", json=body))

    @call("POST /v1/creators/{creator_id}/wallet/challenge")
    def wallet_challenge(self, creator_id: str, wallet: str) -> WalletChallenge:
        """The message that the wallet's key has to sign."""
        path = f"/v1/creators/{creator_id}/wallet/challenge"
        return of(WalletChallenge, self._call("POST", path, json={"wallet": wallet}))

    # ── Jobs: need a key of scope ingest ───────────────────────────────────────────────────────────────────────────

    @call("POST /v1/jobs")
    def submit(
        self,
        source: str,
        *,
        creator: str = "",
        manifest: str = "",
        model: str = "",
        options: Mapping[str, Any] | None = None,
        idempotency_key: str = "",
    ) -> Job:
        """Submit an ingest job. Sent again with the same `idempotency_key` it is the same job."""
        body = {"source": source, "creator": creator, "manifest": manifest, "model": model, "options": options}
        said = {name: each for name, each in body.items() if each}
        return of(Job, self._call("POST", "/v1/jobs", json=said, headers=_keyed(idempotency_key)))

    @call("GET /v1/jobs/{job_id}")
    def job(self, job_id: str) -> Job:
        return of(Job, self._call("GET", f"/v1/jobs/{job_id}"))

    @call("GET /v1/jobs")
    def jobs(self, limit: int = 20, *, cursor: str = "") -> Page[Job]:
        """The newest first."""
        asked = _given({"limit": limit, "cursor": cursor})
        return page_of(Job, "jobs", self._call("GET", "/v1/jobs", params=asked))

    @call("DELETE /v1/jobs/{job_id}")
    def cancel(self, job_id: str) -> Job:
        return of(Job, self._call("DELETE", f"/v1/jobs/{job_id}"))

    # ── Keys: need a key of scope admin ────────────────────────────────────────────────────────────────────────────

    @call("GET /v1/keys")
    def keys(self, *, limit: int = 1000, cursor: str = "") -> Page[Key]:
        """Every key, the newest first."""
        return page_of(Key, "keys", self._call("GET", "/v1/keys", params=_given({"limit": limit, "cursor": cursor})))

    @call("POST /v1/keys")
    def make_key(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        creator_id: str | None = None,
        creators: Sequence[str] | None = None,
        expires_in_s: int | None = None,
    ) -> Key:
        """A new key; it is in this answer and nowhere else. One of scope ingest speaks for `creators` (handles), or "any"."""
        body = {"name": name, "scopes": list(scopes), "creator_id": creator_id, "expires_in_s": expires_in_s}
        body["creators"] = creators if creators is None or isinstance(creators, str) else list(creators)
        return of(Key, self._call("POST", "/v1/keys", json=body))

    @call("POST /v1/keys/{key_id}/rotate")
    def rotate_key(self, key_id: str, *, grace_s: int = 86_400) -> Key:
        """A key with the same scopes; the old one lives on for a while."""
        return of(Key, self._call("POST", f"/v1/keys/{key_id}/rotate", json={"grace_s": grace_s}))

    @call("DELETE /v1/keys/{key_id}")
    def revoke_key(self, key_id: str) -> Key:
        return of(Key, self._call("DELETE", f"/v1/keys/{key_id}"))

    # ── Calling ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _call(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        answer = self._asked(method, path, **how)
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found

    def _asked(self, method: str, path: str, **how: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **how)
        except httpx.TransportError as error:
            raise Temporary(f"Pixr does not answer at {self._url}: {type(error).__name__}") from error
        if answer.is_error:
            raise problem(answer)
        return answer


def _given(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that say something."""
    return {name: value for name, value in asked.items() if value not in ("", None)}


def _keyed(idempotency_key: str) -> dict[str, str]:
    return {"Idempotency-Key": idempotency_key} if idempotency_key else {}


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
    if status == 429 or status >= 500:  # also what only proxies answer with: 507, 520 …
        return Temporary(detail, retry_after_s=retry_after_s)
    code, hint = str(document.get("code") or "bad-request"), str(document.get("hint") or "")
    return Rejected(detail, status=status, code=code, hint=hint)
