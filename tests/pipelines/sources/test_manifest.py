"""What creators say about their videos is input from outside: it is checked, and a wrong row is named."""

from __future__ import annotations

import json
from typing import Any

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Rejected
from pipelines.sources import manifest
from pipelines.sources.manifest import Entry, ManifestRow, Rows

WALLET = base58.b58encode(bytes(range(32))).decode()


def test_csv_and_json_lines_say_the_same() -> None:
    table = "file,title,tags,creator,wallet\n" + f"a/one.mp4,One,red; blue ;,ana,{WALLET}\ntwo.mp4,,,,\n"
    lines = json.dumps(
        {"file": "a/one.mp4", "title": "One", "tags": ["red", "blue"], "creator": "ana", "wallet": WALLET}
    )
    expected = Entry("a/one.mp4", title="One", tags=("red", "blue"), creator="ana", wallet=WALLET)
    assert manifest.parse(table, "manifest.csv") == Rows((ManifestRow(2, expected), ManifestRow(3, Entry("two.mp4"))))
    assert manifest.parse(lines, "manifest.jsonl") == Rows((ManifestRow(1, expected),))


def test_a_byte_order_mark_does_no_harm() -> None:
    assert manifest.parse("\ufefffile\na.mp4\n", "manifest.csv") == Rows((ManifestRow(2, Entry("a.mp4")),))


@pytest.mark.parametrize(
    ("row", "name", "words"),
    [
        ("/etc/passwd,,", "manifest.csv", "must be a path below"),
        ("../../x.mp4,,", "manifest.csv", "must be a path below"),
        ("a.mp4,secret,", "manifest.csv", "is none of public"),
        ("a.mp4,,y,z", "manifest.csv", "more values than columns"),
        (",public,x", "manifest.csv", "it names no file"),
        (f"a.mp4,,{'long' * 1000}", "manifest.csv", "a tag is longer than"),
        ('{"file": "a.mp4"', "manifest.jsonl", "no JSON"),
        ('{"file": 7}', "manifest.jsonl", "file must be a text"),
        ("[1]", "manifest.jsonl", "expected an object"),
        ('{"file": "a.mp4", "titel": "x"}', "manifest.jsonl", "unknown column 'titel'"),
        ('{"file": "a.mp4", "title": "bad \\ud83d title"}', "manifest.jsonl", "half a character"),
        ('{"file": "a.mp4", "language": "x\\u0000y"}', "manifest.jsonl", "zero byte"),
        ('{"file": "a.mp4", "wallet": "x\\u0000y"}', "manifest.jsonl", "zero byte"),
        ('{"file": "a.mp4", "tags": ["\\udce9"]}', "manifest.jsonl", "half a character"),
        ('{"file": "a.mp4", "tags": {"a": 1}}', "manifest.jsonl", "tags must be texts"),
        ("[" * 100_000, "manifest.jsonl", "no JSON"),
    ],
)
def test_a_wrong_row_is_named_by_its_line_and_harms_no_other(row: str, name: str, words: str) -> None:
    csv = name.endswith(".csv")
    good, last = ("good.mp4,,", "last.mp4,,") if csv else ('{"file": "good.mp4"}', '{"file": "last.mp4"}')
    head = ["file,visibility,tags"] if csv else []
    found = manifest.parse("\n".join([*head, good, row, last]) + "\n", name)
    assert [each.entry.file for each in found.good] == ["good.mp4", "last.mp4"]
    [refused] = found.refused
    assert words in refused.reason
    assert refused.line == len(head) + 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,titel\na.mp4,x\n", "line 1: unknown column 'titel'"),
        ("file;title\na.mp4;x\n", "separated by commas"),
        ("file\ttitle\na.mp4\tx\n", "separated by commas"),
        ("title\nx\n", "no column 'file'"),
        ('file\n"a.mp4\n', "line 2: unexpected end"),
        ('file,title\na.mp4,x\nb.mp4,"never closed\nc.mp4,y\n', "line 3: unexpected end of data; look for a quote"),
        ('sep=,\nfile,title\nb.mp4,"q" x\nc.mp4,y\n', "line 3: "),
        ('file,title\ra.mp4,"unclosed\r', "line 2: "),
        ("file,title,title\na.mp4,x,y\n", "line 1: column 'title' stands twice"),
        ("sep=;\nfile;title\na.mp4;x\n", "separated by commas"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused_whole(text: str, words: str) -> None:
    with pytest.raises(Rejected, match="line") as caught:
        manifest.parse(text, "manifest.csv")
    assert words in str(caught.value)


def test_an_empty_row_and_a_line_separator_in_a_text_do_no_harm() -> None:
    assert manifest.parse("file,title,creator\na.mp4,One,ana\n,,\n", "manifest.csv").refused == ()
    found = manifest.parse('{"file":"a.mp4","description":"line\u2028sep"}\r\n', "manifest.jsonl")
    assert [row.entry.description for row in found.good] == ["line\u2028sep"]


@pytest.mark.parametrize("separator", ["\x85", "\u2028", "\u2029"])
def test_a_line_separator_that_was_pasted_unseen_is_a_space_of_a_title_and_a_tag(separator: str) -> None:
    row = json.dumps({"file": "a.mp4", "title": f"two{separator}words", "tags": [f"a{separator}b"]}, ensure_ascii=False)
    entry = manifest.parse(row, "manifest.jsonl").good[0].entry
    assert (entry.title, entry.tags) == ("two words", ("a b",))


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
        ({"title": "Goat \x1b[2J"}, "title contains the control character"),
        ({"title": "two\nlines"}, "title contains the control character"),
        ({"title": "\u202egnp.exe"}, "title contains the control character"),
        ({"description": "\x1b]0;PWNED\x07"}, "description contains the control character"),
        ({"tags": ["a\x07"]}, "tag contains the control character"),
        ({"creator": "ana\x00"}, "creator contains the control character"),
        ({"wallet": "\x1b[2J"}, "wallet contains the control character"),
        ({"language": "eng\x00lish"}, "language contains the control character"),
        ({"title": "x" * 201}, "title has 201 characters"),
    ],
)
def test_words_of_a_manifest_command_no_terminal_and_have_a_bound(row: dict[str, Any], said: str) -> None:
    found = manifest.parse(json.dumps({"file": "a.mp4"} | row), "manifest.jsonl")
    assert not found.good
    assert said in found.refused[0].reason or "zero byte" in found.refused[0].reason


