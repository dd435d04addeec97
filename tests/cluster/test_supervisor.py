"""The supervisor on real processes: order, restarts, clear failures, and nothing left behind."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from cluster import leftovers, runtime, services, supervisor
from cluster.errors import Rejected, Temporary
from cluster.keeper import Keeper, State, owner_of
from cluster.services import Command
from cluster.settings import MORE_TIME, Settings, SupervisorSettings
from cluster.supervisor import Supervisor
from tests.conftest import throwaway_settings, wait_up


@dataclass
class Program:
    """A service that runs a line of Python and is healthy once its file exists."""

    folder: Path
    name: str = "program"
    code: str = "import time, pathlib; pathlib.Path({mark!r}).touch(); time.sleep(600)"
    needs: tuple[str, ...] = ()
    start_timeout_s: float = 10.0
    prepared: list[float] = field(default_factory=list)

    @property
    def mark(self) -> Path:
        return self.folder / f"{self.name}.ready"

    def prepare(self) -> None:
        self.mark.unlink(missing_ok=True)
        self.prepared.append(time.monotonic())

    def command(self) -> Command:
        return Command((sys.executable, "-c", self.code.replace("{mark!r}", repr(str(self.mark)))))

    def check(self) -> None:
        if not self.mark.exists():
            raise Temporary(f"{self.name} has not said that it is ready")

    def address(self) -> str:
        return "here"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("run", "logs"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def empty_settings(folder: Path) -> Settings:
    return throwaway_settings(folder)


@pytest.fixture
def until(empty_settings: Settings) -> Iterator[Callable[..., None]]:
    """Step some keepers until something is true; all are stopped in the end."""
    seen: list[Keeper] = []

    def step(keepers: list[Keeper], condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        seen.extend(keepers)
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, [(each.service.name, each.state, each.reason) for each in keepers]
            healthy = {each.service.name for each in keepers if each.state is State.HEALTHY}
            for keeper in keepers:
                keeper.step(time.monotonic(), healthy, {each.service.name for each in keepers})
            time.sleep(0.02)

    yield step
    for keeper in seen:
        keeper.stop(2.0)


def test_a_service_starts_after_what_it_needs(
    folder: Path, empty_settings: Settings, until: Callable[..., None]
) -> None:
    first, second = Program(folder, "first"), Program(folder, "second", needs=("first", "elsewhere"))
    keepers = [Keeper(second, empty_settings), Keeper(first, empty_settings)]
    until(keepers, lambda: all(each.state is State.HEALTHY for each in keepers))
    assert first.prepared[0] < second.prepared[0]


def test_a_killed_service_is_back_by_itself(folder: Path, empty_settings: Settings, until: Callable[..., None]) -> None:
    keeper = Keeper(Program(folder), empty_settings)
    until([keeper], lambda: keeper.state is State.HEALTHY)
    assert keeper.process is not None
    killed = keeper.process.pid
    os.kill(killed, signal.SIGKILL)
    until([keeper], lambda: keeper.restarts == 1 and keeper.state is State.HEALTHY)
    assert keeper.process.pid != killed


def test_a_check_that_is_refused_is_a_failed_check_and_ends_nobody(
    folder: Path, empty_settings: Settings, until: Callable[..., None]
) -> None:
    refusals = 3

    class Refused(Program):
        def check(self) -> None:
            nonlocal refusals
            if refusals:
                refusals -= 1
                raise Rejected("the signature does not match")  # of another server, which has the port
            super().check()

    keeper = Keeper(Refused(folder), empty_settings)
    until([keeper], lambda: keeper.state is State.HEALTHY)
    assert keeper.restarts == 0


def test_the_children_of_a_killed_service_go_too(
    folder: Path, empty_settings: Settings, until: Callable[..., None]
) -> None:
    code = (
        "import subprocess, sys, time, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "pathlib.Path({mark!r}).touch()\ntime.sleep(600)"
    )
    keeper = Keeper(Program(folder, code=code), empty_settings)
    until([keeper], lambda: keeper.state is State.HEALTHY)
    assert keeper.process is not None
    children = psutil.Process(keeper.process.pid).children()
    assert len(children) == 1
    keeper.kill()
    assert psutil.wait_procs(children, timeout=5)[1] == []


def test_a_service_that_cannot_start_is_given_up_with_its_last_words(
    folder: Path, empty_settings: Settings, until: Callable[..., None]
) -> None:
    keeper = Keeper(Program(folder, code="raise SystemExit('no space left in /data')"), empty_settings)
    until([keeper], lambda: bool(keeper.failed_start))
    assert "no space left in /data" in keeper.failed_start
    assert "program.log" in keeper.failed_start


def test_a_service_that_never_gets_healthy_is_given_up_with_the_reason(
    folder: Path, empty_settings: Settings, until: Callable[..., None]
) -> None:
    keeper = Keeper(Program(folder, code="import time; time.sleep(600)", start_timeout_s=0.5), empty_settings)
    until([keeper], lambda: bool(keeper.failed_start))
    assert f"not healthy within 0 s ({MORE_TIME}): program has not said that it is ready" in keeper.failed_start


def test_on_a_machine_that_is_given_longer_each_service_has_longer(
    folder: Path, empty_settings: Settings, until: Callable[..., None]
) -> None:
    longer = {**empty_settings.sections, "supervisor": SupervisorSettings(start_timeout_s=720.0)}
    slow = Program(folder, code="import time; time.sleep(600)", start_timeout_s=0.25)
    keeper = Keeper(slow, dataclasses.replace(empty_settings, sections=longer))
    until([keeper], lambda: bool(keeper.failed_start))
    assert f"not healthy within 1 s ({MORE_TIME}): program has not said that it is ready" in keeper.failed_start


def test_a_failed_start_stops_the_services_that_did_start(folder: Path, empty_settings: Settings) -> None:
    good = Keeper(Program(folder, "good"), empty_settings)
    bad = Keeper(Program(folder, "bad", code="raise SystemExit('broken')"), empty_settings)
    made = Supervisor(empty_settings, [good, bad])
    child = os.fork()  # a supervisor ends every child of its process, and this process has children of its own
    if child == 0:
        os._exit(0 if not made.run() and (good.process, bad.process) == (None, None) else 1)
    assert os.waitpid(child, 0)[1] == 0
    status = supervisor.read_status(empty_settings)
    assert status["phase"] == "failed"
    assert str(status["detail"]).startswith("bad ended with code 1: broken")


def test_services_that_wait_for_each_other_are_refused(folder: Path) -> None:
    with pytest.raises(Rejected, match="wait for each other: a, b"):
        services.ordered([Program(folder, "a", needs=("b",)), Program(folder, "b", needs=("a",))])


def test_one_data_folder_has_one_supervisor_and_it_leaves_nothing(tmp_path: Path) -> None:
    settings = throwaway_settings(tmp_path)
    first = supervisor.start(settings, only=("redis",))
    wait_up(settings, first)
    family = psutil.Process(first.pid).children(recursive=True)
    assert len(family) == 1
    second = supervisor.start(settings, only=("redis",))
    assert second.wait(20) != 0
    assert supervisor.running(settings)
    assert supervisor.stop(settings)
    assert first.wait(20) == 0
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert not supervisor.stop(settings)


HOLDER = (
    "import fcntl, os, signal, sys, time\n"
    "handle = open(sys.argv[1], 'a+')\n"
    "fcntl.flock(handle, fcntl.LOCK_EX)\n"
    "print('locked', flush=True)\n"
    "time.sleep(0.5)\n"
    "handle.truncate(0)\nhandle.write(str(os.getpid()))\nhandle.flush()\n"
    "signal.pause()"
)


@pytest.fixture
def _no_group_is_signalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake here would end the tests themselves, and all else in their group."""
    kill = os.kill

    def kill_one(pid: int, number: int) -> None:
        assert pid > 0, f"the signal {number} would go to a whole group of processes"
        kill(pid, number)

    monkeypatch.setattr(os, "kill", kill_one)


