"""A decoder that was taken over gets nowhere, and each layer that says so is there: what fell back in silence fails here."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from cluster import landlock, roles, runtime
from cluster.cli import stack
from cluster.settings import Settings
from pipelines.confinement import layers, profiles
from pipelines.confinement.layers import LANDLOCK, LAYERS, OWN_NETWORK, OWN_USER, SECCOMP, AvailableLayers
from pipelines.media import Failure
from pipelines.sandbox.sandbox import Result, Sandbox
from pipelines.service import Jobs
from pipelines.settings import IngestSettings
from tests.conftest import throwaway_settings, until
from tests.pipelines import escapes

IS_ROOT = os.geteuid() == 0
CAP_SYS_PTRACE, CAP_SYS_ADMIN = 19, 21
START_MAX_S = 150  # of a keeper, with all that it loads, on a busy machine
PROFILE = profiles.decode(IngestSettings(decode_timeout_s=60, decode_output_max_mb=16, decode_file_max_mb=1))
ACCEPTING = dataclasses.replace(PROFILE, weaker_accepted=True)
LIBRARIES = tuple(folder for folder in ("/lib", "/lib64", "/usr/lib", "/usr/lib64") if Path(folder).exists())

FILES_REFUSED = dict.fromkeys(
    ["read the treasury key", "read a secret of the data folder", "read the worker's environment",
     "read the keeper's environment", "read the worker's memory", "write the keeper's memory",
     "read its own environment", "list processes", "read /etc/passwd", "read another video", "write another video",
     "list the other videos", "write its own video", "write beside its scratch file", "write into an open folder"], "EACCES",
)  # fmt: skip
CALLS_REFUSED = dict.fromkeys(
    ["reach PostgreSQL", "reach Valkey", "reach a server", "reach a UNIX socket", "reach an abstract UNIX socket",
     "make a datagram socket", "make a pair of sockets", "fork", "clone", "start a program", "signal the worker",
     "signal the keeper", "signal its group", "leave its group", "remove a file", "rename a file", "change a mode",
     "make memory that is code", "signal itself by another's name", *escapes.CALLS], "EPERM",
) | {"clone3": "ENOSYS", "signal its own thread": "done"}  # fmt: skip


@contextmanager
def boxed(*without: str) -> Iterator[Sandbox]:
    """A sandbox of the attempts."""
    box = Sandbox("tests.pipelines.escapes", without)
    try:
        yield box
    finally:
        box.close()


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with boxed() as made:
        yield made


@pytest.fixture(scope="module")
def machine() -> AvailableLayers:
    """What this machine has, as it says itself."""
    argv = [sys.executable, "-m", "pipelines.confinement", str(PROFILE.uid)]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return AvailableLayers.from_json(json.loads(said))


def may(capability: int) -> bool:
    """Whether this process has a capability, by its number (linux/capability.h)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> capability & 1)


