"""A typed client of the HTTP interface. Knows nothing of the server's insides.

    with Client("http://127.0.0.1:8000", key="pixr_…") as pixr:
        for moment in pixr.search("a red bicycle", tags=["city"]).moments:
            print(moment.title, moment.start_ms)
        page = pixr.videos(limit=100)
        while page.next_cursor:
            page = pixr.videos(limit=100, cursor=page.next_cursor)
        job = pixr.submit("s3://pixr/incoming/", creator="ada", idempotency_key="2026-11-30")

Ids are numbers or public ids, as strings. The `next_cursor` of a page of a list asks for the next page. Problem
documents become the errors of `cluster.errors`: every call raises `Temporary` when the server is away or busy (429,
5xx), and `Rejected` when the request is wrong or not allowed (other 4xx). Each method names its operations of the
OpenAPI document (`call`); a test checks that every operation has a method.
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
CALL = "call"  # name of the attribute in which a method keeps its operations
Method = TypeVar("Method", bound=Callable[..., Any])


def call(*operations: str) -> Callable[[Method], Method]:
    """Note which operations of the OpenAPI document a method calls.

    Args:
        operations: Such as `GET /v1/videos/{video_id}`.

    Returns:
        A decorator that returns the method itself.
    """

    def decorate(method: Method) -> Method:
        setattr(method, CALL, operations)
        return method

    return decorate


class Client:
    """A connection to one server. Threads may share it. `close` it, or use it in a `with` block."""

    def __init__(
        self, url: str, key: str = "", *, timeout_s: float = TIMEOUT_S, verify: ssl.SSLContext | bool = True
    ) -> None:
        """Make a client; the first call connects.

        Args:
            url: The server, e.g. `https://pixr.example`.
            key: An API key; searching needs none.
            timeout_s: How many seconds a call may wait for the server at a time (to connect, to send, to receive).
            verify: How the server's certificate is verified, as httpx takes it: True uses the system's certificates.
        """
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
        """Close the connections."""
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
        **parameters: Any,
    ) -> Answer:
        """Find the moments that best match a text, a picture or both.

        Args:
            text: What the moments should show, in words.
            image: A picture's bytes (JPEG, PNG, WebP), or its address in the deployment's own store (`s3://…`).
            limit: Moments at most; the deployment bounds it.
            cursor: The `next_cursor` of an earlier answer, for its next page. It carries its search: a text
                beside it is not sent, a picture beside it is refused by the server.
            intent: What the search is for, e.g. `search` or `typing`; only `search` earns for creators.
            idempotency_key: Searches with the same key count once, however often they are sent.
            parameters: Other parameters of `GET /v1/search`: `tags=["fruit"]`, `height_min=720`, `vector_weight=0`,
                `segment_id="42"`, `group_by="video"` …

        Returns:
            The moments, the best first, and the cursor of the next page.

        Raises:
            Rejected: a parameter is unknown or wrong, the query is empty, or `parameters` stand beside a picture's
                bytes.
            Temporary: the server is away or busy.
        """
        headers = _keyed(idempotency_key)
        if isinstance(image, bytes) and image:
            if parameters:
                raise Rejected("a search by a picture's bytes takes no filters here; name it as s3://…")
            encoded = base64.b64encode(image).decode()
            body = _nonempty({"text": text, "image": encoded, "cursor": cursor, "limit": limit, "intent": intent})
            return answer_of(self._call("POST", "/v1/search", json=body, headers=headers))
        query = {"cursor": cursor, "image": image} if cursor else {"q": text, "image": image}
        params = _nonempty(query | {"limit": limit, "intent": intent} | parameters)
        return answer_of(self._call("GET", "/v1/search", params=params, headers=headers))

    @call("GET /v1/search/stream")
    def stream(
        self, text: str, *, limit: int = 20, intent: str = "search", idempotency_key: str = "", **parameters: Any
    ) -> Iterator[tuple[str, Answer]]:
        """Search in parts: yield what the words find as soon as it is there, then the whole answer.

        Args:
            text: What the moments should show, in words.
            limit: Moments at most.
            intent: See `search`.
            idempotency_key: See `search`.
            parameters: See `search`.

        Yields:
            First `("text", answer)` with what the words have found, if that is there before the whole answer; last
            `("fused", answer)`, the whole answer.

        Raises:
            Rejected: a parameter is unknown or wrong.
            Temporary: the server is away or busy, or ended the stream with an error.
        """
        params = _nonempty({"q": text, "limit": limit, "intent": intent} | parameters)
        try:
            with self._http.stream(
                "GET", "/v1/search/stream", params=params, headers=_keyed(idempotency_key)
            ) as response:
                if response.is_error:
                    response.read()
                    raise problem(response)
                name = ""
                for line in response.iter_lines():
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
        """Find moments that look like a given one.

        Args:
            segment_id: The moment's number or public id.
            limit: Moments at most.
            intent: See `search`.
            idempotency_key: See `search`.

        Returns:
            The moments, the most similar first.

        Raises:
            Rejected: the moment does not exist, or may not be seen.
            Temporary: the server is away or busy.
        """
        params, path = {"limit": limit, "intent": intent}, f"/v1/segments/{segment_id}/similar"
        return answer_of(self._call("GET", path, params=params, headers=_keyed(idempotency_key)))

    @call("GET /v1/completions")
    def completions(self, text: str, *, limit: int = 8) -> list[str]:
        """Suggest how a search might go on.

        Args:
            text: What was typed, 1 to 100 characters.
            limit: Suggestions at most, 1 to 20.

        Returns:
            Titles and tags of public videos that begin with the text.

        Raises:
            Rejected: the text is empty or too long.
            Temporary: the server is away or busy.
        """
        texts: list[str] = self._call("GET", "/v1/completions", params={"q": text, "limit": limit})["completions"]
        return texts

    @call("GET /v1/feed")
    def feed(self, *, limit: int = 20, cursor: str = "") -> Answer:
        """List moments worth seeing, without a query.

        Args:
            limit: Moments at most.
            cursor: The `next_cursor` of an earlier answer, for its next page.

        Returns:
            The moments, the best first.

        Raises:
            Rejected: the cursor is not the feed's, or has expired.
            Temporary: the server is away or busy.
        """
        return answer_of(self._call("GET", "/v1/feed", params=_nonempty({"limit": limit, "cursor": cursor})))

    @call("POST /v1/events")
    def note(self, segment_id: str, *, kind: str = "play", watched_ms: int = 0) -> None:
        """Note that a moment was watched; it influences the feed only.

        Args:
            segment_id: The moment's number or public id.
            kind: `play`, `finish` or `like`.
            watched_ms: How long it was watched, in milliseconds.

        Raises:
            Rejected: the moment does not exist, or may not be seen.
            Temporary: the server is away or busy.
        """
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
        """List videos, the newest first: public ones that are ready, and all that the key may change.

        Args:
            creator: Only those of a creator: a number, a public id or a handle.
            status: Only those with a status, such as `ready`.
            visibility: Only `public`, `unlisted` or `private` ones.
            tag: Only those with a tag.
            sort: `created_at`, `title` or `duration`, with `-` before it for descending order.
            limit: Videos at most, 1 to 100.
            cursor: The `next_cursor` of an earlier page; it keeps that page's filters and order, so give none beside
                it.

        Returns:
            A page of videos.

        Raises:
            Rejected: a value is wrong, or the cursor has expired.
            Temporary: the server is away or busy.
        """
        filters = {"creator": creator, "status": status, "visibility": visibility, "tag": tag, "sort": sort}
        params = _nonempty(filters | {"limit": limit, "cursor": cursor})
        return page_of(Video, "videos", self._call("GET", "/v1/videos", params=params))

    @call("GET /v1/videos/{video_id}")
    def video(self, video_id: str) -> Video:
        """Read one video.

        Args:
            video_id: Its number or public id; an unlisted video is found by its public id only.

        Returns:
            The video.

        Raises:
            Rejected: it does not exist, or may not be seen.
            Temporary: the server is away or busy.
        """
        return of(Video, self._call("GET", f"/v1/videos/{video_id}"))

    @call("GET /v1/videos/{video_id}/segments")
    def segments(self, video_id: str, *, limit: int = 1000, cursor: str = "") -> Page[Segment]:
        """List the moments of a video, ordered by time.

        Args:
            video_id: The video's number or public id.
            limit: Moments at most, 1 to 1000.
            cursor: The `next_cursor` of an earlier page.

        Returns:
            A page of moments.

        Raises:
            Rejected: the video does not exist, or may not be seen.
            Temporary: the server is away or busy.
        """
        params = _nonempty({"limit": limit, "cursor": cursor})
        return page_of(Segment, "segments", self._call("GET", f"/v1/videos/{video_id}/segments", params=params))

    @call("GET /v1/segments/{segment_id}")
    def segment(self, segment_id: str) -> Segment:
        """Read one moment.

        Args:
            segment_id: Its number or public id. A number that a later ingest has replaced leads to the moment that took
                its place.

        Returns:
            The moment.

        Raises:
            Rejected: it does not exist, or may not be seen.
            Temporary: the server is away or busy.
        """
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
        """Change the given fields of a video. Needs the creator's own key, or one of scope `ingest`.

        Args:
            video_id: Its number or public id.
            title: The new title.
            description: The new description.
            tags: All new tags.
            visibility: `public`, `unlisted` or `private`.
            language: The language of its words, e.g. `german`.

        Returns:
            The changed video.

        Raises:
            Rejected: there is nothing to change, a value is wrong, the video was removed, or it is another creator's.
            Temporary: the server is away or busy.
        """
        new = {"title": title, "description": description, "tags": tags, "visibility": visibility, "language": language}
        body = {name: value for name, value in new.items() if value is not None}  # an empty text is a value
        return of(Video, self._call("PATCH", f"/v1/videos/{video_id}", json=body))

    @call("DELETE /v1/videos/{video_id}")
    def remove(self, video_id: str) -> None:
        """Take a video down for good. Needs the creator's own key, or one of scope `ingest`.

        Args:
            video_id: Its number or public id.

        Raises:
            Rejected: it does not exist, or is another creator's.
            Temporary: the server is away or busy.
        """
        self._call("DELETE", f"/v1/videos/{video_id}")

    @call("GET /v1/creators")
    def creators(self, *, sort: str = "", limit: int = 20, cursor: str = "") -> Page[Creator]:
        """List creators by name: those with a public video that is ready, and all whom the key may act for.

        Args:
            sort: `name` (the default) or `created_at`, with `-` before it for descending order.
            limit: Creators at most, 1 to 100.
            cursor: The `next_cursor` of an earlier page; it keeps that page's order, so give none beside it.

        Returns:
            A page of creators.

        Raises:
            Rejected: a value is wrong, or the cursor has expired.
            Temporary: the server is away or busy.
        """
        params = _nonempty({"sort": sort, "limit": limit, "cursor": cursor})
        return page_of(Creator, "creators", self._call("GET", "/v1/creators", params=params))

    @call("GET /v1/creators/{creator_id}")
    def creator(self, creator_id: str) -> Creator:
        """Read one creator.

        Args:
            creator_id: Their number or public id. A creator without a video that may be seen is found by public id
                only.

        Returns:
            The creator.

        Raises:
            Rejected: they do not exist, or are not found by number.
            Temporary: the server is away or busy.
        """
        return of(Creator, self._call("GET", f"/v1/creators/{creator_id}"))

    # ── Money: needs the creator's own key, or one of scope admin ──────────────────────────────────────────────────

    @call("GET /v1/creators/{creator_id}/earnings")
    def earnings(self, creator_id: str) -> Earnings:
        """Read what a creator has earned and where it is now.

        Args:
            creator_id: Their number or public id.

        Returns:
            The amounts, in base units (10^-6 PIX).

        Raises:
            Rejected: the key is another creator's, or the creator does not exist.
            Temporary: the server is away or busy.
        """
        document = self._call("GET", f"/v1/creators/{creator_id}/earnings")
        amounts = {name: int(document[name]) for name in ("pending", "accrued", "in_flight", "paid", "on_chain")}
        return Earnings(
            creator_id=document["creator_id"],
            creator_public_id=document["creator_public_id"],
            wallet=document["wallet"],
            **amounts,
        )

    @call("GET /v1/creators/{creator_id}/earnings/live")
    def earned(self, creator_id: str) -> int:
        """Read what a creator's appearances have earned so far, before reversals; quick enough to ask every second.

        Args:
            creator_id: Their number or public id.

        Returns:
            The amount in base units (10^-6 PIX).

        Raises:
            Rejected: the key is another creator's, or the creator does not exist.
            Temporary: the server is away or busy.
        """
        return int(self._call("GET", f"/v1/creators/{creator_id}/earnings/live")["earned"])

    @call("GET /v1/creators/{creator_id}/statement.csv")
    def statement(self, creator_id: str) -> str:
        """Read every movement of a creator's money, the newest first.

        Args:
            creator_id: Their number or public id.

        Returns:
            CSV (RFC 4180) with a header; amounts in base units (10^-6 PIX).

        Raises:
            Rejected: the key is another creator's, or the creator does not exist.
            Temporary: the server is away or busy, or broke off the response.
        """
        return self._response("GET", f"/v1/creators/{creator_id}/statement.csv").text

    @call("GET /v1/creators/{creator_id}/payouts")
    def payouts(self, creator_id: str, *, limit: int = 100, cursor: str = "") -> Page[Payout]:
        """List a creator's payouts, the newest first.

        Args:
            creator_id: Their number or public id.
            limit: Payouts at most.
            cursor: The `next_cursor` of an earlier page.

        Returns:
            A page of payouts.

        Raises:
            Rejected: the key is another creator's, or the creator does not exist.
            Temporary: the server is away or busy.
        """
        params = _nonempty({"limit": limit, "cursor": cursor})
        return page_of(Payout, "payouts", self._call("GET", f"/v1/creators/{creator_id}/payouts", params=params))

    @call("PUT /v1/creators/{creator_id}/wallet")
    def change_wallet(self, creator_id: str, wallet: str, *, nonce: str = "", signature: str = "") -> Wallet:
        """Change the address that a creator is paid at, with or without proof that they hold its key.

        Payouts then wait for a while, unless it is the creator's first wallet and proven.

        Args:
            creator_id: Their number or public id.
            wallet: A Solana address, in base58.
            nonce: The `nonce` of a `wallet_challenge`, for a proof.
            signature: The wallet's signature (ed25519, in base58) of that challenge's `message`.

        Returns:
            The wallet, and until when payouts wait.

        Raises:
            Rejected: the wallet cannot be paid, the proof is wrong or expired, or the key is another creator's.
            Temporary: the server is away or busy.
        """
        body: dict[str, Any] = {"wallet": wallet}
        if nonce or signature:
            body["proof"] = {"nonce": nonce, "signature": signature}
        return of(Wallet, self._call("PUT", f"/v1/creators/{creator_id}/wallet", json=body))

    @call("POST /v1/creators/{creator_id}/wallet/challenge")
    def wallet_challenge(self, creator_id: str, wallet: str) -> WalletChallenge:
        """Request a message whose signature proves that a creator holds a wallet's key.

        Args:
            creator_id: Their number or public id.
            wallet: A Solana address, in base58.

        Returns:
            The challenge, for `change_wallet`; it replaces the caller's earlier one.

        Raises:
            Rejected: the wallet cannot be paid, or the key is another creator's.
            Temporary: the server is away or busy.
        """
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
        """Submit a job that ingests all videos under an S3 prefix.

        Args:
            source: The prefix, e.g. `s3://pixr/incoming/`.
            creator: The handle of the creator of videos for which the manifest names none.
            manifest: The address of a manifest that is not beside the videos.
            model: The encoder's name; the deployment's own by default.
            options: Further options: `mode`, `priority` (-1000 to 1000), `reassign`.
            idempotency_key: Submitting again with the same key returns the same job.

        Returns:
            The job: queued, or further if it was submitted before.

        Raises:
            Rejected: a value is wrong, or the key may not act for the creators.
            Temporary: the server is away or busy.
        """
        body = {"source": source, "creator": creator, "manifest": manifest, "model": model, "options": options}
        sent = {name: value for name, value in body.items() if value}
        return of(Job, self._call("POST", "/v1/jobs", json=sent, headers=_keyed(idempotency_key)))

    @call("GET /v1/jobs/{job_id}")
    def job(self, job_id: str) -> Job:
        """Read the state of one job.

        Args:
            job_id: Its id.

        Returns:
            The job.

        Raises:
            Rejected: it does not exist, or acts for creators that the key may not act for.
            Temporary: the server is away or busy.
        """
        return of(Job, self._call("GET", f"/v1/jobs/{job_id}"))

    @call("GET /v1/jobs")
    def jobs(self, limit: int = 20, *, cursor: str = "") -> Page[Job]:
        """List jobs, the newest first.

        Args:
            limit: Jobs at most.
            cursor: The `next_cursor` of an earlier page.

        Returns:
            A page of jobs.

        Raises:
            Rejected: the key is not of scope `ingest`, or the cursor has expired.
            Temporary: the server is away or busy.
        """
        params = _nonempty({"limit": limit, "cursor": cursor})
        return page_of(Job, "jobs", self._call("GET", "/v1/jobs", params=params))

    @call("DELETE /v1/jobs/{job_id}")
    def cancel(self, job_id: str) -> Job:
        """Stop a job; videos that it has finished stay. May be repeated.

        Args:
            job_id: Its id.

        Returns:
            The job.

        Raises:
            Rejected: it does not exist, or acts for creators that the key may not act for.
            Temporary: the server is away or busy.
        """
        return of(Job, self._call("DELETE", f"/v1/jobs/{job_id}"))

    # ── Keys: need a key of scope admin ────────────────────────────────────────────────────────────────────────────

    @call("GET /v1/keys")
    def keys(self, *, limit: int = 1000, cursor: str = "") -> Page[Key]:
        """List API keys, the newest first, without the secrets.

        Args:
            limit: Keys at most, 1 to 1000.
            cursor: The `next_cursor` of an earlier page.

        Returns:
            A page of keys.

        Raises:
            Rejected: the caller's key is not of scope `admin`.
            Temporary: the server is away or busy.
        """
        return page_of(Key, "keys", self._call("GET", "/v1/keys", params=_nonempty({"limit": limit, "cursor": cursor})))

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
        """Create an API key.

        Args:
            name: What it is for, as text for people.
            scopes: What it may do: any of `search`, `ingest`, `creator`, `admin`.
            creator_id: The creator who uses it, as a number or public id; scope `creator` needs one.
            creators: The handles that scope `ingest` may act for, or "any"; None: the creator's own.
            expires_in_s: Its lifetime in seconds; None: it does not expire.

        Returns:
            The key, with its secret in `key`; no later call returns the secret again.

        Raises:
            Rejected: a value is wrong, or the caller's key is not of scope `admin`.
            Temporary: the server is away or busy.
        """
        body = {"name": name, "scopes": list(scopes), "creator_id": creator_id, "expires_in_s": expires_in_s}
        body["creators"] = creators if creators is None or isinstance(creators, str) else list(creators)
        return of(Key, self._call("POST", "/v1/keys", json=body))

    @call("POST /v1/keys/{key_id}/rotate")
    def rotate_key(self, key_id: str, *, grace_s: int = 86_400) -> Key:
        """Create a key with the scopes and lifetime of an old one; the old key goes on working for a while.

        Args:
            key_id: The old key's id.
            grace_s: How many seconds the old key goes on working.

        Returns:
            The new key, with its secret in `key`.

        Raises:
            Rejected: the old key does not exist, or was revoked.
            Temporary: the server is away or busy.
        """
        return of(Key, self._call("POST", f"/v1/keys/{key_id}/rotate", json={"grace_s": grace_s}))

    @call("DELETE /v1/keys/{key_id}")
    def revoke_key(self, key_id: str) -> Key:
        """Revoke a key: it stops working at once for changes, within seconds for all else. May be repeated.

        Args:
            key_id: Its id.

        Returns:
            The key.

        Raises:
            Rejected: it does not exist.
            Temporary: the server is away or busy.
        """
        return of(Key, self._call("DELETE", f"/v1/keys/{key_id}"))

    # ── Calling ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and return the JSON document of the response; empty where it has none."""
        response = self._response(method, path, **arguments)
        document: dict[str, Any] = response.json() if response.content else {}
        return document

    def _response(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send a request, with httpx's arguments, and return the response; errors are raised."""
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.TransportError as error:
            raise Temporary(f"Pixr does not answer at {self._url}: {type(error).__name__}") from error
        if response.is_error:
            raise problem(response)
        return response


def _nonempty(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that have a value."""
    return {name: value for name, value in parameters.items() if value not in ("", None)}


def _keyed(idempotency_key: str) -> dict[str, str]:
    return {"Idempotency-Key": idempotency_key} if idempotency_key else {}


def problem(response: httpx.Response) -> Rejected | Temporary:
    """Make the error that an error response stands for.

    Args:
        response: One with a status of 400 or more, completely read.

    Returns:
        `Temporary` for 429, 500, 502, 503 and 504, with the seconds of Retry-After; `Rejected` for all others.
    """
    try:
        document = response.json()
    except ValueError:
        document = {}
    document.setdefault("detail", f"HTTP {response.status_code} {response.reason_phrase}")
    retry_after = response.headers.get("retry-after", "")
    return _error(response.status_code, document, float(retry_after) if retry_after.isdigit() else 1.0)


def _error(status: int, document: Mapping[str, Any], retry_after_s: float) -> Rejected | Temporary:
    """Turn a problem document into the error that it stands for."""
    detail = str(document["detail"])
    if status == 429 or status >= 500:  # also what only proxies answer with: 507, 520 …
        return Temporary(detail, retry_after_s=retry_after_s)
    code, hint = str(document.get("code") or "bad-request"), str(document.get("hint") or "")
    return Rejected(detail, status=status, code=code, hint=hint)
