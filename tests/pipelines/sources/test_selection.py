"""Whose row speaks of whose file: written in any way, never of two, and what does not fit is said."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources import manifest, remarks, selection
from pipelines.sources.remarks import Remarks
from pipelines.sources.selection import Manifest


def manifest_of(place: str, text: str) -> Manifest:
    """The manifest of a folder, or of the address of a file of another name than `manifest.csv`."""
    folder, _, name = place.rpartition("/") if manifest.is_manifest(place) else (place, "", "manifest.csv")
    return Manifest(f"{folder}/{name}".lstrip("/"), folder, manifest.parse(text, name))


def choose(paths: list[str], *manifests: tuple[str, str]) -> tuple[dict[str, str], list[tuple[str, int]]]:
    """Titles by path ("" where nothing is said), and the kinds of remarks with their counts."""
    noted = Remarks()
    chosen = selection.select(paths, [manifest_of(*each) for each in manifests], noted).chosen
    titles = {path: said.entry.title if said else "" for path, said in chosen}
    return titles, [(r["kind"], r["count"]) for r in noted.rows()]


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("a.mp4", "./a.mp4"),
        ("sub/a.mp4", "sub\\\\a.mp4".replace("\\\\", "\\")),
        ("sub/a.mp4", "./sub//a.mp4"),
        ("a.mp4", "A.MP4"),
        ("caf\u00e9.mp4", "cafe\u0301.mp4"),
        ("cafe\u0301.mp4", "CAF\u00c9.mp4"),
    ],
)
def test_a_row_fits_its_file_however_it_is_written(path: str, named: str) -> None:
    assert choose([path], ("", f"file,title\n{named},Mine\n")) == ({path: "Mine"}, [])


def test_the_same_path_outweighs_one_that_is_alike() -> None:
    found = choose(["A.mp4", "a.mp4"], ("", "file,title\na.mp4,small\nA.mp4,large\n"))
    assert found == ({"A.mp4": "large", "a.mp4": "small"}, [])


def test_a_row_that_fits_several_files_gives_none_of_them_to_anybody() -> None:
    titles, noted = choose(["A.mp4", "a.mp4", "b.mp4"], ("", "file,title\na.MP4,x\nb.mp4,y\n"))
    assert titles == {"b.mp4": "y"}
    assert noted == [(remarks.ROW_REFUSED, 1), (remarks.LEFT_OUT, 2)]


def test_a_row_without_a_file_and_a_file_without_a_row_are_said() -> None:
    titles, noted = choose(["a.mp4"], ("", "file,title\nb.mp4,Mine\n"))
    assert titles == {"a.mp4": ""}
    assert noted == [(remarks.ROW_WITHOUT_FILE, 1), (remarks.FILE_WITHOUT_ROW, 1)]


@pytest.mark.parametrize("text", ["", "\ufeff", "\n", "file,title\n", "sep=,\nfile,title\n,,\n"])
def test_a_manifest_in_which_no_row_stands_is_said(text: str) -> None:
    titles, noted = choose(["sub/a.mp4", "b.mp4"], ("sub", text))
    assert titles == {"sub/a.mp4": "", "b.mp4": ""}
    assert noted == [(remarks.MANIFEST_EMPTY, 1), (remarks.FILE_WITHOUT_ROW, 1)]


def test_a_video_whose_row_is_refused_goes_to_nobody() -> None:
    titles, noted = choose(["a.mp4", "b.mp4"], ("", "file,visibility,title\n./a.mp4,secret,x\nb.mp4,,y\n"))
    assert titles == {"b.mp4": "y"}
    assert noted == [(remarks.ROW_REFUSED, 1), (remarks.LEFT_OUT, 1)]


def test_two_rows_of_one_file_leave_it_to_the_first() -> None:
    assert choose(["a.mp4"], ("", "file,title\na.mp4,x\n./a.mp4,y\n")) == ({"a.mp4": "x"}, [(remarks.ROW_REFUSED, 1)])


@pytest.mark.parametrize("names", [("manifest.csv", "Manifest.csv"), ("manifest.csv", "manifest.csv")])
def test_two_rows_that_give_a_file_to_two_creators_give_it_to_nobody(names: tuple[str, str]) -> None:
    noted = Remarks()
    first, second = "file,creator\na.mp4,zoe\n", "file,creator\nb.mp4,bob\n./a.mp4,bob\n"
    made = [manifest_of(name, text) for name, text in zip(names, (first, second), strict=True)]
    assert [path for path, _ in selection.select(["a.mp4", "b.mp4"], made, noted).chosen] == ["b.mp4"]
    assert [remarks.line(row) for row in noted.rows()] == [
        f"row refused: {names[1]}, line 3: another row speaks of the same file: {names[0]}, line 2",
        f"left out: a.mp4: two rows give it to different creators: {names[0]}, line 2, and {names[1]}, line 3",
    ]
    titles, _ = choose(["a.mp4"], ("", "file,title,creator\na.mp4,x,\na.mp4,y,zoe\n"))
    assert titles == {}


def test_manifests_of_one_folder_count_alike() -> None:
    both = [("manifest.csv", "file,title\na.mp4,x\n"), ("manifest.jsonl", '{"file": "a.mp4", "title": "y"}')]
    assert choose(["a.mp4"], *both) == ({"a.mp4": "x"}, [(remarks.ROW_REFUSED, 1)])
    assert choose(["a.mp4"], both[0], both[0]) == ({"a.mp4": "x"}, [])  # one says what the other says
    secret = ("manifest.jsonl", '{"file": "a.mp4", "visibility": "secret"}')
    for order in ((both[0], secret), (secret, both[0])):
        assert choose(["a.mp4"], *order) == ({}, [(remarks.ROW_REFUSED, 1), (remarks.LEFT_OUT, 1)])
    assert choose(["sub/a.mp4"], secret, ("sub", "file,title\na.mp4,deep\n"))[0] == {"sub/a.mp4": "deep"}


@pytest.mark.parametrize("line", ['{"file": "a.mp4", "creator": "zoe"', "[1]", '{"creator": "zoe"}'])
def test_files_without_a_row_wait_where_a_line_could_not_be_read(line: str) -> None:
    text = f'{line}\n{{"file": "sub/b.mp4", "title": "b"}}'
    noted, paths = Remarks(), ["sub/a.mp4", "sub/b.mp4"]
    found = selection.select(paths, [manifest_of("manifest.jsonl", text)], noted)
    assert ([path for path, _ in found.chosen], found.kept_out) == (["sub/b.mp4"], ["sub/a.mp4"])
    reason = "line 1 of manifest.jsonl could not be read; files without a row wait until it is mended"
    assert [row["reason"] for row in noted.rows() if row["kind"] == remarks.LEFT_OUT] == [reason]
    assert selection.refused(paths, [manifest_of("manifest.jsonl", text)]) == {"sub/a.mp4": reason}
    assert choose(["c.mp4"], ("sub/manifest.jsonl", text))[0] == {"c.mp4": ""}


def test_what_is_nearly_called_a_manifest_is_told_so() -> None:
    noted = Remarks()
    selection.select(["manifest (1).csv", "sub/Manifest.xlsx"], [], noted)
    assert [row["reason"] for row in noted.rows()] == ["a manifest is called manifest.csv or manifest.jsonl"]


def test_the_nearest_manifest_counts_and_none_speaks_of_files_above_it() -> None:
    top, deep = "file,title\nsub/a.mp4,top\nb.mp4,b\n", "file,title\na.mp4,deep\n..\\b.mp4,stolen\n"
    titles, noted = choose(["b.mp4", "sub/a.mp4"], ("sub", deep), ("", top))
    assert titles == {"b.mp4": "b", "sub/a.mp4": "deep"}
    assert noted == [(remarks.ROW_WITHOUT_FILE, 1)]
    refused, noted = choose(["b.mp4", "sub/a.mp4"], ("sub", "file,visibility\na.mp4,secret\n"), ("", top))
    assert refused == {"b.mp4": "b"}


def test_what_is_no_video_is_listed_by_its_ending() -> None:
    titles, noted = choose(["a.mp4", "a.wmv", "b.wmv", "notes"])
    assert titles == {"a.mp4": ""}
    assert noted == [(remarks.LEFT_OUT, 2), (remarks.LEFT_OUT, 1)]


@given(
    st.lists(st.text("aA./\\\u00e9e\u0301", min_size=1, max_size=6), unique=True), st.text("aA./\\e\u0301", max_size=8)
)
def test_no_two_files_have_one_row(paths: list[str], named: str) -> None:
    noted = Remarks()
    rows = manifest.parse("file,title\n" + named + ",Mine\n", "manifest.csv")
    chosen = selection.select(paths, [Manifest("manifest.csv", "", rows)], noted).chosen
    assert sum(1 for _, said in chosen if said) <= 1
    for path, said in chosen:
        if said:
            assert (
                selection.written(path).casefold() == unicodedata.normalize("NFC", selection.written(named)).casefold()
            )


def test_remarks_are_bounded() -> None:
    noted = Remarks()
    for number in range(1000):
        noted.add(remarks.LEFT_OUT, f"reason {number}", "\x1b[2J" + "x" * 5000)
        noted.add(remarks.LEFT_OUT, "one", str(number))
    rows = noted.rows()
    assert sum(row["count"] for row in rows) == 2000
    assert len(rows) <= remarks.REASONS_MAX + 1
    assert max(len(name) for row in rows for name in row["names"]) <= remarks.NAME_LENGTH_MAX
    assert "\x1b" not in remarks.line(rows[0])
    again = Remarks()
    again.extend(rows)
    assert again.rows() == rows


def test_what_is_not_to_be_named_is_counted_alone() -> None:
    noted, again = Remarks(), Remarks()
    for _ in range(3):
        noted.add(remarks.LEFT_OUT, "somebody else's")
    again.extend(noted.rows())
    for each in (noted, again):
        assert each.summary() == "left out (3): somebody else's"
