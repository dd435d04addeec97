"""What people write is text, shows something, and carries nothing that is not needed."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster import characters
from serve import texts

DIRECTIONS = [*"\u200e\u200f\u061c", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))]


@pytest.mark.parametrize("mark", DIRECTIONS, ids=ascii)
def test_no_mark_of_direction_gets_in(mark: str) -> None:
    for take in (characters.line, characters.lines):
        try:
            kept = take(f"a{mark}b")
        except ValueError as error:
            assert f"U+{ord(mark):04X}" in str(error)
        else:
            assert kept == "ab"


@pytest.mark.parametrize(
    "text", ["", " ", "\u3000", "\u200b", "\u2060", "\ufeff", "\u0301", "\u0e31", "\u094d\u0903", "\u20e3", "\u115f"]
)
def test_what_shows_nothing_is_known(text: str) -> None:
    assert not characters.shows(text)
    assert characters.shows(text + "a")
    if text.strip():
        with pytest.raises(ValueError, match="shows nothing"):
            characters.line(text)


@given(st.text(max_size=30))
def test_what_is_kept_is_kept_again_as_it_is(text: str) -> None:
    try:
        kept = characters.line(text)
    except ValueError:
        return
    assert characters.line(kept) == kept
    assert not kept or characters.shows(kept)
    assert all(unicodedata.category(each) not in ("Cc", "Zl", "Zp") for each in kept)


@given(st.text(max_size=30))
@example("0\n")
def test_the_document_promises_no_more_than_is_taken_but_for_marks_of_one_script(text: str) -> None:
    pattern = (
        texts.SHOWING.removesuffix("$") + r"\Z"
    )  # as JSON Schema reads it: Python's `$` is before a last line break, too
    if re.search(pattern, text) and characters.shows(text):
        assert characters.line(text)
