"""Queries: what a caller searches for, checked once, so that every `Query` that exists can be answered.

A query comes from the parameters of `GET /v1/search` or from the body of `POST /v1/search`; both name the same fields. Asks
no database: what a query only names is looked up later (`references`).
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any

from cachetools import LRUCache
from pydantic import BaseModel, ConfigDict, Field

from cluster import characters
from cluster.errors import Rejected
from pipelines.index import fulltext
from pipelines.index.vectors import Filters
from pipelines.sources import languages
from serve.http import texts
from serve.settings import SearchSettings

STORED = "s3://"  # begins the address of a picture in the store; any other picture is base64
ID_MAX = 2**63 - 1
TAGS_MAX = 20
IDS_MAX = 100
NEGATIVES_MAX = 5
CACHED_MAX, CACHED_BYTES_MAX = 4096, 2048  # query strings, and the length of one
QUOTES = str.maketrans(dict.fromkeys("“”„‟«»\uff02", '"'))  # as phones and word processors type them
# Filters that have the same name and value in `Narrowing` and in the index's `Filters`.
NARROWED_ALIKE = ("duration_min_ms", "duration_max_ms", "created_after", "created_before", "height_min")
IDS = r"^([0-9]{1,19}|[A-Za-z0-9_-]{22})$"  # a number, or a public id
MOMENT_IDS = r"^([0-9]{1,19}|[A-Za-z0-9_-]{22}\.[0-9]{1,10})$"
Id = Annotated[str, Field(pattern=IDS, examples=["42"])]
SegmentId = Annotated[str, Field(pattern=MOMENT_IDS, examples=["42"])]
Weight = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class Intent(StrEnum):
    """What a search is for. Only the first page of a search with the intent `search` makes appearances.

    Anyone may send `typing`, `suggestion` and `feed`; `probe`, `admin` and `benchmark` need a key of scope admin.
    Searches with these intents earn nothing. Which of them an integrator's key may be used for is a matter of their
    contract.
    """

    SEARCH = "search"
    TYPING = "typing"
    SUGGESTION = "suggestion"
    FEED = "feed"
    PROBE = "probe"
    ADMIN = "admin"
    BENCHMARK = "benchmark"


OPERATING = frozenset((Intent.PROBE, Intent.ADMIN, Intent.BENCHMARK))  # that only administrators may state


class GroupBy(StrEnum):
    """How an answer is grouped: `moment` shows each moment by itself, `video` only the best moment of each video."""

    MOMENT = "moment"
    VIDEO = "video"


class Narrowing(BaseModel):
    """Filters. A moment is found only if it passes all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    creator_id: tuple[Id, ...] = Field(default=(), max_length=IDS_MAX)
    video_id: tuple[Id, ...] = Field(default=(), max_length=IDS_MAX)
    tags: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = Field(default=(), max_length=TAGS_MAX)
    duration_min_ms: int | None = Field(default=None, ge=0, le=2**31 - 1)
    duration_max_ms: int | None = Field(default=None, ge=0, le=2**31 - 1)
    created_after: dt.datetime | None = None
    created_before: dt.datetime | None = None
    height_min: int | None = Field(default=None, ge=1, le=2**31 - 1)
    stake_min_pix: int | None = Field(
        default=None, ge=1, le=ID_MAX, description="At least this much is invested in it."
    )


class Weights(BaseModel):
    """How much each of the two lists counts when they are fused; None means the deployment's own weight."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    vector: Weight | None = None
    text: Weight | None = None


class Blend(BaseModel):
    """How much each part of a query counts in the vector that is searched for; the negative texts are subtracted."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    text: Weight = 1.0
    image: Weight = 1.0
    segment: Weight = 1.0
    negative: Weight = 0.5


class Asked(BaseModel):
    """The fields of a search that `GET` and `POST` name alike. A `GET` gives a sequence by repeating its parameter."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    image: str | None = Field(
        default=None,
        description="A picture (JPEG, PNG, WebP): base64, or the address of one in the deployment's store, `s3://…`.",
    )
    segment_id: SegmentId | None = None
    negative: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(
        default=(), max_length=NEGATIVES_MAX, description="What it should not show. `-word` in the text says the same."
    )
    limit: int | None = Field(default=None, ge=1)
    cursor: str | None = Field(
        default=None,
        max_length=16_384,
        description="Carries its search: no filter, weight or text stands beside it, and `group_by` as it was alone.",
    )
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
    language: str = Field(
        default="english", max_length=100, description=f"Of the words of the text: {languages.KNOWN}."
    )
    highlight: bool = Field(default=False, description="Say where the words of the text stand in each moment's own.")
    facets: bool = Field(default=False, description="Count what was found by creator and by tag.")


class Body(Asked):
    """The body of `POST /v1/search`: a cursor, or at least one of a text, an image and a moment to find more of."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"text": "a red apple", "limit": 3},
                {"segment_id": "42", "text": "at night", "negative": ["rain"]},
            ]
        },
    )
    text: str = ""
    blend: Blend = Blend()
    weights: Weights = Weights()
    filters: Narrowing = Narrowing()


