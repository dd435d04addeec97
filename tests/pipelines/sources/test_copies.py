"""Of copies in several folders the one that a row speaks of counts, and nobody gets what two rows give to two creators."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import Rejected
from pipelines.sources import local_files
from pipelines.sources.manifest import Entry
from pipelines.sources.remarks import Remarks


def find(folder: Path) -> tuple[list[Entry], dict[str, list[str]]]:
    """What is said of the videos of a folder, and the names of remarks by their reasons."""
    noted = Remarks()
    found = local_files.find(folder, None, noted)
    return [entry for _, entry in found], {row["reason"]: row["names"] for row in noted.rows()}


def copied(top: Path, *folders: str) -> Path:
    for folder in folders:
        (top / folder).mkdir()
        (top / folder / "a.mp4").write_bytes(b"the same")
    return top


def test_of_copies_the_one_that_a_row_speaks_of_counts(tmp_path: Path) -> None:
    folder = copied(tmp_path, "backup", "clips", "old")
    (folder / "manifest.csv").write_text("file,creator,title\nclips/a.mp4,zoe,Mine\n", encoding="utf-8")
    found, noted = find(folder)
    assert [(entry.creator, entry.title) for entry in found] == [("zoe", "Mine")]
    assert noted["the same file is there twice; the one that a row speaks of counts"] == [
        "backup/a.mp4 is clips/a.mp4",
        "old/a.mp4 is clips/a.mp4",
    ]


def test_two_rows_about_copies_are_said_and_two_creators_get_neither(tmp_path: Path) -> None:
    folder = copied(tmp_path, "backup", "clips")
    (folder / "other.mp4").write_bytes(b"other")
    rows = "file,creator,title\nclips/a.mp4,zoe,Mine\nbackup/a.mp4,{},Yours\n"
    (folder / "manifest.csv").write_text(rows.format("bob"), encoding="utf-8")
    found, noted = find(folder)
    assert [entry.file for entry in found] == ["other.mp4"]
    reason = "the same file is there twice, and two rows give it to different creators"
    assert noted[reason] == ["backup/a.mp4 (manifest.csv, line 3)", "clips/a.mp4 (manifest.csv, line 2)"]
    (folder / "manifest.csv").write_text(rows.format("zoe"), encoding="utf-8")
    found, noted = find(folder)
    assert [entry.title for entry in found] == ["Yours", ""]
    assert noted["another row speaks of the same file: manifest.csv, line 3"] == ["manifest.csv, line 2"]


def test_a_copy_of_a_file_whose_row_is_refused_is_left_out_too(tmp_path: Path) -> None:
    folder = copied(tmp_path, "backup", "clips")
    (folder / "other.mp4").write_bytes(b"other")
    (folder / "manifest.csv").write_text("file,creator,visibility\nclips/a.mp4,zoe,secret\n", encoding="utf-8")
    found, noted = find(folder)
    assert [entry.file for entry in found] == ["other.mp4"]
    assert noted["the same file is there twice, and the other one is left out"] == ["backup/a.mp4 is clips/a.mp4"]


def test_where_every_row_is_refused_all_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"a")
    (tmp_path / "b.mp4").write_bytes(b"b")
    (tmp_path / "manifest.csv").write_text("file,visibility\na.mp4,secret\nb.mp4,hidden\n", encoding="utf-8")
    with pytest.raises(Rejected, match=r"line 2: visibility 'secret'.*line 3: visibility 'hidden'") as caught:
        find(tmp_path)
    assert caught.value.hint == "mend these rows"
