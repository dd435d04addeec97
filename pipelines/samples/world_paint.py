"""Painting scenes of the visual world: backgrounds from formulas, items from the artwork.

It paints the frames of sample videos and the cached backgrounds of training. numpy and Pillow only. Planes are float32
(height, width): `x` and `y` are coordinates in units of the frame's shorter side.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.samples.world import COLOURS, Artwork, Background, Item, Scene

Pixels = NDArray[np.uint8]
Plane = NDArray[np.float32]


def background(wanted: Background, width: int, height: int) -> Pixels:
    """Paint a background, uint8 (height, width, 3), RGB."""
    rng = np.random.default_rng(wanted.seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(max(1, min(width, height) - 1))
    painted = _flat(rng, COLOURS[wanted.name], y) if wanted.name in COLOURS else PAINTERS[wanted.name](rng, x, y)
    return np.clip(painted, 0, 255).astype(np.uint8)


@dataclass
class Painter:
    """Painter of scenes at one size; it keeps the scaled pictures of the current scene's items."""

    artwork: Artwork
    width: int
    height: int
    _backgrounds: dict[Background, Image.Image] = field(default_factory=dict)
    _sprites: dict[tuple[int, int, bool], Image.Image] = field(default_factory=dict)

    def paint(self, scene: Scene) -> Pixels:
        """Paint a frame, uint8 (height, width, 3), RGB."""
        if scene.background not in self._backgrounds:
            self._backgrounds.clear()
            self._sprites.clear()
            self._backgrounds[scene.background] = Image.fromarray(background(scene.background, self.width, self.height))
        canvas = self._backgrounds[scene.background].convert("RGBA")
        for item in scene.items:
            sprite = self._sprite(item)
            left = round(item.x * self.width - sprite.width / 2)
            top = round(item.y * self.height - sprite.height / 2)
            over(canvas, sprite, left, top)
        return np.asarray(canvas.convert("RGB"))

    def _sprite(self, item: Item) -> Image.Image:
        """Return an item's picture, scaled and turned."""
        side = max(4, round(item.size * min(self.width, self.height)))
        key = (item.concept, side, item.flip)
        if key not in self._sprites:
            sprite = self.artwork.sprite(item.concept).resize((side, side), Image.Resampling.LANCZOS)
            self._sprites[key] = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if item.flip else sprite
        return self._sprites[key].rotate(item.angle, Image.Resampling.BILINEAR, expand=True)


def over(canvas: Image.Image, sprite: Image.Image, left: int, top: int) -> None:
    """Draw a sprite with transparency onto a canvas, also where it extends over the edge.

    Args:
        canvas: RGBA, changed in place.
        sprite: RGBA.
        left: Pixels from the canvas's left edge to the sprite's; may be negative.
        top: Pixels from the canvas's top edge to the sprite's; may be negative.
    """
    visible = (
        max(0, -left),
        max(0, -top),
        min(sprite.width, canvas.width - left),
        min(sprite.height, canvas.height - top),
    )
    if visible[0] < visible[2] and visible[1] < visible[3]:
        canvas.alpha_composite(sprite, (max(0, left), max(0, top)), visible)


def _mix(low: NDArray[np.floating], high: NDArray[np.floating], share: Plane) -> Plane:
    """Blend two colours (3,) or pictures (height, width, 3) by a share (height, width); return (height, width, 3)."""
    mixed: Plane = (low + (high - low) * np.clip(share, 0, 1)[..., None]).astype(np.float32)
    return mixed


def _flat(rng: np.random.Generator, colour: tuple[int, int, int], y: Plane) -> Plane:
    """Paint a plain colour, slightly darker towards the bottom."""
    tone = np.clip(np.array(colour) + rng.normal(0, 12, 3), 0, 255)
    return _mix(tone, tone * 0.94, y)


def _any_colour(rng: np.random.Generator) -> NDArray[np.floating]:
    """Return a random colour (3,)."""
    return rng.uniform(20, 245, 3)


