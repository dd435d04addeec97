"""A cursor carries what is left of an answer, unchanged, for a while; one that is not ours is refused."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Rejected
from serve.search import cursors
from serve.search.cursors import Ranked

KEY, NOW_S = b"key", 1_800_000_000.0
LISTS = st.sampled_from([("vector",), ("text",), ("vector", "text"), ("vector", "some_words"), ("some_words",), ()])
RANKED = st.builds(
    Ranked, st.integers(1, 2**63 - 1), st.floats(0, 4, width=32), st.integers(0, 1_000_000), LISTS
)  # fmt: skip


@given(st.lists(RANKED, max_size=200), st.integers(0, 2**63))
def test_what_goes_in_comes_out(ranked: list[Ranked], generation: int) -> None:
    cursor = cursors.pack(ranked, generation, KEY, 900, NOW_S)
    assert cursors.unpack(cursor, KEY, NOW_S) == (ranked, generation, False)


def test_two_hundred_ids_fit_into_an_address() -> None:
    ranked = [Ranked(10**9 + 7919 * n, 1 / (60 + n), 900_000 - n, ("vector",)) for n in range(200)]
    assert len(cursors.pack(ranked, 1, KEY, 900)) < 4096


def test_an_old_cursor_is_refused() -> None:
    cursor = cursors.pack([], 1, KEY, 900, NOW_S)
    with pytest.raises(Rejected, match="expired"):
        cursors.unpack(cursor, KEY, NOW_S + 901)


def test_a_cursor_of_another_deployment_is_refused() -> None:
    with pytest.raises(Rejected, match="not one of ours"):
        cursors.unpack(cursors.pack([], 1, b"other", 900), KEY)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_whatever_is_sent_as_a_cursor_is_refused_and_breaks_nothing(text: str) -> None:
    with pytest.raises(Rejected) as refused:
        cursors.unpack(text, KEY, NOW_S)
    assert refused.value.status == 422


@given(st.integers(0), st.integers(1, 255))
def test_a_cursor_with_one_byte_changed_is_refused(place: int, change: int) -> None:
    cursor = cursors.pack([Ranked(1, 0.5, 7, ("text",))], 1, KEY, 900, NOW_S)
    data = bytearray(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    data[place % len(data)] ^= change
    with pytest.raises(Rejected):
        cursors.unpack(base64.urlsafe_b64encode(bytes(data)).decode(), KEY, NOW_S)
