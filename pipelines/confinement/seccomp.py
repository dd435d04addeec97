"""seccomp: a filter of system calls, assembled for this machine and given to the kernel (seccomp(2)).

The filter lists the allowed calls. Any other call returns EPERM, so a library can go on without it. A call with the
numbering of another architecture ends the process. Applying the filter needs no privilege and cannot be undone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from pipelines.confinement.syscalls import ABSENT, FOR_PROGRAMS, MACHINES, NUMBERS, Bits, Condition, conditions

PR_SET_SECCOMP, MODE_FILTER = 22, 2
AUDIT_ARCH = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}

# Offsets of the filter's input (struct seccomp_data), and instruction codes (linux/bpf_common.h).
NUMBER_AT, ARCH_AT, ARGUMENTS_AT = 0, 4, 16
LOAD, JUMP_EQUAL, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, KILL_PROCESS, ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


class _Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def known() -> bool:
    """Whether the system calls of this machine are listed in `syscalls`."""
    return os.uname().machine in MACHINES


def restrict(*, programs: bool) -> None:
    """Confine the calling thread, which must have PR_SET_NO_NEW_PRIVS; if `programs` is true, it may start programs.

    Raises:
        OSError: the kernel has no seccomp, or the machine is unknown (ENOSYS).
    """
    machine = os.uname().machine
    if machine not in MACHINES:
        raise OSError(errno.ENOSYS, f"seccomp: the system calls of {machine} are not known here")
    code = b"".join(struct.pack("<HBBI", *each) for each in assemble(machine, os.getpid(), programs=programs))
    program = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(MODE_FILTER), ctypes.byref(program), 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, f"seccomp: {os.strerror(error)}")


def assemble(machine: str, pid: int, *, programs: bool) -> list[Instruction]:
    """Return the filter for the process `pid`."""
    column, checked = MACHINES.index(machine), conditions(pid, programs=programs)
    filter_: list[Instruction] = [
        (LOAD, 0, 0, ARCH_AT),
        (JUMP_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, NUMBER_AT),
    ]
    for name, numbers in NUMBERS.items():
        number = numbers[column]
        if number == ABSENT or (name in FOR_PROGRAMS and not programs):
            continue
        verdict = _looked_at(checked[name]) if name in checked else [(RETURN, 0, 0, ALLOW)]
        if name == "clone3":  # its flags are in memory, which a filter cannot read; glibc falls back to clone
            verdict = [(RETURN, 0, 0, ERRNO | errno.ENOSYS)]
        filter_ += [(JUMP_EQUAL, 0, len(verdict), number), *verdict]
    return [*filter_, (RETURN, 0, 0, ERRNO | errno.EPERM)]


def _looked_at(condition: Condition) -> list[Instruction]:
    """Return instructions that check the low half of an argument, and allow or refuse the call."""
    allow, refuse = (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ERRNO | errno.EPERM)
    load = (LOAD, 0, 0, ARGUMENTS_AT + 8 * condition.argument)
    if isinstance(condition, Bits):
        first, second = (allow, refuse) if condition.wanted else (refuse, allow)
        return [load, (JUMP_ANY_BIT, 0, 1, condition.bits), first, second]
    count = len(condition.values)
    tests = [(JUMP_EQUAL, count - number, 0, value) for number, value in enumerate(condition.values)]
    return [load, *tests, refuse, allow]
