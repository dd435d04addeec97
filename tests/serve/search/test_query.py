"""A query that exists can be answered: everything else is refused at the door with one clear line."""

from __future__ import annotations

import base64
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster.errors import Rejected
from pipelines.index.vectors import LANGUAGES
from serve.search import query as queries
from serve.search.query import Body, Intent
from serve.settings import SearchSettings

SETTINGS = SearchSettings()


def made(**fields: Any) -> queries.Query:
    return queries.of(Body(**fields), SETTINGS)


def test_a_text_is_normalised_so_that_it_is_cached_once() -> None:
    decomposed = unicodedata.normalize("NFD", "  café \n\t au   lait ")
    assert made(text=decomposed).text == "café au lait"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "something to look for"),
        ({"text": "   "}, "something to look for"),
        ({"text": "-apple"}, "something to look for"),
        ({"negative": ["apple"]}, "something to look for"),
        ({"text": "a", "cursor": "b"}, "cursor"),
        ({"text": "a", "negative": ["b\0"]}, "control character U.0000"),
        ({"text": "a" * 501}, "501 characters"),
        ({"text": "a\0b"}, "control character"),
        ({"text": "a", "limit": 101}, "at most 100"),
        ({"text": "a", "language": "klingon"}, "unknown"),
        ({"text": "a", "language": "english'; DROP TABLE media.videos; --"}, "unknown"),
        ({"text": "a", "filters": {"tags": ["a\0"]}}, "control character"),
        ({"text": "a", "filters": {"creator_id": ["9223372036854775808"]}}, "no id"),
        ({"text": "a", "filters": {"created_after": "2026-01-01T00:00:00"}}, "time zone"),
        ({"image": "not base64!"}, "base64"),
        ({"image": ""}, "0 bytes"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_what_is_wrong(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(Rejected, match=says) as refused:
        made(**fields)
    assert refused.value.status == 422


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "a", "limit": 0},
        {"text": "a", "segment_id": "-1"},
        {"text": "a", "segment_id": "1 OR 1=1"},
        {"text": "a", "filters": {"video_id": ["1; DELETE FROM media.videos"]}},
        {"text": "a", "filters": {"creator_id": ["1"] * 101}},
        {"text": "a", "filters": {"tags": ["a"] * 21}},
        {"text": "a", "filters": {"duration_min_ms": float("nan")}},
        {"text": "a", "weights": {"vector": float("nan")}},
        {"text": "a", "weights": {"vector": float("inf")}},
        {"text": "a", "weights": {"text": -1}},
        {"text": "a", "relevance_min_ppm": 1_000_001},
        {"text": "a", "negative": ["b"] * 6},
        {"text": "a", "blend": {"negative": float("nan")}},
        {"text": "a", "surprise": 1},
        {"text": "a", "cursor": "c" * 16_385},
    ],
)
def test_a_field_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Body(**fields)


def test_what_a_text_excludes_is_negative_and_not_looked_for() -> None:
    query = made(text='red apple -pie -"apple tree"', negative=["worm"])
    assert query.wanted == "red apple"
    assert query.negative == ("pie", "apple tree", "worm")
    assert made(text="well-known e-mail").negative == ()


def test_an_image_above_the_limit_is_refused() -> None:
    image = base64.b64encode(b"x" * (SETTINGS.image_max_bytes + 1)).decode()
    with pytest.raises(Rejected, match="bytes"):
        made(image=image)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_can_be_asked_for(language: str) -> None:
    assert made(text="a", language=language).language == language


def test_a_language_may_be_given_by_its_code_and_has_one_name() -> None:
    assert [made(text="a", language=each).language for each in ("en", "DE", "english", "ja")] == [
        "english", "german", "english", "simple"
    ]  # fmt: skip
    for odd in ("", "xx", "en-", "klingon"):
        with pytest.raises(Rejected, match="is unknown"):
            made(text="a", language=odd)


def test_only_the_first_page_of_a_committed_search_counts() -> None:
    assert made(text="a").counts
    assert not made(cursor="c").counts
    assert not any(made(text="a", intent=intent).counts for intent in Intent if intent is not Intent.SEARCH)


@given(st.text(max_size=600))
def test_any_text_is_either_taken_or_refused(text: str) -> None:
    try:
        found = made(text=text)
    except Rejected as refused:
        assert refused.status == 422
    else:
        assert 0 < len(found.text) <= SETTINGS.query_chars_max
        assert queries.of(Body(text=found.text), SETTINGS).text == found.text  # normalising again changes nothing
