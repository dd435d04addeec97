"""How a frame is turned and mirrored before it is shown: one of eight orientations.

Phones write it as a display matrix beside the picture. Knows matrices and pixels, not files. Runs inside the sandbox.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from pipelines.media import Bytes8

MATRIX = struct.Struct("=9i")  # rows a b u, c d v, x y w: a point (p, q) is shown at (a p + c q, b p + d q)


@dataclass(frozen=True)
class Orientation:
    """A rotation clockwise by 0, 90, 180 or 270 degrees, then possibly mirroring from left to right."""

    rotation: int = 0
    mirrored: bool = False

    @property
    def upright(self) -> bool:
        """Whether a frame is shown as it was decoded."""
        return not self.rotation and not self.mirrored


def of_matrix(data: bytes) -> Orientation:
    """Return the orientation nearest to a display matrix of 36 bytes; data of another size count as upright."""
    if len(data) != MATRIX.size:
        return Orientation()
    a, b, _, c, d, *_ = MATRIX.unpack(data)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        mirrored = (a < 0) != (d < 0)
        return Orientation(180 if d < 0 else 0, mirrored)
    return Orientation(90 if b > 0 else 270, (b < 0) == (c < 0))


def shown(pixels: Bytes8, rotation: int, mirrored: bool) -> Bytes8:
    """Turn and mirror a decoded picture to how it is shown.

    Args:
        pixels: uint8 (height, width, 3), as decoded.
        rotation: Degrees clockwise: 0, 90, 180 or 270.
        mirrored: Whether to mirror it from left to right afterwards.

    Returns:
        uint8 (height, width, 3), with height and width swapped for 90 and 270 degrees; a view of `pixels`.
    """
    turned = np.rot90(pixels, -(rotation // 90)) if rotation else pixels
    return np.fliplr(turned) if mirrored else turned
