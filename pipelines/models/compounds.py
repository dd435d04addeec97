"""Compound words that a model knows as one word, joined in a text before it is encoded.

A model whose vocabulary is whole words has learned "firefighter", and takes "fire fighter" for a fire and a person who
fights. `compounds.json` in its folder lists such words in two parts, with a space; a model without the file reads texts
as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FILE = "compounds.json"
APART = re.compile(r"[\s-]+")


@dataclass(frozen=True)
class Compounds:
    """Compound words written in two parts: `("fire fighter", "sun flower")`."""

    parted: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: Path | None) -> Compounds:
        """Read the compounds of a model's folder; empty if it lists none."""
        if folder is None or not (folder / FILE).is_file():
            return cls()
        return cls(tuple(json.loads((folder / FILE).read_text(encoding="utf-8"))))

    def joined(self, text: str) -> str:
        """Return the text with each compound as one word, also in the plural and where it is written with a hyphen."""
        return self._pattern.sub(lambda match: APART.sub("", match.group()), text) if self.parted else text

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        words = "|".join(r"[\s-]+".join(map(re.escape, compound.split(" "))) for compound in self.parted)
        return re.compile(rf"(?<![\w-])(?:{words})(?=s?\b)", re.IGNORECASE)


def write(folder: Path, parted: Sequence[str]) -> None:
    """Write compounds into a model's folder."""
    (folder / FILE).write_text(json.dumps(list(parted), indent=1) + "\n", encoding="utf-8")