@pytest.fixture
def aims(ground: Settings, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What is worth an attempt: real secrets, servers and files of this test run."""
    for name in ("own.mp4", "other.mp4", "spare"):
        (tmp_path / name).write_text(f"the bytes of {name}", encoding="ascii")
    opened = tmp_path / "open"
    opened.mkdir()
    opened.chmod(0o1777)
    treasury = runtime.secret_path(ground, "treasury.json")
    treasury.write_text("[1, 2, 3]", encoding="ascii")
    treasury.chmod(0o600)
    runtime.secret(ground, "postgres")
    with serving(tmp_path) as servers:
        yield {
            "worker": os.getpid(),
            "treasury": str(treasury),
            "secret": str(runtime.secret_path(ground, "postgres")),
            "folder": str(tmp_path),
            "open": str(opened),
            "other": str(tmp_path / "other.mp4"),
            "spare": str(tmp_path / "spare"),
            "program": "/bin/true",
            "postgres": address(runtime.role_url(ground, roles.OWNER)),
            "redis": address(runtime.endpoints(ground).redis_url),
            **servers,
        }
    treasury.unlink()


def address(url: str) -> list[Any]:
    parts = urlsplit(url)
    return [parts.hostname, parts.port]


@contextmanager
def serving(folder: Path) -> Iterator[dict[str, Any]]:
    """A TCP, a UNIX and an abstract UNIX server that take every caller."""
    name = f"pixr-escape-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix, \
            socket.socket(socket.AF_UNIX) as abstract:  # fmt: skip
        unix.bind(str(folder / "u"))
        abstract.bind(f"\0{name}")
        for server in (unix, abstract):
            server.listen(16)
        yield {"server": list(tcp.getsockname()), "unix": str(folder / "u"), "abstract": name}


def attempt(box: Sandbox, aims: dict[str, Any], profile: profiles.Profile = PROFILE) -> dict[str, Any]:
    """What came of every attempt."""
    folder = Path(aims["folder"])
    arguments = {"path": str(folder / "own.mp4"), "scratch": str(folder / "scratch"), "aims": aims}
    result = box.run("escape", arguments, profile)
    assert isinstance(result, Result), result
    return dict(result.values)


# ── The strong mode ────────────────────────────────────────────────────────────────────────────────────────────────


def test_this_machine_has_the_strong_mode_with_every_layer(
    box: Sandbox, machine: AvailableLayers, aims: dict[str, Any]
) -> None:
    """As root, and with the capability for it, a user and a network of its own too."""
    attempt(box, aims)
    assert box.available is not None
    assert box.available.is_strong, box.available.line()
    assert box.available == machine
    assert not (IS_ROOT and may(CAP_SYS_ADMIN)) or set(machine.layers) == set(LAYERS), machine.line()


def test_every_attempt_from_inside_is_refused(box: Sandbox, aims: dict[str, Any]) -> None:
    found = attempt(box, aims)
    assert found["files"] == FILES_REFUSED
    assert found["calls"] == CALLS_REFUSED
    assert not (Path(aims["folder"]) / "planted").exists()


def test_the_child_has_its_video_and_its_scratch_file_and_nothing_else(box: Sandbox, aims: dict[str, Any]) -> None:
    own = attempt(box, aims)["own"]
    assert own == {"environment": [], "video": "the bytes of own.mp4", "scratch": "own scratch", "sockets": []}
    assert not (Path(aims["folder"]) / "scratch").exists()


def test_a_child_cannot_become_another_program(box: Sandbox, aims: dict[str, Any]) -> None:
    result = box.run("execute", {"path": aims["other"], "program": "/bin/true"}, PROFILE)
    assert isinstance(result, Result), result
    assert result.values == {"outcome": "EPERM"}


def test_the_kernel_agrees(box: Sandbox, machine: AvailableLayers, aims: dict[str, Any]) -> None:
    """Seen from outside, while a child is at work."""
    with waiting(box, aims):
        status, child = status_of(box), child_of(box)
        assert child is not None
        assert (status["NoNewPrivs"], int(status["CapEff"], 16), int(status["CapPrm"], 16)) == ("1", 0, 0)
        if OWN_USER in machine.layers:
            assert status["Uid"].split() == status["Gid"].split() == [str(PROFILE.uid)] * 4
            assert status["Groups"] == ""
        if OWN_NETWORK in machine.layers and may(CAP_SYS_PTRACE):
            assert Path(f"/proc/{child}/ns/net").stat().st_ino != Path("/proc/self/ns/net").stat().st_ino


@contextmanager
def waiting(box: Sandbox, aims: dict[str, Any]) -> Iterator[threading.Thread]:
    """A confined child that waits until it is ended."""
    profile = dataclasses.replace(PROFILE, timeout_s=280)
    arguments = ("wait", {"path": aims["other"], "seconds": 280.0}, profile)
    thread = threading.Thread(target=box.run, args=arguments, daemon=True)
    thread.start()
    until(lambda: box.available is not None, START_MAX_S, "a keeper")
    until(lambda: status_of(box).get("Seccomp") == "2", 60, "a confined child")
    try:
        yield thread
    finally:
        if (child := child_of(box)) is not None:
            with suppress(psutil.NoSuchProcess):
                psutil.Process(child).kill()
        thread.join(60)


def child_of(box: Sandbox) -> int | None:
    keeper = box._keeper
    if keeper is None:
        return None
    with suppress(psutil.NoSuchProcess):
        return next((child.pid for child in psutil.Process(keeper.pid).children()), None)
    return None


def status_of(box: Sandbox) -> dict[str, str]:
    """Lines of /proc/<child>/status."""
    with suppress(FileNotFoundError, ProcessLookupError):
        lines = Path(f"/proc/{child_of(box)}/status").read_text(encoding="ascii").splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {}


def test_a_worker_that_decodes_closes_itself_to_others(clips: Path) -> None:
    """Its /proc folder is then for nobody but root: secrets are in its environment."""
    script = (
        "import ctypes, sys\n"
        "from pathlib import Path\n"
        "from pipelines import stages\n"
        "from pipelines.settings import IngestSettings\n"
        "libc, get_dumpable = ctypes.CDLL(None), 3\n"
        "print(libc.prctl(get_dumpable, 0, 0, 0, 0))\n"
        "print(stages.probe(Path(sys.argv[1]), IngestSettings()).codec)\n"
        "print(libc.prctl(get_dumpable, 0, 0, 0, 0))\n"
    )
    argv = [sys.executable, "-c", script, str(clips / "cuts.mp4")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1", "h264", "0"], done.stderr


def test_a_child_ends_with_its_keeper(aims: dict[str, Any]) -> None:
    """A change of user undoes the wish to be killed with one's parent: it is made afterwards."""
    with boxed() as box, waiting(box, aims) as thread:
        child, keeper = child_of(box), box._keeper
        assert child is not None
        assert keeper is not None
        keeper.kill()
        until(lambda: not psutil.pid_exists(child), 60, "the child has ended")
        until(lambda: box._keeper is not keeper and status_of(box).get("Seccomp") == "2", START_MAX_S, "another try")
        assert box._keeper is not None
        box._keeper.kill()
        thread.join(60)
        assert not thread.is_alive()


def test_a_file_that_grows_beyond_its_limit_ends_the_child(box: Sandbox, aims: dict[str, Any]) -> None:
    arguments = {"path": aims["other"], "scratch": f"{aims['folder']}/scratch", "size": 2 << 20}
    result = box.run("fill", arguments, PROFILE)
    assert isinstance(result, Failure)
    assert "SIGXFSZ" in result.reason or "EFBIG" in result.reason or "File too large" in result.reason
    assert not Path(arguments["scratch"]).exists()


def test_threads_are_bounded(box: Sandbox, machine: AvailableLayers, aims: dict[str, Any]) -> None:
    """All children of a machine share a user: what one starts is missing to the others."""
    if not layers.counts_alone(machine.layers):
        pytest.skip("children are not counted apart from this user's other processes here")
    started = {}
    for most in (PROFILE.threads_max, 40):
        profile = dataclasses.replace(PROFILE, threads_max=most)
        result = box.run("crowd", {"path": aims["other"], "wanted": 100}, profile)
        assert isinstance(result, Result), result
        started[most] = result.values["started"]
    assert started[PROFILE.threads_max] == 100
    assert started[40] < 40


def test_a_machine_of_many_cpus_has_threads_for_a_decoder_on_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 192)
    settings = IngestSettings(sandbox_threads_per_cpu=100)
    assert [of(settings).threads_max for of in (profiles.probe, profiles.decode)] == [19_200, 19_200]
    assert profiles.decode(IngestSettings(sandbox_threads_per_cpu=0)).threads_max == 0


