"""Choose the mutants to run, and the tests to run for each of them.

All mutants of code that decides about money are run; others are drawn at random by a seed. Which tests run a line is
recorded by `coverage`. A mutant inside a function gets the tests that run its statement. A mutant of a constant gets
the tests that run a statement which names the constant. If there are none, the mutant gets all tests of its module.
"""

from __future__ import annotations

import ast
import random
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks.mutations.operators import Mutant, mutants

HERE = Path(__file__).parent
LEDGER = Path("ledger")
Lines = tuple[str, int, int]  # module, first and last line


@dataclass(frozen=True)
class Plan:
    """The contents of `settings.toml`: which mutants are drawn, and how long their tests may take."""

    seed: int
    module_min: int
    sample_min: int
    tests: list[str]
    stages_s: list[float]
    limit_factor: float
    limit_least_s: float
    equivalent_max: float
    decisive: dict[str, list[str]]

    @classmethod
    def load(cls, path: Path = HERE / "settings.toml") -> Plan:
        return cls(**tomllib.loads(path.read_text(encoding="utf-8")))

    def is_decisive(self, mutant: Mutant) -> bool:
        return any(fnmatchcase(mutant.function, name) for name in self.decisive[mutant.module])


@dataclass(frozen=True)
class Equivalent:
    """A mutant that no test can tell from the original: its change, and the reason."""

    change: str
    why: str


def equivalents(path: Path = HERE / "equivalent.toml") -> dict[str, Equivalent]:
    """Map the keys of mutants that were judged equivalent to that judgement."""
    return {key: Equivalent(**value) for key, value in tomllib.loads(path.read_text(encoding="utf-8")).items()}


def modules(root: Path) -> list[str]:
    """Return the names of the ledger's modules without the localnet's, relative to `ledger` (`payouts.batches`)."""
    found = [path.relative_to(root / LEDGER) for path in sorted((root / LEDGER).rglob("*.py"))]
    return [name_of(path) for path in found if path.stem != "__init__" and "localnet" not in path.parts]


def name_of(path: Path) -> str:
    """Return the name of a module from its path relative to `ledger`."""
    return ".".join(path.with_suffix("").parts)


def file_of(root: Path, module: str) -> Path:
    """Return the file of a module from its name relative to `ledger`."""
    return (root / LEDGER).joinpath(*module.split(".")).with_suffix(".py")


def sources(root: Path, names: Sequence[str]) -> dict[str, str]:
    return {each: file_of(root, each).read_text(encoding="utf-8") for each in names}


def sample(plan: Plan, texts: Mapping[str, str]) -> list[Mutant]:
    """Return the mutants to run, in order: first all that decide about money, module by module, then others at random.

    Others are added until each module has `module_min` mutants and the sample has `sample_min`.
    """
    pool = {module: mutants(module, texts[module]) for module in plan.decisive}
    first = [each for module in pool for each in pool[module] if plan.is_decisive(each)]
    others: list[Mutant] = []
    rest: list[Mutant] = []
    for module, found in pool.items():
        free = [each for each in found if not plan.is_decisive(each)]
        random.Random(f"{plan.seed} {module}").shuffle(free)
        missing = max(0, plan.module_min - (len(found) - len(free)))
        others += free[:missing]
        rest += free[missing:]
    random.Random(plan.seed).shuffle(rest)
    return [*first, *others, *rest[: max(0, plan.sample_min - len(first) - len(others))]]


class Uses:
    """An index of names: the statements in functions that use each name, and the constants that are made from others."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._lines: dict[str, set[Lines]] = {}
        self._made_of: list[tuple[str, set[str]]] = []
        for module, text in texts.items():
            tree = ast.parse(text)
            for node in ast.walk(tree):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    for name, line in _named(node):
                        self._lines.setdefault(name, set()).add((module, line, line))
            for node in tree.body:
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    self._made_of.append((node.targets[0].id, {name for name, _ in _named(node.value)}))

    def asked(self, mutant: Mutant) -> set[Lines]:
        """Return the statements whose tests may notice a mutant; for a constant that no function uses, none."""
        if mutant.is_inside:
            return {(mutant.module, mutant.first, mutant.last)}
        names = {mutant.function.rpartition(".")[2]}
        for name, parts in self._made_of:
            if parts & names:
                names.add(name)
        return set().union(*(self._lines.get(name, set()) for name in names))


def _named(node: ast.AST) -> Iterator[tuple[str, int]]:
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            yield each.id, each.lineno
        elif isinstance(each, ast.Attribute):
            yield each.attr, each.lineno
