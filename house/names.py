"""Names as they stand in texts: dotted names, paths and import lines inside of strings, comments and other files."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

ROOTS = "cluster|pipelines|serve|ledger|tests|benchmarks"
DOTTED = re.compile(rf"(?<![\w./])((?:{ROOTS})(?:\.[A-Za-z_]\w*)+)(:[A-Za-z_]\w*)?")
PATH = re.compile(rf"(?<![\w.])((?:{ROOTS})/(?:[\w-]+/)*[\w-]+)(\.py)?(?![\w/])")
FROM = re.compile(rf"(?<![\w.`])from ((?:{ROOTS})(?:\.\w+)*) import ((?:\w+(?: as \w+)?(?:, ?)?)+)")
IMPORT = re.compile(rf"(?<![\w.`])(?<!from )import ((?:{ROOTS})(?:\.\w+)+)(?! as)")
SQL = re.compile(r"\b(SELECT|FROM|UPDATE|INSERT|JOIN|DELETE|COPY|TRUNCATE|TABLE|GRANT|REFERENCES|ON|WHERE|SET)\b")
QUICK = re.compile(rf"\b(?:{ROOTS})[./]|\bfrom (?:{ROOTS})\b")
RUN = re.compile(r"-m(?:[\"'], *[\"']| +)$")


@dataclass
class Names:
    """What names have become. `modules` and `symbols` as in the plan, of full old names; `tables` of the schema ledger."""

    modules: Mapping[str, str]
    symbols: Mapping[tuple[str, str], str]
    tables: Collection[str] = ()
    run: Collection[str] = ()  # names that `python -m` takes still: a package with a `__main__`
    defined: Mapping[str, Collection[str]] = field(default_factory=dict)  # by module, its top-level names
    renames: dict[str, dict[str, str]] = field(default_factory=dict)  # by module, its own import aliases that changed

    def dotted(self, name: str, attribute: str = "", *, sure: bool = False) -> str | None:
        """A dotted name (`a.b.C`, with `:attr` behind it) as it is now; None where it is not ours or unchanged."""
        parts = name.split(".")
        if sure and not attribute and name in self.run:
            return None
        for count in range(len(parts), 1, -1):
            module, rest = ".".join(parts[:count]), parts[count:]
            if module not in self.modules and not any(key[0] == module for key in self.symbols):
                continue
            if self._is_table(module) and not sure and not attribute and not self._names_something(module, rest):
                return None
            first = rest[0] if rest else attribute[1:]
            new = self.symbols.get((module, first), module)
            if rest:
                rest = [self.renames.get(module, {}).get(rest[0], rest[0]), *rest[1:]]
            new = self.modules.get(new, new)
            changed = ".".join([new, *rest]) + attribute
            return changed if changed != name + attribute else None
        return None

    def _is_table(self, module: str) -> bool:
        package, _, name = module.partition(".")
        return package == "ledger" and name in self.tables

    def _names_something(self, module: str, rest: list[str]) -> bool:
        return bool(rest) and rest[0] in self.defined.get(module, ())

    def path(self, text: str, ending: str) -> str | None:
        module = text.replace("/", ".")
        if module.endswith(".__init__"):
            return None
        if module not in self.modules:
            return None
        if not ending and "." not in module:
            return None
        new = self.modules[module].replace(".", "/") + ending
        return new if new != text + ending else None

    def imported(self, module: str, name: str) -> tuple[str, str]:
        """Where to import a name from, and under which name it stands there."""
        full = f"{module}.{name}"
        if full in self.modules:
            parent, _, base = self.modules[full].rpartition(".")
            return parent, base
        target = self.symbols.get((module, name), module)
        return self.modules.get(target, target), name

    def text(self, text: str, before: str = "") -> str:
        """A text with all of ours in it as it is now. `before`: what stands before it."""
        if not QUICK.search(text):
            return text
        is_sql = bool(SQL.search(text))

        def of_path(match: re.Match[str]) -> str:
            return self.path(match[1], match[2] or "") or match[0]

        def of_from(match: re.Match[str]) -> str:
            lines = []
            for each in re.split(r", ?", match[2].rstrip(", ")):
                name, _, asname = each.partition(" as ")
                module, base = self.imported(match[1], name)
                local = asname or name
                lines.append((module, base if base == local else f"{base} as {local}"))
            grouped: dict[str, list[str]] = {}
            for module, shown in lines:
                grouped.setdefault(module, []).append(shown)
            found = [f"from {module} import {', '.join(names)}" for module, names in grouped.items()]
            joint = "\n" if "\n" in text else "; "
            return joint.join(found)

        def of_import(match: re.Match[str]) -> str:
            new = self.dotted(match[1], sure=True)
            return match[0] if new is None else f"import {new} as {match[1].rpartition('.')[2]}" if False else f"import {new}"

        def of_dotted(match: re.Match[str]) -> str:
            leading = (before + text)[: len(before) + match.start()]
            sure = bool(RUN.search(leading)) or leading.endswith(("import ", "from "))
            if leading.endswith("from "):
                return match[0]  # an import line, done
            if is_sql and match[1].startswith("ledger.") and not sure:
                return match[0]
            return self.dotted(match[1], match[2] or "", sure=sure) or match[0]

        text = FROM.sub(of_from, text)
        text = IMPORT.sub(of_import, text)
        done = {match.span(1) for match in FROM.finditer(text)} | {match.span(1) for match in IMPORT.finditer(text)}
        text = DOTTED.sub(lambda match: match[0] if match.span(1) in done else of_dotted(match), text)
        return PATH.sub(of_path, text)


Report = Callable[[str], None]
