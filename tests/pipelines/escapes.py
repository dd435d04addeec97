"""What a decoder that was taken over would try: real calls, made inside the sandbox's child as one of its tasks.

Each attempt answers "done" or the name of the error that stopped it. Nothing that succeeds does harm: signals are 0,
files are opened and closed.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.sandbox.tasks import Task

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

CALLS = {  # of x86_64 and aarch64
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "mount": (165, 40), "unshare": (272, 97), "setns": (308, 268),
    "bpf": (321, 280), "keyctl": (250, 219), "io_uring_setup": (425, 425), "userfaultfd": (323, 282),
    "perf_event_open": (298, 241), "pidfd_open": (434, 434), "open_by_handle_at": (304, 265), "chroot": (161, 51),
    "init_module": (175, 105), "personality": (135, 92), "shmget": (29, 194), "setuid": (105, 146), "clone3": (435, 435),
    "landlock_create_ruleset": (444, 444), "memfd_create": (319, 279),
    "an x32 number": (0x40000000 + 39, 100_000), "one of a later kernel": (900, 900),
}  # fmt: skip
COLUMN = 0 if os.uname().machine == "x86_64" else 1
PTRACE_SEIZE, SIGCHLD, CLONE_VM = 0x4206, 17, 0x100


def outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "done"


def call(name: str, *arguments: int) -> None:
    if libc.syscall(ctypes.c_long(CALLS[name][COLUMN]), *map(ctypes.c_long, arguments)) < 0:
        raise OSError(ctypes.get_errno(), name)


def opened(path: str, flags: int = os.O_RDONLY) -> None:
    os.close(os.open(path, flags, 0o600))


def connected(family: int, address: Any) -> None:
    with socket.socket(family) as connection:
        connection.settimeout(5)
        connection.connect(address)


def forked() -> None:
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)


def cloned() -> None:
    """A process by the bare call, as no library makes it."""
    number = (56, 220)[COLUMN]
    if (child := libc.syscall(ctypes.c_long(number), ctypes.c_long(SIGCHLD), 0, 0, 0, 0)) == 0:
        os._exit(0)
    if child < 0:
        raise OSError(ctypes.get_errno(), "clone")
    os.waitpid(child, 0)


def files(path: str, aims: Mapping[str, Any]) -> dict[str, str]:
    """Attempts on what others own."""
    worker, keeper = aims["worker"], os.getppid()
    beside = f"{aims['folder']}/planted"
    return {
        "read the treasury key": outcome(lambda: opened(aims["treasury"])),
        "read a secret of the data folder": outcome(lambda: opened(aims["secret"])),
        "read the worker's environment": outcome(lambda: opened(f"/proc/{worker}/environ")),
        "read the keeper's environment": outcome(lambda: opened(f"/proc/{keeper}/environ")),
        "read the worker's memory": outcome(lambda: opened(f"/proc/{worker}/mem")),
        "write the keeper's memory": outcome(lambda: opened(f"/proc/{keeper}/mem", os.O_RDWR)),
        "read its own environment": outcome(lambda: opened("/proc/self/environ")),
        "list processes": outcome(lambda: list(Path("/proc").iterdir())),
        "read /etc/passwd": outcome(lambda: opened("/etc/passwd")),
        "read another video": outcome(lambda: opened(aims["other"])),
        "write another video": outcome(lambda: opened(aims["other"], os.O_WRONLY)),
        "list the other videos": outcome(lambda: list(Path(aims["folder"]).iterdir())),
        "write its own video": outcome(lambda: opened(path, os.O_WRONLY)),
        "write beside its scratch file": outcome(lambda: opened(beside, os.O_WRONLY | os.O_CREAT)),
        "write into an open folder": outcome(lambda: opened(f"{aims['open']}/planted", os.O_WRONLY | os.O_CREAT)),
    }


def calls(path: str, aims: Mapping[str, Any]) -> dict[str, str]:
    """Attempts on the kernel, the network and other processes."""
    worker, keeper, own = aims["worker"], os.getppid(), os.getpid()
    return {
        "reach PostgreSQL": outcome(lambda: connected(socket.AF_INET, tuple(aims["postgres"]))),
        "reach Valkey": outcome(lambda: connected(socket.AF_INET, tuple(aims["redis"]))),
        "reach a server": outcome(lambda: connected(socket.AF_INET, tuple(aims["server"]))),
        "reach a UNIX socket": outcome(lambda: connected(socket.AF_UNIX, aims["unix"])),
        "reach an abstract UNIX socket": outcome(lambda: connected(socket.AF_UNIX, f"\0{aims['abstract']}")),
        "make a datagram socket": outcome(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()),
        "make a pair of sockets": outcome(lambda: [each.close() for each in socket.socketpair()]),
        "fork": outcome(forked),
        "clone": outcome(cloned),
        "start a program": outcome(lambda: subprocess.run([aims["program"]], check=True)),
        "signal the worker": outcome(lambda: os.kill(worker, 0)),
        "signal the keeper": outcome(lambda: os.kill(keeper, 0)),
        "signal its group": outcome(lambda: os.killpg(0, 0)),
        "leave its group": outcome(lambda: os.setpgid(0, 0)),
        "remove a file": outcome(lambda: Path(aims["spare"]).unlink()),
        "rename a file": outcome(lambda: Path(aims["spare"]).rename(aims["spare"] + "-")),
        "change a mode": outcome(lambda: Path(path).chmod(0o600)),
        "make memory that is code": outcome(
            lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
        ),
        "ptrace": outcome(lambda: call("ptrace", PTRACE_SEIZE, keeper, 0, 0)),
        "process_vm_readv": outcome(lambda: call("process_vm_readv", keeper, 0, 0, 0, 0, 0)),
        "pidfd_open": outcome(lambda: call("pidfd_open", keeper, 0)),
        "setuid": outcome(lambda: call("setuid", 0)),
        "io_uring_setup": outcome(lambda: call("io_uring_setup", 1, 0)),
        **{name: outcome(lambda name=name: call(name, 0, 0, 0, 0, 0)) for name in CALLS  # type: ignore[misc]
           if name not in ("ptrace", "process_vm_readv", "pidfd_open", "setuid", "io_uring_setup")},
        "signal itself by another's name": outcome(lambda: _tgkill(keeper)),
        "signal its own thread": outcome(lambda: _tgkill(own)),
    }  # fmt: skip


def _tgkill(process: int) -> None:
    number = (234, 131)[COLUMN]
    if libc.syscall(ctypes.c_long(number), ctypes.c_long(process), ctypes.c_long(process), ctypes.c_long(0)) < 0:
        raise OSError(ctypes.get_errno(), "tgkill")


def escape(path: str, scratch: str, aims: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Try everything; what came of it, and what the child has of its own."""
    with open(scratch, "wb") as file:
        file.write(b"own scratch")
    own = {
        "environment": sorted(os.environ),
        "video": Path(path).read_bytes().decode(),
        "scratch": Path(scratch).read_bytes().decode(),
        "sockets": [number for number in range(256) if _is_socket(number)],
    }
    return {"own": own, "files": files(path, aims), "calls": calls(path, aims)}, {}


