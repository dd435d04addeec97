"""The child side of `sandbox`: a keeper process with the decoders loaded, which forks a child for each task.

It imports neither torch nor Ray nor anything that holds credentials. The keeper has one thread and ends when its parent
does; a child ends when the keeper does. A child opens the files it was given, is confined irrevocably (`confinement`),
and only then reads them; if a layer cannot be applied, the task is not run.
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
COMPLAINTS_BYTES = 65_536  # for what libraries write to standard error
STANDARD_ERROR = 2  # file descriptor


def main() -> None:
    """Report which layers confine children here, then serve tasks until the parent closes the channel."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    tasks, uid, without = importlib.import_module(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    layers.hide()
    available = layers.find(uid, without)
    tasks.warm()
    _send(channel, asdict(available))
    while True:
        length, descriptors, _, _ = socket.recv_fds(channel, 4, 1)
        if not length or not descriptors:
            return
        memory = descriptors[0]
        request = json.loads(_receive(channel, struct.unpack("<I", length)[0]))
        order = TaskRequest(
            tasks.TASKS[request["task"]], request["arguments"], Profile(**request["profile"]), available
        )
        answer = _supervise(channel, order, memory)
        os.close(memory)
        _send(channel, answer)


class Sealed(importlib.abc.MetaPathFinder):
    """Import hook that refuses every module that is not loaded yet.

    That a task needs such a module is a bug of Pixr; the error must not be taken for a fault of the file.
    """

    def find_spec(self, fullname: str, path: object, target: object = None) -> NoReturn:  # noqa: ARG002  the interface's
        """Refuse to find a module."""
        raise ModuleNotFoundError(f"{fullname} is not loaded; `tasks.warm` must load it", name=fullname)


@dataclass(frozen=True)
class TaskRequest:
    """What a child has to do, and how it is confined."""

    task: Any  # the function to call
    arguments: Mapping[str, Any]
    profile: Profile
    available: AvailableLayers  # on this machine

    def files(self, names: Sequence[str]) -> Mapping[str, str]:
        """Return the paths of files among the task's arguments: those with these names that are not empty."""
        return {name: self.arguments[name] for name in names if self.arguments.get(name)}


def _send(channel: socket.socket, document: Mapping[str, Any]) -> None:
    """Send a JSON document after its length."""
    body = json.dumps(document).encode()
    channel.sendall(struct.pack("<I", len(body)) + body)


def _receive(channel: socket.socket, size: int) -> bytes:
    """Receive `size` bytes; end this process if the parent has closed the channel."""
    data = bytearray()
    while len(data) < size:
        part = channel.recv(size - len(data))
        if not part:
            sys.exit(0)
        data += part
    return bytes(data)


def _supervise(channel: socket.socket, order: TaskRequest, memory: int) -> dict[str, Any]:
    """Fork a child for the task, wait until it ends, and return how it ended.

    The child is killed if its time is up. If the parent has closed the channel, the child is killed and this process
    ends.
    """
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
        os.killpg(child, signal.SIGKILL)  # the programs that it has started
    _, status, usage = os.wait4(child, 0)
    for path in order.files(order.profile.writes).values():
        Path(path).unlink(missing_ok=True)
    if not timed_out and ready and ready[0][0] == channel.fileno() and len(ready) == 1:
        sys.exit(0)  # the parent is gone
    return {
        "exit": os.waitstatus_to_exitcode(status),
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "timed_out": timed_out,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "memory_mb": usage.ru_maxrss / 1024,
    }


def _work(order: TaskRequest, memory: int, keeper: int) -> None:
    """Run in the child: confine it, run the task, and write the answer. Never returns."""
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
    """Open the task's files, close everything else, and confine this process; return the task's arguments.

    A file is passed as its open descriptor (/proc/self/fd/N), so that no folder above it needs to be readable.
    """
    os.setsid()
    os.closerange(3, memory)
    os.closerange(memory + 1, FILES_MAX)
    os.environ.clear()
    keep_complaints()
    profile, own_user = order.profile, OWN_USER in order.available.layers
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
            os.set_inheritable(rule.descriptor, True)  # the programs read it, and keep it open (close_fds=False)
        rules += [*programs.values(), *(Rule(_opened(folder), landlock.FOLDER) for folder in profile.folders)]
    threads = profile.threads_max if layers.counts_alone(order.available.layers) else 0
    layers.limit(profile.cpu_max_s, profile.file_max_mb, profile.memory_max_mb + profile.output_max_mb, threads)
    layers.confine(Confinement(order.available.layers, profile.uid, rules, bool(profile.programs)), keeper)
    sys.meta_path[:] = [Sealed()]
    return arguments


def keep_complaints() -> None:
    """Redirect standard error to a small memory file, since some libraries report damage nowhere else.

    To be called before the child is confined: memory that is made later counts towards the child's limit.
    """
    memory = sealed_memory("pixr-complaints", COMPLAINTS_BYTES)
    os.dup2(memory, STANDARD_ERROR)
    os.close(memory)


def _by_descriptor(rule: Rule) -> str:
    """Return the path that names an open file."""
    return f"/proc/self/fd/{rule.descriptor}"


def _opened(path: str) -> int:
    """Open a path only to name it, neither to read nor to write it (O_PATH)."""
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def _lent(path: str, group: int) -> int:
    """Return a descriptor that only names a file (O_PATH), after letting the sandbox's group read the file.

    The group has no members besides the children. If `group` is 0, or everybody may read the file, nothing is changed.
    """
    descriptor = _opened(path)
    state = os.fstat(descriptor)
    if group and stat.S_ISREG(state.st_mode) and not state.st_mode & stat.S_IROTH:
        file = Path(f"/proc/self/fd/{descriptor}")
        os.chown(file, -1, group)
        file.chmod(stat.S_IMODE(state.st_mode) | stat.S_IRGRP)
    return descriptor


def _made(path: str, owner: int) -> int:
    """Create an empty file for writing, in place of any file that is there; `owner` becomes its owner unless 0."""
    Path(path).unlink(missing_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    if owner:
        os.fchown(descriptor, owner, owner)
    return descriptor


def _answer(memory: int, reply: dict[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write the answer into shared memory: arrays, then the JSON, and the header last, so a partial answer is not read.

    Raises:
        Undecodable: it does not fit.
    """
    described: dict[str, Any] = {}
    offset = ALIGN
    with mmap.mmap(memory, 0) as view:
        for name, array in arrays.items():
            contiguous = np.ascontiguousarray(array)
            end = offset + contiguous.nbytes
            if end > len(view):
                raise Undecodable("too-large", "decoding gives more than the output limit allows", final=True)
            np.frombuffer(view, np.uint8, contiguous.nbytes, offset)[:] = contiguous.reshape(-1).view(np.uint8)
            described[name] = [contiguous.dtype.str, contiguous.shape, contiguous.size, offset]
            offset = -(-end // ALIGN) * ALIGN
        body = json.dumps({**reply, "arrays": described}).encode()
        if offset + len(body) > len(view):
            raise Undecodable("too-large", "decoding gives more than the output limit allows", final=True)
        view[offset : offset + len(body)] = body
        view[: HEADER.size] = HEADER.pack(offset, len(body))


def _line(text: str) -> str:
    """Return text as one short printable line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]


if __name__ == "__main__":
    main()
