"""The other side of `sandbox`: a keeper with the decoders loaded, and the children it forks, one a task.

Imports neither torch nor Ray nor anything that holds a credential. The keeper has one thread and ends when its parent
does; a child ends when the keeper does. A child opens the files it was given, is confined for good (`confinement`), and
only then looks at a byte of them; where a layer cannot be put on, it does nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import json
import mmap
import os
import select
import shutil
import signal
import socket
import stat
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from cluster import landlock
from cluster.landlock import Rule
from pipelines.confinement import layers
from pipelines.confinement.layers import OWN_USER, AvailableLayers, Confinement
from pipelines.confinement.profiles import Profile
from pipelines.decode.containers import Undecodable
from pipelines.sandbox.sandbox import HEADER, Array, sealed_memory

FILES_MAX = 256  # descriptors a keeper can have
ALIGN = 64
COMPLAINTS_BYTES = 65_536  # of what libraries say on standard error
STANDARD_ERROR = 2


def main() -> None:
    """Say what confines children here, then serve tasks until the parent hangs up."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    tasks, uid, without = importlib.import_module(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    layers.hide()
    found = layers.find(uid, without)
    tasks.warm()
    _send(channel, asdict(found))
    while True:
        head, descriptors, _, _ = socket.recv_fds(channel, 4, 1)
        if not head or not descriptors:
            return
        memory = descriptors[0]
        request = json.loads(_receive(channel, struct.unpack("<I", head)[0]))
        order = TaskRequest(tasks.TASKS[request["task"]], request["arguments"], Profile(**request["profile"]), found)
        answer = _supervise(channel, order, memory)
        os.close(memory)
        _send(channel, answer)


class Sealed(importlib.abc.MetaPathFinder):
    """Finds no module: what was not loaded before a child was confined is a fault of ours, never one of the file."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> NoReturn:  # noqa: ARG002  the interface's
        raise ModuleNotFoundError(f"{fullname} is not loaded; `tasks.warm` must load it", name=fullname)


@dataclass(frozen=True)
class TaskRequest:
    """What a child is to do, and how it is held."""

    task: Any
    arguments: Mapping[str, Any]
    profile: Profile
    found: AvailableLayers

    def files(self, names: Sequence[str]) -> Mapping[str, str]:
        """The arguments of these names that are given."""
        return {name: self.arguments[name] for name in names if self.arguments.get(name)}


def _send(channel: socket.socket, document: Mapping[str, Any]) -> None:
    body = json.dumps(document).encode()
    channel.sendall(struct.pack("<I", len(body)) + body)


def _receive(channel: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = channel.recv(size - len(data))
        if not part:
            sys.exit(0)
        data += part
    return bytes(data)


def _supervise(channel: socket.socket, order: TaskRequest, memory: int) -> dict[str, Any]:
    """Fork a child, wait for its end, the time limit or the parent's."""
    keeper, child = os.getpid(), os.fork()
    if child == 0:
        _work(order, memory, keeper)
    watched = os.pidfd_open(child)
    deadline = time.monotonic() + order.profile.timeout_s
    poll = select.poll()
    poll.register(watched, select.POLLIN)
    poll.register(channel.fileno(), select.POLLHUP | select.POLLIN)
    ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
    timed_out = not ready
    if watched not in [descriptor for descriptor, _ in ready]:
        os.kill(child, signal.SIGKILL)
    os.close(watched)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # programs that it has started
    _, status, usage = os.wait4(child, 0)
    for path in order.files(order.profile.writes).values():
        Path(path).unlink(missing_ok=True)
    if not timed_out and ready and ready[0][0] == channel.fileno() and len(ready) == 1:
        sys.exit(0)  # nobody is waiting any more
    return {
        "exit": os.waitstatus_to_exitcode(status),
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "timed_out": timed_out,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "memory_mb": usage.ru_maxrss / 1024,
    }


def _work(order: TaskRequest, memory: int, keeper: int) -> None:
    """In the child: confined first, then the task, then the answer. Never returns."""
    try:
        try:
            arguments = _confined(order, memory, keeper)
        except OSError as error:
            _answer(
                memory, {"failure": ["sandbox-failed", _line(f"the decoder cannot be confined: {error}"), False]}, {}
            )
            os._exit(0)
        try:
            values, arrays = order.task(**arguments)
            _answer(memory, {"values": dict(values)}, arrays)
        except Undecodable as error:
            _answer(memory, {"failure": [error.code, _line(error.reason), error.final]}, {})
        except MemoryError:
            _answer(memory, {"failure": ["out-of-memory", "decoding needs more memory than allowed", False]}, {})
        except Exception as error:  # noqa: BLE001  a library may raise anything; what it says is the reason
            _answer(memory, {"failure": ["decoder-failed", _line(f"{type(error).__name__}: {error}"), False]}, {})
        os._exit(0)
    finally:
        os._exit(1)


