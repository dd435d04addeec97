"""Landlock: a process says which files it will open from now on, and the kernel holds it to that (landlock(7)).

Everything that this kernel's Landlock knows is handled, so what no rule allows is refused: files, folders, devices, TCP
ports (but for a server), abstract UNIX sockets and signals to processes outside. It needs no privilege, and cannot be
taken back. Root and its capabilities are held to it as anybody is.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the numbers are the same on every machine
CREATE_RULESET_VERSION, RULE_PATH_BENEATH = 1, 1

# Rights on files, by bit: linux/landlock.h.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
FILE_RIGHTS = ((1, (1 << 13) - 1), (2, 1 << 13), (3, TRUNCATE), (5, 1 << 15))  # since which version
NET_RIGHTS, NET_SINCE = 0b11, 4  # to bind and to connect TCP
SCOPES, SCOPES_SINCE = 0b11, 6  # abstract UNIX sockets, signals

READ = READ_FILE
WRITE = READ_FILE | WRITE_FILE | TRUNCATE
RUN = READ_FILE | EXECUTE
FOLDER = READ_FILE | READ_DIR | EXECUTE
OWN = sum(rights for _, rights in FILE_RIGHTS) & ~EXECUTE  # of a folder: everything, but to start what lies in it

PR_SET_NO_NEW_PRIVS = 38

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Rule:
    """An open file or folder (O_PATH is enough), and what may be done with it and what lies in it."""

    descriptor: int
    rights: int


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def version() -> int:
    """The version of the kernel's Landlock, 1 or more.

    Raises:
        OSError: the kernel has none (ENOSYS), or it is switched off (EOPNOTSUPP).
    """
    return _call(CREATE_RULESET, None, 0, CREATE_RULESET_VERSION)


def give_up_privileges() -> None:
    """Have nothing that this process starts gain rights by being started (PR_SET_NO_NEW_PRIVS).

    Raises:
        OSError: the kernel refuses.
    """
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, f"PR_SET_NO_NEW_PRIVS: {os.strerror(error)}")


def restrict(rules: Iterable[Rule], network: bool = False) -> None:
    """Confine the calling thread, which has given up its privileges, for good. `network` leaves TCP as it is.

    Raises:
        OSError: the kernel has no Landlock, or refuses a rule.
    """
    known = version()
    handled = sum(rights for since, rights in FILE_RIGHTS if since <= known)
    ports = NET_RIGHTS if known >= NET_SINCE and not network else 0
    attributes = _Ruleset(handled, ports, SCOPES if known >= SCOPES_SINCE else 0)
    size = 24 if known >= SCOPES_SINCE else 16 if known >= NET_SINCE else 8  # what this version has of the structure
    with _closing(_call(CREATE_RULESET, ctypes.byref(attributes), size, 0)) as ruleset:
        for rule in rules:
            beneath = _PathBeneath(rule.rights & handled, rule.descriptor)
            _call(ADD_RULE, ruleset, RULE_PATH_BENEATH, ctypes.byref(beneath), 0)
        _call(RESTRICT_SELF, ruleset, 0)


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    answer = int(libc.syscall(ctypes.c_long(number), *words))
    if answer < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"landlock: {os.strerror(error)}")
    return answer
