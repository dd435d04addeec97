"""Whose the objects of the embedded S3 are: JuiceFS keeps owners and modes in its meta file, as a file system does.

The gateway may write into the folders of the user who runs it, and root into all. A data folder that another user
goes on with (after `chown -R`, a copy, a restore, a container with another user) holds the number of the one before in
its meta file, which changes no owner of files; every upload would be refused. Knows one table of JuiceFS, of 1.4.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from cluster.errors import Rejected, Temporary

log = logging.getLogger(__name__)

WAIT_MAX_S = 10.0  # for a process of JuiceFS that is about to end
STRANGERS = "SELECT uid FROM jfs_node WHERE uid <> ? LIMIT 1"
TAKE_OVER = "UPDATE jfs_node SET uid = ?, gid = ? WHERE uid <> ?"


def take_over(meta_file: Path) -> None:
    """Have the present user own all objects of a meta file whose gateway does not run. Root needs to own none.

    Raises:
        Temporary: somebody else writes into the meta file.
        Rejected: it cannot be read or written.
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
