"""Runs mutants: in a copy of the checkout, one at a time, each against the tests that may notice it.

The tests run in forks of one warm process (`tests/mutant.py`), on servers that are started once. Tests that have killed mutants
of the same module come first, then the quickest ones. They run in stages: the quick tests for all mutants before the slow ones
for any; a mutant is done at the first test that fails. Each mutant has a limit of time; one that is not done by then is
undecided, which counts as survived, and is tried again when all others are done.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.mutations.draw import Plan, Uses, file_of, modules, sample, sources
from benchmarks.mutations.operators import Mutant
from benchmarks.mutations.session import Mapped, Session
from cluster.errors import Rejected, Temporary
from cluster.settings import ROOT

MAP_LIMIT_S = 1800.0  # for one file of tests, measured
Say = Callable[[str], None]


class Runner:
    """One run over a copy of the checkout; `session` stores what it finds out, for this run and later ones."""

    def __init__(self, plan: Plan, folder: Path, say: Say = print) -> None:
        self._plan, self._say = plan, say
        self.session = Session(folder / "session.sqlite")
        self.tree = folder / "tree"
        copy_tree(ROOT, self.tree)
        self.texts = sources(self.tree, modules(self.tree))
        self.hashes = {name: _hash(text) for name, text in self.texts.items()}
        self.sample = sample(plan, self.texts)
        self._uses = Uses(self.texts)
        self._worker: Worker

    def run(self, until_s: float, modules: Sequence[str] = (), only: Sequence[str] = ()) -> None:
        """Record which lines the changed tests run; then run mutants without a verdict until `until_s` (monotonic seconds).

        `modules` restricts the modules whose mutants are run, `only` the files of tests; the others are left to another
        run.
        """
        with warm_worker(self.tree, self._plan.tests) as self._worker:
            self._map(until_s, only)
            for most_s, again in (*((each, False) for each in self._plan.stages_s), (self._plan.stages_s[-1], True)):
                for mutant in self.sample:
                    if time.monotonic() > until_s:
                        return
                    if not modules or mutant.module in modules:
                        self._judge(mutant, most_s, again)

    # ── The map ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _map(self, until_s: float, only: Sequence[str]) -> None:
        paths = [path for name in self._plan.tests for path in _test_files(self.tree / name)]
        files = {str(path.relative_to(self.tree)): _hash(path.read_text(encoding="utf-8")) for path in paths}
        ledger = _hash("".join(self.hashes.values()))
        for file in self.session.unmapped(files, ledger):
            if only and file not in only:
                continue
            if time.monotonic() > until_s:
                raise Temporary("the map of tests is not whole yet; run it again, it goes on")
            data = self.tree / ".coverage.mutations"
            told = self._worker.ask(tests=[file], limit_s=MAP_LIMIT_S, coverage=str(data))
            if told["ended"] == "undecided":
                raise Temporary(f"{file} has no end within {MAP_LIMIT_S:.0f} s")
            if told["ended"] == "failed" and not told["by"]:
                raise Rejected(f"{file} cannot be run: {told['said']}")
            self._say(f"mapped {file}: {len(told['seconds'])} tests, {told['wall_s']:.0f} s")
            self.session.map(file, files[file], ledger, told["seconds"], told.get("failed", []), told.get("lines", {}))
        for test in self.session.unsound():
            self._say(f"fails on the unchanged modules, and is not asked: {test}")
        self._lines = self.session.lines()
        self._tests = {name: each for name, each in self.session.tests().items() if not only or each.file in only}

    def _candidates(self, mutant: Mutant) -> list[Mapped]:
        """Return the tests that may notice a mutant, the likeliest first."""
        names = self._running(mutant)
        killers = self.session.killers()
        tests = [self._tests[name] for name in names if name in self._tests]
        return sorted(tests, key=lambda each: (-killers.get((mutant.module, each.name), 0), each.seconds, each.name))

    def _running(self, mutant: Mutant) -> set[str]:
        found: set[str] = set()
        for module, first, last in self._uses.asked(mutant):
            lines = self._lines.get(module, {})
            found = found.union(*(lines.get(number, ()) for number in range(first, last + 1)))
        return found or set().union(*self._lines.get(mutant.module, {}).values())

    # ── Verdicts ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _judge(self, mutant: Mutant, most_s: float, again: bool) -> None:
        """Run further tests for a mutant and store its verdict.

        Those tests are run that fit into `most_s` seconds together with the tests that the mutant has passed before.
        With `again`, an undecided mutant is tried again; one that was killed never is.
        """
        of = self.hashes[mutant.module]
        verdict = self.session.verdicts(self.hashes).get(mutant.key)
        if verdict == "killed" or (verdict == "undecided" and not again):
            return
        passed = self.session.passed(mutant.key, of)
        candidates = self._candidates(mutant)
        waiting = [each for each in candidates if (each.name, each.hash) not in passed]
        asked_s = sum(each.seconds for each in candidates if each not in waiting)
        tests = _within(waiting, most_s - asked_s)
        if not tests:
            if verdict is None:
                self.session.end(mutant.key, mutant.module, of, "survived")
            return
        limit_s = self._plan.limit_least_s + self._plan.limit_factor * sum(each.seconds for each in tests)
        with self._changed(mutant):
            told = self._worker.ask(tests=[each.name for each in tests], limit_s=limit_s)
        if told["ended"] == "missing":
            raise Rejected(f"tests of the map are not there: {told['missing'][:3]}", hint="remove the session")
        ended = {"passed": "survived", "failed": "killed", "undecided": "undecided"}[told["ended"]]
        if ended == "survived":
            self.session.survive(mutant.key, of, tests)
        by = told["by"] or ("import" if ended == "killed" else "")
        self.session.end(mutant.key, mutant.module, of, ended, by, told["said"], told["wall_s"])
        self._say(f"{ended:9} {told['wall_s']:5.1f} s  {mutant}" + (f"  by {by}" if by else ""))

    @contextmanager
    def _changed(self, mutant: Mutant) -> Iterator[None]:
        """Make one change in the copy for the block, and delete the module's compiled file before and after it.

        Python would use an outdated compiled file: it compares only the size and the time, in seconds, of the source.
        """
        path = file_of(self.tree, mutant.module)
        text = self.texts[mutant.module]
        try:
            _write(path, mutant.applied(text))
            yield
        finally:
            _write(path, text)


class Worker:
    """The warm process in which tests run; requests to it and its replies are lines of JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, **asked: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise Temporary("the process that runs the tests has ended")
        told: dict[str, Any] = json.loads(line)
        if told["ended"] == "broken":
            raise Rejected(f"the tests cannot be run: {told['said']}")
        return told


