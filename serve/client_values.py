"""The values that the typed client (`client`) returns: the HTTP interface's documents, with the same names.

Ids are strings: `id` is a number, `public_id` cannot be guessed, and calls take either. Times are RFC 3339 texts in
UTC, positions in a video are milliseconds (`_ms`). A field that the server adds later is ignored until it is named
here; a field that it removes raises `KeyError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Segment:
    """One moment of a video, as lists show it.

    Attributes:
        segment_id: Its number; a later ingest of the video may replace it.
        public_id: The video's public id, a dot and `start_ms`.
        start_ms: Where it starts in the video.
        end_ms: Where it ends, exclusive.
        best_frame_ms: The frame that the thumbnail shows.
        thumbnail_url: A signed link to the thumbnail, relative to the server; it expires within hours.
        play_url: A signed link that plays this moment; relative and short-lived like `thumbnail_url`.
    """

    segment_id: str
    public_id: str
    video_id: str
    video_public_id: str
    creator_id: str
    creator_public_id: str
    start_ms: int
    end_ms: int
    best_frame_ms: int
    description: str
    thumbnail_url: str
    play_url: str


@dataclass(frozen=True)
class Moment(Segment):
    """One moment that matches a search.

    Attributes:
        score: Ranks the moments of one answer; it has no meaning beyond that.
        relevance_ppm: How near it is to the query, calibrated, in parts per million (0 to 1,000,000).
        matched: The lists that found it: `vector`, `text` (all words) or `some_words`.
    """

    creator: str
    title: str
    tags: list[str]
    score: float
    relevance_ppm: int
    matched: list[str]


@dataclass(frozen=True)
class Answer:
    """The result of a search.

    Attributes:
        moments: The best matches, the best first.
        next_cursor: Leads to the next page; None on the last one.
        degraded: The parts of the search that could not be carried out, e.g. `vector` while no encoder answers.
        nothing_matches: Everything was searched, and nothing is near enough to be shown.
        took_ms: How long the server worked on it.
        document: The JSON document as it was received.
    """

    moments: list[Moment]
    next_cursor: str | None
    degraded: list[str]
    nothing_matches: bool
    took_ms: float
    document: dict[str, Any]


@dataclass(frozen=True)
class Page(Generic[Kind]):
    """One page of a list.

    Attributes:
        rows: The rows of this page.
        total: How many rows the list has; some lists stop counting at a limit.
        next_cursor: Leads to the next page; None on the last one.
    """

    rows: list[Kind]
    total: int
    next_cursor: str | None


@dataclass(frozen=True)
class Video:
    """One video, at any stage of its ingest.

    Attributes:
        duration_ms: None until the video was read.
        visibility: `public`, `unlisted` or `private`.
        status: `queued`, `processing`, `ready`, `failed`, `quarantined` or `removed`.
        error: Why it failed; None for callers who may not change the video.
        segments: How many moments it has.
    """

    id: str
    public_id: str
    creator_id: str
    creator_public_id: str
    creator: str
    title: str
    description: str
    tags: list[str]
    language: str
    duration_ms: int | None
    visibility: str
    status: str
    error: str | None
    segments: int
    created_at: str
    ready_at: str | None


@dataclass(frozen=True)
class Creator:
    """A creator. `videos` counts their public videos that are ready."""

    id: str
    public_id: str
    handle: str
    name: str
    videos: int
    created_at: str


@dataclass(frozen=True)
class Job:
    """An ingest job.

    Attributes:
        status: `queued`, `running`, `succeeded`, `failed` or `cancelled`.
        videos: How many videos are in which state, and `total`.
        segments: How many moments it has found.
        error: Why the job as a whole failed.
        failures: A row for each video that failed, with the reason.
    """

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
        """Whether the job has ended, with or without success."""
        return self.status in ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Earnings:
    """A creator's earnings, as integers in base units (10^-6 PIX).

    Attributes:
        pending: Earned, but it can still be reversed, so it is not payable yet.
        accrued: Everything earned, less reversals: pending, payable, in flight and paid.
        in_flight: In payouts that are not settled yet.
        paid: Settled, according to the journal.
        on_chain: Received, according to the finalized transactions themselves.
        wallet: The address that payouts go to; None without one.
    """

    creator_id: str
    creator_public_id: str
    pending: int
    accrued: int
    in_flight: int
    paid: int
    on_chain: int
    wallet: str | None


@dataclass(frozen=True)
class Payout:
    """One payment to a creator's wallet.

    Attributes:
        amount_pix: The amount as a text: an integer in base units (10^-6 PIX).
        state: `paid`, or how far its batch has come, e.g. `planned` or `signed`, or how it ended.
        signature: The transaction's signature on chain; None until it is signed.
        slot: The slot that the transaction was confirmed in; None until then.
    """

    id: str
    creator_id: str
    creator_public_id: str
    wallet: str
    amount_pix: str
    state: str
    batch_id: str
    signature: str | None
    slot: int | None
    planned_at: str


@dataclass(frozen=True)
class Wallet:
    """The address that a creator is paid at.

    Attributes:
        set_by: Who set it, e.g. `creator` or `admin`.
        hold_until: Payouts wait until then; None when they do not wait.
        proven: Whether the wallet's key has signed that it is the creator's.
    """

    creator_id: str
    creator_public_id: str
    wallet: str
    set_by: str
    set_at: str
    hold_until: str | None
    proven: bool


@dataclass(frozen=True)
class WalletChallenge:
    """A message that a wallet's key has to sign, to prove that the creator holds it.

    Attributes:
        nonce: Names the challenge when the proof is sent; it can be used once.
        message: The text to sign, byte for byte as UTF-8.
        expires_at: The proof must arrive before this time.
    """

    creator_id: str
    creator_public_id: str
    wallet: str
    nonce: str
    message: str
    expires_at: str


@dataclass(frozen=True)
class Key:
    """An API key.

    Attributes:
        scopes: What it may do: `search`, `ingest`, `creator`, `admin`.
        creator_id: The creator who uses it; None for none.
        creators: The handles that scope `ingest` may act for, or "any".
        expires_at: None when it does not expire.
        key: The secret itself; only in the answer that created it, else None.
    """

    id: str
    name: str
    scopes: list[str]
    creator_id: str | None
    creators: list[str] | str | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    key: str | None


def of(kind: type[Kind], document: Mapping[str, Any]) -> Kind:
    """Build a value from a JSON document; fields of the document that the value does not have are ignored.

    Args:
        kind: A dataclass of this module.
        document: A JSON object with at least its fields.

    Returns:
        The value.
    """
    return kind(**{field.name: document[field.name] for field in fields(kind)})  # type: ignore[arg-type]


def page_of(kind: type[Kind], name: str, document: Mapping[str, Any]) -> Page[Kind]:
    """Build a page from the JSON document of a list.

    Args:
        kind: The dataclass of a row.
        name: The document's field with the rows, e.g. `videos`.
        document: A JSON object with `total` and `next_cursor` too.

    Returns:
        The page.
    """
    return Page([of(kind, row) for row in document[name]], document["total"], document["next_cursor"])


def answer_of(document: dict[str, Any]) -> Answer:
    """Build an answer from the JSON document of a search.

    Args:
        document: A JSON object of the schema `Answer`.

    Returns:
        The answer.
    """
    return Answer(
        moments=[of(Moment, moment) for moment in document["moments"]],
        next_cursor=document["next_cursor"],
        degraded=document["degraded"],
        nothing_matches=document.get("nothing_matches", False),
        took_ms=document["took_ms"],
        document=document,
    )
