"""What is too large, too deep or of too many values is refused before it is parsed, whatever it looks like."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Rejected
from serve.http import bodies
from serve.settings import SearchSettings

SEARCH = SearchSettings(json_max_bytes=2000, json_depth_max=5, json_values_max=50)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=30,
)


def refusal(body: bytes, search: SearchSettings = SEARCH, *, picture: bool = False) -> tuple[int, str] | None:
    try:
        bodies.check(body, search, picture=picture)
    except Rejected as error:
        return error.status, error.code
    return None


def depth(document: Any) -> int:
    if isinstance(document, dict):
        return 1 + max(map(depth, document.values()), default=0)
    return 1 + max(map(depth, document), default=0) if isinstance(document, list) else 0


@given(DOCUMENTS)
def test_what_is_nested_is_counted_and_what_stands_in_texts_is_not(document: Any) -> None:
    body = json.dumps(document, ensure_ascii=False).encode()
    wide = SearchSettings(json_max_bytes=100_000, json_depth_max=max(1, depth(document)), json_values_max=10_000)
    assert refusal(body, wide) is None
    if depth(document) > 1:
        assert refusal(body, SearchSettings(json_depth_max=depth(document) - 1)) == (400, "too-deep")


@pytest.mark.parametrize("body", [b"[" * 6, b'{"a":' * 6, b'{"text":"]]]]","a":[[[[[['])
def test_what_is_too_deep_is_refused(body: bytes) -> None:
    assert refusal(body) == (400, "too-deep")


def test_too_many_values_and_too_many_bytes_are_refused() -> None:
    assert refusal(b"[" + b"1," * 60 + b"1]") == (400, "too-many-values")
    assert refusal(b" " * 2001) == (413, "too-large")
    assert refusal(b" " * 2001, picture=True) == (413, "too-large")


def test_a_picture_may_be_large_and_nothing_beside_it() -> None:
    picture = '{"limit": 3, "image": "%s", "text": "%s"}'
    assert refusal((picture % ("A" * 90_000, "a")).encode(), picture=True) is None
    assert refusal((picture % ("A" * 90_000, "a" * 2000)).encode(), picture=True) == (413, "too-large")
    assert refusal((picture % ("A" * 90_000, "a")).encode()) == (413, "too-large")
    assert refusal(b'{"image": "' + b"A" * 5000, picture=True) == (413, "too-large")  # it never ends
    twice = b'{"image": "' + b"A" * 3000 + b'", "image": "' + b"A" * 3000 + b'"}'
    assert refusal(twice, picture=True) == (413, "too-large")
    before = b'{"x": "' + b"a" * 3000 + b'", "image": "AAAA"}'
    assert refusal(before, picture=True) == (413, "too-large")


def test_a_picture_that_ends_in_an_escaped_quote_hides_nothing_that_follows() -> None:
    deep = b'{"image": "' + b"A" * 3000 + b'\\"", "a": ' + b"[" * 8 + b"]" * 8 + b"}"
    assert refusal(deep, picture=True) == (400, "too-deep")


def test_a_body_of_quotes_is_refused_before_it_is_scanned() -> None:
    search = SearchSettings()
    body = b'"' * search.json_max_bytes
    began = time.process_time()
    assert refusal(body, search) == (400, "too-many-values")
    assert time.process_time() - began < 0.001


@pytest.mark.parametrize("piece", [b'"', b'\\"', b'"\\"', b"[", b'{"', b"\\", b'"image":"', b'"image"'])
def test_no_body_takes_long(piece: bytes) -> None:
    search = SearchSettings()
    body = (piece * search.json_max_bytes)[: search.json_max_bytes]
    large = (piece * search.body_max_bytes)[: search.body_max_bytes]
    for each in (body, large):
        began = time.process_time()
        refusal(each, search, picture=True)
        assert time.process_time() - began < 0.25
