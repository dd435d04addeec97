"""Captions for scenes of the visual world: one exact wording, and many varied ones.

The plain caption names every concept and the background. Varied captions use templates, synonyms and keywords, as
people do when they search. Knows words, no pixels.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from pipelines.samples.world import COLOURS, Concept, Scene

BEHIND = {
    "sky": ("in the sky", "under a blue sky", "among clouds"),
    "sea": ("at sea", "by the sea", "over the ocean"),
    "night": ("at night", "under the stars", "in the dark of the night"),
    "forest": ("in a forest", "in the woods", "among trees"),
    "city": ("in a city", "downtown", "before a skyline"),
    "gradient": ("on a gradient", "on a colourful background"),
    "stripes": ("on stripes", "on a striped pattern"),
    "checks": ("on a checkerboard", "on a checked pattern"),
    "dots": ("on dots", "on a dotted pattern"),
    **{colour: (f"on a {colour} background", f"on {colour}") for colour in COLOURS},
}
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
TEMPLATES = (
    "{}",
    "{}",
    "a video of {}",
    "a picture of {}",
    "there is {}",
    "a clip with {}",
    "show me {}",
    "a moment with {}",
    "a shot of {}",
    "can you find {}",
    "{} can be seen",
    "an emoji of {}",
)


def plain(scene: Scene, concepts: Sequence[Concept]) -> str:
    """Return one exact sentence: everything in the scene, and its background."""
    counts = Counter(item.concept for item in scene.items)
    names = [_counted(concepts[index].name, counts[index]) for index in scene.concepts]
    behind = BEHIND[scene.background.name][0]
    return f"{_listed(names)} {behind}" if names else f"nothing but a background {behind}"


def varied(rng: random.Random, scene: Scene, concepts: Sequence[Concept]) -> str:
    """Return a caption such as people might type to find the scene."""
    names = [_called(rng, concepts[index]) for index in scene.concepts]
    rng.shuffle(names)
    joined = _listed(names) if rng.random() < 0.8 else " ".join(names)
    if rng.random() < 0.5:
        joined = f"{joined} {rng.choice(BEHIND[scene.background.name])}"
    return rng.choice(TEMPLATES).format(joined)


def queries(concept: Concept) -> tuple[str, ...]:
    """Return a concept's keywords of at least three characters that hold only letters, hyphens and spaces."""
    words = ((word, word.replace("-", "").replace(" ", "")) for word in concept.keywords)
    return tuple(word for word, letters in words if letters.isalpha() and len(word) > 2)


def with_article(name: str) -> str:
    """Return a name with its article, if it takes one: 'a dog', 'an apple', 'jeans'."""
    last = name.split()[-1]
    if last.endswith("s") and not last.endswith(("ss", "us", "is", "os")):
        return name
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _called(rng: random.Random, concept: Concept) -> str:
    """Return a name or a keyword of a concept."""
    roll = rng.random()
    words = queries(concept)
    if roll < 0.75 or not words:
        return with_article(concept.name) if rng.random() < 0.7 else concept.name
    return rng.choice(words)


def _counted(name: str, count: int) -> str:
    """Return a name with a count: "a dog", "three times dog"."""
    return with_article(name) if count == 1 else f"{NUMBERS[count]} times {name}"


def _listed(names: Sequence[str]) -> str:
    """Join names with commas and "and"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