def test_what_is_not_loaded_is_our_fault_and_not_the_file_s(box: Sandbox, aims: dict[str, Any]) -> None:
    result = box.run("load", {"path": aims["other"]}, PROFILE)
    assert isinstance(result, Failure)
    assert (result.code, result.final) == ("decoder-failed", False)
    assert "turtledemo" in result.reason


def test_a_child_that_cannot_be_confined_does_nothing(box: Sandbox, aims: dict[str, Any]) -> None:
    profile = dataclasses.replace(PROFILE, programs=("/nowhere/program",))
    result = box.run("fill", {"path": aims["other"], "scratch": "", "size": 1}, profile)
    assert isinstance(result, Failure)
    assert (result.code, result.final) == ("sandbox-failed", False)
    assert isinstance(box.run("wait", {"path": aims["other"], "seconds": 0}, PROFILE), Result)


def test_a_profile_with_programs_starts_those_and_no_others(box: Sandbox, aims: dict[str, Any]) -> None:
    profile = dataclasses.replace(PROFILE, programs=("cat", "sleep"), folders=LIBRARIES)
    arguments = {"path": aims["other"], "other": "/bin/echo"}
    result = box.run("start", arguments, profile)
    assert isinstance(result, Result), result
    assert result.values["own"] == "done"
    assert result.values["other"] == "EACCES"
    until(lambda: not psutil.pid_exists(result.values["left"]), 10, "the program that was left behind is ended")