def _gradient(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Paint a gradient between two colours."""
    turn = rng.uniform(0, 2 * np.pi)
    share = 0.5 + (np.cos(turn) * (x - x.max() / 2) + np.sin(turn) * (y - y.max() / 2)) / 1.4
    return _mix(_any_colour(rng), _any_colour(rng), share)


def _stripes(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Paint stripes."""
    turn, count = rng.uniform(0, np.pi), rng.uniform(4, 10)
    wave = np.sin((np.cos(turn) * x + np.sin(turn) * y) * count * 2 * np.pi)
    return _mix(_any_colour(rng), _any_colour(rng), wave * 8 + 0.5)


def _checks(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Paint a checkerboard."""
    count = rng.uniform(3, 8)
    share = ((np.floor(x * count) + np.floor(y * count)) % 2).astype(np.float32)
    return _mix(_any_colour(rng), _any_colour(rng), share)


def _dots(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Paint dots."""
    count, radius = rng.uniform(4, 9), rng.uniform(0.2, 0.35)
    distance = np.hypot(_part(x * count) - 0.5, _part(y * count) - 0.5)
    return _mix(_any_colour(rng), _any_colour(rng), (radius - distance) * 20)


def _puffs(rng: np.random.Generator, x: Plane, y: Plane, count: int, below: float) -> Plane:
    """Return `count` soft ellipses, (height, width), above 0 inside; their centres are above the line y = `below`."""
    share = np.zeros_like(x)
    for _ in range(count):
        cx, cy, r = rng.uniform(0, x.max()), rng.uniform(0, below), rng.uniform(0.06, 0.16)
        share = np.maximum(share, 1.3 - np.hypot((x - cx) / (2.2 * r), (y - cy) / r))
    return share


def _sky(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Paint a sky with clouds."""
    blue = np.array([70, 140, 225]) + rng.normal(0, 12, 3)
    painted = _mix(blue, np.array([190, 220, 250]), y)
    return _mix(painted, np.array([250, 250, 252]), _puffs(rng, x, y, int(rng.integers(3, 7)), float(y.max())) * 1.5)


def _sea(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Paint the sea below its horizon."""
    horizon = rng.uniform(0.25, 0.5) * y.max()
    waves = np.sin(x * rng.uniform(14, 26) + np.sin(y * 60) * 2) * np.sin(y * rng.uniform(40, 70))
    above = _mix(np.array([150, 200, 240]), np.array([235, 240, 245]), y / max(horizon, 1e-3))
    water = _mix(np.array([20, 90, 150]), np.array([60, 150, 190]), (y - horizon) * 0.8)
    water = water + 14 * waves[..., None]
    return np.where((y < horizon)[..., None], above, water).astype(np.float32)


def _night(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Paint a sky with stars."""
    painted = _mix(np.array([8, 8, 35]) + rng.uniform(0, 10, 3), np.array([40, 35, 85]), y)
    for _ in range(int(rng.integers(30, 60))):
        cx, cy, r = rng.uniform(0, x.max()), rng.uniform(0, y.max()), rng.uniform(0.003, 0.009)
        painted = _mix(painted, np.array([250, 250, 220]), 1.6 - np.hypot(x - cx, y - cy) / r)
    return painted


def _forest(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Paint trees."""
    painted = _mix(np.array([170, 205, 170]), np.array([60, 95, 45]), y / y.max())
    for _ in range(int(rng.integers(7, 13))):
        cx, top, wide = rng.uniform(0, x.max()), rng.uniform(0, 0.4), rng.uniform(0.15, 0.3)
        foot = rng.uniform(0.65, 0.95) * y.max()
        green = np.array([20, 80, 35]) + rng.normal(0, 14, 3)
        crown = np.minimum((y - top) * wide / max(foot - top, 0.1) - np.abs(x - cx), foot - y)
        trunk = np.minimum(0.02 - np.abs(x - cx), np.minimum(y - foot, foot + 0.1 - y))
        painted = _mix(painted, np.array([80, 55, 30]), trunk * 200)
        painted = _mix(painted, green, crown * 120)
    return painted


def _part(values: Plane) -> Plane:
    """Return the fractional part.

    NumPy's `% 1` is not used, because it sometimes warns although nothing is wrong with the values.
    """
    return (values - np.floor(values)).astype(values.dtype)


def _city(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Paint a skyline."""
    painted = _mix(np.array([200, 190, 205]), np.array([235, 205, 180]), y)
    left = -0.1
    while left < x.max():
        wide, top = rng.uniform(0.12, 0.28), rng.uniform(0.15, 0.65) * y.max()
        grey = rng.uniform(60, 140) + rng.normal(0, 8, 3)
        house = ((x >= left) & (x < left + wide) & (y >= top)).astype(np.float32)
        lit = (_part((x - left) * 22) > 0.5) & (_part((y - top) * 18) > 0.5)
        painted = _mix(painted, grey, house)
        painted = _mix(painted, np.array([235, 215, 140]), house * lit * 0.8)
        left += wide
    return painted


PAINTERS = {
    "gradient": _gradient,
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "sky": _sky,
    "sea": _sea,
    "night": _night,
    "forest": _forest,
    "city": _city,
}