@pytest.mark.usefixtures("_no_group_is_signalled")
@pytest.mark.parametrize("is_first", [True, False])
def test_a_supervisor_that_has_just_taken_its_lock_is_stopped_and_nobody_else(
    empty_settings: Settings, is_first: bool
) -> None:
    lock = leftovers.lock_path(empty_settings.data_dir)
    with subprocess.Popen(("sleep", "600")) as other:  # has the pid that an earlier supervisor had
        lock.write_text("" if is_first else str(other.pid), encoding="ascii")
        try:
            with subprocess.Popen((sys.executable, "-c", HOLDER, lock), stdout=subprocess.PIPE, text=True) as holder:
                try:
                    assert holder.stdout is not None
                    assert holder.stdout.readline() == "locked\n"
                    assert supervisor.stop(empty_settings, timeout_s=10.0)
                    assert holder.wait(5) == -signal.SIGTERM
                    assert other.poll() is None
                finally:
                    holder.kill()
        finally:
            other.kill()


@pytest.mark.usefixtures("_no_group_is_signalled")
@pytest.mark.parametrize("written", ["", "0", "-1", "1 2"])
def test_a_lock_without_a_pid_is_said_and_no_process_is_signalled(empty_settings: Settings, written: str) -> None:
    lock = leftovers.lock_path(empty_settings.data_dir)
    lock.write_text(written, encoding="ascii")
    with open(lock, "a", encoding="ascii") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Temporary, match=r"supervisor\.lock is locked, but its process has not written its pid"):
            supervisor.stop(empty_settings, timeout_s=0.3)


