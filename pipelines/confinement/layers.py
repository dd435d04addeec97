"""The layers that confine a process, which of them this machine has, and trials that prove they work.

    landlock     only the files it was given                       seccomp       only the system calls of a decoder
    own user     if the worker is root: an unprivileged user       own network   a namespace without any interface

The mode is "strong" if Landlock and seccomp both work, else "weaker"; tasks run in the weaker mode only if the settings
accept it. Each process tries the layers once: a child confined by one layer tries what the layer forbids, and must be
refused. If a layer worked in its trial and later cannot be applied, that is an error; the layer is never skipped.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import resource
import signal
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import landlock
from cluster.landlock import Rule
from pipelines.confinement import seccomp

LANDLOCK, SECCOMP, OWN_USER, OWN_NETWORK = "landlock", "seccomp", "own user", "own network"
LAYERS = (LANDLOCK, SECCOMP, OWN_USER, OWN_NETWORK)
STRONG = frozenset({LANDLOCK, SECCOMP})

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
CLONE_NEWUSER, CLONE_NEWNET = 0x1000_0000, 0x4000_0000
CAPABILITIES_VERSION = 0x2008_0522
OPEN_FILES_MAX = 64
COUNTED_SINCE = (5, 14)  # version of Linux that began to count threads by user namespace
OWN_NETWORK_FILE = Path("/proc/self/ns/net")
MEGABYTE = 1024 * 1024

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class AvailableLayers:
    """The layers that work on this machine, and the reason for each that does not."""

    layers: tuple[str, ...]
    missing: Mapping[str, str]

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> AvailableLayers:
        """Return the layers from the JSON that `python -m pipelines.confinement` prints."""
        return cls(tuple(document["layers"]), dict(document["missing"]))

    @property
    def is_strong(self) -> bool:
        """Whether Landlock and seccomp work."""
        return set(self.layers) >= STRONG

    def line(self) -> str:
        """Return `strong (landlock, seccomp, own user, own network)`, or what is missing and why."""
        mode = "strong" if self.is_strong else "weaker"
        lacking = "".join(f"; no {name}: {reason}" for name, reason in self.missing.items())
        return f"{mode} ({', '.join(self.layers) or 'limits alone'}){lacking}"


@dataclass(frozen=True)
class Confinement:
    """What one child of the sandbox may use: the layers to apply, the user to become, and what its rules allow."""

    layers: Sequence[str]
    uid: int  # user to run as; 0: unchanged
    rules: Sequence[Rule]  # for Landlock
    programs: bool  # whether it may start programs


def hide() -> None:
    """Close /proc/<this process> (environ, mem, fd) to other unprivileged processes, until this one starts a program.

    Every process that holds secrets and starts untrusted work must call it; workers have secrets in their environment.
    """
    _check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "PR_SET_DUMPABLE")


def leave_network() -> str:
    """Move this process, which must have one thread, into a network namespace without interfaces.

    A process that is not root first becomes root in a user namespace of its own. Its children give up these rights in
    `confine`. Return why the move failed, or "".
    """
    inode_before = OWN_NETWORK_FILE.stat().st_ino
    flags = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWUSER | CLONE_NEWNET
    if libc.unshare(flags):
        return os.strerror(ctypes.get_errno())
    return "" if OWN_NETWORK_FILE.stat().st_ino != inode_before else "the namespace is the same"


def find(uid: int, without: Sequence[str] = ()) -> AvailableLayers:
    """Try every layer except `without`, each in a child, and return which ones work.

    The caller must have one thread. Unless `without` names the layer "own network", the caller loses its network for
    good.
    """
    missing = dict.fromkeys(without, "left out")
    if OWN_NETWORK not in missing and (reason := leave_network()):
        missing[OWN_NETWORK] = reason
    if OWN_USER not in missing and (os.geteuid() != 0 or not uid):
        missing[OWN_USER] = "the worker is not root" if uid else "sandbox_uid is 0"
    for name, trial in TRIALS.items():
        if name not in missing and (reason := _tried(Confinement((name,), uid, (), False), trial)):
            missing[name] = reason
    return AvailableLayers(tuple(name for name in LAYERS if name not in missing), missing)


def counts_alone(available: Sequence[str]) -> bool:
    """Whether the kernel counts the threads of children with these layers apart from those of other processes.

    It does if the children run as a user of their own, or in a user namespace of their own (if the worker is not root,
    see `leave_network`). Otherwise a limit on their threads would also limit other processes.
    """
    version = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
    return OWN_USER in available or (OWN_NETWORK in available and os.getuid() != 0 and version >= COUNTED_SINCE)


def confine(confinement: Confinement, keeper: int) -> None:
    """Apply the layers to this process, a child of `keeper` with one thread; this cannot be undone.

    Raises:
        OSError: a layer cannot be applied. The caller must end the process then.
    """
    landlock.give_up_privileges()
    if OWN_USER in confinement.layers:
        os.setgroups([])
        os.setresgid(confinement.uid, confinement.uid, confinement.uid)
        os.setresuid(confinement.uid, confinement.uid, confinement.uid)
    _drop_capabilities()
    hide()
    _check(
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), "PR_SET_PDEATHSIG"
    )  # after the change of user, which resets it
    if os.getppid() != keeper:
        os._exit(1)
    if LANDLOCK in confinement.layers:
        landlock.restrict(confinement.rules)
    if SECCOMP in confinement.layers:
        seccomp.restrict(programs=confinement.programs)


def limit(cpu_s: int, file_mb: int, memory_mb: int, threads: int = 0) -> None:
    """Limit the resources of this process.

    Args:
        cpu_s: CPU time in seconds.
        file_mb: Size of each file that it writes, in MB.
        memory_mb: Address space besides what is mapped now, in MB.
        threads: Threads of its user in all; 0: no limit.
    """
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES_MAX, OPEN_FILES_MAX))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_mb * MEGABYTE, file_mb * MEGABYTE))
    if threads:
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        threads_max = threads if hard == resource.RLIM_INFINITY else min(threads, hard)
        resource.setrlimit(resource.RLIMIT_NPROC, (threads_max, threads_max))
    with open("/proc/self/statm", encoding="ascii") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    space = mapped + memory_mb * MEGABYTE
    resource.setrlimit(resource.RLIMIT_AS, (space, space))


def _drop_capabilities() -> None:
    """Give up all capabilities."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITIES_VERSION, 0))
    _check(libc.capset(header, ctypes.create_string_buffer(24)), "capset")  # effective, permitted, inheritable: none


