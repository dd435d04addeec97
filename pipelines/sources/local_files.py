"""The videos of a local file or folder, with the rows of the manifests in it.

Symbolic links are skipped unless asked for, since a link may lead to anything this user can read. Hidden files are
skipped too, since a disk's trash does not belong in a catalogue. Each skipped link, hidden folder and hidden video gets
a remark.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import Rejected
from pipelines.sources import copies, manifest, selection
from pipelines.sources.handles import Known, no_creator
from pipelines.sources.manifest import Entry
from pipelines.sources.remarks import LEFT_OUT, ROW_REFUSED, ROW_WITHOUT_FILE, Remarks, shown
from pipelines.sources.selection import Manifest, Selection

FILES_MAX = 1_000_000
SYSTEM_FOLDERS = ("$recycle.bin", "system volume information", "lost+found", "@eadir", "__macosx")  # lower case
HIDDEN = "it is hidden, or a system's own; `--hidden` takes such too"
LINK = "it is a symbolic link; `--follow-links` takes what links lead to"


@dataclass(frozen=True)
class Extent:
    """What to take from a folder besides its ordinary files."""

    follow_links: bool = False
    hidden: bool = False


ORDINARY = Extent()


def find(
    path: Path, manifest_path: Path | None, remarks: Remarks, extent: Extent = ORDINARY, *, is_known: Known = no_creator
) -> list[tuple[Path, Entry]]:
    """Find the videos under a local path.

    Args:
        path: A video file or a folder.
        manifest_path: The manifest for the whole path; None takes the manifests in the folder, or beside the file.
        remarks: Collects what is skipped and why.
        extent: Whether to take hidden files and the targets of symbolic links too.
        is_known: Whether a creator with a handle exists.

    Returns:
        The files in the order of their names, each with its manifest row, or with a row that holds only the name.

    Raises:
        Rejected: the path does not exist, cannot be read or holds no video, or a manifest is invalid.
    """
    try:
        return _found(path, manifest_path, remarks, extent, is_known)
    except OSError as error:  # for the path itself; unreadable files below it are skipped
        detail = f"{error.filename or path} cannot be read: {reason_of(error)}"
        raise Rejected(
            detail, code="not-readable", hint="look at its rights, and those of the folders above it"
        ) from error


def _found(
    path: Path, manifest_path: Path | None, remarks: Remarks, extent: Extent, is_known: Known
) -> list[tuple[Path, Entry]]:
    """Do the work of `find`, which turns errors in reading the path itself into `Rejected`."""
    if not path.exists():
        raise Rejected(f"{path} does not exist", code="not-found", hint="name a file, a folder or s3://bucket/prefix")
    if not (path.is_dir() or path.is_file()):
        raise Rejected(f"{path} is neither a file nor a folder", code="not-found", hint="name a video file or a folder")
    top = path if path.is_dir() else path.parent
    files = sorted(_files(path, remarks, extent)) if path.is_dir() else [path.name]
    files = [file for file in files if is_text(file, remarks)]
    manifests = _manifests(top, files if path.is_dir() else _beside(top), manifest_path, is_known)
    selected = selection.select(files, manifests, remarks) if path.is_dir() else _one(path.name, manifests, remarks)
    chosen = copies.without_copies(top, selected, remarks)
    if not chosen:
        skipped = f" ({remarks.summary()})" if remarks.summary() else ""
        endings = f"known endings: {' '.join(manifest.VIDEO_ENDINGS)}"
        hint = "mend these rows" if remarks.has(ROW_REFUSED) else endings
        raise Rejected(f"no video in {path}{skipped}", code="nothing-to-do", hint=hint)
    return [(top / file, row.entry if row else Entry(shown(file.rpartition("/")[2]))) for file, row in chosen]


def reason_of(error: OSError) -> str:
    """Return why a file cannot be read, without its path."""
    return (error.strerror or type(error).__name__).lower()


def _one(name: str, manifests: list[Manifest], remarks: Remarks) -> Selection:
    """Select the one file that was named, without remarks on rows for other files."""
    own_remarks = Remarks()
    selected = selection.select([name], manifests, own_remarks, by_ending=False)
    remarks.extend(row for row in own_remarks.rows() if row["kind"] != ROW_WITHOUT_FILE)
    return selected


def _files(folder: Path, remarks: Remarks, extent: Extent) -> Iterator[str]:
    """Yield the paths of files below a folder, relative to it; a folder that several links lead to is read once."""
    seen = {_identity(folder)}

    def unreadable(error: OSError) -> None:
        remarks.add(LEFT_OUT, reason_of(error), os.path.relpath(error.filename or folder, folder))

    count = 0
    for root, folders, names in os.walk(folder, onerror=unreadable, followlinks=extent.follow_links):
        folders[:] = [name for name in folders if _is_entered(Path(root) / name, folder, seen, remarks, extent)]
        for name in names:
            file = Path(root) / name
            if _is_taken(file, str(file.relative_to(folder)), remarks, extent):
                count += 1
                if count > FILES_MAX:
                    raise Rejected(f"more than {FILES_MAX} files in {folder}", hint="ingest its folders one by one")
                yield file.relative_to(folder).as_posix()


def _is_entered(inner: Path, folder: Path, seen: set[tuple[int, int]], remarks: Remarks, extent: Extent) -> bool:
    """Whether to read an inner folder; if links are followed, `seen` holds the folders read so far."""
    if _is_hidden(inner.name) and not extent.hidden:
        remarks.add(LEFT_OUT, HIDDEN, str(inner.relative_to(folder)))
        return False
    if not extent.follow_links:
        if inner.is_symlink():
            remarks.add(LEFT_OUT, LINK, str(inner.relative_to(folder)))
        return not inner.is_symlink()
    if (identity := _identity(inner)) in seen:
        return False
    seen.add(identity)
    return True


def _identity(folder: Path) -> tuple[int, int]:
    """Return device and inode of a folder, which tell it apart whatever its path."""
    state = folder.stat()
    return state.st_dev, state.st_ino


def _is_taken(file: Path, name: str, remarks: Remarks, extent: Extent) -> bool:
    """Whether to take a file; if not, add a remark, except on hidden files other than videos."""
    if _is_hidden(file.name) and not extent.hidden:
        if manifest.is_video(file.name):  # other hidden files, such as a folder's settings, are of no interest
            remarks.add(LEFT_OUT, HIDDEN, name)
        return False
    try:
        state = file.stat() if extent.follow_links else file.lstat()
    except OSError as error:
        remarks.add(LEFT_OUT, reason_of(error), name)
        return False
    if stat.S_ISREG(state.st_mode):
        return True
    remarks.add(LEFT_OUT, LINK if stat.S_ISLNK(state.st_mode) else "it is no regular file", name)
    return False


def _is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden or an operating system's own."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def is_text(file: str, remarks: Remarks) -> bool:
    """Whether a file's name is valid UTF-8; if not, add a remark."""
    if manifest.is_text(file):
        return True
    remarks.add(LEFT_OUT, "its name is not UTF-8", file)
    return False


