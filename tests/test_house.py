"""The house rules that no linter knows: who may import what, and that what is documented exists."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest

from cluster import settings
from cluster.settings import ROOT

PACKAGES = ("cluster", "pipelines", "serve", "ledger")
README = ROOT / "README.md"


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


def test_every_module_opens_with_what_it_is() -> None:
    silent = [str(file) for file in modules() if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))]
    assert silent == []


def test_decord_is_not_installed_beside_decord2() -> None:
    names = {distribution.metadata["Name"].lower() for distribution in distributions()}
    assert "decord2" in names
    assert "decord" not in names


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