@contextmanager
def warm_worker(tree: Path, tests: Sequence[str]) -> Iterator[Worker]:
    """Start the process that runs tests in the copy; it and its servers end when its input is closed."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    argv = [sys.executable, "-m", "tests.mutant", *tests]
    process = subprocess.Popen(
        argv, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Worker(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def copy_tree(root: Path, tree: Path) -> None:
    """Make the folder `tree` equal to the checkout: tracked files and those that git does not ignore."""
    listed = subprocess.run(
        ("git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    wanted = {name for name in listed.stdout.split("\0") if name and (root / name).is_file()}
    for path in [each for each in tree.rglob("*") if each.is_file() and "__pycache__" not in each.parts]:
        if str(path.relative_to(tree)) not in wanted:
            path.unlink()
    for name in wanted:
        source, target = root / name, tree / name
        if not target.exists() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            _write_bytes(target, source.read_bytes())


def _test_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("test_*.py"))


def _within(tests: Sequence[Mapped], most_s: float) -> list[Mapped]:
    """Return the tests that fit into the time together, in their order; a test that does not fit any more is skipped."""
    taken: list[Mapped] = []
    for each in tests:
        if each.seconds <= most_s:
            most_s -= each.seconds
            taken.append(each)
    return taken


def _write(path: Path, text: str) -> None:
    _write_bytes(path, text.encode())


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
