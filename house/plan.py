"""The plan, read from its TOML."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = ("cluster", "pipelines", "serve", "ledger")


@dataclass(frozen=True)
class Plan:
    modules: dict[str, str]  # old → new, full names
    symbols: dict[tuple[str, str], str]  # (old module, name) → old or new module
    raw: dict[str, Any]

    @classmethod
    def load(cls, path: Path) -> Plan:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        modules = {
            f"{package}.{old}": f"{package}.{new}" for package in PACKAGES for old, new in raw.get(package, {}).items()
        }
        symbols = {
            (each["from"], name): each["to"] for each in raw.get("move", []) for name in each["names"]
        }
        return cls(modules, symbols, raw)
