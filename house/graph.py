"""Imports of a checkout, read from its syntax: which module imports which, where (top, lazy, for types only) and what.

    python graph.py TREE [--plan PLAN] [--who MODULE] [--folders]

With a plan, modules are drawn by their new names (a dry look at a plan before anything moves).
"""

from __future__ import annotations

import argparse
import ast
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("cluster", "pipelines", "serve", "ledger")


@dataclass(frozen=True)
class Edge:
    source: str
    target: str
    name: str  # what is taken of the target, "" for the module itself
    kind: str  # top | lazy | types
    line: int


def module_of(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files_of(root: Path, packages: Iterable[str] = PACKAGES) -> dict[str, Path]:
    """Module name → file, relative to the root."""
    found: dict[str, Path] = {}
    for package in packages:
        for file in sorted((root / package).rglob("*.py")):
            relative = file.relative_to(root)
            if "__pycache__" not in relative.parts:
                found[module_of(relative)] = relative
    return found


class _Imports(ast.NodeVisitor):
    def __init__(self) -> None:
        self.found: list[tuple[ast.Import | ast.ImportFrom, str]] = []
        self._depth, self._types = 0, 0

    def _function(self, node: ast.AST) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _function

    def visit_If(self, node: ast.If) -> None:
        is_types = "TYPE_CHECKING" in ast.dump(node.test)
        self._types += is_types
        for each in node.body:
            self.visit(each)
        self._types -= is_types
        for each in node.orelse:
            self.visit(each)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.found.append((node, "types" if self._types else "lazy" if self._depth else "top"))

    visit_Import = visit_ImportFrom = _import


def edges(root: Path, files: Mapping[str, Path]) -> list[Edge]:
    found: list[Edge] = []
    for module, file in files.items():
        visitor = _Imports()
        visitor.visit(ast.parse((root / file).read_text(encoding="utf-8")))
        for node, kind in visitor.found:
            if isinstance(node, ast.Import):
                pairs = [(alias.name, "") for alias in node.names]
            elif node.level == 0 and node.module:
                pairs = [
                    (f"{node.module}.{alias.name}", "")
                    if f"{node.module}.{alias.name}" in files
                    else (node.module, alias.name)
                    for alias in node.names
                ]
            else:
                continue
            found += [Edge(module, target, name, kind, node.lineno) for target, name in pairs if target in files]
    return [each for each in found if each.source != each.target]


def folder_of(module: str, files: Mapping[str, Path] | None = None) -> str:
    """The folder a module lies in (a package's own `__init__` lies in itself)."""
    return module.rpartition(".")[0] or module


def components(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one node (Tarjan, without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    on: set[str] = set()
    stack: list[str] = []
    out: list[list[str]] = []
    count = 0
    for root in graph:
        if root in index:
            continue
        work = [(root, iter(sorted(graph.get(root, ()))))]
        index[root] = low[root] = count
        count += 1
        stack.append(root)
        on.add(root)
        while work:
            node, children = work[-1]
            for child in children:
                if child not in index:
                    index[child] = low[child] = count
                    count += 1
                    stack.append(child)
                    on.add(child)
                    work.append((child, iter(sorted(graph.get(child, ())))))
                    break
                if child in on:
                    low[node] = min(low[node], index[child])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    group: list[str] = []
                    while True:
                        each = stack.pop()
                        on.discard(each)
                        group.append(each)
                        if each == node:
                            break
                    if len(group) > 1:
                        out.append(sorted(group))
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tree", type=Path)
    parser.add_argument("--plan", type=Path)
    parser.add_argument("--who", default="")
    options = parser.parse_args()
    files = files_of(options.tree)
    found = edges(options.tree, files)
    new: dict[str, str] = {each: each for each in files}
    if options.plan:
        from plan import Plan

        plan = Plan.load(options.plan)
        new |= {old: plan.modules[old] for old in files if old in plan.modules}
        missing = [each for each in files if each not in plan.modules]
        if missing:
            print("not in the plan:", *missing)
        symbols = plan.symbols
        found = [
            Edge(e.source, symbols.get((e.target, e.name), e.target), e.name, e.kind, e.line) for e in found
        ]
    packages = {module for module, file in files.items() if file.name == "__init__.py"}
    if options.who:
        for e in found:
            if options.who in (e.source, e.target, new[e.source], new.get(e.target, e.target)):
                print(f"{new[e.source]} -> {new.get(e.target, e.target)} {e.name} [{e.kind}] line {e.line}")
        return
    by_folder: dict[str, list[str]] = defaultdict(list)
    for module in files:
        if module not in packages:
            by_folder[folder_of(new[module])].append(new[module].rpartition(".")[2])
    for folder, names in sorted(by_folder.items()):
        print(f"{folder} ({len(names)}): {' '.join(sorted(names))}")
    modules = defaultdict(set)
    folders = defaultdict(set)
    why = defaultdict(list)
    for e in found:
        a, b = new[e.source], new.get(e.target, e.target)
        modules[a].add(b)
        x, y = (each if folder_of(each) in PACKAGES else folder_of(each) for each in (a, b))
        if x != y and e.target not in packages:
            folders[x].add(y)
            why[x, y].append(f"{a.rpartition('.')[2]}→{b.rpartition('.')[2]}{'.' + e.name if e.name else ''}[{e.kind}]")
    print("\nmodule circles:")
    for group in components(modules):
        print("  ", *group)
    print("\nfolder circles:")
    for group in components(folders):
        print("  circle of", *group)
        members = set(group)
        for (x, y), items in sorted(why.items()):
            if x in members and y in members:
                print(f"     {x} -> {y}: {' '.join(sorted(set(items)))}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
