"""The shelf: parts of the archive as objects in the object store, written once and read back before anything relies on them.

A part is lines of JSON, compressed; the first line states its kind and format. Its name contains kind, day, numbers and
the hash of its content. Equal rows always have the same name, and different rows have different names. So no object is
ever overwritten with other content. Knows no table.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from cluster import runtime
from cluster.errors import Rejected
from cluster.settings import Settings
from cluster.storage import Storage, split
from ledger.settings import LedgerSettings

FOLDER = "ledger/archive"
SCRATCH = "archive"  # folder under the data folder, for parts that are being written or read
FORMAT = 1
LEVEL = 3  # of gzip: keyed hashes and amounts gain little from more
PIECE_BYTES = 1 << 20
DRAFT = "draft-"  # how the names of files of drafts begin
DAMAGED = "archive-damaged"  # the code of a refusal
NAME = re.compile(
    r"(folds|journal|payments|chain)/\d{4}-\d\d-\d\d/(\d{20})-(\d{20})-[0-9a-f]{32}\.(jsonl\.gz|accounts)"
)

Row = dict[str, Any]


@dataclass(frozen=True)
class StoredPart:
    """A part on the shelf."""

    name: str
    rows: int
    size: int  # bytes of its content, before compression
    sha256: bytes  # of its content


class Draft:
    """A part that is being written, in a local file that is deleted when the context is left."""

    def __init__(self, scratch: Path, kind: str) -> None:
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.kind, self.rows, self.size = kind, 0, 0
        self._file: IO[bytes] = tempfile.NamedTemporaryFile(dir=scratch, prefix=DRAFT)  # noqa: SIM115  closed on leaving
        self._packed = gzip.GzipFile("", "wb", LEVEL, self._file, mtime=0)
        self._digest = hashlib.sha256()
        self._write({"format": FORMAT, "kind": kind})

    def __enter__(self) -> Draft:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._packed.close()
        self._file.close()

    def add(self, row: Mapping[str, Any] | str) -> None:
        """Add a row, or its text if `text_of` has already been applied."""
        self._write(row)
        self.rows += 1

    def _write(self, row: Mapping[str, Any] | str) -> None:
        line = (row if isinstance(row, str) else text_of(row)).encode() + b"\n"
        self._packed.write(line)
        self._digest.update(line)
        self.size += len(line)

    def finish(self) -> tuple[Path, bytes]:
        """Complete the file; return its path and the SHA-256 of its content, 32 bytes."""
        self._packed.close()
        self._file.flush()
        return Path(self._file.name), self._digest.digest()


@dataclass(frozen=True)
class Shelf:
    """The bucket that holds the archive, and a folder for files that are being written or read."""

    storage: Storage
    bucket: str
    scratch: Path

    @classmethod
    def of(cls, settings: Settings, storage: Storage | None = None) -> Shelf:
        """Return the shelf of a deployment; without `storage` a client of its own is made."""
        bucket = settings.section(LedgerSettings).archive_bucket or settings.s3.bucket
        store = storage or Storage(runtime.endpoints(settings).s3)
        return cls(store, bucket, settings.data_dir / SCRATCH)

    def tidy(self) -> None:
        """Remove drafts of a process that was killed. To be called by the one process that writes parts."""
        for draft in self.scratch.glob(f"{DRAFT}*"):
            draft.unlink(missing_ok=True)

    def draft(self, kind: str) -> Draft:
        """Begin to write a part."""
        return Draft(self.scratch, kind)

    def keep(self, draft: Draft, day: date, first: int, last: int) -> StoredPart:
        """Upload a draft and read it back.

        Args:
            draft: the part, with all its rows.
            day: the UTC day of its rows.
            first: the number of its first row.
            last: the number of its last row.

        Returns:
            The part on the shelf.

        Raises:
            Temporary: the object store does not answer.
            Rejected: what is read back differs, or the object store refuses.
        """
        path, sha256 = draft.finish()
        name = _name(draft.kind, day, first, last, sha256, "jsonl.gz")
        self.storage.put_file(path, self._uri(name))
        written = StoredPart(name, draft.rows, draft.size, sha256)
        self.check(written)
        return written

    def check(self, written: StoredPart) -> None:
        """Read a part to its end and compare its content.

        Raises:
            Rejected: the part is missing, or its content differs from what was written.
        """
        with self._fetched(written.name) as path:
            _require(path, written)

    def rows(self, written: StoredPart) -> Iterator[Row]:
        """Check a part as `check` does, then yield its rows.

        Raises:
            Rejected: the part is missing, or its content differs from what was written.
        """
        with self._fetched(written.name) as path:
            _require(path, written)
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                head = json.loads(next(lines))
                if head["format"] != FORMAT:
                    raise Rejected(f"part {written.name} is of format {head['format']}", code=DAMAGED)
                for line in lines:
                    yield json.loads(line)

    def put(self, content: bytes, kind: str, day: date, first: int, last: int) -> str:
        """Upload bytes that belong to a part, under a name with their own hash.

        Args:
            content: the bytes.
            kind: the kind of the part.
            day: the UTC day of the part.
            first: the number of the part's first row.
            last: the number of the part's last row.

        Returns:
            The name of the object.
        """
        name = _name(kind, day, first, last, hashlib.sha256(content).digest(), "accounts")
        self.storage.put_bytes(content, self._uri(name))
        return name

    def read(self, name: str, start: int, end: int) -> bytes:
        """Read the bytes from `start` up to but not including `end` of an object."""
        return self.storage.read(self._uri(name), start, end)

    def size(self, name: str) -> int:
        """Return the size of an object in bytes."""
        return self.storage.size(self._uri(name))

    def names(self) -> Iterator[str]:
        """Yield the names of all objects of the archive, including those that no row of the database names."""
        try:
            for each in self.storage.list(f"s3://{self.bucket}/{FOLDER}/"):
                name = split(each.uri)[1].removeprefix(f"{FOLDER}/")
                if NAME.fullmatch(name):
                    yield name
        except Rejected as refusal:
            if refusal.code != "not-found":
                raise

    def _uri(self, name: str) -> str:
        return f"s3://{self.bucket}/{FOLDER}/{name}"

    @contextlib.contextmanager
    def _fetched(self, name: str) -> Iterator[Path]:
        """Download an object to a file that is deleted on leaving."""
        self.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.scratch, prefix="read-") as file:
            self.storage.get_file(self._uri(name), Path(file.name))
            yield Path(file.name)


def text_of(row: Mapping[str, Any]) -> str:
    """Return a row as a line of a part: JSON with sorted keys, bytes in base64. Equal rows have equal lines."""
    return json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)


def bytes_of(text: str) -> bytes:
    """Return the bytes that a row holds as base64."""
    return base64.b64decode(text)


def _plain(value: object) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    return str(value)


def _name(kind: str, day: date, first: int, last: int, sha256: bytes, ending: str) -> str:
    return f"{kind}/{day}/{first:020d}-{last:020d}-{sha256.hex()[:32]}.{ending}"


def _require(path: Path, written: StoredPart) -> None:
    """Refuse a file that is damaged, or whose content is not that of the part."""
    digest, size = hashlib.sha256(), 0
    try:
        with gzip.open(path, "rb") as content:
            while piece := content.read(PIECE_BYTES):
                digest.update(piece)
                size += len(piece)
    except (OSError, EOFError, zlib.error) as error:
        raise Rejected(f"part {written.name} of the archive is damaged: {error}", code=DAMAGED) from error
    if (digest.digest(), size) != (written.sha256, written.size):
        raise Rejected(f"part {written.name} of the archive is not what was written", code=DAMAGED)