def _check(answer: int, what: str) -> None:
    """Raise the error of a failed system call."""
    if answer:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


# ── Trials: each runs in a child that has one layer, and says what is wrong with it ────────────────────────────────


def _try_landlock() -> str:
    """Try to open a file that no rule allows; return what is wrong if that is not refused."""
    return _refused(lambda: os.close(os.open("/proc/self/stat", os.O_RDONLY)), errno.EACCES)


def _try_seccomp() -> str:
    """Try to open a socket; return what is wrong if that is not refused."""
    return _refused(lambda: socket.socket(socket.AF_UNIX).close(), errno.EPERM)


def _try_own_user() -> str:
    """Try to become root; return what is wrong if that is not refused."""
    return _refused(lambda: os.setuid(0), errno.EPERM)


TRIALS: Mapping[str, Callable[[], str]] = {
    LANDLOCK: _try_landlock, SECCOMP: _try_seccomp, OWN_USER: _try_own_user
}  # fmt: skip


def _refused(action: Callable[[], None], expected: int) -> str:
    """Return what is wrong if the action is not refused with the expected error; empty if it is."""
    try:
        action()
    except OSError as error:
        return "" if error.errno == expected else f"refused otherwise than expected: {error.strerror}"
    return "it was put on, and refuses nothing"


def _tried(confinement: Confinement, trial: Callable[[], str]) -> str:
    """Run a trial in a child with this confinement; return what is wrong with the layer, or ""."""
    ours, theirs = os.pipe()
    keeper, child = os.getpid(), os.fork()
    if child == 0:
        reason = "the trial failed"
        try:
            confine(confinement, keeper)
            reason = trial()
        except OSError as error:
            reason = error.strerror or str(error)
        finally:
            os.write(theirs, json.dumps(reason).encode())
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as answer:
        written = answer.read()
    os.waitpid(child, 0)
    return str(json.loads(written)) if written else "the trial ended without a word"
