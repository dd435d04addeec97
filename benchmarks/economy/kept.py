"""Results on disk, one line per seed, so that a run of hours can be ended at any time and goes on where it was.

A line counts only for the code and the economics that it was computed with; other lines are ignored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.economy.compare import CreatorResult, FarmResult, GriefResult, Result
from cluster.settings import ROOT
from ledger.settings import Economics

VERSIONED = ("ledger", "benchmarks/economy")


def version(economics: Economics) -> str:
    """Return a hash of the economics and of all code that results depend on."""
    digest = hashlib.sha256(repr(economics).encode())
    for file in sorted(file for folder in VERSIONED for file in (ROOT / folder).rglob("*")):
        if file.suffix in (".py", ".sql"):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


class Kept:
    """The file of results; reads and adds only lines of one version of code and economics. For one process at a time."""

    def __init__(self, path: Path, version: str) -> None:
        self._path, self._version = path, version

    def known(self, seeds: Iterable[int]) -> dict[int, tuple[Result, float]]:
        """Return the stored results of these seeds, each with the seconds that it took."""
        wanted = set(seeds)
        rows = [row for row in self._rows() if row["version"] == self._version and row["result"]["seed"] in wanted]
        return {row["result"]["seed"]: (_result(row["result"]), row["seconds"]) for row in rows}

    def add(self, result: Result, seconds: float) -> None:
        """Append one result."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        row = json.dumps({"version": self._version, "seconds": round(seconds, 1), "result": asdict(result)})
        with open(self._path, "ab+") as file:
            # Behind what a kill has left of a line.
            begins = "" if not file.tell() or self._path.read_bytes().endswith(b"\n") else "\n"
            file.write(f"{begins}{row}\n".encode())

    def _rows(self) -> Iterator[dict]:  # type: ignore[type-arg]
        if not self._path.exists():
            return
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:  # of a run that was killed while it wrote
                continue


def _result(row: dict) -> Result:  # type: ignore[type-arg]
    kinds = {"farms": FarmResult, "honest": CreatorResult, "griefs": GriefResult}
    return Result(**row | {name: [kind(**each) for each in row[name]] for name, kind in kinds.items()})
