"""The shape of the house: rooms of a size, no circles between them, one meaning a name, docstrings that callers can use.

What is counted here was counted by hand once; the bounds that end in `_TODAY` may only fall, and are 0 in the end.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cluster.settings import ROOT

PACKAGES = ("cluster", "pipelines", "serve", "ledger")
MODULES_MAX, MODULES_MIN = 16, 2  # of a folder, `__init__.py` aside
PARAMETERS_MIN = 4  # of a public function whose docstring has sections
ARRAYS = re.compile(r"\b(?:NDArray|ndarray|Tensor|Floats|Vectors?|Times|Bytes8|Amounts|Keys|Seconds|Flags)\b")
CLIENT = "serve/client"  # each class of it has sections too
OWNERS = {"media": "pipelines", "ledger": "ledger", "app": "serve", "pixr": "cluster"}  # of schemas
TABLE = re.compile(r"\b(?:FROM|JOIN|INTO|UPDATE|COPY|ONLY|TABLE)\s+(media|ledger|app|pixr)\.([a-z_]+)")
FORBIDDEN = re.compile(
    r"\b(?:whoever|somebody|anybody's|anew|so many|so much|as many again|the look|is no|are no|said of|nobody whom)\b",
    re.IGNORECASE,
)

CLASS_NAMES_TODAY = 29  # names that stand for several classes of one package
DOCSTRINGS_TODAY = 297  # public functions without the sections that they should have
WORDS_TODAY = 180  # of docstrings, that need a second reading
FOREIGN_TABLES_TODAY = 10  # tables named by a package that does not own them


def files() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES: Mapping[str, Path] = {module_of(file): file for file in files()}
FOLDERS = {module for module, file in MODULES.items() if file.name == "__init__.py"}
TREES: Mapping[str, ast.Module] = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in MODULES.items()}


def imported(module: str) -> set[str]:
    """The modules of ours that one imports, at any depth and for types too."""
    found: set[str] = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES else node.module)
    return {each for each in found & set(MODULES) if each not in FOLDERS} - {module}


def room(module: str) -> str:
    """The folder that a module lies in; at a package's top each module is a room of its own."""
    folder = module.rpartition(".")[0]
    return module if folder in PACKAGES else folder


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other (Tarjan 1972)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in number:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], number[other])
        if low[node] == number[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for each in sorted(graph):
        if each not in number:
            visit(each)
    return found


def test_no_folder_is_too_full_to_be_found_through_or_too_empty_to_be_one() -> None:
    sizes: dict[str, int] = defaultdict(int)
    for module in MODULES.keys() - FOLDERS:
        sizes[module.rpartition(".")[0]] += 1
    assert {folder: size for folder, size in sizes.items() if not MODULES_MIN <= size <= MODULES_MAX} == {}


def test_modules_form_no_circle() -> None:
    assert circles({module: imported(module) for module in MODULES}) == []


def test_rooms_form_no_circle() -> None:
    """Whatever the depth of an import: one in a function, or for types alone, makes two rooms one."""
    graph: dict[str, set[str]] = defaultdict(set)
    for module in MODULES.keys() - FOLDERS:
        graph[room(module)] |= {room(each) for each in imported(module)} - {room(module)}
    assert circles(graph) == []


def test_a_class_name_stands_for_one_thing_in_a_package() -> None:
    twice = {name: where for name, where in classes().items() if len(where) > 1}
    assert len(twice) <= CLASS_NAMES_TODAY, twice


def classes() -> dict[tuple[str, str], list[str]]:
    """Where each class of a package stands, by package and name.

    The typed client is a package of its own here: its values have the names that the contract has, as the routes' have.
    """
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for module, tree in TREES.items():
        package = CLIENT if module.replace(".", "/").startswith(CLIENT) else module.partition(".")[0]
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                found[package, node.name.lstrip("_")].append(module)
    return found


def test_functions_of_many_parameters_say_what_they_take_return_and_raise() -> None:
    lacking = sorted(without_sections())
    assert len(lacking) <= DOCSTRINGS_TODAY, lacking


def without_sections() -> Iterator[str]:
    """Public functions that should have sections and lack one: `file:line name: which`."""
    for module, tree in TREES.items():
        for node, owner in public_functions(tree):
            lacks = lacking_sections(node, MODULES[module])
            if lacks:
                name = f"{owner}.{node.name}" if owner else node.name
                yield f"{MODULES[module].relative_to(ROOT)}:{node.lineno} {name}: {', '.join(lacks)}"


def public_functions(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    """Functions and methods that others may call, with the class that a method is of; commands and overloads aside."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and is_public(node):
            yield node, ""
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for each in node.body:
                if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)) and is_public(each):
                    yield each, node.name


def is_public(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    decorators = " ".join(ast.unparse(each) for each in node.decorator_list)
    is_command = "click." in decorators or ".command(" in decorators  # whose docstring is its help
    return not (is_command or "overload" in decorators or (node.name.startswith("_") and node.name != "__init__"))


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [each for each in every if each.arg not in ("self", "cls")]


def lacking_sections(node: ast.FunctionDef | ast.AsyncFunctionDef, file: Path) -> list[str]:
    """Which of `Args`, `Returns` and `Raises` a docstring should have and has not."""
    given = parameters(node)
    annotations = [ast.unparse(each.annotation) for each in given if each.annotation]
    result = ast.unparse(node.returns) if node.returns else "None"
    takes_arrays = any(ARRAYS.search(each) for each in (*annotations, result))
    is_client = str(file.relative_to(ROOT)).startswith(CLIENT)
    if len(given) < PARAMETERS_MIN and not (given and (takes_arrays or is_client)):
        return []
    text = ast.get_docstring(node) or ""
    wanted = ["Args"] if given else []
    wanted += ["Returns"] if result not in ("None", "Never", "NoReturn") and "Iterator" not in result else []
    wanted += ["Raises"] if any(isinstance(each, ast.Raise) and each.exc for each in ast.walk(node)) else []
    if node.name == "__init__":
        wanted = [each for each in wanted if each == "Args"]
    return [each for each in wanted if not re.search(rf"^\s*(?:{each}|Yields):", text, re.MULTILINE)]


def test_docstrings_are_plain_at_first_reading() -> None:
    found = list(odd_words())
    assert len(found) <= WORDS_TODAY, found


def odd_words() -> Iterator[str]:
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                text = ast.get_docstring(node) or ""
                line = getattr(node, "lineno", 1)
                for match in FORBIDDEN.finditer(text):
                    yield f"{MODULES[module].relative_to(ROOT)}:{line} {match[0]!r}"


def test_a_query_on_a_table_stands_in_the_package_that_owns_it() -> None:
    found = sorted(foreign_tables())
    assert len(found) <= FOREIGN_TABLES_TODAY, found


def foreign_tables() -> set[str]:
    """`module: schema.table` where SQL names a table of another package; the ledger's localnet has a database of its own."""
    found: set[str] = set()
    for module, file in MODULES.items():
        for schema, table in TABLE.findall(file.read_text(encoding="utf-8")):
            if OWNERS[schema] != module.partition(".")[0]:
                found.add(f"{module}: {schema}.{table}")
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_packages_readme_names_its_rooms_and_every_module_in_them(package: str) -> None:
    text = (ROOT / package / "README.md").read_text(encoding="utf-8")
    own = {module: file for module, file in MODULES.items() if module.partition(".")[0] == package}
    rooms = {folder: f"`{folder.partition('.')[2].replace('.', '/')}/`" for folder in FOLDERS & own.keys() - {package}}
    assert [folder for folder, shown in rooms.items() if shown not in text] == []
    assert [module for module, file in own.items() if module not in FOLDERS and f"`{file.name}`" not in text] == []
    assert set(re.findall(r"`([a-z_]+\.py)`", text)) <= {file.name for file in own.values()}
    assert [
        path for path in re.findall(r"`([a-z_]+/[a-z_/]+\.py)`", text) if not (ROOT / package / path).exists()
    ] == []
