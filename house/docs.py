"""READMEs of the packages out of their drafts (docs/*.md), with one line a file; the glossary; a short tree in README.md.

A file's line is the one that README.md has for it today, else the first sentence of its docstring; [words] of the plan wins.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PACKAGES = ("cluster", "pipelines", "ledger", "serve")
HEAD = re.compile(r"^\*\*`(\w+)/(?:\w+/)?`\*\*")
ROW = re.compile(r"^\| (?:(\w+)/ )?`([\w]+)\.py` \| (.*) \|$")


def write(root: Path, plan: dict[str, Any], notes: list[str]) -> None:
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8")
    rows = _rows(text)
    for package in PACKAGES:
        known = {old: new for old, new in plan[package].items()}
        lines = {f"{package}.{known[old]}": line for (where, old), line in rows.items() if where == package and old in known}
        lines |= plan.get("words", {})
        draft = (HERE / "docs" / f"{package}.md").read_text(encoding="utf-8")
        (root / package / "README.md").write_text(draft.replace("{rooms}", _rooms(root, package, lines)), encoding="utf-8")
    _shorten(readme, text, notes)
    _contributing(root / "CONTRIBUTING.md", notes)
    _changelog(root / "CHANGELOG.md", notes)


def _rows(text: str) -> dict[tuple[str, str], str]:
    """The module tables of README.md: by package and old module name, the line."""
    found: dict[tuple[str, str], str] = {}
    package = ""
    folder = ""
    for line in text.split("\n"):
        head = re.match(r"^\*\*`(\w+)/(?:(\w+)/)?`\*\*", line)
        if head:
            package, folder = head[1], head[2] or ""
        elif line.startswith("## "):
            package = ""
        row = ROW.match(line)
        if row and package:
            inside = row[1] or folder
            found[package, f"{inside}.{row[2]}" if inside else row[2]] = row[3]
    return found


def _rooms(root: Path, package: str, lines: dict[str, str]) -> str:
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for file in sorted((root / package).rglob("*.py")):
        by_folder[file.parent].append(file)
    parts: list[str] = []
    for folder in sorted(by_folder, key=lambda each: (each != root / package, str(each))):
        files = [file for file in by_folder[folder] if file.name != "__init__.py"]
        if folder == root / package:
            parts.append("**The top: stories, wiring, and the nouns that all rooms share**")
        else:
            words = _first(folder / "__init__.py")
            parts.append(f"**`{folder.relative_to(root / package)}/`** {words}")
        shown = ["| file | what it is |", "|---|---|"]
        for file in files:
            module = ".".join(file.relative_to(root).with_suffix("").parts)
            shown.append(f"| `{file.name}` | {lines.get(module) or _first(file)} |")
        parts.append("\n".join(shown))
    return "\n\n".join(parts)


def _first(file: Path) -> str:
    """The first sentence of a docstring."""
    text = " ".join((ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    found = re.match(r"(.+?[^A-Z0-9])[.](?: |$)", text)
    return (found[1] if found else text.rstrip(".")).replace("|", "\\|")


SHORT = """Each package has a README with its story, its rooms (a line a folder and a file) and its invariants:

* [`cluster/`](cluster/README.md) the ground: settings, database, storage, services, Ray. Imports none of the others
* [`pipelines/`](pipelines/README.md) everything from an S3 object to rows of segments. Owns schema `media`
* [`ledger/`](ledger/README.md) everything from an appearance to a settled payout. Owns schema `ledger`
* [`serve/`](serve/README.md) HTTP, page, demo. Owns schema `app`; stands on all of them

"""


def _shorten(readme: Path, text: str, notes: list[str]) -> None:
    begin, end = text.find("\n**`cluster/`**"), text.find("\n## Configuration")
    if begin < 0 or end < begin:
        notes.append("README.md: its module tables were not found")
        return
    readme.write_text(text[:begin].rstrip("\n") + "\n\n" + SHORT + text[end + 1 :], encoding="utf-8")


def _contributing(path: Path, notes: list[str]) -> None:
    text = path.read_text(encoding="utf-8")
    glossary = (HERE / "docs" / "GLOSSARY.md").read_text(encoding="utf-8")
    if "## Habits" not in text:
        notes.append("CONTRIBUTING.md: no `## Habits`")
        return
    path.write_text(text.replace("## Habits", f"{glossary}\n## Habits", 1), encoding="utf-8")


def _changelog(path: Path, notes: list[str]) -> None:
    """The entry, the first of what has changed, and commands of entries that are not released yet as they are now."""
    text = path.read_text(encoding="utf-8")
    entry = (HERE / "docs" / "CHANGELOG.md").read_text(encoding="utf-8")
    head, mark, rest = text.partition("## [Unreleased]\n\n### Changed\n")
    if not mark:
        notes.append("CHANGELOG.md: no `### Changed` under [Unreleased]")
        return
    rest = rest.replace("`python -m ledger.remote_signer`", "`python -m ledger.solana.remote_signer`")
    path.write_text(head + mark + entry + rest, encoding="utf-8")
