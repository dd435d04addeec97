"""What a creator says about the videos of a folder: `manifest.csv` or `manifest.jsonl` beside them.

Columns: file, title, description, tags (`;` between them in CSV), creator, wallet, visibility, language. Only `file` is
needed. A manifest is input from outside: every row is checked, and a wrong one is named by its line while the others are
taken. Which file a row speaks of is `selection`'s to find.
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
from cluster.errors import Rejected
from cluster.terminal import printable
from pipelines import handles, languages
from pipelines.handles import Known, nobody

SEPARATOR = "sep=,"
NAMES = ("manifest.csv", "manifest.jsonl")
INITIALS = "mM"  # of these names, in any case
# Of what `containers.DEMUXERS` read; of those that other files have too (.ps, .mod, .dat) none.
VIDEO_ENDINGS = (
    ".mp4", ".m4v", ".f4v", ".mov", ".qt", ".3gp", ".3gpp", ".3g2", ".mj2", ".mkv", ".webm",
    ".ts", ".m2t", ".m2ts", ".mts", ".mpg", ".mpeg", ".vob", ".avi", ".divx",
)  # fmt: skip
ROWS_MAX = 1_000_000
BYTES_MAX = 256 * 1024 * 1024
TEXT_MAX = 10_000
TITLE_CHARS_MAX = 200
TAGS_MAX = 100
TAG_MAX = 200  # characters; an index of PostgreSQL takes 2,712 bytes
SHORT_MAX = {"language": 100, "wallet": 200, "file": 4096}  # characters
VISIBILITIES = ("public", "unlisted", "private")
DEFAULT_CREATOR = handles.UNKNOWN
ADDRESS_BYTES = 32  # of a wallet


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
        if max(len(self.title), len(self.description)) > TEXT_MAX:
            raise ValueError(f"a text is longer than {TEXT_MAX} characters")
        if self.wallet and not is_address(self.wallet):
            raise ValueError(f"wallet {self.wallet!r} is no address: 32 bytes in base58 are expected")


def is_address(wallet: str) -> bool:
    """Whether a text can be a wallet at all; that money may go there is the ledger's to say."""
    try:
        raw = base58.b58decode(wallet)
    except ValueError:
        return False
    return len(raw) == ADDRESS_BYTES and any(raw)


def _check_words(entry: Entry) -> None:
    """Check what is said of a video: characters that are text, line breaks in a description alone, no overlong title."""
    lines = (
        ("file", entry.file),
        ("title", entry.title),
        ("creator", entry.creator),
        ("wallet", entry.wallet),
        ("language", entry.language),
        *(("tag", t) for t in entry.tags),
    )
    for name, text in lines:
        if said := characters.fault(text):
            raise ValueError(f"the {name} {said}")
    if said := characters.fault(entry.description, lines=True):
        raise ValueError(f"the description {said}")
    if len(entry.title) > TITLE_CHARS_MAX:
        raise ValueError(f"the title has {len(entry.title)} characters, 1 to {TITLE_CHARS_MAX} are allowed")


COLUMNS = frozenset(field.name for field in fields(Entry))


@dataclass(frozen=True)
class Row:
    """A row that can be used, and the line it begins on."""

    line: int
    entry: Entry


@dataclass(frozen=True)
class RefusedRow:
    """A row that cannot: its line, why, and the file and the creator that it names where it names one."""

    line: int
    reason: str
    file: str = ""
    creator: str = ""


