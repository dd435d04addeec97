"""How well the bundled model works on artwork that it has never seen: Twemoji, for this measurement only.

Fetches nothing and keeps nothing: pass it a folder in which npm has installed `@iconify-json/twemoji`, and have
`resvg-py` installed. One picture per concept, each before some background; the concept's plain name must find it.

    python -m benchmarks.other_art NODE_MODULES
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.run import Figure, append, row
from pipelines.models import encoder
from pipelines.samples import world
from pipelines.samples.world import Artwork
from pipelines.training.artwork import CELLS, Icons, raster, sheet
from pipelines.training.pictures import Studio

CONCEPTS = 500
AIM = 0.60  # of R@5
SEED = 3


def redrawn(modules: Path, folder: Path) -> tuple[Artwork, list[int]]:
    """Return the samples' artwork as Twemoji draws it, and the indices of the concepts that Twemoji has."""
    icons, concepts = Icons.read(modules / "@iconify-json" / "twemoji"), world.artwork().concepts
    svgs = [icons.svg(concept.code, []) for concept in concepts]
    side = CELLS[world.SEEN]
    sheet([raster(svg, side) if svg else None for svg in svgs], side).save(folder / f"{world.SEEN}.webp", lossless=True)
    shutil.copy(world.ARTWORK / "concepts.json", folder)
    return Artwork(folder), [concept.index for concept, svg in zip(concepts, svgs, strict=True) if svg]


def recall(model: encoder.Encoder, artwork: Artwork, chosen: list[int]) -> dict[int, float]:
    """Map k (1 and 5) to the share of concepts whose picture is among the k nearest to the concept's name."""
    studio = Studio(artwork, seed=SEED, others=0.0, worn=False)
    pictures = model.frames(np.stack([studio.portrait(index, model.image_size) for index in chosen]))
    texts = model.texts([artwork.concepts[index].name for index in chosen])
    order = np.argsort(-(texts @ pictures.T), axis=1)
    return {k: float((order[:, :k] == np.arange(len(chosen))[:, None]).any(1).mean()) for k in (1, 5)}


def figures(model: encoder.Encoder, modules: Path) -> Iterator[Figure]:
    """Measure recall on artwork the model never saw, and, to compare, on the artwork that the samples are drawn with."""
    with tempfile.TemporaryDirectory() as folder:
        artwork, known = redrawn(modules, Path(folder))
        chosen = sorted(random.Random(SEED).sample(known, min(CONCEPTS, len(known))))
        foreign, own = recall(model, artwork, chosen), recall(model, world.artwork(), chosen)
    for k, wanted in ((1, None), (5, AIM)):
        name = f"name to picture in Twemoji's hand, never seen, R@{k}"
        baseline = f"{own[k]:.3f} in Noto's" + (f", {wanted:.2f} aimed at" if wanted else "")
        yield Figure(name, f"{foreign[k]:.3f} of {len(chosen)}", baseline, foreign[k] / (wanted or own[k]))


def main() -> None:
    """Measure, and append the rows to the log."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.other_art", description=__doc__)
    parser.add_argument("modules", type=Path)
    parser.add_argument("--model", default="pixr-emoji")
    parser.add_argument("--no-log", dest="write", action="store_false", help="print only")
    options = parser.parse_args()
    for figure in figures(encoder.load(options.model, threads=1), options.modules):
        line = row(figure, "python -m benchmarks.other_art NODE_MODULES")
        print(line)
        if options.write:
            append(line)


if __name__ == "__main__":
    main()
