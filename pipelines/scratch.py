"""A bounded folder for the files being decoded, shared by the workers of one machine.

A file is fetched once, by whoever comes first, and deleted when its last chunk is done. Before a fetch its space is
reserved: of what the folder may hold, and of what the disk has left. Knows objects and files, not what is in them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster import leftovers
from cluster.errors import Rejected, Temporary
from cluster.resilience import retry
from cluster.storage import Storage
from pipelines.settings import IngestSettings

MEGABYTE = 1024 * 1024
TURN_MAX_S = 180.0  # a file that nobody has asked for in this time keeps nobody waiting
IDLE_MAX_S = 900.0  # a file that nobody has asked for in this time was left behind by a worker that died
POLL_S = 0.2
FETCHES_MAX = 3
LOCK_TRIES_MAX = 100
LOCK_WAIT_S = 10.0  # for a lock that others keep deleting with its file
DIGEST, DIGITS = ".sha256", 64
NOTES = (".dropped", ".done", DIGEST, ".lock")  # beside each file; the lock is deleted last
DRAFT = "-"  # in the suffix of what is being fetched, after its size


@dataclass(frozen=True)
class Scratch:
    """See the module's text. `files_max` bounds how far fetching may run ahead of decoding."""

    folder: Path
    bytes_max: int
    free_min: int
    files_max: int

    @staticmethod
    def at(scratch_dir: str, name: str, max_mb: int, free_min_mb: int, files_max: int) -> Scratch:
        """`name` tells deployments on one machine apart."""
        root = Path(scratch_dir or tempfile.gettempdir())
        folder = root / f"{beginning()}{hashlib.sha256(name.encode()).hexdigest()[:12]}"
        return Scratch(folder, max_mb * MEGABYTE, free_min_mb * MEGABYTE, files_max)

    @staticmethod
    def of(ingest: IngestSettings, s3_url: str, bucket: str, files_max: int) -> Scratch:
        """The folder of a deployment, which its S3 and its bucket tell apart from others."""
        name = f"{s3_url} {bucket}"
        return Scratch.at(ingest.scratch_dir, name, ingest.scratch_max_mb, ingest.scratch_free_min_mb, files_max)

    def path(self, uri: str, etag: str) -> Path:
        return self.folder / hashlib.sha256(f"{uri}\n{etag}".encode()).hexdigest()[:40]

    @contextlib.contextmanager
    def file(
        self, storage: Storage, uri: str, etag: str, size: int, *, digest: str = "", wait: bool = False
    ) -> Iterator[Path]:
        """The object as a local file, fetched when it is not there; kept from being swept while in use.

        With `digest` its content has that SHA-256: an ETag is what was listed, and says nothing of what is fetched now.

        With `wait` it is fetched when others, who are at work on their files, have made room. Who decodes must not wait:
        it is decoding that makes room.

        Raises:
            Temporary: there is no room, or the store is away.
            Rejected: the object is gone or has changed.
        """
        path = self.path(uri, etag)
        for _ in range(LOCK_TRIES_MAX):
            with _locked(path) as lock:
                if not path.exists() or path.stat().st_size != size or _is_another(path, digest):
                    self._fetch(storage, uri, size, path, wait=wait)
                    if _is_another(path, digest):
                        raise Rejected(f"{uri} changed after it was looked at", code="changed")
                os.utime(path)
                fcntl.flock(lock, fcntl.LOCK_SH)  # the lock is free for a moment: the file may be gone by now
                if _is_lock_of(lock, path) and path.exists():
                    yield path
                    return
        raise Temporary(f"{uri} is deleted as often as it is fetched", 1.0)

    def done(self, uri: str, etag: str, chunk: int = 0, count: int = 1, attempt: str = "") -> None:
        """Note that a chunk needs its file no more; with the last one, or when it was dropped, the file is deleted."""
        path = self.path(uri, etag)
        if attempt and self.dropped(uri, etag, attempt):
            self.drop(uri, etag, attempt)
            return
        with _locked(path):
            notes = path.with_suffix(".done")
            with notes.open(
                "a+", encoding="ascii"
            ) as file:  # added to, so that who is killed here loses no other's note
                file.write(f"{chunk} ")
                file.flush()
                file.seek(0)
                finished = set(file.read().split())
            if len(finished) >= count:
                _delete(path)

    def drop(self, uri: str, etag: str, attempt: str) -> None:
        """Delete a file of which an attempt needs no chunk any more, and note that: its other chunks may be waiting."""
        path = self.path(uri, etag)
        with _locked(path):
            _delete(path)
            path.with_suffix(".dropped").write_text(attempt, encoding="ascii")

    def dropped(self, uri: str, etag: str, attempt: str) -> bool:
        """Whether this attempt has dropped its file."""
        with contextlib.suppress(FileNotFoundError):
            return self.path(uri, etag).with_suffix(".dropped").read_text(encoding="ascii") == attempt
        return False

    def wait_for_turn(self, timeout_s: float) -> None:
        """Wait while enough files lie ready; after `timeout_s` go on, for the wait is a courtesy and no lock."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self._waiting() >= self.files_max:
            time.sleep(POLL_S)

    def _waiting(self) -> int:
        return sum(time.time() - stat.st_mtime < TURN_MAX_S for _, stat in self._files())

    def _fetch(self, storage: Storage, uri: str, size: int, path: Path, *, wait: bool) -> None:
        draft = path.with_suffix(f".{size}{DRAFT}{os.getpid()}")
        try:
            while lack := self._reserve(size, draft):
                if not wait or not self._waiting():
                    raise lack
                time.sleep(POLL_S)
            retry(lambda: storage.get_file(uri, draft), attempts=FETCHES_MAX)
            if draft.stat().st_size != size:
                raise Rejected(f"{uri} changed while it was read", code="changed")
            path.with_suffix(DIGEST).unlink(missing_ok=True)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    def _reserve(self, size: int, draft: Path) -> Temporary | None:
        """Begin a draft, which takes the space of the whole from now on; or why there is none."""
        with _open(self.folder, os.O_RDONLY) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._sweep()
            files = self._files()
            used = sum(_bytes(path, stat) for path, stat in files)
            coming = used - sum(stat.st_size for _, stat in files)
            if used + size > self.bytes_max and used:
                return Temporary(f"the scratch folder is full: {used // MEGABYTE} MB", 5.0)
            if shutil.disk_usage(self.folder).free - coming - size < self.free_min:
                return Temporary(f"no space left for {size // MEGABYTE} MB in {self.folder}", 10.0)
            draft.touch()
            return None

    def _sweep(self) -> None:
        for path, stat in self._files():
            if time.time() - stat.st_mtime > IDLE_MAX_S:
                with contextlib.suppress(OSError), _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    _delete(path)
        for note in self.folder.glob("*.dropped"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - note.stat().st_mtime > IDLE_MAX_S:
                    note.unlink()

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in self.folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if path.suffix not in NOTES and path.name != leftovers.NOTE:
                        found.append((path, path.stat()))
        return found


def beginning() -> str:
    """What the names of this user's folders begin with."""
    return f"pixr-scratch-{os.getuid()}-"


