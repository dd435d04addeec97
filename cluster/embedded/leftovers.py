"""Folders that a stack has outside of its data folder (Ray's short one, files being decoded), removed with the stack.

Each such folder contains a note of the data folder that it belongs to. When a stack stops, its folders are removed;
those of a stack that was killed are removed by the next stack of the same user that starts, in whatever data folder.
Other users may write to the same parent folder, so only this user's own folders are touched. Knows no service.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import shutil
import stat
from pathlib import Path

log = logging.getLogger(__name__)

NOTE = ".data-folder"  # name of the file that contains the path of the data folder
STALE_CHECKED_MAX = 2000  # folders that are checked before one start


def lock_path(data_dir: Path) -> Path:
    """Return the path of the file that a data folder's supervisor locks."""
    return data_dir / "run" / "supervisor.lock"


def is_locked(path: Path) -> bool:
    """Return whether a process has locked a file.

    Raises:
        PermissionError: this user may not open the file.
    """
    if not path.exists():
        return False
    with open(path, "a", encoding="ascii") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def note(folder: Path, data_dir: Path) -> None:
    """Write into a private folder the path of the data folder that it belongs to."""
    (folder / NOTE).write_text(str(data_dir), encoding="utf-8", errors="surrogateescape")


def remove(folder: Path, data_dir: Path) -> None:
    """Remove a folder and its content, if its note names this data folder; called after the stack has ended."""
    if _owner(folder) == data_dir:
        shutil.rmtree(folder, ignore_errors=True)


def remove_stale(parent: Path, beginning: str) -> int:
    """Remove the folders in `parent` whose names start with `beginning` and whose stacks have ended; return how many."""
    entries = (Path(entry.path) for entry in os.scandir(parent) if entry.name.startswith(beginning))
    stale = [folder for folder in itertools.islice(entries, STALE_CHECKED_MAX) if _is_stale(folder)]
    for folder in stale:
        shutil.rmtree(folder, ignore_errors=True)
    if stale:
        log.info("removed %d folders %s* in %s, of stacks that were killed", len(stale), beginning, parent)
    return len(stale)


def _is_stale(folder: Path) -> bool:
    """Return whether a folder's note names a data folder whose supervisor has ended; False without a note."""
    data_dir = _owner(folder)
    try:
        return data_dir is not None and not is_locked(lock_path(data_dir))
    except OSError:  # another user's
        return False


def _owner(folder: Path) -> Path | None:
    """Return the data folder that the note in one of this user's folders names; None without one."""
    try:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return None
        return Path((folder / NOTE).read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        return None
