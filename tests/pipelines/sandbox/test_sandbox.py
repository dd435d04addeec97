"""A decoder may crash, hang, eat memory or write too much: that is a result, and the next task does not notice."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.confinement import profiles
from pipelines.media import Failure
from pipelines.sandbox import sandbox as sandbox_module
from pipelines.sandbox.sandbox import HEADER, Result, Sandbox
from pipelines.settings import IngestSettings

ROOMY = profiles.decode(IngestSettings(decode_cpu_max_s=30, decode_timeout_s=30, decode_memory_max_mb=2048))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    box = Sandbox()
    yield box
    box.close()


def arguments(path: Path) -> dict[str, Any]:
    return {"path": str(path), "pixels_max": 10**8, "duration_max_s": 10_000, "share_min": 0.9}


def keeper(box: Sandbox) -> psutil.Process:
    assert box._keeper is not None
    return psutil.Process(box._keeper.pid)


def test_a_task_answers_with_values_and_arrays(sandbox: Sandbox, clips: Path) -> None:
    result = sandbox.run("probe", arguments(clips / "cuts.mp4"), ROOMY)
    assert isinstance(result, Result)
    assert result.values["codec"] == "h264"
    assert len(result.arrays["frame_ms"]) == 360


@pytest.mark.skipif(os.geteuid() != 0, reason="a keeper is closed to its own user")
def test_the_child_has_no_torch_and_none_of_our_environment(
    sandbox: Sandbox, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.run("probe", arguments(clips / "cuts.mp4"), ROOMY)
    process = keeper(sandbox)
    assert set(process.environ()) <= {"PATH", "PYTHONPATH", "LC_ALL", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"}
    assert process.num_threads() == 1
    assert not [each.path for each in process.memory_maps() if "libtorch" in each.path]


def test_too_little_memory_is_a_failure_and_the_next_task_works(sandbox: Sandbox, clips: Path) -> None:
    tight = dataclasses.replace(ROOMY, memory_max_mb=1, output_max_mb=1)
    order = _never(clips) | {"path": str(clips / "cuts.mp4"), "width": 1280, "height": 720}
    found = sandbox.run("probe", arguments(clips / "cuts.mp4"), ROOMY)
    assert isinstance(found, Result)
    order |= {name: found.arrays[name].tolist() for name in ("frame_ms", "frame_pts")} | {"own_stop": 360}
    assert isinstance(sandbox.run("decode", order, ROOMY), Result)
    assert isinstance(sandbox.run("decode", order, tight), Failure)
    assert isinstance(sandbox.run("probe", arguments(clips / "cuts.mp4"), ROOMY), Result)


def test_a_killed_child_is_a_crash(sandbox: Sandbox, clips: Path) -> None:
    os.mkfifo(clips / "never.mp4") if not (clips / "never.mp4").exists() else None  # opening it waits for a writer
    sandbox.run("probe", arguments(clips / "cuts.mp4"), ROOMY)
    found: list[Result | Failure] = []
    order = _never(clips)
    thread = threading.Thread(target=lambda: found.append(sandbox.run("decode", order, ROOMY)))
    thread.start()
    _wait_for(lambda: bool(keeper(sandbox).children()))
    keeper(sandbox).children()[0].send_signal(signal.SIGSEGV)
    thread.join(60)
    assert isinstance(found[0], Failure)
    assert found[0].code == "decoder-crashed"
    assert "SIGSEGV" in found[0].reason
    (clips / "never.mp4").unlink()


def test_a_hang_ends_at_the_time_limit(sandbox: Sandbox, clips: Path) -> None:
    sandbox.run("probe", arguments(clips / "cuts.mp4"), ROOMY)
    os.mkfifo(clips / "never.mp4")
    began = time.monotonic()
    limits = dataclasses.replace(ROOMY, timeout_s=1.0, output_max_mb=8)
    result = sandbox.run("decode", _never(clips), limits)
    (clips / "never.mp4").unlink()
    assert isinstance(result, Failure)
    assert result.code == "out-of-time"
    assert time.monotonic() - began < 25  # and not the 30 s that it may take elsewhere


def test_a_killed_keeper_is_replaced(sandbox: Sandbox, clips: Path) -> None:
    sandbox.run("probe", arguments(clips / "cuts.mp4"), ROOMY)
    keeper(sandbox).kill()
    assert isinstance(sandbox.run("probe", arguments(clips / "cuts.mp4"), ROOMY), Result)


def test_the_keeper_ends_with_its_parent(clips: Path) -> None:
    box = Sandbox()
    box.run("probe", arguments(clips / "cuts.mp4"), ROOMY)
    process = keeper(box)
    assert box._channel is not None
    box._channel.close()  # what the kernel does when a process dies
    process.wait(60)


def _never(clips: Path) -> dict[str, Any]:
    return {
        "path": str(clips / "never.mp4"), "scratch": "", "decoder": "av", "whole": True, "width": 32, "height": 32,
        "rotation": 0, "mirrored": False, "track": 0, "frame_ms": [0], "frame_pts": [0],
        "own_first": 0, "own_stop": 1, "previous_ms": -1,
        "interval_ms": 1000, "model_side": 32, "fit": "squash", "thumbnail_side": 32,
    }  # fmt: skip


def _wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [35, signal.SIGSEGV, 63])
def test_a_child_that_ends_itself_by_any_signal_is_a_crash(number: int) -> None:
    """Most of those for real time have no name."""
    ended = {"exit": -number, "signal": number, "timed_out": False, "cpu_seconds": 0.0, "memory_mb": 1.0}
    found = sandbox_module._judge(ended, -1, ROOMY)
    assert isinstance(found, Failure)
    assert (found.code, found.final) == ("decoder-crashed", False)


@pytest.mark.parametrize(
    "reply",
    [
        {"values": [], "arrays": {}},
        {"values": {}},
        {"values": {}, "arrays": {"frames": ["|O8", [1], 1, 64]}},
        {"values": {}, "arrays": {"frames": ["|u1", [1 << 40], 1 << 40, 64]}},
        {"values": {}, "arrays": {"frames": ["|u1", [4], 4, -8]}},
        {"values": {}, "arrays": {"frames": ["<M8[s]", [1], 1, 64]}},
        {"values": {}, "arrays": {"frames": "u1"}},
        {"failure": ["temporary", "the machine is at fault", False]},
        {"failure": ["DROP TABLE", "a reason", True]},
        {"failure": [1, 2, 3]},
        {"failure": []},
        {"failure": ["unconfined", "the machine is at fault", False]},
        {"values": {}, "arrays": {"frames": ["01u1", [1], 1, 64]}},  # a SyntaxError of NumPy's
        {"values": {}, "arrays": {"frames": ["|b1", [1], 1, 64]}},
        {"values": {}, "arrays": {"frames": ["|u1", [True], 1, 64]}},
        {"values": {}, "arrays": {"frames": ["|u1", [4], -1, 64]}},
        {"values": {}, "arrays": {f"frames{number}": ["|u1", [1 << 20], 1 << 20, 0] for number in range(2)}},
        [],
        "[" * 100_000,  # a RecursionError
        '{"values": {}, "arrays": ' + '{"a":' * 100_000,
        '{"values": {"decoded": 1' + "0" * 5000 + '}, "arrays": {}}',
        "no JSON",
    ],
    ids=lambda reply: (reply if isinstance(reply, str) else json.dumps(reply))[:50],
)
def test_a_mean_answer_is_a_crash_and_nothing_else(reply: Any) -> None:
    """A decoder that was taken over writes what it likes into the memory that it shares."""
    body = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
    memory = sandbox_module.sealed_memory("mean", 1 << 20)
    os.pwrite(memory, HEADER.pack(1024, len(body)), 0)
    os.pwrite(memory, body, 1024)
    ended = {"exit": 0, "signal": 0, "timed_out": False, "cpu_seconds": 0.0, "memory_mb": 1.0}
    found = sandbox_module._judge(ended, memory, ROOMY)
    os.close(memory)
    assert isinstance(found, Failure)
    assert (found.code, found.final) == ("decoder-crashed", False)