def content_hash(path: Path) -> str:
    """The SHA-256 of a file that is in use, in hexadecimal digits; it is read once, and noted."""
    note = path.with_suffix(DIGEST)
    with contextlib.suppress(FileNotFoundError):
        if len(known := note.read_text(encoding="ascii")) == DIGITS:  # else it is being written
            return known
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):  # a full disk: it is read again
        note.write_text(digest, encoding="ascii")
    return digest


def _is_another(path: Path, digest: str) -> bool:
    return bool(digest) and content_hash(path) != digest


def _bytes(path: Path, stat: os.stat_result) -> int:
    """What a file takes, or will take when it is whole."""
    size, draft, _ = path.suffix[1:].partition(DRAFT)
    return int(size) if draft else stat.st_size


def _delete(path: Path) -> None:
    path.unlink(missing_ok=True)  # its name may have an ending: of what is being fetched, or is made while decoding
    for suffix in ("", *NOTES):
        path.with_suffix(suffix).unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[int]:
    """Hold a file's lock. Its lock file is deleted with it, and who waited for the old one has to begin again: two would
    hold a lock each else.

    Raises:
        OSError: another one holds it, and `how` does not wait.
        Temporary: it is taken away as often as it is had, for `LOCK_WAIT_S`.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    until_s = time.monotonic() + LOCK_WAIT_S
    while time.monotonic() < until_s:
        with _open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT) as descriptor:
            fcntl.flock(descriptor, how)
            if _is_lock_of(descriptor, path):
                yield descriptor
                return
    raise Temporary(f"the lock of {path.name} is taken away as often as it is had", 1.0)


def _is_lock_of(descriptor: int, path: Path) -> bool:
    """Whether a lock that is held is still the one that others find."""
    try:
        found = path.with_suffix(".lock").stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


@contextlib.contextmanager
def _open(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
