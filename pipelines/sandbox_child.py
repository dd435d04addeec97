"""The other side of `sandbox`: a keeper with the decoders loaded, and the children it forks, one a task.

Imports neither torch nor Ray nor anything that holds a credential. The keeper has one thread and ends when its parent
does; a child ends when the keeper does.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pipelines import frames, probe
from pipelines.containers import Undecodable
from pipelines.sandbox import HEADER, MEGABYTE, Array

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
OPEN_FILES_MAX = 64
ALIGN = 64

Task = Callable[..., tuple[Mapping[str, Any], Mapping[str, Array]]]
TASKS: Mapping[str, Task] = {"probe": probe.probe, "decode": frames.decode}


def main() -> None:
    """Serve tasks until the parent hangs up."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    frames.warm()
    while True:
        head, descriptors, _, _ = socket.recv_fds(channel, 4, 1)
        if not head or not descriptors:
            return
        memory = descriptors[0]
        request = json.loads(_receive(channel, struct.unpack("<I", head)[0]))
        answer = json.dumps(_supervise(channel, request, memory)).encode()
        os.close(memory)
        channel.sendall(struct.pack("<I", len(answer)) + answer)


def _receive(channel: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = channel.recv(size - len(data))
        if not part:
            sys.exit(0)
        data += part
    return bytes(data)


def _supervise(channel: socket.socket, request: Mapping[str, Any], memory: int) -> dict[str, Any]:
    """Fork a child, wait for its end, the time limit or the parent's."""
    child = os.fork()
    if child == 0:
        channel.close()
        _work(request, memory)
    watched = os.pidfd_open(child)
    deadline = time.monotonic() + request["limits"]["timeout_s"]
    poll = select.poll()
    poll.register(watched, select.POLLIN)
    poll.register(channel.fileno(), select.POLLHUP | select.POLLIN)
    ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
    timed_out = not ready
    if watched not in [descriptor for descriptor, _ in ready]:
        os.kill(child, signal.SIGKILL)
    os.close(watched)
    _, status, usage = os.wait4(child, 0)
    if not timed_out and ready and ready[0][0] == channel.fileno() and len(ready) == 1:
        sys.exit(0)  # nobody is waiting any more
    return {
        "exit": os.waitstatus_to_exitcode(status),
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "timed_out": timed_out,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "memory_mb": usage.ru_maxrss / 1024,
    }


def _work(request: Mapping[str, Any], memory: int) -> None:
    """In the child: limits first, then the task, then the answer. Never returns."""
    try:
        _confine(request["limits"])
        try:
            values, arrays = TASKS[request["task"]](**request["arguments"])
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


def _confine(limits: Mapping[str, Any]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    cpu, output = limits["cpu_max_s"], limits["output_max_mb"] * MEGABYTE
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES_MAX, OPEN_FILES_MAX))
    resource.setrlimit(resource.RLIMIT_FSIZE, (output, output))
    with open("/proc/self/statm", encoding="ascii") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    space = mapped + (limits["memory_max_mb"] + limits["output_max_mb"]) * MEGABYTE
    resource.setrlimit(resource.RLIMIT_AS, (space, space))


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
