"""What the typed client (`client`) gives back: the documents of the HTTP interface as values, with the names they have there.

A field that the server adds is left out until it is named here; one that it takes away is an error at the first answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Segment:
    """One moment of a video, as the video has it."""

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
    """One moment of a video that matches."""

    creator: str
    title: str
    tags: list[str]
    score: float
    relevance_ppm: int
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
class Page(Generic[Kind]):
    """A page of a list; `next_cursor` gives the page behind it, None after the last."""

    rows: list[Kind]
    total: int
    next_cursor: str | None


@dataclass(frozen=True)
class Video:
    """One video, however far it has come."""

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
    """A creator, with how many of their videos are public and ready."""

    id: str
    public_id: str
    handle: str
    name: str
    videos: int
    created_at: str


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
    creator_public_id: str
    pending: int
    accrued: int
    in_flight: int
    paid: int
    on_chain: int
    wallet: str | None


@dataclass(frozen=True)
class Payout:
    """One payment to a creator's wallet; `amount_pix` in base units."""

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
    """Where a creator is paid; payouts wait until `hold_until`. `proven`: its key has signed that it is the creator's."""

    creator_id: str
    creator_public_id: str
    wallet: str
    set_by: str
    set_at: str
    hold_until: str | None
    proven: bool


@dataclass(frozen=True)
class WalletChallenge:
    """What a wallet's key has to sign: `message`, byte for byte as UTF-8, before `expires_at`; it is good once."""

    creator_id: str
    creator_public_id: str
    wallet: str
    nonce: str
    message: str
    expires_at: str


@dataclass(frozen=True)
class Key:
    """An API key; `key` itself only when it was just made. `creators` are handles that scope ingest holds for, or "any"."""

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
    """A value of what is known of a document; fields that are added later do no harm."""
    return kind(**{field.name: document[field.name] for field in fields(kind)})  # type: ignore[arg-type]


def page_of(kind: type[Kind], name: str, document: Mapping[str, Any]) -> Page[Kind]:
    return Page([of(kind, each) for each in document[name]], document["total"], document["next_cursor"])


def answer_of(document: dict[str, Any]) -> Answer:
    moments = [of(Moment, each) for each in document["moments"]]
    told = {name: document[name] for name in ("next_cursor", "degraded", "took_ms")}
    return Answer(moments, **told, nothing_matches=document.get("nothing_matches", False), document=document)