class Parameters(Asked, Narrowing):
    """The parameters of `GET /v1/search`: the fields of `Body`, with nested ones under names of their own.

    `q` is the text, and filters keep their names. The weights are `vector_weight` and `text_weight`; the blend is
    `text_blend`, `image_blend` and so on. They are one model, which takes a third of the time to check that separate
    parameters take.
    """

    q: Annotated[str, Field(examples=["a red apple"])] = ""
    vector_weight: Weight | None = None
    text_weight: Weight | None = None
    text_blend: Weight | None = None
    image_blend: Weight | None = None
    segment_blend: Weight | None = None
    negative_blend: Weight | None = None

    def body(self) -> Body:
        """Return the body that stands for the same search."""
        nested: dict[str, Any] = {
            "filters": Narrowing(**{name: getattr(self, name) for name in Narrowing.model_fields}),
            "weights": Weights(**self._ending("_weight", Weights)),
            "blend": Blend(**self._ending("_blend", Blend)),
        }
        alike: dict[str, Any] = {name: getattr(self, name) for name in Asked.model_fields}
        fields_set = self.model_fields_set & Asked.model_fields.keys()
        return Body.model_construct(fields_set, text=self.q, **alike, **nested)  # every part has been checked

    def _ending(self, ending: str, kind: type[BaseModel]) -> dict[str, float]:
        """Return the given fields of the nested model `kind`; a parameter's name is the field's name plus `ending`."""
        values = {name: getattr(self, name + ending) for name in kind.model_fields}
        return {name: value for name, value in values.items() if value is not None}


PARTS = {  # by field, the part of a query without which the field has no meaning
    "blend.text": "a text", "blend.image": "an image", "blend.segment": "a segment_id", "blend.negative": "something negative",
    "weights.text": "a text", "language": "a text or something negative",
}  # fmt: skip
RANGES = (  # of filters: the lower end and the upper one
    ("duration_min_ms", "duration_max_ms"),
    ("created_after", "created_before"),
)
BESIDE_CURSOR: dict[str, object] = {  # fields that a cursor carries itself, each with the value that states nothing
    "filters": Narrowing(), "weights": Weights(), "blend": Blend(), "negative": (), "language": "english",
    "highlight": False, "facets": False,
}  # fmt: skip


@dataclass(frozen=True)
class Query:
    """One search, checked: a cursor, or one or more of text, image and segment_id.

    `negative` are texts to keep away from.
    """

    limit: int
    text: str = ""
    image: bytes | None = None
    image_uri: str | None = None  # None once the picture is read
    segment_id: int | None = None
    negative: tuple[str, ...] = ()
    blend: Blend = field(default_factory=Blend)
    cursor: str | None = None
    filters: Filters = field(default_factory=Filters)
    vector_weight: float = 1.0
    text_weight: float = 1.0
    group_by: GroupBy = GroupBy.MOMENT
    stated_group_by: GroupBy | None = field(default=None, repr=False)  # stated beside a cursor, which carries its own
    explain: bool = False
    intent: Intent = Intent.SEARCH
    relevance_min_ppm: int | None = None  # None: moments whose words match, and those that pass the calibrated cut
    language: str = "english"
    stake_min_pix: int | None = None  # base units; None once the moments with such a stake are looked up
    highlight: bool = False
    facets: bool = False
    variant: str = ""  # the name of the variant whose weights the query has
    is_early: bool = False  # the part of a stream that words alone find, before any relevance is known: it shows 0

    @cached_property
    def wanted(self) -> str:
        """The text without its excluded words, which are in `negative`."""
        return fulltext.without_excluded(self.text)

    @cached_property
    def encoded(self) -> str:
        """The part of the text that is encoded: the wanted words in lower case, so that letter case changes no relevance."""
        return fulltext.without_excluded(self.text.lower())

    @cached_property
    def identity(self) -> str:
        """A hash of all fields that the answer depends on, the text in lower case; equal hashes mean equal answers."""
        image = hashlib.sha256(self.image).hexdigest() if self.image is not None else ""
        plain = replace(self, text=self.text.lower(), image=None, intent=Intent.SEARCH)
        return hashlib.sha256(f"{plain!r} {image}".encode()).hexdigest()

    @property
    def asks_everything(self) -> bool:
        """Whether the query asks every list that could find something; without a text, words could find nothing."""
        return self.vector_weight > 0 and not self.is_early and (self.text_weight > 0 or not self.wanted)

    @property
    def is_picture_alone(self) -> bool:
        """Whether the query is a picture and nothing else, so that nothing is found when it cannot be encoded."""
        return self.image is not None and not self.wanted and self.segment_id is None

    @property
    def looks_at_a_picture(self) -> bool:
        """Whether the encoder must encode a picture for this query, which takes many times as long as a text."""
        return self.image is not None and self.cursor is None

    @property
    def counts(self) -> bool:
        """Whether the answer makes appearances: the first page of a committed search."""
        return self.intent is Intent.SEARCH and self.cursor is None


