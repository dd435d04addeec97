"""A kernel without Landlock, for what a thread starts."""

from __future__ import annotations

import ctypes
import errno
import struct

from cluster import landlock
from pipelines.confinement import seccomp


def forget_landlock() -> None:
    """Let no call of Landlock reach the kernel, of this thread and of what it starts."""
    code = b"".join(
        struct.pack("<HBBI", *each)
        for each in (
            (seccomp.LOAD, 0, 0, seccomp.NUMBER_AT),
            (seccomp.JUMP_EQUAL, 0, 1, landlock.CREATE_RULESET),
            (seccomp.RETURN, 0, 0, seccomp.ERRNO | errno.ENOSYS),
            (seccomp.RETURN, 0, 0, seccomp.ALLOW),
        )
    )
    program, libc = seccomp._Program(len(code) // 8, code), ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(landlock.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    filter_ = (seccomp.PR_SET_SECCOMP, ctypes.c_ulong(seccomp.MODE_FILTER), ctypes.byref(program), 0, 0)
    assert libc.prctl(*filter_) == 0