def _confined(order: TaskRequest, memory: int, keeper: int) -> dict[str, Any]:
    """Open what the task is given, let go of all else, and confine this process; the task's arguments.

    A file is named by its open descriptor (/proc/self/fd/N), so that no folder on the way to it need be entered.
    """
    os.setsid()
    os.closerange(3, memory)
    os.closerange(memory + 1, FILES_MAX)
    os.environ.clear()
    keep_complaints()
    profile, own_user = order.profile, OWN_USER in order.found.layers
    arguments, rules = dict(order.arguments), list[Rule]()
    for name, path in order.files(profile.reads).items():
        rules.append(Rule(_lent(path, profile.uid if own_user else 0), landlock.READ))
        arguments[name] = _by_descriptor(rules[-1])
    for name, path in order.files(profile.writes).items():
        rules.append(Rule(_made(path, profile.uid if own_user else 0), landlock.WRITE))
        arguments[name] = _by_descriptor(rules[-1])
    if profile.programs:
        programs = {name: Rule(_opened(shutil.which(name) or name), landlock.RUN) for name in profile.programs}
        arguments["programs"] = {name: _by_descriptor(rule) for name, rule in programs.items()}
        for rule in rules:
            os.set_inheritable(rule.descriptor, True)  # to be read by the programs, which keep it (close_fds=False)
        rules += [*programs.values(), *(Rule(_opened(folder), landlock.FOLDER) for folder in profile.folders)]
    threads = profile.threads_max if layers.counts_alone(order.found.layers) else 0
    layers.limit(profile.cpu_max_s, profile.file_max_mb, profile.memory_max_mb + profile.output_max_mb, threads)
    layers.confine(Confinement(order.found.layers, profile.uid, rules, bool(profile.programs)), keeper)
    sys.meta_path[:] = [Sealed()]
    return arguments


def keep_complaints() -> None:
    """Make standard error a small piece of memory: some libraries speak of damage nowhere else.

    Once the child is confined it can make no memory that its limit does not count.
    """
    memory = sealed_memory("pixr-complaints", COMPLAINTS_BYTES)
    os.dup2(memory, STANDARD_ERROR)
    os.close(memory)


def _by_descriptor(rule: Rule) -> str:
    return f"/proc/self/fd/{rule.descriptor}"


def _opened(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def _lent(path: str, group: int) -> int:
    """A file to be read, which the group of the sandbox may then (it has no members; 0: this user reads it)."""
    descriptor = _opened(path)
    found = os.fstat(descriptor)
    if group and stat.S_ISREG(found.st_mode) and not found.st_mode & stat.S_IROTH:
        file = Path(f"/proc/self/fd/{descriptor}")
        os.chown(file, -1, group)
        file.chmod(stat.S_IMODE(found.st_mode) | stat.S_IRGRP)
    return descriptor


def _made(path: str, owner: int) -> int:
    """An empty file to be written; nothing that was there before."""
    Path(path).unlink(missing_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    if owner:
        os.fchown(descriptor, owner, owner)
    return descriptor


def _answer(memory: int, reply: dict[str, Any], arrays: Mapping[str, Array]) -> None:
    """Arrays first, the description behind them, where it stands last: half an answer is no answer."""
    described: dict[str, Any] = {}
    offset = ALIGN
    with mmap.mmap(memory, 0) as view:
        for name, array in arrays.items():
            whole = np.ascontiguousarray(array)
            end = offset + whole.nbytes
            if end > len(view):
                raise Undecodable("too-large", "decoding gives more than the output limit allows", final=True)
            np.frombuffer(view, np.uint8, whole.nbytes, offset)[:] = whole.reshape(-1).view(np.uint8)
            described[name] = [whole.dtype.str, whole.shape, whole.size, offset]
            offset = -(-end // ALIGN) * ALIGN
        body = json.dumps({**reply, "arrays": described}).encode()
        if offset + len(body) > len(view):
            raise Undecodable("too-large", "decoding gives more than the output limit allows", final=True)
        view[offset : offset + len(body)] = body
        view[: HEADER.size] = HEADER.pack(offset, len(body))


def _line(text: str) -> str:
    """One short line of printable text, whatever a library has put into its message."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]


if __name__ == "__main__":
    main()
