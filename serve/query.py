"""What is asked, checked once at the door: a `Query` that exists is one that can be answered.

Comes from the parameters of `GET /v1/search` or the body of `POST /v1/search`; both name the same fields.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import unicodedata
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cluster.errors import Rejected
from pipelines import fulltext
from pipelines.index import Filters
from serve.settings import SearchSettings

STORED = "s3://"
ID_MAX = 2**63 - 1
TAGS_MAX = 20
IDS_MAX = 100
NEGATIVES_MAX = 5
REMEMBERED_MAX, REMEMBERED_BYTES_MAX = 4096, 2048  # query strings, and the length of one
NARROWED_ALIKE = ("duration_min_ms", "duration_max_ms", "created_after", "created_before", "height_min")
LANGUAGES = ("english", "german", "french", "spanish", "italian", "portuguese", "dutch", "russian", "simple")
Id = Annotated[str, Field(pattern=r"^[0-9]{1,19}$", examples=["42"])]


class Intent(StrEnum):
    """Why a search is made. Only a committed search (`search`) counts as an appearance.

    `typing`, `suggestion` and `feed` are open to all and pay nobody, as further pages do: a key that is given to an
    integrator says by contract what it is for. `probe`, `admin` and `benchmark` are for keys of scope admin alone.
    """

    SEARCH = "search"
    TYPING = "typing"
    SUGGESTION = "suggestion"
    FEED = "feed"
    PROBE = "probe"
    ADMIN = "admin"
    BENCHMARK = "benchmark"


OPERATING = frozenset((Intent.PROBE, Intent.ADMIN, Intent.BENCHMARK))  # what only administrators may say


class GroupBy(StrEnum):
    """`video` answers with the best moment of each video."""

    MOMENT = "moment"
    VIDEO = "video"


class Narrowing(BaseModel):
    """Filters: all of them must hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    creator_id: tuple[Id, ...] = Field(default=(), max_length=IDS_MAX)
    video_id: tuple[Id, ...] = Field(default=(), max_length=IDS_MAX)
    tags: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = Field(default=(), max_length=TAGS_MAX)
    duration_min_ms: int | None = Field(default=None, ge=0, le=2**31 - 1)
    duration_max_ms: int | None = Field(default=None, ge=0, le=2**31 - 1)
    created_after: dt.datetime | None = None
    created_before: dt.datetime | None = None
    height_min: int | None = Field(default=None, ge=1, le=2**31 - 1)
    stake_min_pix: int | None = Field(default=None, ge=1, le=ID_MAX, description="At least so much is invested in it.")


class Weights(BaseModel):
    """How much each list counts; without one, the deployment's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    vector: float | None = Field(default=None, ge=0, le=100)
    text: float | None = Field(default=None, ge=0, le=100)


class Blend(BaseModel):
    """How much each part of a composed query counts in its vector; what is negative is subtracted."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    text: float = Field(default=1.0, ge=0, le=100)
    image: float = Field(default=1.0, ge=0, le=100)
    segment: float = Field(default=1.0, ge=0, le=100)
    negative: float = Field(default=0.5, ge=0, le=100)


