"""A bounded folder for the files being decoded, shared by the workers of one machine.

A file is fetched once, by the worker that needs it first, and deleted when its last chunk is done. Before a fetch its
space is reserved, within the bound of the folder and the free space of the disk. Knows objects and files, not their
content.
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

from cluster.embedded import leftovers
from cluster.errors import Rejected, Temporary
from cluster.resilience import retry
from cluster.storage import Storage
from pipelines.settings import IngestSettings

MEGABYTE = 1024 * 1024
TURN_MAX_S = 180.0  # files unused for so long do not count as fetched ahead
IDLE_MAX_S = 900.0  # files unused for so long were left behind by a dead worker
POLL_S = 0.2
FETCHES_MAX = 3
LOCK_TRIES_MAX = 100
LOCK_WAIT_S = 10.0  # for a lock that others keep deleting together with its file
NOTES = (".dropped", ".done", ".lock")  # suffixes of the notes beside each file; the lock is deleted last
DRAFT = "-"  # in the suffix of a file that is being fetched, after its size


@dataclass(frozen=True)
class Scratch:
    """The scratch folder of a deployment on this machine."""

    folder: Path
    bytes_max: int  # of all files
    free_min: int  # bytes to leave free on the disk
    files_max: int  # how far fetching may run ahead of decoding

    @staticmethod
    def at(scratch_dir: str, name: str, max_mb: int, free_min_mb: int, files_max: int) -> Scratch:
        """Return a scratch folder.

        Args:
            scratch_dir: Folder that it lies in; "" for the system's temporary folder.
            name: Tells deployments on one machine apart.
            max_mb: Space that it may take, in MB.
            free_min_mb: Space to leave free on the disk, in MB.
            files_max: How many files may be fetched ahead of decoding.

        Returns:
            The folder, not created yet.
        """
        root = Path(scratch_dir or tempfile.gettempdir())
        folder = root / f"{beginning()}{hashlib.sha256(name.encode()).hexdigest()[:12]}"
        return Scratch(folder, max_mb * MEGABYTE, free_min_mb * MEGABYTE, files_max)

    @staticmethod
    def of(ingest: IngestSettings, s3_url: str, bucket: str, files_max: int) -> Scratch:
        """Return the scratch folder of a deployment.

        Args:
            ingest: Settings with its place and bounds.
            s3_url: URL of the deployment's object store; URL and bucket together tell deployments apart.
            bucket: The deployment's bucket.
            files_max: How many files may be fetched ahead of decoding.

        Returns:
            The folder, not created yet.
        """
        name = f"{s3_url} {bucket}"
        return Scratch.at(ingest.scratch_dir, name, ingest.scratch_max_mb, ingest.scratch_free_min_mb, files_max)

    def path(self, uri: str, etag: str) -> Path:
        """Return the path of an object's local file."""
        return self.folder / hashlib.sha256(f"{uri}\n{etag}".encode()).hexdigest()[:40]

    @contextlib.contextmanager
    def file(self, storage: Storage, uri: str, etag: str, size: int, *, wait: bool = False) -> Iterator[Path]:
        """Provide an object as a local file, fetched if it is not there, and kept while in use.

        Args:
            storage: Object store to fetch from.
            uri: The object.
            etag: ETag of the object; each ETag has a file of its own.
            size: Of the object in bytes.
            wait: Whether to wait for space that other files take. Decoding must not wait, because it is what frees
                space.

        Yields:
            The path of the file.

        Raises:
            Temporary: the folder or the disk is full, or the object store is away.
            Rejected: the object is gone or has changed.
        """
        path = self.path(uri, etag)
        for _ in range(LOCK_TRIES_MAX):
            with _locked(path) as lock:
                if not path.exists() or path.stat().st_size != size:
                    self._fetch(storage, uri, size, path, wait=wait)
                os.utime(path)
                fcntl.flock(lock, fcntl.LOCK_SH)  # not atomic: the file may have been deleted in between
                if _is_lock_of(lock, path) and path.exists():
                    yield path
                    return
        raise Temporary(f"{uri} is deleted as often as it is fetched", 1.0)

    def done(self, uri: str, etag: str, chunk: int = 0, count: int = 1, attempt: str = "") -> None:
        """Note that a chunk is done; after the last one, or if the attempt was dropped, the file is deleted.

        Args:
            uri: The object.
            etag: Of the object.
            chunk: Number of the chunk.
            count: Chunks of the video.
            attempt: Name of the attempt, as in `drop`.
        """
        path = self.path(uri, etag)
        if attempt and self.dropped(uri, etag, attempt):
            self.drop(uri, etag, attempt)
            return
        with _locked(path):
            notes = path.with_suffix(".done")
            # Appended to, so that a worker killed here loses no other worker's note.
            with notes.open("a+", encoding="ascii") as file:
                file.write(f"{chunk} ")
                file.flush()
                file.seek(0)
                finished = set(file.read().split())
            if len(finished) >= count:
                _delete(path)

    def drop(self, uri: str, etag: str, attempt: str) -> None:
        """Delete the file of an attempt that has ended, and leave a note for chunks of it that may still wait for the file."""
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
        """Wait while `files_max` files are fetched ahead, for `timeout_s` at most; this reserves nothing."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self._waiting() >= self.files_max:
            time.sleep(POLL_S)

    def _waiting(self) -> int:
        """Return how many files are fetched ahead."""
        return sum(time.time() - stat.st_mtime < TURN_MAX_S for _, stat in self._files())

    def _fetch(self, storage: Storage, uri: str, size: int, path: Path, *, wait: bool) -> None:
        """Fetch an object under a draft name, and rename it when it is complete."""
        draft = path.with_suffix(f".{size}{DRAFT}{os.getpid()}")
        try:
            while shortage := self._reserve(size, draft):
                if not wait or not self._waiting():
                    raise shortage
                time.sleep(POLL_S)
            retry(lambda: storage.get_file(uri, draft), attempts=FETCHES_MAX)
            if draft.stat().st_size != size:
                raise Rejected(f"{uri} changed while it was read", code="changed")
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    def _reserve(self, size: int, draft: Path) -> Temporary | None:
        """Create an empty draft, which counts with its full size from now on, or return why there is not enough space."""
        with _open(self.folder, os.O_RDONLY) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._sweep()
            files = self._files()
            used = sum(_bytes(path, stat) for path, stat in files)
            reserved = used - sum(stat.st_size for _, stat in files)
            if used + size > self.bytes_max and used:
                return Temporary(f"the scratch folder is full: {used // MEGABYTE} MB", 5.0)
            if shutil.disk_usage(self.folder).free - reserved - size < self.free_min:
                return Temporary(f"no space left for {size // MEGABYTE} MB in {self.folder}", 10.0)
            draft.touch()
            return None

    def _sweep(self) -> None:
        """Delete files and notes that were not used for `IDLE_MAX_S`."""
        for path, stat in self._files():
            if time.time() - stat.st_mtime > IDLE_MAX_S:
                with contextlib.suppress(OSError), _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    _delete(path)
        for note in self.folder.glob("*.dropped"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - note.stat().st_mtime > IDLE_MAX_S:
                    note.unlink()

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        """Return the files in the folder, drafts included and notes excluded."""
        files = []
        with contextlib.suppress(FileNotFoundError):
            for path in self.folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if path.suffix not in NOTES and path.name != leftovers.NOTE:
                        files.append((path, path.stat()))
        return files


def beginning() -> str:
    """Return the prefix of this user's scratch folders."""
    return f"pixr-scratch-{os.getuid()}-"


def _bytes(path: Path, stat: os.stat_result) -> int:
    """Return how many bytes a file takes, or will take once its download is complete."""
    size, draft, _ = path.suffix[1:].partition(DRAFT)
    return int(size) if draft else stat.st_size


def _delete(path: Path) -> None:
    """Delete a file with its notes."""
    path.unlink(missing_ok=True)  # drafts, and copies made while decoding, have a suffix of their own
    for suffix in ("", *NOTES):
        path.with_suffix(suffix).unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[int]:
    """Hold a file's lock.

    The lock file is deleted together with the file, so a worker that waited for a deleted lock must begin again;
    otherwise two workers could hold a lock each.

    Raises:
        OSError: the lock is held, and `how` does not wait.
        Temporary: for `LOCK_WAIT_S`, another worker deleted the lock file each time before it was locked here.
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
    """Whether a held lock file is still the one at its path."""
    try:
        current = path.with_suffix(".lock").stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(current, os.fstat(descriptor))


@contextlib.contextmanager
def _open(path: Path, flags: int) -> Iterator[int]:
    """Open a descriptor for the length of a block."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