class QueryCache:
    """A cache of the `CACHED_MAX` most recently used queries, by the raw query string that they were parsed from.

    Args:
        used: False if viewers have variants: one string then means several queries, and nothing is cached.
    """

    def __init__(self, *, used: bool) -> None:
        self._used = used
        self._queries: LRUCache[bytes, Query] = LRUCache(CACHED_MAX)

    def get(self, query_string: bytes) -> Query | None:
        """Return the query of a query string; None if it is not cached."""
        return self._queries.get(query_string)

    def put(self, query_string: bytes, query: Query) -> None:
        """Cache a query, unless its query string is long, or caching it is of no use.

        It is of no use if the query's meaning changes with time (a stake), or if it is asked only once (a cursor).
        """
        is_short = len(query_string) <= CACHED_BYTES_MAX
        if self._used and is_short and query.cursor is None and query.stake_min_pix is None:
            self._queries[query_string] = query


def of(body: Body, settings: SearchSettings, variant: str = "") -> Query:
    """Check a body against this deployment's limits.

    `variant` is the name of the variant whose weights the settings have.

    Raises:
        Rejected: the first thing that is wrong.
    """
    text = _normalised("text", body.text)
    negatives = tuple(_normalised("negative", negative) for negative in body.negative)
    limit, language = body.limit or settings.limit_default, _language(body.language)
    _check(body, text, negatives, limit, settings)
    _check_sense(body, text, settings)
    stored = body.image is not None and body.image.startswith(STORED)
    negative = tuple(dict.fromkeys((*fulltext.excluded(text), *negatives)))
    return Query(
        limit=limit,
        text=text,
        negative=negative[:NEGATIVES_MAX],
        blend=body.blend,
        image=_image(body.image, settings) if body.image is not None and not stored else None,
        image_uri=body.image if stored else None,
        segment_id=_id(body.segment_id) if body.segment_id is not None else None,
        cursor=body.cursor,
        filters=fulltext.strict(_filters(body.filters), text, negatives, language),
        vector_weight=settings.vector_weight if body.weights.vector is None else body.weights.vector,
        text_weight=settings.text_weight if body.weights.text is None else body.weights.text,
        group_by=body.group_by,
        stated_group_by=body.group_by if body.cursor and "group_by" in body.model_fields_set else None,
        explain=body.explain,
        intent=body.intent,
        relevance_min_ppm=body.relevance_min_ppm,
        language=language,
        highlight=body.highlight,
        facets=body.facets,
        stake_min_pix=body.filters.stake_min_pix,
        variant=variant,
    )


def _normalised(name: str, text: str) -> str:
    """Return a text as it is searched for: composed letters (NFC), one space between words, one kind of quotes."""
    spaced = " ".join(unicodedata.normalize("NFC", text).translate(QUOTES).split())
    return " ".join(texts.sought(name, spaced).split())


def _check(body: Body, text: str, negatives: Sequence[str], limit: int, settings: SearchSettings) -> None:
    """Check that a body asks for something, and that its texts and limit are within bounds.

    Raises:
        Rejected: the first thing that is wrong.
    """
    asks = bool(fulltext.without_excluded(text)) or body.image is not None or body.segment_id is not None
    if asks == (body.cursor is not None):
        hint = "give q (a text), image, segment_id, or a cursor alone"
        detail = "a cursor carries its own search" if asks else "a search needs something to look for"
        raise Rejected(detail, status=422, code="bad-query", hint=hint)
    if len(text) > settings.query_chars_max:
        raise Rejected(f"the text has {len(text)} characters, {settings.query_chars_max} are allowed", 422, "bad-query")
    if (text and not characters.shows(text)) or not all(characters.shows(each) for each in negatives):
        raise Rejected("a text shows nothing: it has invisible characters only", status=422, code="bad-query")
    if limit > settings.limit_max:
        raise Rejected(f"limit is {limit}, at most {settings.limit_max} is allowed", status=422, code="bad-query")


