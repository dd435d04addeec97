"""What a stack has outside of its data folder: Ray's short folder, files being decoded. It is removed with the stack.

Each such folder has a note of the data folder that it belongs to. When the stack stops, its own are removed; when one
was killed, the next stack of the same user that starts removes them, be it in the same data folder or in another. There
others may write beside us, so that nothing is touched that is not this user's own folder. Knows no service.
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

NOTE = ".data-folder"  # in the folder, with the path of the data folder in it
LOOKED_AT_MAX = 2000  # folders, before one start


def lock_path(data_dir: Path) -> Path:
    """The file that a data folder's supervisor has locked."""
    return data_dir / "run" / "supervisor.lock"


def is_locked(path: Path) -> bool:
    """Whether a process has locked a file.

    Raises:
        PermissionError: this user may not open it.
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
    """Write down in a private folder whose it is."""
    (folder / NOTE).write_text(str(data_dir), encoding="utf-8", errors="surrogateescape")


def remove(folder: Path, data_dir: Path) -> None:
    """Remove a folder with all that is in it, if it is noted as this data folder's, whose stack has ended."""
    if _owner(folder) == data_dir:
        shutil.rmtree(folder, ignore_errors=True)


def remove_stale(parent: Path, beginning: str) -> int:
    """Remove the folders with such a name whose stacks do not run any more; returns how many."""
    entries = (Path(entry.path) for entry in os.scandir(parent) if entry.name.startswith(beginning))
    stale = [folder for folder in itertools.islice(entries, LOOKED_AT_MAX) if _is_stale(folder)]
    for folder in stale:
        shutil.rmtree(folder, ignore_errors=True)
    if stale:
        log.info("removed %d folders %s* in %s, of stacks that were killed", len(stale), beginning, parent)
    return len(stale)


def _is_stale(folder: Path) -> bool:
    """Whether the supervisor of the data folder that is noted in a folder has ended. Without a note nobody knows."""
    data_dir = _owner(folder)
    try:
        return data_dir is not None and not is_locked(lock_path(data_dir))
    except OSError:  # another user's
        return False


def _owner(folder: Path) -> Path | None:
    """The data folder that is noted in a folder of this user's."""
    try:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return None
        return Path((folder / NOTE).read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        return None
