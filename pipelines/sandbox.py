"""Runs what touches untrusted bytes in a child process, and takes a crash or a hang for a result.

The parent keeps one small process that has the decoders loaded and nothing else (no torch, no Ray, no credentials); it
forks a child for each task, so a task starts in milliseconds. The child lives under limits on CPU time, memory, written
bytes and wall-clock time. It answers through a sealed piece of shared memory that the parent made and sized: arrays are
never sent, and more than that cannot be written. Knows how to run a task, not what tasks do; see `sandbox_child`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.media import Failure

HEADER = struct.Struct("<QQ")  # where the reply's JSON starts, and how long it is; written last
MEGABYTE = 1024 * 1024
GRACE_S = 15.0  # for the keeper to report a child that it has killed
KEEPER_STARTS_MAX = 2
REPLY_MAX = 64 * MEGABYTE
ROOT = Path(__file__).resolve().parent.parent

Array = NDArray[Any]


@dataclass(frozen=True)
class Limits:
    """What one task may use."""

    cpu_max_s: int
    timeout_s: float
    memory_max_mb: int
    output_max_mb: int


@dataclass(frozen=True)
class Result:
    """What a task returned, and what it cost."""

    values: Mapping[str, Any]
    arrays: Mapping[str, Array]
    cpu_seconds: float
    memory_mb: float


class Sandbox:
    """One keeper process and the tasks it runs, one at a time. Not shared between threads at once: calls queue."""

    def __init__(self) -> None:
        self._keeper: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._lock = threading.Lock()

    def run(self, task: str, arguments: Mapping[str, Any], limits: Limits) -> Result | Failure:
        """Run `task` of `sandbox_child` on JSON-able arguments."""
        with self._lock:
            for _ in range(KEEPER_STARTS_MAX):
                memory = _sealed_memory(limits.output_max_mb * MEGABYTE)
                try:
                    ended = self._ask({"task": task, "arguments": arguments, "limits": asdict(limits)}, memory, limits)
                    return _judge(ended, memory, limits)
                except (ConnectionError, TimeoutError):  # the keeper itself was killed: a fresh one tries again
                    self._close()
                finally:
                    os.close(memory)
        return Failure("sandbox-lost", "the process that keeps the decoders was killed")

    def close(self) -> None:
        """End the keeper and whatever it runs."""
        with self._lock:
            self._close()

    def _ask(self, request: Mapping[str, Any], memory: int, limits: Limits) -> dict[str, Any]:
        channel = self._opened()
        channel.settimeout(limits.timeout_s + GRACE_S)
        body = json.dumps(request).encode()
        socket.send_fds(channel, [struct.pack("<I", len(body))], [memory])
        channel.sendall(body)
        answer: dict[str, Any] = json.loads(_receive(channel, struct.unpack("<I", _receive(channel, 4))[0]))
        return answer

    def _opened(self) -> socket.socket:
        if self._channel is None:
            ours, theirs = socket.socketpair()
            # Nothing of the parent's environment: it may name tokens. One thread, so that forking is safe.
            environment = {
                "PATH": os.defpath,
                "PYTHONPATH": str(ROOT),
                "LC_ALL": "C.UTF-8",
                "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1",
            }
            with theirs:
                self._keeper = subprocess.Popen(
                    [sys.executable, "-m", "pipelines.sandbox_child", str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            self._channel = ours
        return self._channel

    def _close(self) -> None:
        if self._channel is not None:
            self._channel.close()  # the keeper reads the end of file and goes
            self._channel = None
        if self._keeper is not None:
            with contextlib.suppress(ProcessLookupError):
                self._keeper.kill()
            self._keeper.wait()
            self._keeper = None


def _sealed_memory(size: int) -> int:
    """Anonymous memory of a fixed size; pages exist once they are written."""
    memory = os.memfd_create("pixr-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, size)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return memory


def _receive(channel: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = channel.recv(size - len(data))
        if not part:
            raise ConnectionResetError("the keeper is gone")
        data += part
    return bytes(data)


def _judge(ended: Mapping[str, Any], memory: int, limits: Limits) -> Result | Failure:
    """Sort how a child ended."""
    if ended["timed_out"]:
        return Failure("out-of-time", f"decoding did not end within {limits.timeout_s:g} s")
    if ended["signal"] == signal.SIGXCPU or (ended["signal"] and ended["cpu_seconds"] >= limits.cpu_max_s):
        return Failure("out-of-time", f"decoding took more than {limits.cpu_max_s} s of CPU time")
    if ended["signal"]:
        return Failure("decoder-crashed", f"the decoder was ended by {signal.Signals(ended['signal']).name}")
    reply = _reply(memory)
    if reply is None:
        return Failure("decoder-crashed", f"the decoder ended with exit code {ended['exit']} and no answer")
    if "failure" in reply:
        return Failure(*reply["failure"])
    return Result(reply["values"], _arrays(memory, reply["arrays"]), ended["cpu_seconds"], ended["memory_mb"])


def _reply(memory: int) -> dict[str, Any] | None:
    """The JSON part of the answer; what a child wrote is checked like any other input."""
    where, size = HEADER.unpack(os.pread(memory, HEADER.size, 0))
    if not 0 < size <= REPLY_MAX or where + size > os.fstat(memory).st_size:
        return None
    try:
        reply = json.loads(os.pread(memory, size, where))
    except ValueError:
        return None
    return reply if isinstance(reply, dict) else None


def _arrays(memory: int, described: Mapping[str, Any]) -> dict[str, Array]:
    with mmap.mmap(memory, 0, prot=mmap.PROT_READ) as view:
        return {
            name: np.frombuffer(view, dtype, count, offset).reshape(shape).copy()
            for name, (dtype, shape, count, offset) in described.items()
        }