def test_a_description_may_have_lines_and_a_files_name_anything() -> None:
    text = json.dumps({"file": "a.mp4", "title": "x" * 200, "description": "one\r\ntwo\n\tthree"})
    [row] = manifest.parse(text, "manifest.jsonl").good
    assert row.entry.description == "one\r\ntwo\n\tthree"
    assert manifest.title_of("goat \x1b[2J" + "x" * 300 + ".mp4") == ("Goat [2J" + "x" * 300)[:200]


def test_a_spreadsheets_line_about_separators_is_no_header() -> None:
    found = manifest.parse("\ufeffsep=,\r\nfile,title\r\na.mp4,One\r\n", "manifest.csv")
    assert [(row.line, row.entry.title) for row in found.good] == [(3, "One")]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("file,title\na.mp4,x\nb.mp4,caf\u00e9\n".encode("cp1252"), 3),
        ("file\n".encode("utf-16"), 1),
        ("file\n".encode("utf-16-le"), 1),
    ],
)
def test_a_manifest_in_another_encoding_is_refused_with_the_line_and_the_way_out(data: bytes, line: int) -> None:
    with pytest.raises(Rejected, match=f"line {line}: it is not UTF-8") as caught:
        manifest.text_of(data, "manifest.csv")
    assert "CSV UTF-8" in caught.value.hint


@pytest.mark.parametrize("wallet", ["not-a-wallet", "1" * 32, "0" * 40, base58.b58encode(bytes(31)).decode(), "0xAbC"])
def test_a_wallet_that_is_no_address_is_refused_with_its_line(wallet: str) -> None:
    found = manifest.parse(f"file,creator,wallet\na.mp4,ana,{wallet}\nb.mp4,ana,{WALLET}\n", "manifest.csv")
    assert [row.entry.file for row in found.good] == ["b.mp4"]
    assert (found.refused[0].line, found.refused[0].reason.partition(" is no address")[0]) == (2, f"wallet {wallet!r}")


def test_a_language_is_kept_by_its_name_and_an_unknown_one_is_refused() -> None:
    rows = manifest.parse("file,language\na.mp4,en\nb.mp4,German\nc.mp4,ja\nd.mp4,\ne.mp4,englsh\n", "manifest.csv")
    assert [row.entry.language for row in rows.good] == ["english", "german", "simple", ""]
    [refused] = rows.refused
    assert (refused.file, "'englsh' is unknown" in refused.reason) == ("e.mp4", True)


def test_a_visibility_is_taken_in_any_case() -> None:
    assert manifest.parse("file,visibility\na.mp4,Unlisted\n", "manifest.csv").good[0].entry.visibility == "unlisted"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_utf_16_is_named(encoding: str) -> None:
    with pytest.raises(Rejected, match="not UTF-8 but UTF-16"):
        manifest.text_of("file\na.mp4\n".encode(encoding), "manifest.csv")


def test_columns_are_known_as_spreadsheets_write_them() -> None:
    rows = manifest.parse("File, TITLE ,,\na.mp4,The first,,\nb.mp4,The second\nc.mp4,The third,,x,\n", "manifest.csv")
    assert [(row.entry.file, row.entry.title) for row in rows.good] == [
        ("a.mp4", "The first"), ("b.mp4", "The second")
    ]  # fmt: skip
    assert [(row.line, row.reason, row.file) for row in rows.refused] == [(4, "more values than columns", "c.mp4")]


def test_a_row_of_several_lines_is_named_by_its_first() -> None:
    rows = manifest.parse(
        'file,title,visibility\na.mp4,"Two\nlines",\n\nb.mp4,"On\nthree\nlines",secret\n', "manifest.csv"
    )
    assert [(row.line, row.file) for row in rows.refused] == [(2, "a.mp4"), (5, "b.mp4")]
