"""How much of the bundled model carries over to artwork it never saw: Twemoji, for this measurement only.

Fetches nothing and keeps nothing: give it a folder where npm has installed `@iconify-json/twemoji`, and have
`resvg-py` installed. One picture a concept, each before some background; the concept's plain name must find it.

    python -m benchmarks.other_art NODE_MODULES
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from pathlib import Path

import numpy as np

from pipelines import encoder, world
from pipelines.training.artwork import CELLS, Icons, raster, sheet
from pipelines.training.pictures import Studio
from pipelines.world import Artwork

CONCEPTS = 500
SEED = 3


def redrawn(modules: Path, folder: Path) -> tuple[Artwork, list[int]]:
    """The visual world in Twemoji's hand, and which concepts that set has."""
    icons, concepts = Icons.read(modules / "@iconify-json" / "twemoji"), world.artwork().concepts
    svgs = [icons.svg(concept.code, []) for concept in concepts]
    side = CELLS[world.SEEN]
    sheet([raster(svg, side) if svg else None for svg in svgs], side).save(folder / f"{world.SEEN}.webp", lossless=True)
    shutil.copy(world.ARTWORK / "concepts.json", folder)
    return Artwork(folder), [concept.index for concept, svg in zip(concepts, svgs, strict=True) if svg]


def recall(model: encoder.Encoder, artwork: Artwork, chosen: list[int]) -> dict[int, float]:
    """How often a concept's name finds its picture among the first 1 and 5 of all of them."""
    studio = Studio(artwork, seed=SEED, others=0.0, worn=False)
    pictures = model.frames(np.stack([studio.portrait(index, model.image_size) for index in chosen]))
    texts = model.texts([artwork.concepts[index].name for index in chosen])
    order = np.argsort(-(texts @ pictures.T), axis=1)
    return {k: float((order[:, :k] == np.arange(len(chosen))[:, None]).any(1).mean()) for k in (1, 5)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.other_art", description=__doc__)
    parser.add_argument("modules", type=Path)
    parser.add_argument("--model", default="pixr-emoji")
    options = parser.parse_args()
    model = encoder.load(options.model, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        artwork, known = redrawn(options.modules, Path(folder))
        chosen = sorted(random.Random(SEED).sample(known, min(CONCEPTS, len(known))))
        for title, art in (("Twemoji, never seen", artwork), ("Noto, trained with", world.artwork())):
            found = recall(model, art, chosen)
            print(f"{title}, {len(chosen)} concepts: R@1 {found[1]:.3f}, R@5 {found[5]:.3f}")


if __name__ == "__main__":
    main()
