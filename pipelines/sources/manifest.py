"""Manifests: a creator's `manifest.csv` or `manifest.jsonl` beside the videos of a folder.

Columns: file, title, description, tags (separated by `;` in CSV), creator, wallet, visibility, language. Only `file` is
required. A manifest is untrusted input: every row is checked, and an invalid row is reported with its line while the
others are used. Which file a row is for is decided in `selection.py`.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import Any

import base58

from cluster import characters
from cluster.cli.terminal import printable
from cluster.errors import Rejected
from pipelines.sources import handles, languages
from pipelines.sources.handles import Known, no_creator

SEPARATOR = "sep=,"
NAMES = ("manifest.csv", "manifest.jsonl")
INITIALS = "mM"  # first letters of NAMES, in either case
# Endings of the formats in `containers.DEMUXERS`, without those that other kinds of files share (.ps, .mod, .dat).
VIDEO_ENDINGS = (
    ".mp4", ".m4v", ".f4v", ".mov", ".qt", ".3gp", ".3gpp", ".3g2", ".mj2", ".mkv", ".webm",
    ".ts", ".m2t", ".m2ts", ".mts", ".mpg", ".mpeg", ".vob", ".avi", ".divx",
)  # fmt: skip
ROWS_MAX = 1_000_000
BYTES_MAX = 256 * 1024 * 1024
TEXT_MAX = 10_000
TITLE_CHARS_MAX = 200
TAGS_MAX = 100
TAG_MAX = 200  # characters; an index entry in PostgreSQL holds 2,712 bytes
SHORT_MAX = {"language": 100, "wallet": 200, "file": 4096}  # characters
VISIBILITIES = ("public", "unlisted", "private")
DEFAULT_CREATOR = handles.UNKNOWN
ADDRESS_BYTES = 32  # of a wallet, as Solana has them


@dataclass(frozen=True)
class Entry:
    """A manifest's row of one video; an empty field states nothing."""

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
        if max(len(self.title), len(self.description)) > TEXT_MAX:
            raise ValueError(f"a text is longer than {TEXT_MAX} characters")
        if self.wallet and not is_address(self.wallet):
            raise ValueError(f"wallet {self.wallet!r} is no address: 32 bytes in base58 are expected")


def is_address(wallet: str) -> bool:
    """Whether a text has the form of a wallet address; whether it may be paid is the ledger's decision."""
    try:
        raw = base58.b58decode(wallet)
    except ValueError:
        return False
    return len(raw) == ADDRESS_BYTES and any(raw)


def _check_words(entry: Entry) -> None:
    """Check the texts of a row: valid characters, line breaks only in the description, a title that is not too long.

    Raises:
        ValueError: a text is wrong; the message says which and why.
    """
    lines = (
        ("file", entry.file),
        ("title", entry.title),
        ("creator", entry.creator),
        ("wallet", entry.wallet),
        ("language", entry.language),
        *(("tag", t) for t in entry.tags),
    )
    for name, text in lines:
        if fault := characters.fault(text):
            raise ValueError(f"the {name} {fault}")
    if fault := characters.fault(entry.description, lines=True):
        raise ValueError(f"the description {fault}")
    if len(entry.title) > TITLE_CHARS_MAX:
        raise ValueError(f"the title has {len(entry.title)} characters, 1 to {TITLE_CHARS_MAX} are allowed")


COLUMNS = frozenset(field.name for field in fields(Entry))


@dataclass(frozen=True)
class ManifestRow:
    """A valid row, and the line it begins on."""

    line: int
    entry: Entry


@dataclass(frozen=True)
class RefusedRow:
    """An invalid row: its line, the reason, and the file and the creator that it names, if any."""

    line: int
    reason: str
    file: str = ""
    creator: str = ""


