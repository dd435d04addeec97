"""The house rules that no linter knows: who may import what, and that what is documented exists."""

from __future__ import annotations

import ast
import dataclasses
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cluster import settings
from cluster.settings import ROOT

PACKAGES = ("cluster", "pipelines", "serve", "ledger")
README = ROOT / "README.md"
OF_TORCH = ("cuda-", "nvidia-", "triton")  # PyTorch pins its own, one set for each of its builds


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")


def imported(file: Path) -> set[str]:
    """Top-level names a module imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def installed_for(python: str) -> set[str]:
    """The packages that `make setup` brings under a version of Python, as the packages installed here describe it."""
    environment = {"python_version": python.rpartition(".")[0], "python_full_version": python}
    names: set[str] = set()
    waiting = [Requirement("pixr[dev]")]
    seen: set[tuple[str, str]] = set()  # a package and one of its extras
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        names.add(name)
        for extra in {"", *wanted.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                asked = map(Requirement, described(name))
                waiting += [
                    each for each in asked if not each.marker or each.marker.evaluate({**environment, "extra": extra})
                ]
    return names - {"pixr", "setuptools"}  # the environment has its setuptools, as it has its pip


def described(name: str) -> list[str]:
    """What an installed package asks for, or this checkout for `pixr`; nothing where it is not installed."""
    if name == "pixr":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("decord", ("pipelines/plain_decord.py",)),
        ("open_clip", ("pipelines/encoder.py", "pipelines/training/")),
        ("solana", ("ledger/",)),
        ("solders", ("ledger/",)),
    ],
)
def test_a_library_is_imported_only_where_it_belongs(library: str, allowed: tuple[str, ...]) -> None:
    users = [str(file.relative_to(ROOT)) for file in modules() if library in imported(file)]
    assert [user for user in users if not user.startswith(allowed)] == []


def test_only_the_settings_read_the_environment() -> None:
    reading = re.compile(r"os\.environ\.get|os\.getenv|os\.environ\[[^\]]+\](?! *=)|in os\.environ\b")
    users = [file for file in modules() if reading.search(file.read_text(encoding="utf-8"))]
    assert {str(file.relative_to(ROOT)) for file in users} <= {"cluster/settings.py", "cluster/ray_cluster.py"}


def test_background_tasks_are_started_by_what_watches_over_them() -> None:
    """`cluster.tasks` logs and starts again what fails. Elsewhere a task is bare where its maker waits for it."""
    awaited = {
        "serve/limits.py",  # one question to Redis, for all who wait for it
        "serve/routes_stream.py",  # the parts of a search, which its reader takes
        "serve/candidates.py",  # both lists, and the query's vector for them
        "serve/relevance.py",  # the parts of a query, encoded side by side
        "ledger/localnet/server.py",  # a program of its own, which ends with the first of the two
    }
    bare = re.compile(r"\b(create_task|ensure_future)\(")
    users = {str(file.relative_to(ROOT)) for file in modules() if bare.search(file.read_text(encoding="utf-8"))}
    assert users - {"cluster/tasks.py"} == awaited


def test_every_module_opens_with_what_it_is() -> None:
    silent = [str(file) for file in modules() if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))]
    assert silent == []


def test_decord_is_not_installed_beside_decord2() -> None:
    names = {distribution.metadata["Name"].lower() for distribution in distributions()}
    assert "decord2" in names
    assert "decord" not in names


@pytest.mark.parametrize("python", ["3.11.0", "3.11.2", "3.11.7", "3.12.0", "3.12.9"])
def test_the_constraints_name_every_package_that_an_install_brings(python: str) -> None:
    """Also what a library asks for under another Python than this one: redis wants one more before 3.11.3."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines if "==" in line}
    assert {name for name in installed_for(python) if not name.startswith(OF_TORCH)} - pinned == set()


def test_the_readme_names_every_section_of_settings() -> None:
    text = README.read_text(encoding="utf-8")
    missing = [name for name in settings.section_types() if f"[{name}]" not in text]
    assert missing == []


def test_the_readme_names_every_module() -> None:
    text = README.read_text(encoding="utf-8")
    files = [file for file in modules() if file.name != "__init__.py"]
    assert [str(file.relative_to(ROOT)) for file in files if f"`{file.name}`" not in text] == []


def test_settings_are_frozen_and_have_a_docstring() -> None:
    for kind in settings.section_types().values():
        assert kind.__doc__
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(kind(), dataclasses.fields(kind)[0].name, None)


def test_no_top_level_folder_but_the_agreed_ones() -> None:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert folders - {"pixr.egg-info", "build"} == {*PACKAGES, "configs", "tests", "benchmarks"}
