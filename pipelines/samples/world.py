"""The visual world: the concepts that sample videos and training pictures can show, and scenes composed of them.

A scene is a background and a few items, each a concept of the artwork with place, size, angle and motion. Scenes are
values: everything about them follows from a seed. `world_words` describes them, `world_paint` paints them, `samples`
makes videos of them, `training` batches of pictures. Knows nothing about models, video files or databases.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

from PIL import Image

ARTWORK = Path(__file__).resolve().parents[2] / "configs" / "artwork"
SEEN = "noto"  # the set of artwork that samples show; the other sets are for training alone

COLOURS = {
    "red": (200, 40, 40),
    "orange": (240, 140, 40),
    "yellow": (245, 215, 70),
    "green": (60, 160, 70),
    "blue": (50, 90, 200),
    "purple": (130, 60, 170),
    "pink": (245, 150, 185),
    "grey": (140, 140, 140),
    "white": (245, 245, 245),
    "black": (25, 25, 25),
}
PLACES = ("sky", "sea", "night", "forest", "city")
PATTERNS = ("gradient", "stripes", "checks", "dots")
BACKGROUNDS = (*COLOURS, *PLACES, *PATTERNS)

SIZES = {1: (0.55, 0.95), 2: (0.45, 0.70), 3: (0.38, 0.55), 4: (0.32, 0.45), 5: (0.28, 0.38), 6: (0.25, 0.34)}
ITEMS_MAX = 6


@dataclass(frozen=True)
class Concept:
    """One thing that can be seen."""

    index: int
    code: str  # Unicode code point in hexadecimal digits
    name: str
    keywords: tuple[str, ...]  # other words that find it
    kind: str
    sets: tuple[str, ...]  # of the artwork that contain it


@dataclass(frozen=True)
class Background:
    """What is behind the items."""

    name: str  # one of BACKGROUNDS
    seed: int  # decides the details

    def __post_init__(self) -> None:
        if self.name not in BACKGROUNDS:
            raise ValueError(f"no background {self.name!r}")


@dataclass(frozen=True)
class Item:
    """A concept in a scene, with its place and motion."""

    concept: int  # index
    x: float  # of the centre, as a share of the frame's width
    y: float  # of the centre, as a share of the frame's height
    size: float  # as a share of the frame's shorter side
    angle: float = 0.0  # degrees
    flip: bool = False  # mirrored from left to right
    dx: float = 0.0  # motion a second, in the units of x
    dy: float = 0.0  # motion a second, in the units of y
    spin: float = 0.0  # degrees a second


@dataclass(frozen=True)
class Scene:
    """What one shot shows: a background with items, and their motion."""

    background: Background
    items: tuple[Item, ...]

    @property
    def concepts(self) -> tuple[int, ...]:
        """The indices of its concepts, each once, in order of appearance."""
        return tuple(dict.fromkeys(item.concept for item in self.items))

    def at(self, second: float) -> Scene:
        """Return the scene `second` seconds later; items turn back before they leave the frame."""
        return replace(self, items=tuple(_moved(item, second) for item in self.items))


@dataclass(frozen=True)
class Artwork:
    """The bundled pictures and the concepts that they show."""

    folder: Path

    @cached_property
    def _document(self) -> dict[str, object]:
        """The content of `concepts.json`."""
        document: dict[str, object] = json.loads((self.folder / "concepts.json").read_text(encoding="utf-8"))
        return document

    @cached_property
    def concepts(self) -> tuple[Concept, ...]:
        """All concepts, by index."""
        rows = self._document["concepts"]
        assert isinstance(rows, list)
        return tuple(
            Concept(i, r["code"], r["name"], tuple(r["keywords"]), r["kind"], tuple(r["sets"]))
            for i, r in enumerate(rows)
        )

    @cached_property
    def _sheets(self) -> dict[str, Image.Image]:
        """The picture sheets that were opened so far, by the name of their set."""
        return {}

    def sprite(self, concept: int, name: str = SEEN) -> Image.Image:
        """Return the picture of a concept from a set: square, with transparency."""
        if name not in self._sheets:
            self._sheets[name] = Image.open(self.folder / f"{name}.webp").convert("RGBA")
        cells, columns = self._document["cells"], self._document["columns"]
        assert isinstance(cells, dict)
        assert isinstance(columns, int)
        side = int(cells[name])
        left, top = concept % columns * side, concept // columns * side
        return self._sheets[name].crop((left, top, left + side, top + side))


@cache
def artwork() -> Artwork:
    """Return the artwork that comes with Pixr."""
    return Artwork(ARTWORK)


def background(rng: random.Random) -> Background:
    """Choose a background: in half of the cases a place, else a plain colour or a pattern."""
    name = rng.choice(rng.choice((tuple(COLOURS), PLACES, PLACES, PATTERNS)))
    return Background(name, rng.randrange(1 << 30))


def compose(rng: random.Random, concepts: Sequence[int], *, wide: float = 1.0, moving: bool = True) -> Scene:
    """Compose a scene, in which some concepts may appear more than once.

    Args:
        rng: Source of randomness.
        concepts: Indices of the concepts to show.
        wide: Width of the frame divided by its height.
        moving: Whether items may move.

    Returns:
        The scene.
    """
    shown = list(concepts)
    while len(shown) < ITEMS_MAX and rng.random() < 0.25:
        shown.append(rng.choice(list(concepts)))
    rng.shuffle(shown)
    low, high = SIZES[max(1, len(shown))]
    places = _places(rng, len(shown), wide)
    placed = zip(shown, places, strict=True)
    items = tuple(_item(rng, concept, place, rng.uniform(low, high), moving) for concept, place in placed)
    return Scene(background(rng), items)


def _item(rng: random.Random, concept: int, place: tuple[float, float], size: float, moving: bool) -> Item:
    """Choose angle and motion of an item."""
    x, y = place
    angle = rng.gauss(0, 10) if rng.random() < 0.8 else rng.uniform(-35, 35)
    speed = rng.choice((0.0, 0.03, 0.06, 0.1)) if moving else 0.0
    dx, dy = rng.uniform(-speed, speed), rng.uniform(-speed, speed)
    spin = rng.uniform(-12, 12) if moving and rng.random() < 0.3 else 0.0
    return Item(concept, x, y, size, angle, rng.random() < 0.5, dx, dy, spin)


def _places(rng: random.Random, count: int, wide: float) -> list[tuple[float, float]]:
    """Choose centres on a loose grid whose cells are about square in the frame."""
    if count == 0:
        return []
    options = [(columns, -(-count // columns)) for columns in range(1, count + 1)]
    columns, rows = min(options, key=lambda grid: abs(wide * grid[1] / grid[0] - 1))
    cells = [(c, r) for r in range(rows) for c in range(columns)]
    rng.shuffle(cells)
    jitter = 0.22
    return [
        ((c + 0.5 + rng.uniform(-jitter, jitter)) / columns, (r + 0.5 + rng.uniform(-jitter, jitter)) / rows)
        for c, r in cells[:count]
    ]


def _moved(item: Item, second: float) -> Item:
    """Return an item `second` seconds later."""
    x, y = _bounced(item.x + item.dx * second), _bounced(item.y + item.dy * second)
    return replace(item, x=x, y=y, angle=item.angle + item.spin * second)


def _bounced(place: float, low: float = 0.12, high: float = 0.88) -> float:
    """Reflect a coordinate back into the frame."""
    if low <= place <= high:
        return place
    return max(low, min(high, 2 * high - place if place > high else 2 * low - place))
