"""The page of all settings: section, name, type, default, unit, what is accepted, meaning; all of it from the code.

Names, types and defaults come from the sections themselves, meanings from the comments beside them (`meanings`), bounds
from asking the sections (`ranges`), and units from the ends of the names. Knows no section.
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster.reference import meanings, ranges
from cluster.settings import ROOT

HEAD = """# Settings

Every setting, from the code that defines it. This page is written by `pixr docs settings --write` (`make docs`); a test fails
where it lags behind the code.

Settings stand in a TOML file (`--config FILE`, else `PIXR_CONFIG`, else `configs/local.toml`), each in the table of its
section. A variable overrides the file: `[search] limit_max` is `PIXR_SEARCH_LIMIT_MAX`; commas separate the items of a list.
Two names stand above all tables: `data_dir` (or the variable `PIXR_DATA_DIR`) is the data folder, `.pixr` by default, and
`include` lists files whose values this file overrides. `local.toml`, `demo.toml`, `production.toml` and `economics.toml` give
some settings other values than their defaults; `pixr config show` prints the values in force.

Where what is accepted depends on another setting, the rule stands in place of a number, in the words of the refusal. MB are
2^20 bytes. A PIX has 1,000,000 base units, a SOL 1,000,000,000 lamports. Days and times of day are UTC.
"""
TYPES: Mapping[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true or false"}
UNITS: Mapping[str, str] = {
    "ms": "milliseconds",
    "s": "seconds",
    "h": "hours",
    "d": "days",
    "mb": "MB",
    "bytes": "bytes",
    "ppm": "parts per million",
    "share": "share of 1",
    "recall": "share of 1",
    "pix": "base units of PIX",
    "lamports": "lamports",
    "usd": "US dollars",
    "px": "pixels",
    "pixels": "pixels",
    "bits": "bits",
    "chars": "characters",
    "frames": "frames",
    "cpus": "CPUs",
    "gpus": "GPUs",
}
FIRST_WORD = re.compile(r"[a-z]+(?:[ ,;:]|$)")
PER_SECOND = "_per_s"
BOUNDS = ("_max", "_min")  # at the end of a name, after its unit
COLUMNS = "| setting | type | default | unit | accepted | meaning |\n|---|---|---|---|---|---|"


def page(sections: Mapping[str, type]) -> str:
    """Return the page as Markdown; `sections` maps each section's name to its class."""
    links = " · ".join(f"[`[{name}]`](#{name})" for name in sections)
    return "\n".join([HEAD, links, *(part for name, section in sections.items() for part in _section(name, section))])


def undescribed(sections: Mapping[str, type]) -> list[str]:
    """Return the settings without a comment on their meaning, as `[section] name`."""
    return [
        f"[{section_name}] {name}"
        for section_name, section in sections.items()
        for group in meanings.groups(section)
        for name, meaning in group.meanings.items()
        if not meaning
    ]


def unit(name: str) -> str:
    """Return the unit of a setting, from the end of its name; "" for a count, a text or a switch."""
    for bound in BOUNDS:
        name = name.removesuffix(bound)
    if name.endswith(PER_SECOND):
        counted = UNITS.get(name.removesuffix(PER_SECOND).rpartition("_")[2], "")
        return f"{counted} a second".strip() if counted else "a second"
    return UNITS.get(name.rpartition("_")[2], "")


def _section(name: str, section: type) -> Iterator[str]:
    """Yield the lines of one section."""
    source = Path(inspect.getfile(section)).relative_to(ROOT)
    yield f"\n## `[{name}]`\n"
    yield f"{inspect.getdoc(section)}\n\nDefined in `{source}`."
    defaults, hints = vars(section()), typing.get_type_hints(section)
    for group in meanings.groups(section):
        yield f"\n{group.heading}.\n" if group.heading else ""
        yield COLUMNS
        for setting, meaning in group.meanings.items():
            cells = (
                f"`{setting}`",
                type_of(hints[setting]),
                f"`{literal(defaults[setting])}`",
                unit(setting),
                ranges.accepted(section, setting),
                _capitalised(meaning),
            )
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    if retired := getattr(section, "RETIRED", ()):
        names = ", ".join(f"`{each}`" for each in retired)
        yield f"\nSettings of an earlier release, which are ignored with a warning: {names}."


def _capitalised(meaning: str) -> str:
    """Return a meaning that begins with a capital letter, unless it begins with a name or a value."""
    return meaning[:1].upper() + meaning[1:] if FIRST_WORD.match(meaning) else meaning


def type_of(hint: Any) -> str:
    """Return the type of a setting in words."""
    if typing.get_origin(hint) is tuple:
        return f"list of {TYPES[typing.get_args(hint)[0]]}s"
    return TYPES[hint]


def literal(value: Any) -> str:
    """Return a default as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(literal(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else _number(value)


def _number(value: float) -> str:
    text = ranges.shown(value)
    return f"{text}.0" if isinstance(value, float) and "." not in text and "e" not in text else text
