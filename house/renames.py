#!/usr/bin/env -S /root/.pyenv/versions/3.12.1/bin/python
"""Renames top-level names (classes, functions, constants) over the whole tree: the words of the house, after its walls.

    python3.12 renames.py TREE [--plan renames.toml] [--only NAME] [--commit]

renames.toml has `[[rename]] module, old, new, why`, of the moved tree. Follows imports and uses through modules; what it
cannot decide (a name that is taken, a class that OpenAPI shows) it leaves and prints.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import graph  # noqa: E402
from source import Source  # noqa: E402

PYTHON = ("cluster", "pipelines", "serve", "ledger", "benchmarks", "tests")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--plan", type=Path, default=HERE / "renames.toml")
    parser.add_argument("--only", default="")
    parser.add_argument("--commit", action="store_true")
    options = parser.parse_args()
    root = options.tree.resolve()
    notes: list[str] = []
    wanted = [each for each in tomllib.loads(options.plan.read_text())["rename"] if options.only in ("", each["old"])]
    files = graph.files_of(root, PYTHON)
    table = {(each["module"], each["old"]): each["new"] for each in wanted}
    for module, old in list(table):
        if module not in files:
            notes.append(f"no module {module}: {old} keeps its name")
            del table[module, old]
    sources = {module: Source(path, (root / path).read_text(encoding="utf-8")) for module, path in files.items()}
    table = {key: new for key, new in table.items() if _can(sources[key[0]], *key, new, notes)}
    for module, source in sources.items():
        text = _renamed(module, source, table, notes)
        if text != source.text:
            (root / files[module]).write_text(text, encoding="utf-8")
    ruff = root / ".venv" / "bin" / "ruff"
    for arguments in (("check", "-q", "--select", "I", "--fix", *PYTHON), ("format", "-q", *PYTHON)):
        subprocess.run((str(ruff), *arguments), cwd=root, check=False)
    if options.commit:
        subprocess.run(("git", "-C", str(root), "commit", "-qam", "A class name stands for one thing in a package"), check=True)
    print("\n".join(notes))


def _can(source: Source, module: str, old: str, new: str, notes: list[str]) -> bool:
    defined = {node.name for node in source.tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))}
    defined |= {t.id for n in source.tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    if old not in defined:
        notes.append(f"{module} has no {old}")
        return False
    if new in defined or source.loads(new) or source.bindings(new):
        notes.append(f"{module}: {new} is taken; {old} keeps its name")
        return False
    return True


def _renamed(module: str, source: Source, table: dict[tuple[str, str], str], notes: list[str]) -> str:
    own = {old: new for (where, old), new in table.items() if where == module}
    local = dict(own)
    holds: dict[str, str] = {}
    for statement in source.imports():
        for alias in statement.aliases:
            holds[alias.local] = alias.full
            new = table.get((alias.module, alias.name))
            if new is None:
                continue
            taken = source.loads(new) or source.bindings(new)
            if alias.asname is None and not taken and not source.bindings(alias.name):
                local[alias.name] = new
            elif alias.asname is None:
                notes.append(f"{source.path}: {new} is imported as {alias.name}, since a name is taken there")
    for statement in source.imports():
        aliases, changed = [], False
        for alias in statement.aliases:
            new = table.get((alias.module, alias.name))
            if new is not None:
                asname = alias.asname or (None if local.get(alias.name) == new else alias.name)
                alias = type(alias)(alias.module, new, asname)
                changed = True
            aliases.append(alias)
        if changed:
            source.rewrite(statement, aliases, notes)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name) and node.id in local:
            _put(source, node, node.id, local[node.id], notes)
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.name in own and node in source.tree.body:
            start = source.text.index(node.name, source.offset(node.lineno, node.col_offset))
            source.replace(start, start + len(node.name), own[node.name])
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            new = table.get((holds.get(node.value.id, ""), node.attr))
            if new is not None:
                end = source.span(node)[1]
                source.replace(end - len(node.attr), end, new)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in local:
            start, end = source.span(node)  # an annotation in quotes, `cast("Batch", …)`
            if source.text[start:end].strip("\"'") == node.value:
                source.replace(start, end, f'"{local[node.value]}"')
    text = source.result()
    for old, new in own.items():
        text = re.sub(rf"`{old}`", f"`{new}`", text)
    return text


def _put(source: Source, node: ast.Name, old: str, new: str, notes: list[str]) -> None:
    start, end = source.span(node)
    if source.text[start:end] == old:
        source.replace(start, end, new)
    else:
        notes.append(f"{source.path}:{node.lineno}: a use of {old} could not be placed")


if __name__ == "__main__":
    main()