@dataclass(frozen=True)
class Rows:
    """The rows of a manifest."""

    good: tuple[ManifestRow, ...]
    refused: tuple[RefusedRow, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the manifest has no rows at all."""
        return not self.good and not self.refused

    def unread(self) -> int | None:
        """Return the line of the first invalid row that names no file, or None."""
        return next((row.line for row in self.refused if not row.file), None)


def parse(text: str, name: str, is_known: Known = no_creator) -> Rows:
    """Parse a manifest; an invalid row is returned with its reason and does not affect the others.

    `name` is the manifest's file name or URI. Handles for which `is_known` is true are always valid.

    Raises:
        Rejected: the text is not CSV, a column is unknown or there are more than `ROWS_MAX` rows.
    """
    numbered = _json_rows(text) if name.lower().endswith(".jsonl") else _csv_rows(text, name)
    good, refused = list[ManifestRow](), list[RefusedRow]()
    for count, (line, row) in enumerate(numbered):
        if count >= ROWS_MAX:
            raise Rejected(f"manifest {name} has more than {ROWS_MAX} rows", hint="split the folder")
        try:
            if isinstance(row, str):
                raise ValueError(row)
            good.append(ManifestRow(line, require_creator(_entry(row, is_known), is_known)))
        except (ValueError, TypeError) as error:
            refused.append(RefusedRow(line, str(error), _file_of(row), _creator_of(row, is_known)))
    return Rows(tuple(good), tuple(refused))


def text_of(data: bytes, name: str) -> str:
    """Decode a manifest.

    Raises:
        Rejected: it is not UTF-8.
    """
    hint = "save it as UTF-8 (in a spreadsheet: CSV UTF-8)"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Rejected(f"manifest {name}, line 1: it is not UTF-8 but UTF-16", code="bad-manifest", hint=hint)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Rejected(f"manifest {name}, line {line}: it is not UTF-8", code="bad-manifest", hint=hint) from error
    if "\0" in text.partition("\n")[0]:  # UTF-16 without a byte order mark
        raise Rejected(f"manifest {name}, line 1: it is not UTF-8 but UTF-16", code="bad-manifest", hint=hint)
    return text


def _file_of(row: Mapping[str, Any] | str) -> str:
    """Return the file that an invalid row names, or ""; without its row the file must not be ingested."""
    file = row.get("file") if isinstance(row, Mapping) else None
    return file.strip() if isinstance(file, str) else ""


def _creator_of(row: Mapping[str, Any] | str, is_known: Known) -> str:
    """Return the creator that an invalid row names, or ""; only a job that may speak for them is told the reason."""
    creator = row.get("creator") if isinstance(row, Mapping) else None
    return handles.resolve(str(creator), is_known).strip() if creator else ""


def _csv_rows(text: str, name: str) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """Yield the rows of a CSV manifest, each with the number of the line on which it begins."""
    text = text.removeprefix("\ufeff")
    skipped = 1 if text.lower().startswith(SEPARATOR) else 0  # lines: `sep=,` is for spreadsheets
    reader = csv.reader(io.StringIO(text.partition("\n")[2] if skipped else text, newline=""), strict=True)
    line = skipped + 1
    try:
        columns = [column.strip().lower() for column in next(reader, ())]
        _require_known([column for column in columns if column], f"manifest {name}, line {line}")
        line = skipped + reader.line_num + 1
        for values in reader:
            if any(values):  # a spreadsheet may end with empty rows
                yield line, _row(columns, values)
            line = skipped + reader.line_num + 1
    except csv.Error as error:
        hint = "look for a quote that is not closed there"
        raise Rejected(f"manifest {name}, line {line}: {error}", hint=hint) from error


def _row(columns: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    """Map columns to values. If a column without a name has a value, the key "" says what is wrong with the row."""
    row = {column: value for column, value in zip(columns, values, strict=False) if column}
    nameless = [value for column, value in itertools.zip_longest(columns, values, fillvalue="") if not column]
    return {**row, "": "more values than columns"} if any(nameless) else row


def _require_known(columns: Sequence[str], where: str) -> None:
    """Refuse unknown, repeated or missing columns."""
    unknown = [column for column in columns if column not in COLUMNS]
    if twice := [column for column in COLUMNS if columns.count(column) > 1]:
        raise Rejected(f"{where}: column {twice[0]!r} stands twice")
    if not unknown and columns and "file" not in columns:
        raise Rejected(f"{where}: there is no column 'file'")
    if not unknown:
        return
    hint = f"the first line names the columns; known: {', '.join(sorted(COLUMNS))}"
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t"):
        hint = f"columns are separated by commas; {hint}"
    raise Rejected(f"{where}: unknown column {unknown[0]!r}", hint=hint)


def _json_rows(text: str) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """Yield the rows of a JSON lines manifest, each with its line number; in place of an invalid row, the reason."""
    # JSON strings may hold every other kind of line break.
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, f"no JSON: {error}"
            continue
        yield number, row if isinstance(row, dict) else "expected an object"


def _entry(row: Mapping[str, Any], is_known: Known) -> Entry:
    """Check and normalise a row.

    Raises:
        ValueError, TypeError: the row is invalid; the message says why.
    """
    if "" in row:
        raise ValueError(str(row[""]))
    unknown = [str(key) for key in row if key not in COLUMNS]
    if unknown:
        raise ValueError(f"unknown column {unknown[0]!r}; known: {', '.join(sorted(COLUMNS))}")
    values = {key: value for key, value in row.items() if value not in (None, "")}
    tags = values.pop("tags", ())
    if isinstance(tags, str):
        tags = tags.split(";")
    if not isinstance(tags, Sequence):
        raise TypeError("tags must be texts")
    for key, value in values.items():
        if not isinstance(value, str):
            raise TypeError(f"{key} must be a text")
    if "file" not in values:
        raise ValueError("it names no file")
    texts = {key: str(value).strip() for key, value in values.items()}
    texts["visibility"] = texts.get("visibility", "").lower()
    texts["title"] = _unbroken(texts.get("title", ""))
    texts["creator"] = handles.resolve(str(values.get("creator", "")), is_known)
    words = tuple(tag for tag in (_unbroken(str(tag)) for tag in tags) if tag)
    _require_storable(texts, words)
    for key in ("title", "language"):
        texts[key] = _line(key, texts.get(key, ""))
    texts["language"] = languages.named(texts["language"])
    texts["description"] = characters.cleaned(texts.get("description", ""))
    return Entry(**texts, tags=tuple(_line("tag", tag) for tag in words))


def _unbroken(text: str) -> str:
    """Replace line separators that people paste unnoticed (U+0085, U+2028, U+2029) by spaces."""
    return re.sub("[\x85\u2028\u2029]", " ", text).strip()


def _line(name: str, text: str) -> str:
    """Return a one-line text in the form that is stored.

    Raises:
        ValueError: the text is invalid; the message says why.
    """
    try:
        return characters.line(text)
    except ValueError as error:
        raise ValueError(f"the {name} {error}") from error


def require_creator(entry: Entry, is_known: Known) -> Entry:
    """Return the entry if its creator's handle is valid or belongs to an existing creator.

    Raises:
        ValueError: the handle is invalid; the message says why.
    """
    if (fault := handles.fault(entry.creator)) and not is_known(entry.creator):
        raise ValueError(fault)
    return entry


def _require_storable(texts: Mapping[str, str], tags: Sequence[str]) -> None:
    """Refuse texts that PostgreSQL cannot store: lone surrogates, zero bytes, words too long for an index."""
    for key, text in (*texts.items(), *(("tags", tag) for tag in tags)):
        if "\0" in text:
            raise ValueError(f"{key}: a text contains a zero byte")
        if not is_text(text):
            raise ValueError(f"{key}: half a character stands in it (a lone surrogate)")
    for key, chars_max in SHORT_MAX.items():
        if len(texts.get(key, "")) > chars_max:
            raise ValueError(f"{key} is longer than {chars_max} characters")
    if any(len(tag) > TAG_MAX for tag in tags):
        raise ValueError(f"a tag is longer than {TAG_MAX} characters")


def is_text(text: str) -> bool:
    """Whether a text can be encoded as UTF-8, which lone surrogates (undecodable file names, half emojis) cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_manifest(path: str) -> bool:
    """Whether the last part of a path is a manifest's name, in any case."""
    return PurePosixPath(path).name.lower() in NAMES


def is_video(key: str) -> bool:
    """Whether a key ends like a video; what the file really is turns out when it is opened."""
    return key.lower().endswith(VIDEO_ENDINGS)


def title_of(file: str) -> str:
    """Return a readable title made of a file's name."""
    stem = characters.cleaned(printable(re.sub(r"[_\-.]+", " ", PurePosixPath(file).stem)))
    words = " ".join(stem.split())[:TITLE_CHARS_MAX]
    return words[:1].upper() + words[1:] if characters.shows(words) else printable(file)[:TITLE_CHARS_MAX]
