"""Where the door's sockets lie: in a folder of ours alone, beside the data or, where that path is too long, in `/tmp`.

A folder in `/tmp` is outlived by nobody: it is removed when the door has stopped, and what doors that were killed have
left is removed before the next one starts. There others may write beside us, so that no link is followed and nothing is
touched that is not ours, private, and made of sockets that nobody answers. Knows nothing of HAProxy.
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

SOCKET_PATH_MAX = 80  # HAProxy takes paths of 97, and adds a suffix while it binds
SHORT = Path("/tmp")  # noqa: S108  the one short path every Linux has
PRIVATE = 0o700
STALE_AFTER_S = 60.0  # longer than a door takes from its folder to its first socket
LOOKED_AT_MAX = 2000  # folders, before one start
ANSWER_TIMEOUT_S = 0.5


def folder(settings: Settings) -> Path:
    """The folder of a deployment's sockets."""
    own = settings.data_dir / "run" / "door"
    if len(str(own / "admin.sock")) <= SOCKET_PATH_MAX:
        return own
    digest = hashlib.sha256(str(settings.data_dir).encode()).hexdigest()[:10]
    return SHORT / f"{_prefix()}{digest}"


def make_private(path: Path) -> None:
    """Make a folder of ours alone.

    Raises:
        Rejected: another user made it before us, or something else lies there.
    """
    folders.make_private(path)
    os.utime(path)  # it is about to be used, however old it is


def remove(settings: Settings) -> None:
    """Remove a deployment's own folder in `/tmp`; its door has ended."""
    path = folder(settings)
    if path.parent == SHORT:
        _remove(path)


def remove_stale() -> int:
    """Remove the folders in `/tmp` that doors of this user have left; returns how many."""
    name = re.compile(re.escape(_prefix()) + "[0-9a-f]{10}")
    entries = (entry for entry in os.scandir(SHORT) if name.fullmatch(entry.name))
    removed = 0
    for entry in itertools.islice(entries, LOOKED_AT_MAX):
        with contextlib.suppress(FileNotFoundError):  # another start was quicker
            is_old = time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_AFTER_S
            removed += is_old and _remove(Path(entry.path))
    if removed:
        log.info("removed what %d doors have left in %s", removed, SHORT)
    return removed


def _remove(path: Path) -> bool:
    """Remove a folder of dead sockets, if that is what it is."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # not there, a link, no folder, or another user's
        return False
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != PRIVATE:
            return False
        names = os.listdir(descriptor)  # noqa: PTH208  of the folder that was looked at, not of its path
        if not all(_is_dead_socket(path / each) for each in names):
            return False
        for each in names:
            os.unlink(each, dir_fd=descriptor)
        path.rmdir()
    except OSError as error:
        log.warning("%s stays: %s", path, error)
        return False
    finally:
        os.close(descriptor)
    return True


def _is_dead_socket(path: Path) -> bool:
    if not stat.S_ISSOCK(path.lstat().st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_TIMEOUT_S)
        try:
            connection.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        except OSError:  # too many wait to be answered, which somebody does then
            return False
    return False


def _prefix() -> str:
    return f"pixr-door-{os.geteuid()}-"
