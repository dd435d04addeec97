"""Folders that their owner alone may enter: the data folder, and short ones in /tmp where sockets need a short path.

What lies inside may be as open as other programs make it (Ray opens its folders to everybody): the door is the folder's
own mode. Knows no service.
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
OURS = ("run/ports.json", "run/supervisor.lock", "secrets")  # one of them is in every data folder that was used


def close_data_folder(folder: Path) -> None:
    """Make the data folder with mode 0700, or close one that is wider, with a warning.

    Raises:
        Rejected: it is another user's, or it is open and holds what is not ours, so that closing it may lock others out.
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
        if mode & stat.S_ISVTX or not _is_ours(folder):
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
    """What to say of a data folder that this user may not use: whose it is, as far as that can be seen, and what to do."""
    elsewhere = "choose another with PIXR_DATA_DIR"
    other = next(_of_others(folder), None)
    if other is None:
        return Rejected(f"the data folder {folder} is not writable", hint=elsewhere)
    give = f"give it to this one with `sudo chown -R {os.geteuid()} {shlex.quote(str(folder))}`"
    hint = f"run Pixr as that user, or {give if _is_used(folder) else elsewhere}"
    return Rejected(f"the data folder is another user's: {other} belongs to {_name(other.lstat().st_uid)}", hint=hint)


def require_space(folder: Path, kept_mb: int, coming_bytes: int = 0) -> None:
    """Refuse to begin what would fill the disk of the data folder.

    Raises:
        Rejected: with `coming_bytes` more in it less than `kept_mb` would be free.
    """
    free_mb, needed_mb = shutil.disk_usage(folder).free >> 20, kept_mb + -(-coming_bytes >> 20)
    if free_mb < needed_mb:
        hint = "free some, or choose another folder with PIXR_DATA_DIR"
        raise Rejected(f"no space left in {folder}: {free_mb} MB free, {needed_mb} MB needed", hint=hint)


def make_private(folder: Path) -> None:
    """Make a folder that its owner alone may enter (0700), or close one of ours.

    Raises:
        Rejected: another user made it before us, or something else lies there.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise Rejected(f"{folder} belongs to another user", hint="remove it, or choose a shorter PIXR_DATA_DIR")
    folder.chmod(0o700)


def opener(path: str, flags: int) -> int:
    """For `open`: a file that is made is its owner's alone, whatever the umask."""
    return os.open(path, flags, 0o600)


def short(data_dir: Path, purpose: str) -> Path:
    """The path of a folder in /tmp, for sockets and Ray where a path is too long or has spaces; to be made private."""
    digest = hashlib.sha256(str(data_dir).encode()).hexdigest()[:10]
    return Path("/tmp") / f"pixr-{purpose}-{os.geteuid()}-{digest}"  # noqa: S108  the one short path every Linux has


def _is_ours(folder: Path) -> bool:
    return _is_used(folder) or not any(folder.iterdir())


def _is_used(folder: Path) -> bool:
    """Whether Pixr ran in a folder, as far as this user may know."""
    return any(os.path.exists(folder / name) for name in OURS)  # noqa: PTH110  Path.exists raises where it may not look


def _of_others(folder: Path) -> Iterator[Path]:
    """Paths that are another user's: the folder, what is in it, and what is one level below. To root all are its own."""
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
