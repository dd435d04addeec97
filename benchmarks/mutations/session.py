"""The session: all results so far, in one SQLite file, so that a run goes on where the last one stopped.

A verdict holds for the modules and test files with which it was found. If a module has changed, its mutants are run
again. If a test file has changed or is new, the survivors are run again against that file only.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TABLES = """
    CREATE TABLE IF NOT EXISTS files (file TEXT PRIMARY KEY, hash TEXT, ledger TEXT);
    CREATE TABLE IF NOT EXISTS tests (test TEXT PRIMARY KEY, file TEXT, seconds REAL, is_sound INTEGER);
    CREATE TABLE IF NOT EXISTS lines (test TEXT, module TEXT, numbers TEXT, PRIMARY KEY (test, module));
    CREATE TABLE IF NOT EXISTS verdicts (key TEXT, module TEXT, of TEXT, ended TEXT, by TEXT, said TEXT, seconds REAL,
                                         PRIMARY KEY (key, of));
    CREATE TABLE IF NOT EXISTS passed (key TEXT, of TEXT, test TEXT, hash TEXT, PRIMARY KEY (key, of, test));
"""


@dataclass(frozen=True)
class Mapped:
    """A test of which the session knows the lines that it runs, with its seconds on unchanged modules."""

    name: str
    file: str
    hash: str
    seconds: float


class Session:
    """The SQLite file. A parameter `of` of its methods is the hash of the module to which a mutant belongs."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = sqlite3.connect(path, isolation_level=None)
        self._rows.executescript(f"PRAGMA journal_mode = WAL; {TABLES}")

    # ── The map ────────────────────────────────────────────────────────────────────────────────────────────────────

    def unmapped(self, files: Mapping[str, str], ledger: str) -> list[str]:
        """Return the test files to map: new ones, and those mapped before they or the ledger last changed.

        Forgets files that are gone.
        """
        known = {file: (hashed, of) for file, hashed, of in self._rows.execute("SELECT file, hash, ledger FROM files")}
        for gone in known.keys() - files.keys():
            self._forget(gone)
        return [file for file, hashed in files.items() if known.get(file) != (hashed, ledger)]

    def map(self, file: str, hashed: str, ledger: str, seconds: Mapping[str, float], failed: Collection[str],
            lines: Mapping[str, Mapping[str, Iterable[int]]]) -> None:  # fmt: skip
        """Store which lines of which module each test of a file runs. Tests that failed are stored, but not run on mutants."""
        self._rows.execute("BEGIN")
        self._forget(file)
        self._rows.executemany(
            "INSERT INTO tests VALUES (?, ?, ?, ?)",
            [(test, file, took, test not in failed) for test, took in seconds.items()],
        )
        self._rows.executemany(
            "INSERT INTO lines VALUES (?, ?, ?)",
            [(test, module, json.dumps(sorted(numbers)))
             for test, each in lines.items() for module, numbers in each.items()],
        )  # fmt: skip
        self._rows.execute("INSERT INTO files VALUES (?, ?, ?)", (file, hashed, ledger))
        self._rows.execute("COMMIT")

    def _forget(self, file: str) -> None:
        self._rows.execute("DELETE FROM lines WHERE test IN (SELECT test FROM tests WHERE file = ?)", (file,))
        self._rows.execute("DELETE FROM tests WHERE file = ?", (file,))
        self._rows.execute("DELETE FROM files WHERE file = ?", (file,))

    def tests(self) -> dict[str, Mapped]:
        rows = self._rows.execute("SELECT test, file, hash, seconds FROM tests JOIN files USING (file) WHERE is_sound")
        return {row[0]: Mapped(*row) for row in rows}

    def unsound(self) -> list[str]:
        """Return the tests that fail on the unchanged modules."""
        return [row[0] for row in self._rows.execute("SELECT test FROM tests WHERE NOT is_sound ORDER BY test")]

    def lines(self) -> dict[str, dict[int, set[str]]]:
        """Map each module and each of its lines to the tests that run the line."""
        found: dict[str, dict[int, set[str]]] = {}
        for test, module, numbers in self._rows.execute("SELECT test, module, numbers FROM lines"):
            of_module = found.setdefault(module, {})
            for number in json.loads(numbers):
                of_module.setdefault(number, set()).add(test)
        return found

    # ── Verdicts ───────────────────────────────────────────────────────────────────────────────────────────────────

    def verdicts(self, hashes: Mapping[str, str]) -> dict[str, str]:
        """Map the keys of mutants to `killed`, `undecided` or `survived`, for the modules with these hashes."""
        rows = self._rows.execute("SELECT key, module, of, ended FROM verdicts")
        return {key: ended for key, module, of, ended in rows if hashes.get(module) == of}

    def killers(self) -> dict[tuple[str, str], int]:
        """Map pairs of module and test to how many mutants of the module the test has killed."""
        rows = self._rows.execute("SELECT module, by, count(*) FROM verdicts WHERE ended = 'killed' GROUP BY 1, 2")
        return {(module, by): count for module, by, count in rows}

    def passed(self, key: str, of: str) -> set[tuple[str, str]]:
        """Return the tests that have run against a mutant without failing, each with the hash of its file."""
        return set(self._rows.execute("SELECT test, hash FROM passed WHERE key = ? AND of = ?", (key, of)))

    def survive(self, key: str, of: str, tests: Iterable[Mapped]) -> None:
        self._rows.executemany(
            "INSERT OR REPLACE INTO passed VALUES (?, ?, ?, ?)", [(key, of, each.name, each.hash) for each in tests]
        )

    def end(self, key: str, module: str, of: str, ended: str, by: str = "", said: str = "", seconds: float = 0) -> None:
        row = (key, module, of, ended, by, said, seconds)
        self._rows.execute("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?)", row)
