"""Compounds that a model knows as one word: where a text has them as two, they are joined before it is encoded.

A model whose vocabulary is whole words has learned "firefighter", and takes "fire fighter" for a fire and somebody who
fights. `compounds.json` in its folder names such words as two, with a space; a model without it reads texts as they are.
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
    """Words in two parts: `("fire fighter", "sun flower")`."""

    parted: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: Path | None) -> Compounds:
        """Those of a model's folder; none where it names none."""
        if folder is None or not (folder / FILE).is_file():
            return cls()
        return cls(tuple(json.loads((folder / FILE).read_text(encoding="utf-8"))))

    def joined(self, text: str) -> str:
        """The text with each of them as one word, also in the plural; what is written with a hyphen too."""
        return self._pattern.sub(lambda found: APART.sub("", found.group()), text) if self.parted else text

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        words = "|".join(r"[\s-]+".join(map(re.escape, each.split(" "))) for each in self.parted)
        return re.compile(rf"(?<![\w-])(?:{words})(?=s?\b)", re.IGNORECASE)


def write(folder: Path, parted: Sequence[str]) -> None:
    """Put them into a model's folder."""
    (folder / FILE).write_text(json.dumps(list(parted), indent=1) + "\n", encoding="utf-8")
