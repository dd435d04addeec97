"""Landlock: let a process give up access to files, sockets and signals for good, enforced by the kernel (landlock(7)).

Everything that this kernel's Landlock can control is denied unless a rule allows it: files, folders, devices, TCP ports
(optional), abstract UNIX sockets, and signals to processes outside. A process needs no privilege to restrict itself and
cannot undo it; root and its capabilities are restricted in the same way. Knows no program.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the numbers are the same on every machine
CREATE_RULESET_VERSION, RULE_PATH_BENEATH = 1, 1

# Rights on files, one bit each: linux/landlock.h.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
FILE_RIGHTS = ((1, (1 << 13) - 1), (2, 1 << 13), (3, TRUNCATE), (5, 1 << 15))  # (first version that knows them, bits)
NET_RIGHTS, NET_SINCE = 0b11, 4  # bind and connect TCP; the first version that knows them
SCOPES, SCOPES_SINCE = 0b11, 6  # abstract UNIX sockets, signals; the first version that knows them

READ = READ_FILE
WRITE = READ_FILE | WRITE_FILE | TRUNCATE
RUN = READ_FILE | EXECUTE
FOLDER = READ_FILE | READ_DIR | EXECUTE
OWN = sum(rights for _, rights in FILE_RIGHTS) & ~EXECUTE  # on a folder: everything except executing files in it

PR_SET_NO_NEW_PRIVS = 38

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Rule:
    """A file or folder, and the rights that stay allowed on it and, for a folder, on everything inside.

    `descriptor` is an open file descriptor (O_PATH is enough); `rights` is a bit mask such as `READ` or `FOLDER`.
    """

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
    """Return the version of the kernel's Landlock, 1 or more.

    Raises:
        OSError: the kernel has no Landlock (ENOSYS), or it is switched off (EOPNOTSUPP).
    """
    return _call(CREATE_RULESET, None, 0, CREATE_RULESET_VERSION)


def give_up_privileges() -> None:
    """Make sure that no program started by this process gains rights by being started (PR_SET_NO_NEW_PRIVS).

    Raises:
        OSError: the kernel refuses.
    """
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, f"PR_SET_NO_NEW_PRIVS: {os.strerror(error)}")


def restrict(rules: Iterable[Rule], network: bool = False) -> None:
    """Restrict the calling thread to what the rules allow, for good; `give_up_privileges` must have been called before.

    Args:
        rules: The files and folders that stay accessible.
        network: Leave TCP unrestricted.

    Raises:
        OSError: the kernel has no Landlock, or refuses a rule.
    """
    known = version()
    handled = sum(rights for since, rights in FILE_RIGHTS if since <= known)
    ports = NET_RIGHTS if known >= NET_SINCE and not network else 0
    attributes = _Ruleset(handled, ports, SCOPES if known >= SCOPES_SINCE else 0)
    size = 24 if known >= SCOPES_SINCE else 16 if known >= NET_SINCE else 8  # bytes of the struct in this version
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
    """Call a system call with integers and pointers; raise `OSError` when it fails."""
    words = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    result = int(libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"landlock: {os.strerror(error)}")
    return result