def _is_socket(number: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(number).st_mode)
    except OSError:
        return False


def execute(path: str, program: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Become another program: only who is refused can answer."""
    return {"outcome": outcome(lambda: os.execv(program, [program]))}, {}  # noqa: S606  that is the attempt


def wait(path: str, seconds: float) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    time.sleep(seconds)
    return {}, {}


def crowd(path: str, wanted: int) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Start threads until that is refused; how many there were."""
    threading.stack_size(1 << 18)
    over, started = threading.Event(), list[threading.Thread]()
    for _ in range(wanted):
        thread = threading.Thread(target=over.wait)
        try:
            thread.start()
        except RuntimeError:  # can't start new thread
            break
        started.append(thread)
    over.set()
    for thread in started:
        thread.join()
    return {"started": len(started)}, {}


def fill(path: str, scratch: str, size: int) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Write `size` bytes into the scratch file."""
    with open(scratch, "wb") as file:
        file.write(bytes(size))
    return {"written": size}, {}


def load(path: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Load a module that no keeper has loaded."""
    import turtledemo

    return {"loaded": turtledemo.__name__}, {}


def start(path: str, programs: Mapping[str, str], other: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Start programs of the profile, one to its end, and one that the profile does not name."""
    own = outcome(lambda: _run(programs["cat"], path))
    another = outcome(lambda: _run(other, path))
    left = subprocess.Popen([programs["sleep"], "600"], close_fds=False).pid
    return {"own": own, "other": another, "left": left}, {}


def _run(program: str, argument: str) -> None:
    subprocess.run([program, argument], check=True, close_fds=False)


def warm() -> None:
    """Nothing is loaded later."""


TASKS: Mapping[str, Task] = {
    "escape": escape, "execute": execute, "wait": wait, "fill": fill, "load": load, "start": start,
    "crowd": crowd,
}  # fmt: skip
