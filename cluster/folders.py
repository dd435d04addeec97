"""Folders that only their owner may enter: the data folder, and short ones in /tmp for sockets that need a short path.

The mode 0700 of the folder itself keeps other users out; files inside may have any mode (Ray opens its folders to
everyone). Knows no service.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pwd
import shlex
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from cluster.errors import Rejected

log = logging.getLogger(__name__)

OTHERS = 0o077  # the bits of group and others
UMASK = 0o077  # of every process of ours
OURS = ("run/ports.json", "run/supervisor.lock", "secrets")  # every data folder that was used has at least one


def close_data_folder(folder: Path) -> None:
    """Create the data folder with mode 0700, or close an existing one to group and others, with a warning.

    Raises:
        Rejected: the folder is another user's; or it is open to others and has files that are not Pixr's, so that closing
            it could lock out the users of these files.
    """
    try:
        if not folder.exists():
            make_private(folder)
            return
        mode = stat.S_IMODE(folder.stat().st_mode)
        if _is_used(folder) and next(_of_others(folder), None):
            raise refusal(folder)
        if not mode & OTHERS:
            return
        if mode & stat.S_ISVTX or (not _is_used(folder) and any(folder.iterdir())):
            hint = f"name an empty or a new one with PIXR_DATA_DIR, or close it with `chmod 700 {folder}`"
            raise Rejected(f"the data folder {folder} is open to other users and holds what is not Pixr's", hint=hint)
        folder.chmod(mode & ~OTHERS)
    except PermissionError as error:
        hint = "choose another with PIXR_DATA_DIR"
        raise Rejected(
            f"the data folder {folder} cannot be closed to other users: {error.strerror}", hint=hint
        ) from error
    log.warning("the data folder %s was open to other users (mode %o); it is closed now (700)", folder, mode)


def refusal(folder: Path) -> Rejected:
    """Return the error for a data folder that this user may not use: who owns it, as far as visible, and what to do."""
    elsewhere = "choose another with PIXR_DATA_DIR"
    other = next(_of_others(folder), None)
    if other is None:
        return Rejected(f"the data folder {folder} is not writable", hint=elsewhere)
    give = f"give it to this one with `sudo chown -R {os.geteuid()} {shlex.quote(str(folder))}`"
    hint = f"run Pixr as that user, or {give if _is_used(folder) else elsewhere}"
    return Rejected(f"the data folder is another user's: {other} belongs to {_name(other.lstat().st_uid)}", hint=hint)


def require_space(folder: Path, kept_mb: int, coming_bytes: int = 0) -> None:
    """Check the free space on the disk of the data folder before work begins that would fill it.

    Args:
        folder: Any folder on that disk.
        kept_mb: Free space that must be left, in MiB.
        coming_bytes: How much the work will write, in bytes.

    Raises:
        Rejected: less than `kept_mb` would be left.
    """
    free_mb, needed_mb = shutil.disk_usage(folder).free >> 20, kept_mb + -(-coming_bytes >> 20)
    if free_mb < needed_mb:
        hint = "free some, or choose another folder with PIXR_DATA_DIR"
        raise Rejected(f"no space left in {folder}: {free_mb} MB free, {needed_mb} MB needed", hint=hint)


def make_private(folder: Path) -> None:
    """Create a folder that only its owner may enter (mode 0700), or set that mode on an existing one of this user.

    Raises:
        Rejected: the folder is another user's, or something else has this path.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise Rejected(f"{folder} belongs to another user", hint="remove it, or choose a shorter PIXR_DATA_DIR")
    folder.chmod(0o700)


def opener(path: str, flags: int) -> int:
    """Open a file for `open(…, opener=opener)`: a file that is created has mode 0600, whatever the umask."""
    return os.open(path, flags, 0o600)


def short(data_dir: Path, purpose: str) -> Path:
    """Return the path of a folder in /tmp, for sockets and Ray where the data folder's path is too long or has spaces.

    The path depends on the data folder and the user; the caller creates the folder with `make_private`.
    """
    digest = hashlib.sha256(str(data_dir).encode()).hexdigest()[:10]
    return Path("/tmp") / f"pixr-{purpose}-{os.geteuid()}-{digest}"  # noqa: S108  the one short path every Linux has


def _is_used(folder: Path) -> bool:
    """Return whether Pixr ran in a folder before, as far as this user may see."""
    return any(os.path.exists(folder / name) for name in OURS)  # noqa: PTH110  Path.exists raises where it may not look


def _of_others(folder: Path) -> Iterator[Path]:
    """Yield the paths that belong to another user: the folder, its entries, and their entries. Yields nothing for root."""
    user = os.geteuid()
    for path in (folder, *folder.glob("*"), *folder.glob("*/*")) if user else ():
        with contextlib.suppress(OSError):  # removed since it was listed, or below what cannot be entered
            if path.lstat().st_uid != user:
                yield path


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
