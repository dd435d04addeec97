"""Training pictures: scenes of the visual world painted small and fast, degraded like frames of real videos.

Sprites are decoded once, in three sizes; one affine transform does scale, rotation, aspect ratio and mirroring.
Degradation: artwork of another set, brightness, contrast, colour shift, blur, noise, low resolution, JPEG blocks, a
cropped background. Runs in a worker process of its own, without torch.
"""

from __future__ import annotations

import io
import math
import random
from dataclasses import dataclass, replace
from multiprocessing.queues import Queue
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pipelines.samples import world, world_paint, world_words
from pipelines.samples.world import SEEN, Artwork, Item, Scene

FRAMES = (16 / 9, 16 / 9, 4 / 3, 1.0, 9 / 16)  # aspect ratios; the model sees all of them squashed to a square
MANY = (1, 2, 2, 3, 3)  # number of concepts in a scene that may have several
MANY_SHARE = 0.75
LEVEL_MAX = 2.0
BACKGROUNDS_KEPT = 1_200
BACKGROUND_SIDE = 128


@dataclass(frozen=True)
class Lesson:
    """A batch of training pictures."""

    pixels: NDArray[np.uint8]  # (pictures, side, side, 3)
    captions: list[str]
    scenes: list[Scene]


class Studio:
    """Painter of lessons."""

    def __init__(self, artwork: Artwork, *, seed: int, others: float = 0.4, worn: bool = True) -> None:
        """Set the seed and the degradation.

        Args:
            artwork: The pictures of concepts.
            seed: Seed of everything painted.
            others: Share of items painted with artwork of another set than the samples'.
            worn: Whether pictures are degraded.
        """
        self.artwork = artwork
        self.rng = random.Random(seed)
        self.noise = np.random.default_rng(seed)
        self.others, self.worn, self.ease = others, worn, 0.0
        self._sprites: dict[tuple[int, str], list[Image.Image]] = {}
        self._behind: list[tuple[world.Background, Image.Image]] = []

    def lesson(self, count: int, side: int, level: float = LEVEL_MAX) -> Lesson:
        """Paint a batch of pictures.

        Up to `level` 1 each picture shows one concept, more plainly the nearer the level is to 0. From level 1 to 2
        more and more pictures show several concepts.
        """
        self.ease = max(0.0, 1 - level)
        pixels = np.empty((count, side, side, 3), np.uint8)
        scenes, captions = [], []
        for row in pixels:
            wide = 1 + (self.rng.choice(FRAMES) - 1) * (1 - self.ease)
            several = self.rng.random() < MANY_SHARE * (level - 1)
            number = self.rng.choice(MANY) if several else 1
            scene = self._scene(self.rng.sample(range(len(self.artwork.concepts)), number), wide)
            behind, picture = self._background(plain=self.rng.random() < self.ease)
            scene = Scene(behind, scene.items)
            row[:] = self.paint(scene, picture, wide, side)
            scenes.append(scene)
            captions.append(world_words.varied(self.rng, scene, self.artwork.concepts))
        return Lesson(pixels, captions, scenes)

    def _scene(self, concepts: list[int], wide: float) -> Scene:
        """Compose a scene; the easiest lessons show a concept once, large, upright and in the middle."""
        scene = world.compose(self.rng, concepts, wide=wide).at(self.rng.uniform(0, 3))
        if self.ease == 0:
            return scene
        items = scene.items if self.rng.random() > self.ease else scene.items[:1]
        return Scene(scene.background, tuple(self._eased(item) for item in items))

    def _eased(self, item: Item) -> Item:
        """Return an item nearer to the middle, larger and more upright, the easier the lesson is."""
        difficulty = 1 - self.ease
        x, y = 0.5 + (item.x - 0.5) * difficulty, 0.5 + (item.y - 0.5) * difficulty
        size = item.size + (0.93 - item.size) * self.ease
        flip = item.flip and self.rng.random() > self.ease
        return replace(item, x=x, y=y, size=size, angle=item.angle * difficulty, flip=flip)

    def portrait(self, concept: int, side: int) -> NDArray[np.uint8]:
        """Paint one concept in a square frame.

        Args:
            concept: Index of the concept.
            side: Pixels a side.

        Returns:
            uint8 (side, side, 3).
        """
        behind, picture = self._background()
        scene = world.compose(self.rng, [concept], moving=False)
        return self.paint(Scene(behind, scene.items), picture, 1.0, side)

    def paint(self, scene: Scene, behind: Image.Image, wide: float, side: int) -> NDArray[np.uint8]:
        """Paint a scene, with its frame squashed to a square.

        Args:
            scene: The scene.
            behind: The picture of its background.
            wide: Width of the frame divided by its height.
            side: Pixels a side.

        Returns:
            uint8 (side, side, 3).
        """
        canvas = self._crop(behind, side)
        short = (min(1.0, 1 / wide), min(1.0, wide))  # the shorter side as a share of width and of height
        for item in scene.items:
            self._draw(canvas, item, short, side)
        picture = canvas.convert("RGB")
        return self._wear(picture) if self.worn and self.rng.random() >= self.ease else np.asarray(picture)

    def _draw(self, canvas: Image.Image, item: Item, short: tuple[float, float], side: int) -> None:
        """Draw an item with one affine transform."""
        other = self.rng.random() < self.others * (1 - self.ease)
        name = self.rng.choice(self.artwork.concepts[item.concept].sets) if other else SEEN
        width, height = item.size * short[0] * side, item.size * short[1] * side
        sizes = self._sizes(item.concept, name)
        sprite = next((s for s in sizes if s.width <= 2 * max(width, height)), sizes[-1])
        turn = math.radians(item.angle)
        cos, sin = math.cos(turn), math.sin(turn)
        reach = abs(cos) + abs(sin)
        box = (max(2, round(width * reach)), max(2, round(height * reach)))
        zoom_x, zoom_y, mirror = sprite.width / width, sprite.height / height, -1 if item.flip else 1
        a, b = mirror * cos * zoom_x, -mirror * sin * zoom_y
        d, e = sin * zoom_x, cos * zoom_y
        middle = sprite.width / 2
        c, f = middle - a * box[0] / 2 - b * box[1] / 2, middle - d * box[0] / 2 - e * box[1] / 2
        drawn = sprite.transform(box, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)
        left, top = round(item.x * side - box[0] / 2), round(item.y * side - box[1] / 2)
        world_paint.over(canvas, drawn, left, top)

    def _sizes(self, concept: int, name: str) -> list[Image.Image]:
        """Return a concept's picture in three sizes, the largest first."""
        if (concept, name) not in self._sprites:
            whole = self.artwork.sprite(concept, name)
            sides = (72, 40, 20)
            self._sprites[concept, name] = [whole.resize((s, s), Image.Resampling.LANCZOS) for s in sides]
        return self._sprites[concept, name]

    def _background(self, *, plain: bool = False) -> tuple[world.Background, Image.Image]:
        """Return a background with its picture, from a pool that is reused; if `plain`, a new one of one colour."""
        if plain:
            what = world.Background(self.rng.choice(tuple(world.COLOURS)), self.rng.randrange(1 << 30))
            return what, Image.fromarray(world_paint.background(what, 16, 16))
        if len(self._behind) < BACKGROUNDS_KEPT:
            what = world.background(self.rng)
            painted = world_paint.background(what, BACKGROUND_SIDE, BACKGROUND_SIDE)
            self._behind.append((what, Image.fromarray(painted)))
            return self._behind[-1]
        return self.rng.choice(self._behind)

    def _crop(self, behind: Image.Image, side: int) -> Image.Image:
        """Cut a random part out of a background, and mirror it half of the time."""
        wide, high = self.rng.uniform(0.7, 1) * behind.width, self.rng.uniform(0.7, 1) * behind.height
        left, top = self.rng.uniform(0, behind.width - wide), self.rng.uniform(0, behind.height - high)
        cut = behind.resize((side, side), Image.Resampling.BILINEAR, (left, top, left + wide, top + high))
        return (cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.rng.random() < 0.5 else cut).convert("RGBA")

    def _wear(self, picture: Image.Image) -> NDArray[np.uint8]:
        """Degrade a picture at random."""
        rng = self.rng
        if rng.random() < 0.25:
            picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
        if rng.random() < 0.15:
            side, low = picture.width, round(picture.width * rng.uniform(0.5, 0.8))
            picture = picture.resize((low, low), Image.Resampling.BILINEAR)
            picture = picture.resize((side, side), Image.Resampling.BILINEAR)
        if rng.random() < 0.35:
            coded = io.BytesIO()
            picture.save(coded, "JPEG", quality=rng.randint(25, 85))
            picture = Image.open(coded).convert("RGB")
        if rng.random() < 0.3:
            return np.asarray(picture)
        pixels = np.asarray(picture, np.float32)
        gain = np.array([rng.gauss(1, 0.07) for _ in range(3)], np.float32) * rng.uniform(0.75, 1.25)
        pixels = (pixels - 128) * gain + np.float32(128 + rng.gauss(0, 14))
        if rng.random() < 0.3:
            pixels += self.noise.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(2, 10))
        return np.clip(pixels, 0, 255).astype(np.uint8)


def paint(lessons: Queue[Lesson], next_lesson: Any, seed: int) -> None:
    """Paint lessons of the wanted count, side and level until this process is ended."""
    studio = Studio(world.artwork(), seed=seed)
    while True:
        count, side, level = next_lesson
        lessons.put(studio.lesson(int(count), int(side), level))