def _beside(top: Path) -> list[str]:
    """Return the names of the manifests in a folder."""
    return sorted(file.name for file in top.iterdir() if manifest.is_manifest(file.name) and not file.is_symlink())


def _manifests(top: Path, files: list[str], manifest_path: Path | None, is_known: Known) -> list[Manifest]:
    """Read the given manifest, which applies to all of `top`, or else every manifest in it, each for its own folder."""
    if manifest_path is not None:
        if not manifest_path.is_file():
            raise Rejected(f"manifest {manifest_path} does not exist", code="not-found")
        return [_read(manifest_path, manifest_path.name, "", is_known)]
    return [_read(top / file, file, file.rpartition("/")[0], is_known) for file in files if manifest.is_manifest(file)]


def _read(path: Path, name: str, folder: str, is_known: Known) -> Manifest:
    """Read a manifest."""
    try:
        if path.stat().st_size > manifest.BYTES_MAX:
            raise Rejected(f"manifest {path} is larger than {manifest.BYTES_MAX} bytes", hint="split the folder")
        data = path.read_bytes()
    except OSError as error:
        raise Rejected(f"manifest {path} cannot be read: {reason_of(error)}") from error
    return Manifest(name, folder, manifest.parse(manifest.text_of(data, str(path)), str(path), is_known))
