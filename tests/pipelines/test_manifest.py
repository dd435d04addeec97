"""What creators say about their videos is input from outside: it is checked, and a wrong row is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Rejected
from pipelines import manifest
from pipelines.manifest import Entry


def test_csv_and_json_lines_say_the_same() -> None:
    table = "file,title,tags,creator,wallet\na/one.mp4,One,red; blue ;,ana,W1\ntwo.mp4,,,,\n"
    lines = json.dumps({"file": "a/one.mp4", "title": "One", "tags": ["red", "blue"], "creator": "ana", "wallet": "W1"})
    expected = Entry("a/one.mp4", title="One", tags=("red", "blue"), creator="ana", wallet="W1")
    assert manifest.parse(table, "manifest.csv") == {"a/one.mp4": expected, "two.mp4": Entry("two.mp4")}
    assert manifest.parse(lines, "manifest.jsonl") == {"a/one.mp4": expected}


def test_a_byte_order_mark_does_no_harm() -> None:
    assert manifest.parse("\ufefffile\na.mp4\n", "manifest.csv") == {"a.mp4": Entry("a.mp4")}


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("file,titel\na.mp4,x\n", "manifest.csv", "unknown column 'titel'"),
        ("file\n/etc/passwd\n", "manifest.csv", "must be a path below"),
        ("file\n../../x.mp4\n", "manifest.csv", "must be a path below"),
        ("file\na.mp4\na.mp4\n", "manifest.csv", "line 3: 'a.mp4' stands there twice"),
        ("file,visibility\na.mp4,secret\n", "manifest.csv", "is none of public"),
        ("file,title\na.mp4,x,y\n", "manifest.csv", "more values than columns"),
        ('{"file": "a.mp4"', "manifest.jsonl", "line 1: no JSON"),
        ('{"file": 7}', "manifest.jsonl", "file must be a text"),
        ("[1]", "manifest.jsonl", "expected an object"),
    ],
)
def test_a_wrong_row_is_named(text: str, name: str, words: str) -> None:
    with pytest.raises(Rejected, match="line") as caught:
        manifest.parse(text, name)
    assert words in caught.value.detail


@given(st.text(max_size=200), st.sampled_from(["manifest.csv", "manifest.jsonl"]))
def test_any_text_is_parsed_or_rejected(text: str, name: str) -> None:
    try:
        manifest.parse(text, name)
    except Rejected as error:
        assert name in error.detail


def test_a_title_is_made_of_a_files_name() -> None:
    assert manifest.title_of("my_first-video.final.mp4") == "My first video final"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"title": "Goat \x1b[2J"}, "title contains control characters"),
        ({"title": "two\nlines"}, "title contains control characters"),
        ({"title": "\u202egnp.exe"}, "title contains control characters"),
        ({"description": "\x1b]0;PWNED\x07"}, "description contains control characters"),
        ({"tags": ["a\x07"]}, "tag contains control characters"),
        ({"creator": "ana\x00"}, "creator contains control characters"),
        ({"wallet": "\x1b[2J"}, "wallet contains control characters"),
        ({"language": "eng\x00lish"}, "language contains control characters"),
        ({"title": "x" * 201}, "title has 201 characters"),
    ],
)
def test_words_of_a_manifest_command_no_terminal_and_have_a_bound(row: dict[str, Any], said: str) -> None:
    with pytest.raises(Rejected, match=said):
        manifest.parse(json.dumps({"file": "a.mp4"} | row), "manifest.jsonl")


def test_a_description_may_have_lines_and_a_files_name_anything() -> None:
    text = json.dumps({"file": "a.mp4", "title": "x" * 200, "description": "one\r\ntwo\n\tthree"})
    assert manifest.parse(text, "manifest.jsonl")["a.mp4"].description == "one\r\ntwo\n\tthree"
    assert manifest.title_of("goat \x1b[2J" + "x" * 300 + ".mp4") == ("Goat [2J" + "x" * 300)[:200]
