"""Running tasks on untrusted bytes in child processes; a crash or a hang is returned as a failure like any other.

The parent keeps one small process, the keeper, that has loaded the decoders and nothing else (no torch, no Ray, no
credentials). The keeper forks a child for each task, so a task starts within milliseconds. The child is confined to its
profile: limits on CPU time, memory, files and wall-clock time, and the layers of `confinement`. So a compromised
decoder can open its own video, its scratch file and nothing else. The child answers through sealed shared memory, whose
size the parent has set. So arrays need not pass through a pipe, and an answer cannot be larger than that. Knows how to
run a task, not what tasks do (see `child`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import mmap
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipelines.confinement import layers
from pipelines.confinement.layers import AvailableLayers
from pipelines.confinement.profiles import Profile
from pipelines.media import NO_FAULT, TEMPORARY, UNCONFINED, Failure

log = logging.getLogger(__name__)

HEADER = struct.Struct("<QQ")  # offset and length of the reply's JSON, in bytes; written last
MEGABYTE = 1024 * 1024
GRACE_S = 15.0  # for the keeper to report a child that it has killed
KEEPER_STARTS_MAX = 2
KEEPER_START_MAX_S = 120.0  # including what it loads, on a busy machine
REPLY_MAX = 4 * MEGABYTE  # of JSON; large data come as arrays
REASON_CHARS_MAX = 300
CODE = re.compile(r"[a-z0-9-]{1,40}")
DTYPE = re.compile(r"[<|][iuf][1248]")  # arrays that a child may send: little-endian numbers
# What reading a malicious answer may raise.
UNREADABLE = (AttributeError, KeyError, OverflowError, RecursionError, SyntaxError, TypeError, ValueError)
ROOT = Path(__file__).resolve().parents[2]

Array = NDArray[Any]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Result:
    """What a task returned, and what it cost."""

    values: Mapping[str, Any]
    arrays: Mapping[str, Array]
    cpu_seconds: float
    memory_mb: float  # of the child, at its peak


class Sandbox:
    """One keeper process and the tasks it runs, one at a time; calls from several threads wait for each other."""

    def __init__(self, tasks: str = "pipelines.sandbox.tasks", without: Sequence[str] = ()) -> None:
        """Name the tasks; the keeper starts with the first task.

        Args:
            tasks: Name of the module with TASKS and `warm`, which the keeper loads.
            without: Layers to leave out, so that tests can try the others alone.
        """
        self._tasks, self._without = tasks, tuple(without)
        self._keeper: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._uid = 0
        self._lock = threading.Lock()
        self.available: AvailableLayers | None = None  # what confines children, known once a keeper has started

    def run(self, task: str, arguments: Mapping[str, Any], profile: Profile) -> Result | Failure:
        """Run a task on JSON-compatible arguments, confined to a profile.

        It is refused, without blaming the file, if this machine has only the weaker mode and the profile does not
        accept it.
        """
        request = {"task": task, "arguments": arguments, "profile": profile.as_json()}

        def ask(channel: socket.socket) -> Result | Failure:
            memory = sealed_memory("pixr-frames", profile.output_max_mb * MEGABYTE)
            try:
                return _judge(_ask(channel, request, memory, profile), memory, profile)
            finally:
                os.close(memory)

        return self._with_keeper(profile, ask)

    def refusal(self, profile: Profile) -> Failure | None:
        """Return why this machine would run no task of this profile, or None. To be called before files are fetched."""
        return self._with_keeper(profile, lambda _: None)

    def _with_keeper(self, profile: Profile, action: Callable[[socket.socket], Answer]) -> Answer | Failure:
        """Run an action with a keeper that can confine children to the profile.

        If the keeper is killed meanwhile, run the action again with a new one. If no keeper can be started, return a
        temporary failure.
        """
        failure = Failure(TEMPORARY, "the process that keeps the decoders cannot be started on this machine")
        with self._lock:
            for _ in range(KEEPER_STARTS_MAX):
                try:
                    channel, available = self._opened(profile.uid)
                    if not (available.is_strong or profile.weaker_accepted):
                        return _too_weak(available)
                    failure = Failure("sandbox-lost", "the process that keeps the decoders was killed")
                    return action(channel)
                except (ConnectionError, TimeoutError):  # the keeper itself was killed: a fresh one tries again
                    self._close()
        return failure

    def close(self) -> None:
        """End the keeper and the task that it runs."""
        with self._lock:
            self._close()

    def _opened(self, uid: int) -> tuple[socket.socket, AvailableLayers]:
        """Return the channel to the keeper, started if need be, and the layers that it has found."""
        if self._channel is not None and self._uid != uid:
            self._close()
        if self._channel is None or self.available is None:
            layers.hide()  # children must not read this process's environment and memory
            ours, theirs = socket.socketpair()
            # The parent's environment is not passed on, as it may hold tokens. One thread, so that forking is safe.
            environment = {
                "PATH": os.defpath,
                "PYTHONPATH": str(ROOT),
                "LC_ALL": "C.UTF-8",
                "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1",
            }
            arguments = (str(theirs.fileno()), self._tasks, str(uid), *self._without)
            with theirs:
                self._keeper = subprocess.Popen(
                    [sys.executable, "-m", "pipelines.sandbox.child", *arguments],
                    pass_fds=(theirs.fileno(),),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            self._channel, self._uid = ours, uid
            ours.settimeout(KEEPER_START_MAX_S)
            self._note(AvailableLayers.from_json(_hear(ours)))
        assert self.available is not None
        return self._channel, self.available

    def _note(self, available: AvailableLayers) -> None:
        """Log the layers when they are known or have changed."""
        if available != self.available:
            log.log(
                logging.INFO if available.is_strong else logging.WARNING, "decoders are confined: %s", available.line()
            )
        self.available = available

    def _close(self) -> None:
        """End the keeper, if there is one."""
        if self._channel is not None:
            self._channel.close()  # the keeper reads the end of file and ends
            self._channel = None
        if self._keeper is not None:
            with contextlib.suppress(ProcessLookupError):
                self._keeper.kill()
            self._keeper.wait()
            self._keeper = None


def _ask(channel: socket.socket, request: Mapping[str, Any], memory: int, profile: Profile) -> dict[str, Any]:
    """Send a request with the memory for its answer, and return how the child ended."""
    channel.settimeout(profile.timeout_s + GRACE_S)
    body = json.dumps(request).encode()
    socket.send_fds(channel, [struct.pack("<I", len(body))], [memory])
    channel.sendall(body)
    return _hear(channel)


def _hear(channel: socket.socket) -> dict[str, Any]:
    """Receive one message of the keeper."""
    message: dict[str, Any] = json.loads(_receive(channel, struct.unpack("<I", _receive(channel, 4))[0]))
    return message


def _too_weak(available: AvailableLayers) -> Failure:
    """Return the failure of a machine that cannot confine a decoder; another machine may take the file."""
    missing = ", ".join(f"no {name} ({available.missing[name]})" for name in available.missing if name in layers.STRONG)
    hint = "[ingest] sandbox_weaker_accepted = true accepts that"
    return Failure(UNCONFINED, f"this machine cannot confine a decoder: {missing}; {hint}")


def sealed_memory(name: str, size: int) -> int:
    """Create a memory file of a fixed size; its pages are allocated when they are written."""
    memory = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, size)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return memory


def _receive(channel: socket.socket, size: int) -> bytes:
    """Receive `size` bytes.

    Raises:
        ConnectionResetError: the keeper is gone.
    """
    data = bytearray()
    while len(data) < size:
        part = channel.recv(size - len(data))
        if not part:
            raise ConnectionResetError("the keeper is gone")
        data += part
    return bytes(data)


def _judge(ended: Mapping[str, Any], memory: int, profile: Profile) -> Result | Failure:
    """Return the result of a task from how its child ended and what it wrote."""
    if ended["timed_out"]:
        return Failure("out-of-time", f"decoding did not end within {profile.timeout_s:g} s")
    if ended["signal"] == signal.SIGXCPU or (ended["signal"] and ended["cpu_seconds"] >= profile.cpu_max_s):
        return Failure("out-of-time", f"decoding took more than {profile.cpu_max_s} s of CPU time")
    if ended["signal"]:
        return Failure("decoder-crashed", f"the decoder was ended by {_signal_name(ended['signal'])}")
    try:
        reply = _reply(memory)
        if reply is None:
            return Failure("decoder-crashed", f"the decoder ended with exit code {ended['exit']} and no answer")
        if "failure" in reply:
            return _failure(*reply["failure"])
        values: Mapping[str, Any] = dict(reply["values"].items())
        return Result(values, _arrays(memory, reply["arrays"]), ended["cpu_seconds"], ended["memory_mb"])
    except UNREADABLE as error:
        return unreadable(type(error).__name__)


def _signal_name(number: int) -> str:
    """Return the name of a signal; real-time signals, which a child may use too, have none."""
    names = {each.value: each.name for each in signal.Signals}
    return names.get(number, f"signal {number}")


def unreadable(what: str) -> Failure:
    """Return the failure of an invalid answer: the decoder was compromised, or is broken in an unforeseen way."""
    return Failure("decoder-crashed", f"the decoder gave an answer that cannot be read ({what})")


def _failure(code: str, reason: str, final: bool) -> Failure:
    """Return the failure that a child reports.

    Raises:
        ValueError: the report is invalid, or its code stands for a fault of this machine, which a child may not claim.
    """
    if not CODE.fullmatch(code) or code in NO_FAULT or not isinstance(final, bool):
        raise ValueError("no code of a failure")
    return Failure(code, "".join(c for c in reason if c.isprintable())[:REASON_CHARS_MAX], final)


def _reply(memory: int) -> dict[str, Any] | None:
    """Return the JSON part of the answer, or None; what a child wrote is untrusted input."""
    offset, size = HEADER.unpack(os.pread(memory, HEADER.size, 0))
    if not 0 < size <= REPLY_MAX or offset + size > os.fstat(memory).st_size:
        return None
    reply: dict[str, Any] = json.loads(os.pread(memory, size, offset))
    return reply


def _arrays(memory: int, described: Mapping[str, Any]) -> dict[str, Array]:
    """Return copies of the arrays in the answer, after checking that they fit into the memory."""
    total = 0
    for dtype, shape, count, offset in described.values():
        if not DTYPE.fullmatch(dtype) or any(
            type(number) is not int or number < 0 for number in (*shape, count, offset)
        ):
            raise ValueError("an array of numbers has a type and a shape")
        total += np.dtype(dtype).itemsize * count
    if total > os.fstat(memory).st_size:  # overlapping arrays, copied one by one, could use unbounded memory
        raise ValueError("the arrays are larger than what they lie in")
    with mmap.mmap(memory, 0, prot=mmap.PROT_READ) as view:
        return {
            name: np.frombuffer(view, dtype, count, offset).reshape(shape).copy()
            for name, (dtype, shape, count, offset) in described.items()
        }