def _language(text: str) -> str:
    name = languages.known(text)
    if not name:
        raise Rejected(f"language {text!r} is unknown", 422, "bad-query", f"known: {languages.KNOWN}")
    return name


def _check_sense(body: Body, text: str, settings: SearchSettings) -> None:
    """Refuse a body that contradicts itself, so that an empty answer means that nothing matches.

    Raises:
        Rejected: the first contradiction.
    """
    if body.cursor is not None:
        beside = [name for name, plain in BESIDE_CURSOR.items() if getattr(body, name) != plain]
        if text or beside:
            detail = f"a cursor carries its own search, {(*beside, 'a text')[0]} cannot stand beside it"
            raise Rejected(detail, status=422, code="bad-query", hint="give the cursor with limit, or search again")
        return
    _check_parts(body, text)
    vector_weight = settings.vector_weight if body.weights.vector is None else body.weights.vector
    text_weight = settings.text_weight if body.weights.text is None else body.weights.text
    if vector_weight == 0 and (text_weight == 0 or not fulltext.without_excluded(text)):
        detail = "nothing can be found: neither vectors nor words count"
        raise Rejected(detail, status=422, code="bad-query", hint="give one of the weights a value above 0")
    for least, most in RANGES:
        low, high = getattr(body.filters, least), getattr(body.filters, most)
        if low is not None and high is not None and _is_empty(low, high):
            raise Rejected(f"{least} is after {most}: nothing is between", status=422, code="bad-query")


def _check_parts(body: Body, text: str) -> None:
    """Refuse a field that is about a part which the query does not have, e.g. `blend.image` without an image.

    Raises:
        Rejected: the message names the field as a body has it, the hint also as a `GET` has it.
    """
    has = {
        "text": bool(fulltext.without_excluded(text)),
        "image": body.image is not None,
        "segment": body.segment_id is not None,
        "negative": bool(body.negative or fulltext.excluded(text)),
    }
    stated = [(f"blend.{part}", f"{part}_blend", has[part]) for part in sorted(body.blend.model_fields_set)]
    stated.append(("weights.text", "text_weight", has["text"] or body.weights.text is None))
    has_words = has["text"] or has["negative"] or "language" not in body.model_fields_set
    stated.append(("language", "language", has_words))
    for field_name, parameter, has_meaning in stated:
        if not has_meaning:
            detail = f"{field_name} has no meaning here: the search does not have that part"
            hint = f"leave out {field_name} (in a GET: {parameter}), or give {PARTS[field_name]}"
            raise Rejected(detail, status=422, code="bad-query", hint=hint)


def _is_empty(low: int | dt.datetime, high: int | dt.datetime) -> bool:
    """Return whether a range from `low` to `high` is empty; a range of time does not contain its end."""
    if isinstance(low, dt.datetime) and isinstance(high, dt.datetime):
        return low.tzinfo is not None and high.tzinfo is not None and low >= high
    return bool(low > high)  # type: ignore[operator]


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
    alike = {name: getattr(narrowing, name) for name in NARROWED_ALIKE}
    for name in ("created_after", "created_before"):
        if alike[name] is not None and alike[name].tzinfo is None:
            raise Rejected(f"{name} needs a time zone", 422, "bad-query", "write it like 2026-01-31T00:00:00Z")
    return Filters(
        creator_ids=tuple(_id(each) for each in narrowing.creator_id),
        video_ids=tuple(_id(each) for each in narrowing.video_id),
        tags=tuple(_tag(each) for each in narrowing.tags),
        **alike,
    )


def _tag(text: str) -> str:
    """Check a tag and return it unchanged.

    Characters that are left out of new tags stay, since tags that an older release has stored may have them.

    Raises:
        Rejected: 422, the tag has a control character.
    """
    texts.sought("a tag", text)
    return text


def _id(text: str) -> int:
    number = int(text)
    if number > ID_MAX:
        raise Rejected(f"{text} is no id", status=422, code="bad-query")
    return number