# ── Without it ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_any_layer_the_same_attempts_succeed(aims: dict[str, Any]) -> None:
    """So that what is refused above is refused by a layer. What stays closed are processes that closed themselves."""
    with boxed(*LAYERS) as box:
        found = attempt(box, aims, ACCEPTING)
        assert box.available is not None
        assert box.available.line().startswith("weaker (limits alone)")
    closed = {"read the worker's environment", "read the keeper's environment", "read the worker's memory",
              "write the keeper's memory"}  # fmt: skip
    if not IS_ROOT:  # it has closed itself, and only root may look then
        closed.add("read its own environment")
    assert {name for name, said in found["files"].items() if said != "done"} == closed
    for name in ("reach PostgreSQL", "reach Valkey", "reach a server", "reach a UNIX socket", "make a datagram socket",
                 "reach an abstract UNIX socket", "fork", "clone", "start a program", "signal the worker",
                 "signal the keeper", "remove a file", "change a mode", "make memory that is code"):  # fmt: skip
        assert found["calls"][name] == "done", name


# ── Each layer alone ───────────────────────────────────────────────────────────────────────────────────────────────


def alone(layer: str) -> tuple[str, ...]:
    return tuple(name for name in LAYERS if name != layer)


def test_landlock_alone_keeps_others_files_closed(aims: dict[str, Any]) -> None:
    with boxed(*alone(LANDLOCK)) as box:
        found = attempt(box, aims, ACCEPTING)
    assert found["files"] == FILES_REFUSED
    connects = "EACCES" if landlock.version() >= landlock.NET_SINCE else "done"
    assert found["calls"]["reach PostgreSQL"] == connects
    assert found["calls"]["ptrace"] == "EPERM"
    assert found["calls"]["start a program"] == "EACCES"


def test_seccomp_alone_refuses_calls(aims: dict[str, Any]) -> None:
    with boxed(*alone(SECCOMP)) as box:
        assert attempt(box, aims, ACCEPTING)["calls"] == CALLS_REFUSED


def test_an_own_user_alone_reads_no_secret_and_signals_nobody(machine: AvailableLayers, aims: dict[str, Any]) -> None:
    if OWN_USER not in machine.layers:
        pytest.skip(f"no {OWN_USER} here: {machine.missing[OWN_USER]}")
    with boxed(*alone(OWN_USER)) as box:
        found = attempt(box, aims, ACCEPTING)
    for name in ("read the treasury key", "read a secret of the data folder", "read the worker's environment",
                 "write the keeper's memory", "write another video", "write beside its scratch file"):  # fmt: skip
        assert found["files"][name] == "EACCES", name
    assert {found["calls"][name] for name in ("signal the worker", "signal the keeper", "ptrace", "setuid")} == {
        "EPERM"
    }


def test_an_own_network_alone_reaches_no_server(machine: AvailableLayers, aims: dict[str, Any]) -> None:
    if OWN_NETWORK not in machine.layers:
        pytest.skip(f"no {OWN_NETWORK} here: {machine.missing[OWN_NETWORK]}")
    with boxed(*alone(OWN_NETWORK)) as box:
        found = attempt(box, aims, ACCEPTING)["calls"]
    assert {found[name] for name in ("reach PostgreSQL", "reach Valkey", "reach a server")} == {"ENETUNREACH"}
    assert found["reach an abstract UNIX socket"] == "ECONNREFUSED"


# ── The weaker mode ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_weaker_mode_is_refused_unless_it_is_accepted(
    aims: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    arguments = {"path": aims["other"], "seconds": 0}
    with caplog.at_level(logging.INFO), boxed(LANDLOCK) as box:
        refused = box.run("wait", arguments, PROFILE)
        assert isinstance(refused, Failure)
        assert (refused.code, refused.final) == ("unconfined", False)
        assert box.refusal(PROFILE) == refused
        assert box.refusal(ACCEPTING) is None
        assert "no landlock" in refused.reason
        assert isinstance(box.run("wait", arguments, ACCEPTING), Result)
    said = [record for record in caplog.records if "decoders are confined" in record.message]
    assert [record.levelname for record in said] == ["WARNING"]
    assert "weaker" in said[0].message


def test_what_a_machine_has_can_be_asked_for(machine: AvailableLayers) -> None:
    assert {LANDLOCK, SECCOMP} <= set(machine.layers)


def test_status_says_how_decoders_are_confined(tmp_path: Path) -> None:
    notes = Jobs(throwaway_settings(tmp_path)).notes()
    assert notes["decoders"].startswith("strong (landlock, seccomp")
    shown = stack._notes({"jobs": {"notes": notes}, "ray": {"notes": {}}})
    assert shown == [f"[dim]decoders: {notes['decoders']}[/]"]
    assert stack._notes({"jobs": {"notes": {"decoders": "weaker (own user); no landlock: [x]"}}})[0].startswith(
        "[yellow]"
    )