@dataclass(frozen=True)
class Rows:
    """What a manifest says."""

    good: tuple[Row, ...]
    refused: tuple[RefusedRow, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing at all: no bytes, or a line of columns alone."""
        return not self.good and not self.refused

    def unread(self) -> int | None:
        """The first line of which it cannot be told which file it is about."""
        return next((row.line for row in self.refused if not row.file), None)


def parse(text: str, name: str, is_known: Known = nobody) -> Rows:
    """The rows of a manifest of this name or address; a wrong one stands apart and harms no other.

    Creators that are known are never wrong.

    Raises:
        Rejected: it is no such file at all, or has a column that nothing knows.
    """
    read = _json_rows(text) if name.lower().endswith(".jsonl") else _csv_rows(text, name)
    good, refused = list[Row](), list[RefusedRow]()
    for count, (line, row) in enumerate(read):
        if count >= ROWS_MAX:
            raise Rejected(f"manifest {name} has more than {ROWS_MAX} rows", hint="split the folder")
        try:
            if isinstance(row, str):
                raise ValueError(row)
            good.append(Row(line, require_creator(_entry(row, is_known), is_known)))
        except (ValueError, TypeError) as error:
            refused.append(RefusedRow(line, str(error), _file_of(row), _creator_of(row, is_known)))
    return Rows(tuple(good), tuple(refused))


def text_of(data: bytes, name: str) -> str:
    """The text of a manifest.

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
    if "\0" in text.partition("\n")[0]:  # without the mark that would say so
        raise Rejected(f"manifest {name}, line 1: it is not UTF-8 but UTF-16", code="bad-manifest", hint=hint)
    return text


def _file_of(row: Mapping[str, Any] | str) -> str:
    """The file that a refused row names, so that it is not taken without the row's words."""
    file = row.get("file") if isinstance(row, Mapping) else None
    return file.strip() if isinstance(file, str) else ""


def _creator_of(row: Mapping[str, Any] | str, is_known: Known) -> str:
    """The creator that a refused row names, so that what it says is told to whom it is about."""
    creator = row.get("creator") if isinstance(row, Mapping) else None
    return handles.meant(str(creator), is_known).strip() if creator else ""


def _csv_rows(text: str, name: str) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """Rows with the line they begin on."""
    text = text.removeprefix("\ufeff")
    before = 1 if text.lower().startswith(SEPARATOR) else 0  # a line for a spreadsheet, which says what is so anyway
    reader = csv.reader(io.StringIO(text.partition("\n")[2] if before else text, newline=""), strict=True)
    line = before + 1
    try:
        columns = [column.strip().lower() for column in next(reader, ())]
        _require_known([column for column in columns if column], f"manifest {name}, line {line}")
        line = before + reader.line_num + 1
        for values in reader:
            if any(values):  # unlike a spreadsheet's empty last row
                yield line, _row(columns, values)
            line = before + reader.line_num + 1
    except csv.Error as error:
        hint = "look for a quote that is not closed there"
        raise Rejected(f"manifest {name}, line {line}: {error}", hint=hint) from error


def _row(columns: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    """Values by their columns; under no name what is wrong with them. Columns that are empty throughout are nobody's."""
    row = {column: value for column, value in zip(columns, values, strict=False) if column}
    nameless = [value for column, value in itertools.zip_longest(columns, values, fillvalue="") if not column]
    return {**row, "": "more values than columns"} if any(nameless) else row


def _require_known(columns: Sequence[str], where: str) -> None:
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
    for number, line in enumerate(
        text.removeprefix("\ufeff").split("\n"), 1
    ):  # JSON may hold every other kind of line end
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, f"no JSON: {error}"
            continue
        yield number, row if isinstance(row, dict) else "expected an object"


def _entry(row: Mapping[str, Any], is_known: Known) -> Entry:
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
    texts["creator"] = handles.meant(str(values.get("creator", "")), is_known)
    words = tuple(tag for tag in (_unbroken(str(tag)) for tag in tags) if tag)
    _require_storable(texts, words)
    for key in ("title", "language"):
        texts[key] = _line(key, texts.get(key, ""))
    texts["language"] = languages.named(texts["language"])
    texts["description"] = characters.cleaned(texts.get("description", ""))
    return Entry(**texts, tags=tuple(_line("tag", tag) for tag in words))


def _unbroken(text: str) -> str:
    """A title or tag with the line separators that people paste unseen (U+0085, U+2028, U+2029) as spaces."""
    return re.sub("[\x85\u2028\u2029]", " ", text).strip()


def _line(name: str, text: str) -> str:
    """A text of one line as it is kept.

    Raises:
        ValueError: what is wrong with which text.
    """
    try:
        return characters.line(text)
    except ValueError as error:
        raise ValueError(f"the {name} {error}") from error


def require_creator(entry: Entry, is_known: Known) -> Entry:
    """The entry, if a creator can have its handle, or has it.

    Raises:
        ValueError: what is wrong with the handle.
    """
    if (said := handles.fault(entry.creator)) and not is_known(entry.creator):
        raise ValueError(said)
    return entry


def _require_storable(texts: Mapping[str, str], tags: Sequence[str]) -> None:
    """Refuse what no database keeps: half characters, zero bytes, words that are longer than an index takes."""
    for key, text in (*texts.items(), *(("tags", tag) for tag in tags)):
        if "\0" in text:
            raise ValueError(f"{key}: a text contains a zero byte")
        if not is_text(text):
            raise ValueError(f"{key}: half a character stands in it (a lone surrogate)")
    for key, most in SHORT_MAX.items():
        if len(texts.get(key, "")) > most:
            raise ValueError(f"{key} is longer than {most} characters")
    if any(len(tag) > TAG_MAX for tag in tags):
        raise ValueError(f"a tag is longer than {TAG_MAX} characters")


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: a name from an old archive, or half an emoji, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_manifest(path: str) -> bool:
    """Whether a path names a manifest, in whatever case."""
    return PurePosixPath(path).name.lower() in NAMES


def is_video(key: str) -> bool:
    """Whether an object looks like a video by its name; what it is will be seen when it is opened."""
    return key.lower().endswith(VIDEO_ENDINGS)


def title_of(file: str) -> str:
    """A readable title from a file's name."""
    stem = characters.cleaned(printable(re.sub(r"[_\-.]+", " ", PurePosixPath(file).stem)))
    words = " ".join(stem.split())[:TITLE_CHARS_MAX]
    return words[:1].upper() + words[1:] if characters.shows(words) else printable(file)[:TITLE_CHARS_MAX]
