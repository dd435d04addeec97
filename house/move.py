#!/usr/bin/env -S /root/.pyenv/versions/3.12.1/bin/python
"""Moves the walls of a checkout after the plan. Runs on a clean tree that has not been moved yet; a few seconds.

    python3.12 move.py TREE [--commit] [--upto names|walls|patches|docs]

Steps, each a commit with --commit:
  names    names that change their module first (plan.toml, [[move]]), so that no circle is left between rooms
  walls    files to their rooms, every import and every name in strings, settings and docs after them, tests mirrored
  patches  what is not mechanical, by hand (patches.py), and the import contracts (contracts.toml)
  docs     READMEs of the packages, the glossary, the short module table of README.md (docs.py)

A module that the plan does not know stops it with the list. What it could not decide is printed at the end.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import graph  # noqa: E402
import symbols as symbols_step  # noqa: E402
from names import Names  # noqa: E402
from rewrite import Rewriter  # noqa: E402
from source import Source, parse  # noqa: E402

PACKAGES = ("cluster", "pipelines", "serve", "ledger")
PYTHON = (*PACKAGES, "benchmarks", "tests")
TEXTS = ("pyproject.toml", "Makefile", "CONTRIBUTING.md", "README.md", "constraints.txt", ".ci/run")
TEXT_ENDINGS = {".md", ".toml", ".yaml", ".yml", ".sh", ".txt", ".ini", ".cfg"}
NEVER = ("CHANGELOG.md", "benchmarks/LOG.md")  # history keeps its words
DISTINCT = ("shortcut", "answering")  # module names that are no other word
STEPS = ("names", "walls", "patches", "docs")


class House:
    def __init__(self, root: Path, plan: Path) -> None:
        self.root = root
        self.plan = tomllib.loads(plan.read_text(encoding="utf-8"))
        self.notes: list[str] = []
        self.modules = {
            f"{package}.{old}": f"{package}.{new}" for package in PACKAGES for old, new in self.plan[package].items()
        }
        self.packages: dict[str, str] = dict(self.plan.get("packages", {}))
        self.moves = [symbols_step.Move(**{("source" if k == "from" else "target" if k == "to" else k): v for k, v in each.items()})
                      for each in self.plan.get("move", [])]  # fmt: skip

    # ── What is there ──────────────────────────────────────────────────────────────────────────────────────────────

    def git(self, *arguments: str) -> str:
        return subprocess.run(("git", "-C", str(self.root), *arguments), check=True, capture_output=True, text=True).stdout

    def tracked(self) -> list[str]:
        return self.git("ls-files", "-z").rstrip("\0").split("\0")

    def python_files(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for name in self.tracked():
            path = Path(name)
            if path.suffix == ".py" and path.parts[0] in PYTHON and (self.root / path).exists():
                found[graph.module_of(path)] = path
        for root in PYTHON:  # new ones of the step before
            for path in (self.root / root).rglob("*.py"):
                relative = path.relative_to(self.root)
                found.setdefault(graph.module_of(relative), relative)
        return found

    def check(self) -> None:
        """Refuse a tree that is not clean, was moved already, or holds modules that the plan does not know."""
        files = self.python_files()
        if (self.root / "pipelines" / "decode").is_dir():
            raise SystemExit("this tree has been moved already")
        packages = {module for module, path in files.items() if path.name == "__init__.py"}
        unknown = [m for m in files if m.partition(".")[0] in PACKAGES and m not in packages and m not in self.modules]
        if unknown:
            raise SystemExit("modules that the plan does not know; give each a room in plan.toml:\n  " + "\n  ".join(unknown))
        made = {move.target for move in self.moves} | {"serve.context"}
        gone = [m for m in self.modules if m not in files and m not in made]
        if gone:
            self.notes.append("in the plan, not on this tree: " + ", ".join(gone))

    def tests(self, files: dict[str, Path]) -> dict[str, str]:
        """Old test module → new one. A test of a module's name goes with it, else as the plan says, else it stays."""
        found: dict[str, str] = {}
        for module in files:
            parts = module.split(".")
            if len(parts) != 3 or parts[0] != "tests" or parts[1] not in PACKAGES or not parts[2].startswith("test_"):
                continue
            package, stem = parts[1], parts[2].removeprefix("test_")
            stated = self.plan.get("tests", {}).get(package, {}).get(parts[2])
            if stated == ".":
                continue
            if stated is not None:
                found[module] = f"tests.{package}.{stated}"
                continue
            owner = self._owner(package, stem)
            if owner is None:
                self.notes.append(f"test stays at the top: {module} (no module of its name, not in the plan)")
                continue
            old, new = owner
            folder, _, base = new.rpartition(".")
            name = f"test_{base}" if stem == old else parts[2]
            if folder:
                found[module] = f"tests.{package}.{folder}.{name}"
            elif name != parts[2]:
                found[module] = f"tests.{package}.{name}"
        twice = [new for new in found.values() if list(found.values()).count(new) > 1]
        if twice:
            raise SystemExit(f"two tests would have one name: {sorted(set(twice))}")
        return found

    def _owner(self, package: str, stem: str) -> tuple[str, str] | None:
        known = self.plan[package]
        if stem in known:
            return stem, known[stem]
        starts = [old for old in known if stem.startswith(f"{old}_")]
        return (best, known[best]) if (best := max(starts, key=len, default="")) else None

    def tables(self) -> set[str]:
        """Tables, views and functions of the schema `ledger`: names that look like modules."""
        found: set[str] = set()
        for file in (self.root / "ledger" / "schema").glob("*.sql"):
            found |= set(re.findall(r"\bledger\.([a-z_]+)", file.read_text(encoding="utf-8")))
        return found

    def defined(self, files: dict[str, Path]) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for module, path in files.items():
            tree = parse((self.root / path).read_text(encoding="utf-8"))
            found[module] = {name for node in tree.body for name in symbols_step.targets_of(node)}
        return found

    # ── The steps ──────────────────────────────────────────────────────────────────────────────────────────────────

    def step_names(self) -> None:
        import patches

        patches.before(self.root, self.notes)
        done = [move for move in self.moves if symbols_step.move(self.root, move, self.notes)]
        chosen = {(move.source, name): move.target for move in done for name in move.names}
        files = self.python_files()
        names = Names({}, chosen, self.tables(), self.plan["run"]["names"], self.defined(files))
        self._rewrite(files, names, {})
        self._texts(names, {})
        self._ruff()
        patches.between(self.root, self.notes)
        self._ruff()

    def step_walls(self) -> None:
        files = self.python_files()
        where = {old: new for old, new in self.modules.items() if old in files}
        where |= {old: new for old, new in self.packages.items() if old in files}
        tests = self.tests(files)
        where |= tests
        names = Names(where, {}, self.tables(), self.plan["run"]["names"], self.defined(files))
        self._rewrite(files, names, where)
        self._move(files, where)
        self._texts(names, where)
        self._pyproject()
        self._makefile()
        self._mutations()
        self._ruff()
        self._words()
        self._stale(names, where)
        self._left_over(names)

    def _rewrite(self, files: dict[str, Path], names: Names, where: dict[str, str]) -> None:
        rewriter = Rewriter(names, self.notes, self.plan["aliases"]["keep"])
        sources = {module: Source.read(self.root / path) for module, path in files.items()}
        for source, path in zip(sources.values(), files.values(), strict=True):
            source.path = path
        rewriter.plan_renames(sources)
        for module, source in sources.items():
            deeper = where.get(module, module).count(".") - module.count(".")
            text = rewriter.file(source, module, deeper)
            if text != source.text:
                (self.root / files[module]).write_text(text, encoding="utf-8")

    def _move(self, files: dict[str, Path], where: dict[str, str]) -> None:
        """Move files, by way of a name of their own: a module may take the place where a package's folder comes to lie."""
        pairs: list[tuple[Path, Path]] = []
        for old, new in where.items():
            path = files[old]
            target = Path(new.replace(".", "/"))
            target = target / "__init__.py" if path.name == "__init__.py" else target.with_name(target.name + ".py")
            if path != target:
                pairs.append((path, target))
        parked = [(self.root / f"{path}.moving", target) for path, target in pairs]
        for (path, _), (place, _) in zip(pairs, parked, strict=True):
            (self.root / path).rename(place)
        for place, target in parked:
            (self.root / target).parent.mkdir(parents=True, exist_ok=True)
            if (self.root / target).exists():
                raise SystemExit(f"{target} is there already")
            place.rename(self.root / target)
        self._packages(where)
        for folder in sorted({self.root / path.parent for path, _ in pairs}, key=lambda each: -len(each.parts)):
            for cache in folder.glob("__pycache__"):
                for compiled in cache.iterdir():
                    compiled.unlink()
                cache.rmdir()
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _packages(self, where: dict[str, str]) -> None:
        words: dict[str, str] = self.plan["folders"]
        for new in where.values():
            parts = new.split(".")
            for count in range(2, len(parts)):
                package = ".".join(parts[:count])
                folder = self.root / package.replace(".", "/")
                if not folder.is_dir() or (folder / "__init__.py").exists():
                    continue
                if package.startswith("tests."):
                    (folder / "__init__.py").write_text("", encoding="utf-8")
                    continue
                if package not in words:
                    raise SystemExit(f"[folders] of the plan says nothing of {package}")
                (folder / "__init__.py").write_text(f'"""{words[package]}"""\n', encoding="utf-8")

    # ── Other files ────────────────────────────────────────────────────────────────────────────────────────────────

    def _texts(self, names: Names, where: dict[str, str]) -> None:
        for name in self.tracked():
            path = self.root / name
            if name in NEVER or "/schema/" in name or not path.is_file():
                continue
            if name not in TEXTS and path.suffix not in TEXT_ENDINGS:
                continue
            text = path.read_text(encoding="utf-8")
            new = "\n".join(names.text(line) for line in text.split("\n"))
            if new != text:
                path.write_text(new, encoding="utf-8")

    def _pyproject(self) -> None:
        """The list of packages, as they are now."""
        path = self.root / "pyproject.toml"
        text = path.read_text(encoding="utf-8")
        found = sorted(
            str(file.parent.relative_to(self.root)).replace("/", ".")
            for root in (*PACKAGES, "benchmarks")
            for file in (self.root / root).rglob("__init__.py")
        )
        order = {name: number for number, name in enumerate((*PACKAGES, "benchmarks"))}
        found.sort(key=lambda each: (order[each.partition(".")[0]], each))
        lines: dict[str, list[str]] = defaultdict(list)
        for each in found:
            lines[each.partition(".")[0]].append(f'"{each}"')
        rows: list[str] = []
        for members in lines.values():
            row = ""
            for member in members:
                if len(row) + len(member) > 112:
                    rows.append(row)
                    row = ""
                row += f"{' ' if row else ''}{member},"
            rows.append(row)
        shown = "packages = [\n" + "".join(f"  {row}\n" for row in rows) + "]"
        text, count = re.subn(r"^packages = \[\"cluster\".*?\]", shown, text, count=1, flags=re.M | re.S)
        if count != 1:
            self.notes.append("pyproject.toml: the list of packages was not found")
        path.write_text(text, encoding="utf-8")

    def _makefile(self) -> None:
        """The modules whose branches are all covered."""
        path = self.root / "Makefile"
        text = path.read_text(encoding="utf-8")
        match = re.search(r"^MONEY := ((?:.*\\\n)*.*)\n", text, re.M)
        if not match:
            self.notes.append("Makefile: MONEY was not found")
            return
        names = match[1].replace("\\\n", " ").split()
        known = self.plan["ledger"]
        unknown = [name for name in names if name not in known]
        if unknown:
            self.notes.append(f"Makefile: MONEY names {unknown}, which are no modules of the plan")
        moved = [known.get(name, name) for name in names]
        made = known["audience"]
        if "review" in names and made not in moved and (self.root / f"ledger/{made.replace('.', '/')}.py").exists():
            moved.append(made)  # the step before made two of `review`
        rows: list[str] = []
        for name in sorted(moved, key=lambda each: ("." in each, each)):
            if not rows or len(rows[-1]) + len(name) > 112:
                rows.append("")
            rows[-1] = f"{rows[-1]} {name}".strip()
        text = text.replace(match[0], "MONEY := " + " \\\n  ".join(rows) + "\n")
        path.write_text(text, encoding="utf-8")

    def _mutations(self) -> None:
        """Modules that mutation testing draws from, by their names below the package."""
        path = self.root / "benchmarks" / "mutations" / "settings.toml"
        head, _, rest = path.read_text(encoding="utf-8").partition("[decisive]\n")
        known = self.plan["ledger"]

        def key(match: re.Match[str]) -> str:
            new = known.get(match[1])
            if new is None:
                self.notes.append(f"{path.name}: [decisive] {match[1]} is no module of the plan")
                return match[0]
            return f'"{new}" =' if "." in new else f"{new} ="

        path.write_text(f"{head}[decisive]\n{re.sub(r'^([a-z_]+) =', key, rest, flags=re.M)}", encoding="utf-8")

    def _ruff(self) -> None:
        ruff = self.root / ".venv" / "bin" / "ruff"
        program = str(ruff if ruff.exists() else HERE.parent / "main" / ".venv" / "bin" / "ruff")
        fix = ("check", "--quiet", "--select", "I,F401", "--fix", *PYTHON)
        for arguments in (fix, (), fix, ("format", "--quiet", *PYTHON)):
            if not arguments:
                self._empty_checks()
                continue
            done = subprocess.run((program, *arguments), cwd=self.root, capture_output=True, text=True, check=False)
            if done.returncode:
                self.notes.append(f"ruff {arguments[0]}: {(done.stdout + done.stderr).strip()[:3000]}")

    def _empty_checks(self) -> None:
        """`if TYPE_CHECKING:` of which nothing is left."""
        for path in self.python_files().values():
            text = (self.root / path).read_text(encoding="utf-8")
            if "if TYPE_CHECKING:\n    pass\n" in text:
                (self.root / path).write_text(text.replace("if TYPE_CHECKING:\n    pass\n", ""), encoding="utf-8")

    def _words(self) -> None:
        """Backticked words of one module for another (`routes_media`), where the word can mean nothing else."""
        for package in PACKAGES:
            changed: dict[str, str] = {}
            for old, new in self.plan[package].items():
                if old.rpartition(".")[2] != new.rpartition(".")[2] and ("_" in old or old in DISTINCT):
                    changed[old.rpartition(".")[2]] = new
            for file in sorted((self.root / package).rglob("*.py")):
                folder = ".".join(file.relative_to(self.root / package).parent.parts)

                def word(match: re.Match[str], folder: str = folder, changed: dict[str, str] = changed) -> str:
                    new = changed.get(match[1])
                    if new is None:
                        return match[0]
                    where, _, base = new.rpartition(".")
                    return f"`{base if where == folder else new}{match[2]}`"

                text = file.read_text(encoding="utf-8")
                new = re.sub(r"`([a-z_]+)((?:\.\w+)*)`", word, text)
                if new != text:
                    file.write_text(new, encoding="utf-8")

    # ── What could not be decided ──────────────────────────────────────────────────────────────────────────────────

    def _stale(self, names: Names, where: dict[str, str]) -> None:
        """Words that still name a module as it was: in docstrings, comments and docs of its own package."""
        bases: dict[tuple[str, str], str] = {}
        for old, new in self.modules.items():
            package, _, name = old.partition(".")
            changed = new.partition(".")[2]
            if name.rpartition(".")[2] != changed.rpartition(".")[2]:
                bases[package, name] = changed
        found: dict[str, list[str]] = defaultdict(list)
        for package in PACKAGES:
            for file in sorted((self.root / package).rglob("*.py")):
                for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
                    for word in re.findall(r"`([a-z_]+)(?:\.\w+)*`", line):
                        if (package, word) in bases:
                            found[f"{package}.{word} is now {bases[package, word]}"].append(
                                f"{file.relative_to(self.root)}:{number}"
                            )
        for what, places in sorted(found.items()):
            self.notes.append(f"word to look at: `{what.partition(' ')[0].partition('.')[2]}` ({what}): {', '.join(places)}")
        for file in sorted(self.root.glob("*/schema/*.sql")):
            for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
                if re.search(r"\b(?:cluster|pipelines|serve|ledger)/\w+\.py", line):
                    self.notes.append(f"applied SQL, not touched: {file.relative_to(self.root)}:{number}: {line.strip()[:100]}")
        for name in NEVER:
            text = (self.root / name).read_text(encoding="utf-8")
            count = sum(names.text(line) != line for line in text.split("\n"))
            if count:
                self.notes.append(f"history, not touched: {name} names modules as they were in {count} lines")

    def _left_over(self, names: Names) -> None:
        """Dotted names and paths in texts that lead nowhere now."""
        from names import DOTTED, PATH

        there = set(self.python_files())
        for name in sorted({str(path) for path in self.python_files().values()} | {*TEXTS, "configs/production.toml", "configs/kuberay.yaml"}):
            path = self.root / name
            if not path.is_file() or name in NEVER:
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
                for match in DOTTED.finditer(line):
                    parts = match[1].split(".")
                    was = next((".".join(parts[:n]) for n in range(len(parts), 1, -1) if ".".join(parts[:n]) in names.modules), "")
                    now = any(".".join(parts[:n]) in there for n in range(2, len(parts) + 1))
                    if was and not now and not names._is_table(was):
                        self.notes.append(f"leads nowhere now: {name}:{number}: {match[0]}: {line.strip()[:100]}")
                for match in PATH.finditer(line):
                    if match[2] and not (self.root / (match[1] + match[2])).exists():
                        self.notes.append(f"leads nowhere now: {name}:{number}: {match[0]}: {line.strip()[:100]}")

    def bounds(self) -> None:
        """What the house test counts today, into its bounds."""
        told = subprocess.run((sys.executable, str(HERE / "violations.py"), str(self.root)), capture_output=True, text=True, check=True).stdout
        path = self.root / "tests" / "test_rooms.py"
        text = path.read_text(encoding="utf-8")
        for head, name in (("class names", "CLASS_NAMES"), ("docstrings", "DOCSTRINGS"), ("words", "WORDS"), ("foreign tables", "FOREIGN_TABLES")):
            count = re.search(rf"^# {head} (\d+)$", told, re.M)
            text = re.sub(rf"^{name}_TODAY = \d+", f"{name}_TODAY = {count[1] if count else 0}", text, flags=re.M)
        path.write_text(text, encoding="utf-8")
        (HERE / "violations.md").write_text((HERE / "violations.head.md").read_text(encoding="utf-8") + "```\n" + told + "```\n", encoding="utf-8")

    def egg(self) -> None:
        """Entry points for `PYTHONPATH=TREE`, before the next `make setup`; git ignores it."""
        project = tomllib.loads((self.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        folder = self.root / "pixr.egg-info"
        folder.mkdir(exist_ok=True)
        (folder / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nName: pixr\nVersion: {project['version']}\n", encoding="utf-8")
        groups = {"console_scripts": project["scripts"], **project["entry-points"]}
        text = "\n".join(f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in each.items()) for group, each in groups.items())
        (folder / "entry_points.txt").write_text(text, encoding="utf-8")

    def commit(self, message: str) -> None:
        self.git("add", "-A", "--", ".")
        if self.git("status", "--porcelain"):
            self.git("commit", "-q", "-m", message)


MESSAGES = {
    "names": "Names that belong to another module go there: no room needs one that needs it",
    "walls": "The walls move: a package's top holds stories and wiring, each folder is one noun; no behaviour changes",
    "patches": "What the walls ask for by hand: what each room is given, mutation testing by room, import contracts",
    "docs": "Each package has a README with its story, rooms and invariants; a glossary",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--plan", type=Path, default=HERE / "plan.toml")
    parser.add_argument("--commit", action="store_true")
    parser.add_argument("--dirty", action="store_true", help="also on a tree with changes of its own")
    parser.add_argument("--upto", choices=STEPS, default=STEPS[-1])
    options = parser.parse_args()
    house = House(options.tree.resolve(), options.plan)
    if not options.dirty and house.git("status", "--porcelain", "--untracked-files=normal").strip():
        raise SystemExit("the tree has changes that are not committed")
    house.check()
    for step in STEPS[: STEPS.index(options.upto) + 1]:
        before = len(house.notes)
        if step == "patches":
            import patches

            patches.after(house.root, house.notes)
            house._ruff()
        elif step == "docs":
            import docs

            docs.write(house.root, house.plan, house.notes)
            house.bounds()
        else:
            getattr(house, f"step_{step}")()
        print(f"── {step}: {len(house.notes) - before} notes")
        if options.commit:
            house.commit(MESSAGES[step])
    house.egg()
    print("\n".join(house.notes))


if __name__ == "__main__":
    main()
