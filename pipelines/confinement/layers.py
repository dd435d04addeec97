"""The layers that confine a process, which of them this machine has, and the proof that they hold.

    landlock     only the files it was given                       seccomp       only the calls of a decoder
    own user     where the worker is root: an unprivileged one     own network   a namespace without any interface

"strong" is Landlock and seccomp, whatever else there is; all else is "weaker", and runs only where the settings accept
it. What a machine has is found out once a process, by trying: a trial child is confined and must be refused what it then
tries. A layer that was found and later cannot be put on is an error, never skipped.
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
COUNTED_SINCE = (5, 14)  # Linux: threads are counted by user namespace
OWN_NETWORK_FILE = Path("/proc/self/ns/net")
MEGABYTE = 1024 * 1024

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class AvailableLayers:
    """The layers that hold on this machine, and why others do not."""

    layers: tuple[str, ...]
    missing: Mapping[str, str]

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> AvailableLayers:
        return cls(tuple(document["layers"]), dict(document["missing"]))

    @property
    def is_strong(self) -> bool:
        return set(self.layers) >= STRONG

    def line(self) -> str:
        """`strong (landlock, seccomp, own user, own network)`, or what is missing and why."""
        mode = "strong" if self.is_strong else "weaker"
        lacking = "".join(f"; no {name}: {reason}" for name, reason in self.missing.items())
        return f"{mode} ({', '.join(self.layers) or 'limits alone'}){lacking}"


@dataclass(frozen=True)
class Confinement:
    """What one child is held to. `uid` 0 keeps the user; `rules` are for Landlock."""

    layers: Sequence[str]
    uid: int
    rules: Sequence[Rule]
    programs: bool


def hide() -> None:
    """Close /proc/<this process> (environ, mem, fd) to other processes, but those of root; until it starts a program.

    For every process that starts untrusted work and holds secrets, as a worker does in its environment.
    """
    _check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "PR_SET_DUMPABLE")


def leave_network() -> str:
    """Move this process, which has one thread, into a network of its own with nothing in it; or why that fails.

    Who is not root becomes so in a user namespace of its own for it: children give up all that with `confine`.
    """
    before = OWN_NETWORK_FILE.stat().st_ino
    flags = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWUSER | CLONE_NEWNET
    if libc.unshare(flags):
        return os.strerror(ctypes.get_errno())
    return "" if OWN_NETWORK_FILE.stat().st_ino != before else "the namespace is the same"


def find(uid: int, without: Sequence[str] = ()) -> AvailableLayers:
    """Try every layer but `without`, each in a child, on a process that has one thread. Leaves the network for good."""
    missing = dict.fromkeys(without, "left out")
    if OWN_NETWORK not in missing and (reason := leave_network()):
        missing[OWN_NETWORK] = reason
    if OWN_USER not in missing and (os.geteuid() != 0 or not uid):
        missing[OWN_USER] = "the worker is not root" if uid else "sandbox_uid is 0"
    for name, trial in TRIALS.items():
        if name not in missing and (reason := _tried(Confinement((name,), uid, (), False), trial)):
            missing[name] = reason
    return AvailableLayers(tuple(name for name in LAYERS if name not in missing), missing)


def counts_alone(found: Sequence[str]) -> bool:
    """Whether the kernel counts the threads of children confined like this apart from those of anything else.

    Only then is a limit on them no limit on others: they are a user of their own, or in a user namespace of their own
    (where the worker is not root; see `leave_network`).
    """
    version = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
    return OWN_USER in found or (OWN_NETWORK in found and os.getuid() != 0 and version >= COUNTED_SINCE)


def confine(confinement: Confinement, keeper: int) -> None:
    """Put the layers on this process, a child of `keeper` with one thread. For good.

    Raises:
        OSError: a layer cannot be put on. The caller must end the process then.
    """
    landlock.give_up_privileges()
    if OWN_USER in confinement.layers:
        os.setgroups([])
        os.setresgid(confinement.uid, confinement.uid, confinement.uid)
        os.setresuid(confinement.uid, confinement.uid, confinement.uid)
    _drop_capabilities()
    hide()
    _check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), "PR_SET_PDEATHSIG")  # a change of user would have undone it
    if os.getppid() != keeper:
        os._exit(1)
    if LANDLOCK in confinement.layers:
        landlock.restrict(confinement.rules)
    if SECCOMP in confinement.layers:
        seccomp.restrict(programs=confinement.programs)


def limit(cpu_s: int, file_mb: int, memory_mb: int, threads: int = 0) -> None:
    """Limits on this process: CPU seconds, MB of each file it writes, MB beside what it has, threads of its user."""
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES_MAX, OPEN_FILES_MAX))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_mb * MEGABYTE, file_mb * MEGABYTE))
    if threads:
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        most = threads if hard == resource.RLIM_INFINITY else min(threads, hard)
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
    with open("/proc/self/statm", encoding="ascii") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    space = mapped + memory_mb * MEGABYTE
    resource.setrlimit(resource.RLIMIT_AS, (space, space))


def _drop_capabilities() -> None:
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITIES_VERSION, 0))
    _check(libc.capset(header, ctypes.create_string_buffer(24)), "capset")  # effective, permitted, inheritable: none


def _check(answer: int, what: str) -> None:
    if answer:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


# ── Trials: each runs in a child that has one layer, and says what is wrong with it ────────────────────────────────


def _try_landlock() -> str:
    return _refused(lambda: os.close(os.open("/proc/self/stat", os.O_RDONLY)), errno.EACCES)


def _try_seccomp() -> str:
    return _refused(lambda: socket.socket(socket.AF_UNIX).close(), errno.EPERM)


def _try_own_user() -> str:
    return _refused(lambda: os.setuid(0), errno.EPERM)


TRIALS: Mapping[str, Callable[[], str]] = {
    LANDLOCK: _try_landlock, SECCOMP: _try_seccomp, OWN_USER: _try_own_user
}  # fmt: skip


def _refused(action: Callable[[], None], expected: int) -> str:
    try:
        action()
    except OSError as error:
        return "" if error.errno == expected else f"refused otherwise than expected: {error.strerror}"
    return "it was put on, and refuses nothing"


def _tried(confinement: Confinement, trial: Callable[[], str]) -> str:
    """What is wrong with a layer, or nothing."""
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
        said = answer.read()
    os.waitpid(child, 0)
    return str(json.loads(said)) if said else "the trial ended without a word"
