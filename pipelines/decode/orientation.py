"""How a frame is turned and mirrored before it is shown: one of the eight ways in which a picture can lie.

Phones write this as a matrix beside the picture. Knows matrices and pixels, not files. Runs inside the sandbox.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from pipelines.media import Bytes8

MATRIX = struct.Struct("=9i")  # rows a b u, c d v, x y w: a point (p, q) is shown at (a p + c q, b p + d q)


@dataclass(frozen=True)
class Orientation:
    """Turned by so many degrees clockwise (0, 90, 180, 270), and then mirrored left to right."""

    rotation: int = 0
    mirrored: bool = False

    @property
    def upright(self) -> bool:
        """Whether a frame is shown as it was decoded."""
        return not self.rotation and not self.mirrored


def of_matrix(data: bytes) -> Orientation:
    """The nearest of the eight ways to a display matrix of 36 bytes; what is no such matrix changes nothing."""
    if len(data) != MATRIX.size:
        return Orientation()
    a, b, _, c, d, *_ = MATRIX.unpack(data)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        mirrored = (a < 0) != (d < 0)
        return Orientation(180 if d < 0 else 0, mirrored)
    return Orientation(90 if b > 0 else 270, (b < 0) == (c < 0))


def shown(pixels: Bytes8, rotation: int, mirrored: bool) -> Bytes8:
    """A decoded picture [height, width, 3] as it is shown."""
    turned = np.rot90(pixels, -(rotation // 90)) if rotation else pixels
    return np.fliplr(turned) if mirrored else turned
