"""The folder of the door's sockets: beside the data or, where that path is too long for a socket, in `/tmp`.

A folder in `/tmp` is removed when the door has stopped; folders that killed doors have left are removed before the next
start. Other users can write to `/tmp` too, so links are not followed. A folder there is removed only if it is private,
belongs to this user, and nothing listens on its sockets. Knows nothing of HAProxy.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
import re
import socket
import stat
import time
from pathlib import Path

from cluster import folders
from cluster.settings import Settings

log = logging.getLogger(__name__)

SOCKET_PATH_MAX = 80  # characters; HAProxy takes paths of 97, and adds a suffix while it binds
SHORT = Path("/tmp")  # noqa: S108  the one short path every Linux has
PRIVATE = 0o700
STALE_AFTER_S = 60.0  # longer than a door takes from creating its folder to its first socket
STALE_CHECKED_MAX = 2000  # folders that are checked before one start
ANSWER_TIMEOUT_S = 0.5


def folder(settings: Settings) -> Path:
    """Return the path of the folder of a deployment's sockets."""
    beside_data = settings.data_dir / "run" / "door"
    if len(str(beside_data / "admin.sock")) <= SOCKET_PATH_MAX:
        return beside_data
    digest = hashlib.sha256(str(settings.data_dir).encode()).hexdigest()[:10]
    return SHORT / f"{_prefix()}{digest}"


def make_private(path: Path) -> None:
    """Create a folder that only this user may enter, or make an existing one private.

    Raises:
        Rejected: the folder is another user's, or something else has this path.
    """
    folders.make_private(path)
    os.utime(path)  # so that an old folder does not count as stale before its sockets exist


def remove(settings: Settings) -> None:
    """Remove a deployment's folder in `/tmp`, if it has one. Call it only after the deployment's door has ended."""
    path = folder(settings)
    if path.parent == SHORT:
        _remove(path)


def remove_stale() -> int:
    """Remove the folders in `/tmp` that killed doors of this user have left; return how many."""
    name = re.compile(re.escape(_prefix()) + "[0-9a-f]{10}")
    entries = (entry for entry in os.scandir(SHORT) if name.fullmatch(entry.name))
    removed = 0
    for entry in itertools.islice(entries, STALE_CHECKED_MAX):
        with contextlib.suppress(FileNotFoundError):  # another start has removed it
            is_old = time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_AFTER_S
            removed += is_old and _remove(Path(entry.path))
    if removed:
        log.info("removed what %d doors have left in %s", removed, SHORT)
    return removed


def _remove(path: Path) -> bool:
    """Remove a folder if it is this user's, private, and has only dead sockets in it; return whether it was removed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # does not exist, is a link or a file, or is another user's
        return False
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) != PRIVATE:
            return False
        names = os.listdir(descriptor)  # noqa: PTH208  of the open folder; its path may lead elsewhere by now
        if not all(_is_dead_socket(path / name) for name in names):
            return False
        for name in names:
            os.unlink(name, dir_fd=descriptor)
        path.rmdir()
    except OSError as error:
        log.warning("%s stays: %s", path, error)
        return False
    finally:
        os.close(descriptor)
    return True


def _is_dead_socket(path: Path) -> bool:
    """Return whether a path is a UNIX socket that nothing listens on."""
    if not stat.S_ISSOCK(path.lstat().st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_TIMEOUT_S)
        try:
            connection.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        except OSError:  # e.g. the listener's queue is full, so there is a listener
            return False
    return False


def _prefix() -> str:
    return f"pixr-door-{os.geteuid()}-"