def test_a_killed_supervisor_takes_its_services_along(tmp_path: Path) -> None:
    settings = throwaway_settings(tmp_path)
    process = supervisor.start(settings, only=("redis", "postgres"))
    wait_up(settings, process)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait(10)
    assert psutil.wait_procs(family, timeout=20)[1] == []
    assert supervisor.read_status(settings)["phase"] == "down"


def test_the_owner_of_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert owner_of(taken.getsockname()[1]).startswith(f"pid {os.getpid()} (")


def test_a_port_taken_while_pixr_was_down_is_left_to_its_taker(tmp_path: Path) -> None:
    settings = throwaway_settings(tmp_path)
    with socket.create_server(("127.0.0.1", runtime.port(settings, "redis", 6379))) as taken:
        process = supervisor.start(settings, only=("redis",))
        wait_up(settings, process)
        assert runtime.known_port(settings, "redis") != taken.getsockname()[1]
        supervisor.stop(settings)
        process.wait(20)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_leaves_no_process_behind(tmp_path: Path, how: signal.Signals) -> None:
    settings = throwaway_settings(tmp_path)
    left = {name: value for name, value in os.environ.items() if not name.startswith("PIXR_")}  # by tests before
    environment = left | {"PIXR_DATA_DIR": str(tmp_path)}
    up = subprocess.Popen(
        (sys.executable, "-m", "cluster.cli", "up"),
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell ignores it for what it runs behind
    )
    deadline = time.monotonic() + 60
    while not _healthy(settings, "postgres"):
        assert up.poll() is None
        assert time.monotonic() < deadline, "PostgreSQL did not start"
        time.sleep(0.05)
    started = psutil.Process(up.pid).children(recursive=True)
    assert len(started) > 2
    up.send_signal(how)
    assert up.wait(60) == 130
    assert psutil.wait_procs(started, timeout=5)[1] == []
    assert not supervisor.running(settings)


def test_an_up_that_is_given_up_says_so_and_what_is_still_there(tmp_path: Path) -> None:
    limits = {"PIXR_SUPERVISOR_START_TIMEOUT_S": "5", "PIXR_SUPERVISOR_STOP_TIMEOUT_S": "0.3"}
    left = {name: value for name, value in os.environ.items() if not name.startswith("PIXR_")}  # by tests before
    up = subprocess.Popen(
        (sys.executable, "-m", "cluster.cli", "up"),
        env=left | limits | {"PIXR_DATA_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    started: list[psutil.Process] = []
    try:
        while not started:
            assert up.poll() is None
            started = psutil.Process(up.pid).children()
            time.sleep(0.005)
        started[0].suspend()  # the supervisor does not hear that it is to stop
        said = " ".join(up.communicate(timeout=120)[0].split())
    finally:
        for each in [*started, *(child for one in started for child in one.children(recursive=True))]:
            each.kill()
        up.kill()
    assert said.startswith("pixr: not up within 5 s, waiting for "), said
    assert "[supervisor] start_timeout_s" in said
    assert f"; the supervisor (pid {started[0].pid}) has not stopped within 1 s" in said
    assert "Traceback" not in said


def _healthy(settings: Settings, service: str) -> bool:
    rows: dict[str, dict[str, object]] = supervisor.read_status(settings)["services"]  # type: ignore[assignment]
    return bool(rows.get(service, {}).get("healthy"))


@dataclass
class Guest(Program):
    """A program that cannot live without another one."""

    lives_on: tuple[str, ...] = ("host",)


def test_what_cannot_live_without_another_service_is_started_again_only_when_that_one_is_well(
    folder: Path, empty_settings: Settings, until: Callable[..., None]
) -> None:
    host, guest = Program(folder, "host"), Guest(folder, "guest", needs=("host",))
    keepers = [Keeper(host, empty_settings), Keeper(guest, empty_settings)]
    until(keepers, lambda: all(each.state is State.HEALTHY for each in keepers))
    host.code = "import time; time.sleep(600)"  # it does not become well
    for keeper in keepers:
        assert keeper.process is not None
        keeper.process.kill()
    until(keepers, lambda: keepers[0].state is State.STARTING and keepers[1].state is State.DEAD)
    ended = time.monotonic() + 2
    until(keepers, lambda: time.monotonic() > ended)
    assert keepers[1].state is State.DEAD
    host.mark.touch()
    until(keepers, lambda: keepers[1].state is State.HEALTHY)
    assert len(guest.prepared) == 2
