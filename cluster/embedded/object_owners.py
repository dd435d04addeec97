"""The owners of objects in the embedded S3: JuiceFS keeps a user and a mode for each, as a file system does.

The gateway may write only into folders whose owner is the user that runs it; root may write into all. When another user
takes over a data folder (after `chown -R`, a copy, a restore, in another container), the meta file still names the old
user, and every upload would be refused. Knows one table of JuiceFS 1.4 (`jfs_node`).
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from cluster.errors import Rejected, Temporary

log = logging.getLogger(__name__)

WAIT_MAX_S = 10.0  # for the lock of a JuiceFS process that is about to end
STRANGERS = "SELECT uid FROM jfs_node WHERE uid <> ? LIMIT 1"
TAKE_OVER = "UPDATE jfs_node SET uid = ?, gid = ? WHERE uid <> ?"


def take_over(meta_file: Path) -> None:
    """Make the current user the owner of all objects in the meta file of a stopped gateway. Does nothing for root.

    Raises:
        Temporary: another process writes to the meta file.
        Rejected: the meta file cannot be read or written.
    """
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        return
    try:
        with closing(sqlite3.connect(meta_file, timeout=WAIT_MAX_S, isolation_level=None)) as connection:
            stranger = connection.execute(STRANGERS, (user,)).fetchone()
            if stranger is None:
                return
            connection.execute(TAKE_OVER, (user, group, user))
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            raise Temporary(f"{meta_file} is in use") from error
        raise Rejected(f"the S3 gateway's {meta_file} cannot be used: {error}") from error
    log.warning("the objects in %s were those of user %d; they are user %d's from now on", meta_file, *stranger, user)
