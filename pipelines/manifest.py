"""What a creator says about the videos of a folder: `manifest.csv` or `manifest.jsonl` beside them.

Columns: file, title, description, tags (`;` between them in CSV), creator, wallet, visibility, language. Only `file` is
needed. A manifest is input from outside: every row is checked, and a wrong one is named by its line.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import Any

from cluster.errors import Rejected
from cluster.terminal import COMMANDING, printable

NAMES = ("manifest.csv", "manifest.jsonl")
VIDEO_ENDINGS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".ts", ".m2ts", ".mts", ".avi", ".mpg", ".mpeg", ".3gp")
ROWS_MAX = 1_000_000
TEXT_MAX = 10_000
TITLE_CHARS_MAX = 200
TAGS_MAX = 100
VISIBILITIES = ("public", "unlisted", "private")
DEFAULT_CREATOR = "unknown"


@dataclass(frozen=True)
class Entry:
    """One video's row. Empty means that nothing is said."""

    file: str
    title: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    creator: str = ""
    wallet: str = ""
    visibility: str = ""
    language: str = ""

    def __post_init__(self) -> None:
        if not self.file or self.file.startswith("/") or ".." in PurePosixPath(self.file).parts:
            raise ValueError(f"file {self.file!r} must be a path below the manifest")
        if self.visibility and self.visibility not in VISIBILITIES:
            raise ValueError(f"visibility {self.visibility!r} is none of {', '.join(VISIBILITIES)}")
        if len(self.tags) > TAGS_MAX:
            raise ValueError(f"more than {TAGS_MAX} tags")
        _check_words(self)
        if max(len(self.title), len(self.description), len(self.creator) * 50) > TEXT_MAX:
            raise ValueError(f"a text is longer than {TEXT_MAX} characters (a creator's handle: {TEXT_MAX // 50})")


def _check_words(entry: Entry) -> None:
    """Check what is said of a video: no control characters, line breaks in a description alone, no overlong title."""
    lines = (
        ("file", entry.file),
        ("title", entry.title),
        ("creator", entry.creator),
        ("wallet", entry.wallet),
        ("language", entry.language),
        *(("tag", t) for t in entry.tags),
    )
    for name, text in lines:
        if COMMANDING.search(text) or len(text.splitlines()) > 1 or "\t" in text:
            raise ValueError(f"the {name} contains control characters")
    if COMMANDING.search(entry.description.replace("\r", "")):
        raise ValueError("the description contains control characters")
    if len(entry.title) > TITLE_CHARS_MAX:
        raise ValueError(f"the title has {len(entry.title)} characters, 1 to {TITLE_CHARS_MAX} are allowed")


def parse(text: str, name: str) -> dict[str, Entry]:
    """The entries of a manifest by file.

    Raises:
        Rejected: it is no such file, or a row is wrong; the line is named.
    """
    rows = _json_rows(text, name) if name.endswith(".jsonl") else _csv_rows(text, name)
    entries: dict[str, Entry] = {}
    for line, row in rows:
        if len(entries) >= ROWS_MAX:
            raise Rejected(f"manifest {name} has more than {ROWS_MAX} rows", hint="split the folder")
        try:
            entry = _entry(row)
        except (ValueError, TypeError) as error:
            raise Rejected(f"manifest {name}, line {line}: {error}") from error
        if entry.file in entries:
            raise Rejected(f"manifest {name}, line {line}: {entry.file!r} stands there twice")
        entries[entry.file] = entry
    return entries


def _csv_rows(text: str, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    try:
        for row in reader:
            if None in row:
                raise Rejected(f"manifest {name}, line {reader.line_num}: more values than columns")
            yield reader.line_num, row
    except csv.Error as error:
        raise Rejected(f"manifest {name}, line {reader.line_num}: {error}") from error


def _json_rows(text: str, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise Rejected(f"manifest {name}, line {number}: no JSON: {error}") from error
        if not isinstance(row, dict):
            raise Rejected(f"manifest {name}, line {number}: expected an object")
        yield number, row


def _entry(row: Mapping[str, Any]) -> Entry:
    known = {field.name for field in fields(Entry)}
    unknown = [str(key) for key in row if key not in known]
    if unknown:
        raise ValueError(f"unknown column {unknown[0]!r}; known: {', '.join(sorted(known))}")
    values = {key: value for key, value in row.items() if value not in (None, "")}
    tags = values.pop("tags", ())
    if isinstance(tags, str):
        tags = tags.split(";")
    for key, value in values.items():
        if not isinstance(value, str):
            raise TypeError(f"{key} must be a text")
    texts = {key: str(value).strip() for key, value in values.items()}
    return Entry(**texts, tags=tuple(tag for tag in (str(tag).strip() for tag in tags) if tag))


def is_video(key: str) -> bool:
    """Whether an object looks like a video by its name; what it is will be seen when it is opened."""
    return key.lower().endswith(VIDEO_ENDINGS)


def title_of(file: str) -> str:
    """A readable title from a file's name."""
    words = " ".join(printable(re.sub(r"[_\-.]+", " ", PurePosixPath(file).stem)).split())[:TITLE_CHARS_MAX]
    return words[:1].upper() + words[1:] if words else printable(file)[:TITLE_CHARS_MAX]