class Body(BaseModel):
    """The body of `POST /v1/search`: a text, an image, a moment to find more of, any of them together; or a cursor."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {"text": "a red apple", "limit": 3},
                {"segment_id": "42", "text": "at night", "negative": ["rain"]},
            ]
        },
    )
    text: str = ""
    image: str | None = Field(
        default=None,
        description="A picture (JPEG, PNG, WebP): base64, or the address of one in the deployment's store, `s3://…`.",
    )
    segment_id: Id | None = None
    negative: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(
        default=(), max_length=NEGATIVES_MAX, description="What it should not show. `-word` in the text says the same."
    )
    blend: Blend = Blend()
    weights: Weights = Weights()
    filters: Narrowing = Narrowing()
    limit: int | None = Field(default=None, ge=1)
    cursor: str | None = Field(default=None, max_length=16_384)
    group_by: GroupBy = GroupBy.MOMENT
    explain: bool = False
    intent: Intent = Intent.SEARCH
    relevance_min_ppm: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        description="Show nothing below it; 0 shows everything. Without it: what matches all words, and what the model's "
        "calibration says is near enough.",
    )
    language: str = "english"


@dataclass(frozen=True)
class Query:
    """One search, checked: a cursor, or one or more of text, image and segment_id. `negative` is what to keep away from."""

    limit: int
    text: str = ""
    image: bytes | None = None
    image_uri: str | None = None  # until it is read
    segment_id: int | None = None
    negative: tuple[str, ...] = ()
    blend: Blend = field(default_factory=Blend)
    cursor: str | None = None
    filters: Filters = field(default_factory=Filters)
    vector_weight: float = 1.0
    text_weight: float = 1.0
    group_by: GroupBy = GroupBy.MOMENT
    explain: bool = False
    intent: Intent = Intent.SEARCH
    relevance_min_ppm: int | None = None  # None: words that match, and what the calibrated cut lets through
    language: str = "english"
    stake_min_pix: int | None = None  # until it is looked up which moments that leaves
    variant: str = ""
    is_early: bool = False  # the words' part of a stream: it is there before any relevance is known, and shows 0

    @cached_property
    def wanted(self) -> str:
        """The text without the words it excludes; those are in `negative`."""
        return fulltext.wanted(self.text)

    @cached_property
    def encoded(self) -> str:
        """What is encoded of the text: the wanted words in lower case, so that letter case changes no relevance."""
        return fulltext.wanted(self.text.lower())

    @cached_property
    def identity(self) -> str:
        """The same for searches that have the same answer: whatever is asked, but for letter case and intent."""
        image = hashlib.sha256(self.image).hexdigest() if self.image is not None else ""
        plain = replace(self, text=self.text.lower(), image=None, intent=Intent.SEARCH)
        return hashlib.sha256(f"{plain!r} {image}".encode()).hexdigest()

    @property
    def counts(self) -> bool:
        """Does its first page make appearances?"""
        return self.intent is Intent.SEARCH and self.cursor is None


class Remembered:
    """What query strings mean. Where viewers have variants the same string means several things: none is remembered."""

    def __init__(self, *, used: bool) -> None:
        self._used = used
        self._queries: OrderedDict[bytes, Query] = OrderedDict()

    def get(self, text: bytes) -> Query | None:
        query = self._queries.get(text)
        if query is not None:
            self._queries.move_to_end(text)
        return query

    def put(self, text: bytes, query: Query) -> None:
        """Remember a query; not one whose meaning changes (a stake) or that is asked once (a cursor)."""
        if self._used and len(text) <= REMEMBERED_BYTES_MAX and query.cursor is None and query.stake_min_pix is None:
            self._queries[text] = query
            if len(self._queries) > REMEMBERED_MAX:
                self._queries.popitem(last=False)


def of(body: Body, settings: SearchSettings, variant: str = "") -> Query:
    """Check a body against this deployment's limits; `variant` names whose weights the settings have.

    Raises:
        Rejected: one clear detail.
    """
    text = " ".join(unicodedata.normalize("NFC", body.text).split())
    limit = body.limit or settings.limit_default
    _check(body, text, limit, settings)
    stored = body.image is not None and body.image.startswith(STORED)
    negative = tuple(dict.fromkeys((*fulltext.excluded(text), *(" ".join(each.split()) for each in body.negative))))
    return Query(
        limit=limit,
        text=text,
        negative=negative[:NEGATIVES_MAX],
        blend=body.blend,
        image=_image(body.image, settings) if body.image is not None and not stored else None,
        image_uri=body.image if stored else None,
        segment_id=_id(body.segment_id) if body.segment_id is not None else None,
        cursor=body.cursor,
        filters=fulltext.strict(_filters(body.filters), text, body.negative, body.language),
        vector_weight=settings.vector_weight if body.weights.vector is None else body.weights.vector,
        text_weight=settings.text_weight if body.weights.text is None else body.weights.text,
        group_by=body.group_by,
        explain=body.explain,
        intent=body.intent,
        relevance_min_ppm=body.relevance_min_ppm,
        language=body.language,
        stake_min_pix=body.filters.stake_min_pix,
        variant=variant,
    )


def _check(body: Body, text: str, limit: int, settings: SearchSettings) -> None:
    led = bool(fulltext.wanted(text)) or body.image is not None or body.segment_id is not None
    if led == (body.cursor is not None):
        hint = "give q (a text), image, segment_id, or a cursor alone"
        said = "a cursor carries its own search" if led else "a search needs something to look for"
        raise Rejected(said, status=422, code="bad-query", hint=hint)
    if len(text) > settings.query_chars_max:
        raise Rejected(f"the text has {len(text)} characters, {settings.query_chars_max} are allowed", 422, "bad-query")
    if "\0" in text or any("\0" in each for each in body.negative):
        raise Rejected("the text contains a zero byte", status=422, code="bad-query")
    if limit > settings.limit_max:
        raise Rejected(f"limit is {limit}, at most {settings.limit_max} is allowed", status=422, code="bad-query")
    if body.language not in LANGUAGES:
        raise Rejected(f"language {body.language!r} is unknown", 422, "bad-query", f"known: {', '.join(LANGUAGES)}")


def _image(text: str, settings: SearchSettings) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        hint = "send base64, or name a picture in the store as s3://bucket/key"
        raise Rejected("image is not base64", status=422, code="bad-image", hint=hint) from error
    if not 0 < len(data) <= settings.image_max_bytes:
        allowed = settings.image_max_bytes
        raise Rejected(f"image has {len(data)} bytes, 1 to {allowed} are allowed", status=422, code="bad-image")
    return data


def _filters(narrowing: Narrowing) -> Filters:
    given = {name: getattr(narrowing, name) for name in NARROWED_ALIKE}
    for name in ("created_after", "created_before"):
        if given[name] is not None and given[name].tzinfo is None:
            raise Rejected(f"{name} needs a time zone", 422, "bad-query", "write it like 2026-01-31T00:00:00Z")
    if any("\0" in tag for tag in narrowing.tags):
        raise Rejected("a tag contains a zero byte", status=422, code="bad-query")
    return Filters(
        creator_ids=tuple(_id(each) for each in narrowing.creator_id),
        video_ids=tuple(_id(each) for each in narrowing.video_id),
        tags=narrowing.tags,
        **given,
    )


def _id(text: str) -> int:
    number = int(text)
    if number > ID_MAX:
        raise Rejected(f"{text} is no id", status=422, code="bad-query")
    return number
