"""Packing the artwork of the visual world: which concepts exist, their names, and their pictures.

Run once per change of the set, from a folder where npm has installed `emojibase-data` (names and keywords of the
Unicode CLDR) and the vector icons of `@iconify-json/noto`, `noto-v1`, `fxemoji` and `fluent-emoji-flat`; it needs the
package `resvg-py`. It writes `configs/artwork/`: one picture sheet a set, and `concepts.json`. Skin tones, flags,
look-alikes and concepts that people could not tell apart are left out, by `configs/artwork/selection.toml` and by
comparing pictures.

    python -m pipelines.training.artwork NODE_MODULES
"""

from __future__ import annotations

import io
import json
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.samples.world import ARTWORK

CELLS = {"noto": 128, "noto-v1": 72, "fluent-emoji-flat": 72, "fxemoji": 72}
COLUMNS = 25
VERSION_MAX = 15
ALIKE_MAX = 0.98  # cosine of two 16-pixel pictures; above it the later concept is dropped


@dataclass(frozen=True)
class Icons:
    """A set of vector icons as iconify packs it; icons are found by code point if the set lists them, or by name."""

    icons: dict[str, Any]
    by_code: dict[str, str]
    size: tuple[int, int]

    @classmethod
    def read(cls, folder: Path) -> Icons:
        """Read a set from its folder."""
        data = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
        chars = folder / "chars.json"
        by_code = json.loads(chars.read_text(encoding="utf-8")) if chars.is_file() else {}
        return cls(data["icons"], by_code, (data.get("width", 16), data.get("height", 16)))

    def svg(self, code: str, labels: list[str]) -> str | None:
        """Return the icon of a concept as SVG, or None."""
        names = [self.by_code.get(code.lower(), ""), self.by_code.get(code.lower().removesuffix("-fe0f"), "")]
        for label in labels:
            slug = "-".join("".join(c if c.isalnum() else " " for c in label.lower()).split())
            names += [slug, slug.replace("-", ""), "u1f" + slug]
        icon = next((self.icons[name] for name in names if name in self.icons), None)
        if icon is None:
            return None
        width, height = icon.get("width", self.size[0]), icon.get("height", self.size[1])
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}">{icon["body"]}</svg>'
        )


def raster(svg: str, side: int) -> Image.Image:
    """Render SVG as a square picture with transparency."""
    import resvg_py  # type: ignore[import-not-found, unused-ignore]

    big = Image.open(io.BytesIO(resvg_py.svg_to_bytes(svg_string=svg, width=side * 2))).convert("RGBA")
    big.thumbnail((side, side), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (side, side))
    square.paste(big, ((side - big.width) // 2, (side - big.height) // 2))
    return square


def wanted(data: list[dict[str, Any]], selection: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of the CLDR that the selection includes."""
    extra, left_out = set(selection["extra"]), set(selection["left_out"])
    for entry in data:
        entry["label"] = entry["label"].replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    chosen = [e for e in data if e.get("group") in selection["groups"] or e["label"] in extra]
    return [e for e in chosen if e["label"] not in left_out and e.get("version", 0) <= VERSION_MAX]


def distinct(entries: list[dict[str, Any]], pictures: list[Image.Image]) -> list[int]:
    """Return the indices of the entries whose picture looks unlike the pictures of all entries kept before them."""
    kept: list[int] = []
    features: list[np.ndarray[Any, Any]] = []
    for index, picture in enumerate(pictures):
        small = np.asarray(picture.resize((16, 16), Image.Resampling.BOX), np.float32) / 255
        feature = np.concatenate([(small[..., :3] - 0.5) * small[..., 3:], 0.25 * small[..., 3:]], -1).ravel()
        feature /= np.linalg.norm(feature) + 1e-6
        if features and max(float(feature @ other) for other in features) > ALIKE_MAX:
            print("left out, looks like another:", entries[index]["label"])
            continue
        kept.append(index)
        features.append(feature)
    return kept


def sheet(pictures: list[Image.Image | None], side: int) -> Image.Image:
    """Arrange all pictures of a set in one picture sheet, row by row; a missing picture leaves an empty cell."""
    rows = -(-len(pictures) // COLUMNS)
    whole = Image.new("RGBA", (COLUMNS * side, rows * side))
    for index, picture in enumerate(pictures):
        if picture is not None:
            whole.paste(picture, (index % COLUMNS * side, index // COLUMNS * side))
    return whole


def pack(modules: Path, out: Path) -> None:
    """Write the sheets and `concepts.json`."""
    emojibase = modules / "emojibase-data" / "en"
    subgroups = {s["order"]: s["key"] for s in json.loads((emojibase / "messages.json").read_text())["subgroups"]}
    selection = tomllib.loads((out / "selection.toml").read_text(encoding="utf-8"))
    entries = wanted(json.loads((emojibase / "data.json").read_text(encoding="utf-8")), selection)
    sets = {name: Icons.read(modules / "@iconify-json" / name) for name in CELLS}
    svgs = {name: [_svg(icons, entry) for entry in entries] for name, icons in sets.items()}
    entries = [entry for entry, svg in zip(entries, svgs["noto"], strict=True) if svg is not None]
    svgs = {name: [_svg(icons, entry) for entry in entries] for name, icons in sets.items()}
    kept = distinct(entries, [raster(svg or "", 64) for svg in svgs["noto"]])
    for name, side in CELLS.items():
        pictures = [raster(svg, side) if (svg := svgs[name][index]) is not None else None for index in kept]
        print(name, sum(p is not None for p in pictures), "of", len(pictures))
        sheet(pictures, side).save(out / f"{name}.webp", quality=85 if side > 100 else 80, method=6)
    concepts = [
        _concept(entries[i], selection["names"], subgroups, [n for n in CELLS if svgs[n][i] is not None]) for i in kept
    ]
    names = [concept["name"] for concept in concepts]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise SystemExit(f"two concepts have one name: {sorted(twice)}")
    rows = ",\n".join(json.dumps(concept, ensure_ascii=False) for concept in concepts)
    head = f'"columns": {COLUMNS}, "cells": {json.dumps(CELLS)}'
    (out / "concepts.json").write_text(f'{{{head}, "concepts": [\n{rows}\n]}}\n', encoding="utf-8")


def _svg(icons: Icons, entry: dict[str, Any]) -> str | None:
    """Return the icon of an entry, also under its name without " face"."""
    return icons.svg(entry["hexcode"], [entry["label"], entry["label"].removesuffix(" face")])


def _concept(
    entry: dict[str, Any], names: dict[str, str], subgroups: dict[int, str], sets: list[str]
) -> dict[str, Any]:
    """Return the row of `concepts.json` for an entry."""
    name = names.get(entry["label"], entry["label"].removeprefix("person ")).lower()
    keywords = sorted({tag.lower() for tag in [*entry.get("tags", []), entry["label"]]} - {name})
    kind = subgroups[entry["subgroup"]]
    return {"code": entry["hexcode"].lower(), "name": name, "keywords": keywords, "kind": kind, "sets": sets}


if __name__ == "__main__":
    pack(Path(sys.argv[1]), ARTWORK)
