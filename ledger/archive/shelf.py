"""The shelf: parts of the archive as objects, written once, read back before anything relies on them.

A part is lines of JSON, compressed, the first of which says what it is. Its name says kind, day, numbers and the hash of its
content: the same rows have the same name, however often they are written, and other rows another one, so that nothing is
ever overwritten by anything else. Knows no table.
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
SCRATCH = "archive"  # of the data folder: what is being written or read
FORMAT = 1
LEVEL = 3  # of compression: keyed hashes and amounts gain little from more
PIECE_BYTES = 1 << 20
DRAFT = "draft-"  # what the files of a part that is being written begin with
DAMAGED = "archive-damaged"  # the code of a refusal
NAME = re.compile(
    r"(folds|journal|payments|chain)/\d{4}-\d\d-\d\d/(\d{20})-(\d{20})-[0-9a-f]{32}\.(jsonl\.gz|accounts)"
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Written:
    """A part on the shelf. `size`: of its content, in bytes."""

    name: str
    rows: int
    size: int
    sha256: bytes


class Draft:
    """A part that is being written, in a file of this machine; gone when it is left."""

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
        """One line: a row, or its text where that is made already."""
        self._write(row)
        self.rows += 1

    def _write(self, row: Mapping[str, Any] | str) -> None:
        line = (row if isinstance(row, str) else text_of(row)).encode() + b"\n"
        self._packed.write(line)
        self._digest.update(line)
        self.size += len(line)

    def finish(self) -> tuple[Path, bytes]:
        """The file, whole, and the hash of its content."""
        self._packed.close()
        self._file.flush()
        return Path(self._file.name), self._digest.digest()


@dataclass(frozen=True)
class Shelf:
    """Where parts lie."""

    storage: Storage
    bucket: str
    scratch: Path

    @classmethod
    def of(cls, settings: Settings, storage: Storage | None = None) -> Shelf:
        """A deployment's; `storage` is the caller's, where it has one."""
        bucket = settings.section(LedgerSettings).archive_bucket or settings.s3.bucket
        store = storage or Storage(runtime.endpoints(settings).s3)
        return cls(store, bucket, settings.data_dir / SCRATCH)

    def tidy(self) -> None:
        """Remove what a killed process was writing; for the one process that writes."""
        for left in self.scratch.glob(f"{DRAFT}*"):
            left.unlink(missing_ok=True)

    def draft(self, kind: str) -> Draft:
        return Draft(self.scratch, kind)

    def keep(self, draft: Draft, day: date, first: int, last: int) -> Written:
        """Put a part there and read it back.

        Raises:
            Temporary: the object store is away.
            Rejected: what is read back is something else, or the store refuses.
        """
        path, sha256 = draft.finish()
        name = _name(draft.kind, day, first, last, sha256, "jsonl.gz")
        self.storage.put_file(path, self._uri(name))
        written = Written(name, draft.rows, draft.size, sha256)
        self.check(written)
        return written

    def check(self, written: Written) -> None:
        """Read a part to its end.

        Raises:
            Rejected: it is gone, or its content is something else.
        """
        with self._fetched(written.name) as path:
            _require(path, written)

    def rows(self, written: Written) -> Iterator[Row]:
        """What a part holds, once all of it is known to be what was written.

        Raises:
            Rejected: it is gone, or its content is something else.
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
        """Keep bytes beside a part, under their own hash; their name."""
        name = _name(kind, day, first, last, hashlib.sha256(content).digest(), "accounts")
        self.storage.put_bytes(content, self._uri(name))
        return name

    def read(self, name: str, start: int, end: int) -> bytes:
        """Some of those bytes."""
        return self.storage.read(self._uri(name), start, end)

    def size(self, name: str) -> int:
        return self.storage.size(self._uri(name))

    def names(self) -> Iterator[str]:
        """Every object of the archive, whoever has written it."""
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
        self.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.scratch, prefix="read-") as file:
            self.storage.get_file(self._uri(name), Path(file.name))
            yield Path(file.name)


def text_of(row: Mapping[str, Any]) -> str:
    """A row as it stands in a part: bytes in base64, the same row always alike."""
    return json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)


def bytes_of(text: str) -> bytes:
    """Bytes of a row."""
    return base64.b64decode(text)


def _plain(value: object) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    return str(value)


def _name(kind: str, day: date, first: int, last: int, sha256: bytes, ending: str) -> str:
    return f"{kind}/{day}/{first:020d}-{last:020d}-{sha256.hex()[:32]}.{ending}"


def _require(path: Path, written: Written) -> None:
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
