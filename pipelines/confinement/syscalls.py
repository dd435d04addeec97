"""The system calls that a decoder makes, by machine, and with which arguments: data for `seccomp`.

All others are refused: sockets, new processes, programs, signals, ptrace, reading other processes' memory, mounts,
namespaces, keys, bpf, io_uring, changes of names and modes of files, and whatever later kernels add.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MACHINES = ("x86_64", "aarch64")
ABSENT = -1

# fmt: off
NUMBERS: Mapping[str, tuple[int, int]] = {  # x86_64, aarch64
    # Descriptors and files; Landlock decides which files may be opened.
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67), "pwrite64": (18, 68),
    "lseek": (8, 62), "close": (3, 57), "close_range": (436, 436), "open": (2, ABSENT), "openat": (257, 56),
    "stat": (4, ABSENT), "lstat": (6, ABSENT), "fstat": (5, 80), "newfstatat": (262, 79), "statx": (332, 291),
    "access": (21, ABSENT), "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, ABSENT),
    "readlinkat": (267, 78), "getdents64": (217, 61), "getcwd": (79, 17), "dup": (32, 23), "dup2": (33, ABSENT),
    "dup3": (292, 24), "fcntl": (72, 25), "ioctl": (16, 29), "ftruncate": (77, 46), "fallocate": (285, 47),
    "fadvise64": (221, 223), "fsync": (74, 82), "fdatasync": (75, 83),
    "poll": (7, ABSENT), "ppoll": (271, 73), "select": (23, ABSENT), "pselect6": (270, 72),
    # Memory.
    "mmap": (9, 222), "munmap": (11, 215), "mremap": (25, 216), "mprotect": (10, 226), "madvise": (28, 233),
    "brk": (12, 214), "msync": (26, 227), "mincore": (27, 232), "membarrier": (324, 283),
    # Threads, and ending the process.
    "clone": (56, 220), "clone3": (435, 435), "set_robust_list": (273, 99), "get_robust_list": (274, 100),
    "set_tid_address": (218, 96), "rseq": (334, 293), "futex": (202, 98), "exit": (60, 93), "exit_group": (231, 94),
    "restart_syscall": (219, 128), "sched_yield": (24, 124), "sched_getaffinity": (204, 123),
    "sched_getparam": (143, 121), "sched_getscheduler": (145, 120), "sched_get_priority_max": (146, 125),
    "sched_get_priority_min": (147, 126), "getcpu": (309, 168), "prctl": (157, 167),
    # Its own signals.
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "tgkill": (234, 131),
    # Identity, limits and time.
    "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "getrusage": (98, 165), "getrlimit": (97, 163),
    "prlimit64": (302, 261), "sysinfo": (99, 179), "uname": (63, 160), "times": (100, 153),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101),
    "gettimeofday": (96, 169), "time": (201, ABSENT), "getrandom": (318, 278),
    # Programs, if the profile names any.
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, ABSENT), "vfork": (58, ABSENT), "wait4": (61, 260),
    "waitid": (247, 95), "pipe": (22, ABSENT), "pipe2": (293, 59), "arch_prctl": (158, ABSENT),
    "memfd_create": (319, 279),  # such a file is not counted by any limit on memory
}
FOR_PROGRAMS = ("execve", "execveat", "fork", "vfork", "wait4", "waitid", "pipe", "pipe2", "arch_prctl", "memfd_create")
# fmt: on

CLONE_THREAD = 0x0001_0000
CLONE_NAMESPACES = 0x7E02_0000 | 0x80  # CLONE_NEW*
PROT_EXEC = 4
FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030, 1033, 1034)  # F_DUPFD to F_SETFL, F_DUPFD_CLOEXEC, F_ADD_SEALS, F_GET_SEALS
IOCTLS = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
PRCTLS = (15, 16, 0x53564D41)  # PR_SET_NAME, PR_GET_NAME, PR_SET_VMA: names of threads and of memory


@dataclass(frozen=True)
class OneOf:
    """Condition that the low half of an argument is one of these values."""

    argument: int
    values: tuple[int, ...]


@dataclass(frozen=True)
class Bits:
    """Condition that an argument has one of the bits or, if `wanted` is false, none of them."""

    argument: int
    bits: int
    wanted: bool


Condition = OneOf | Bits


def conditions(pid: int, *, programs: bool) -> dict[str, Condition]:
    """Return the conditions on the arguments of calls, for the process `pid`."""
    checks: dict[str, Condition] = {
        "fcntl": OneOf(1, FCNTL_COMMANDS),
        "ioctl": OneOf(1, IOCTLS),
        "prctl": OneOf(0, PRCTLS),
        "prlimit64": OneOf(0, (0,)),  # limits of its own
        "tgkill": OneOf(0, (pid,)),  # abort(3) signals its own thread
        "clone": Bits(0, CLONE_NAMESPACES, wanted=False) if programs else Bits(0, CLONE_THREAD, wanted=True),
    }
    if not programs:  # memory must not become code; what the decoders need is loaded already
        checks |= {name: Bits(2, PROT_EXEC, wanted=False) for name in ("mmap", "mprotect")}
    return checks
