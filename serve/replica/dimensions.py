"""The format and size of a picture, read from its header without decoding it.

Reads the first bytes of a PNG or WebP, or the markers of a JPEG. This takes microseconds, so that a picture of 132 kB
that would become 160 MB of pixels is refused before anything decodes it. A header may lie: the decoder checks again.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cluster.errors import Rejected

PNG, RIFF, WEBP, JPEG = b"\x89PNG\r\n\x1a\n", b"RIFF", b"WEBP", b"\xff\xd8"
MARKERS_MAX = 1000  # before the first scan of a JPEG; a camera writes some twenty
FILL_MAX = 4096  # fill bytes before the markers of a JPEG; most encoders write none
SCAN = 0xDA
RATIO_MAX = 40  # of the longer side to the shorter: a model scales a picture until the shorter one fits its input
SCANS_MAX = 100  # of a progressive JPEG, each of which goes through all its blocks; encoders write about ten
# Markers of a JPEG that begin a frame, and that begin a progressive one (ITU T.81, table B.1).
FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
ALONE = frozenset((0x01, *range(0xD0, 0xD8)))  # markers without a length


@dataclass(frozen=True)
class Dimensions:
    """The format and size of a picture."""

    kind: str  # "JPEG", "PNG" or "WEBP"
    width: int  # pixels
    height: int  # pixels
    progressive: bool = False  # a JPEG of several scans

    @property
    def pixels(self) -> int:
        """The area in pixels."""
        return self.width * self.height


def of(data: bytes) -> Dimensions:
    """Read the header of a picture.

    Raises:
        Rejected: it is not a JPEG, PNG or WebP, or its header ends too early.
    """
    try:
        if data.startswith(PNG) and data[12:16] == b"IHDR":
            return Dimensions("PNG", *struct.unpack(">II", data[16:24]))
        if data.startswith(RIFF) and data[8:12] == WEBP:
            return Dimensions("WEBP", *_webp(data))
        if data.startswith(JPEG):
            return _jpeg(data)
    except (struct.error, IndexError) as error:
        raise unreadable() from error
    raise unreadable()


def checked(data: bytes, pixels_max: int, jpeg_pixels_max: int) -> Dimensions:
    """Read the header of a picture, and refuse a picture that would take too much to decode.

    The limit is `pixels_max`. For a JPEG that is not progressive it is the larger of `pixels_max` and
    `jpeg_pixels_max`.

    Raises:
        Rejected: as `of`; or it has too many pixels or scans, or one side is much longer than the other.
    """
    found = of(data)
    is_scaled = found.kind == "JPEG" and not found.progressive  # as it is decoded; a progressive one is decoded first
    most = max(pixels_max, jpeg_pixels_max) if is_scaled else pixels_max
    if not 0 < found.pixels <= most:
        hint = f"scale it down: a search sees no more in it; a JPEG may have {max(pixels_max, jpeg_pixels_max)} pixels"
        detail = f"the image has {found.width} by {found.height} pixels, a {found.kind} may have {most}"
        raise Rejected(detail, status=422, code="bad-image", hint=hint)
    if max(found.width, found.height) > RATIO_MAX * min(found.width, found.height):
        hint = "cut out the part that is meant"
        detail = (
            f"the image has {found.width} by {found.height} pixels: one side is more than {RATIO_MAX} times the other"
        )
        raise Rejected(detail, status=422, code="bad-image", hint=hint)
    if found.progressive and data.count(b"\xff\xda") > SCANS_MAX:
        raise Rejected(f"the image has more than {SCANS_MAX} scans", status=422, code="bad-image")
    return found


def unreadable() -> Rejected:
    """Return the refusal of a picture whose header or data cannot be read."""
    return Rejected("the image cannot be read", status=422, code="bad-image", hint="send a JPEG, PNG or WebP")


def _webp(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels (RFC 9649)."""
    kind = data[12:16]
    if kind == b"VP8X":  # the canvas: 24 bits each, less one
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":  # 14 bits each, less one, after a byte of signature
        (bits,) = struct.unpack("<I", data[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":  # 14 bits each, after a frame tag and a start code
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    raise unreadable()


def _jpeg(data: bytes) -> Dimensions:
    """Read all markers up to the first scan, and return the dimensions of the frame before it.

    Bytes between markers are refused: Pillow goes through them one by one, in Python.
    """
    at, filled, frame = 2, 0, None
    for _ in range(MARKERS_MAX):
        while data[at] == 0xFF and data[at + 1] == 0xFF:  # fill bytes
            at, filled = at + 1, filled + 1
            if filled > FILL_MAX:
                raise unreadable()
        marker = data[at + 1]
        if data[at] != 0xFF or (marker == SCAN and frame is None):
            break
        if marker == SCAN and frame is not None:
            return frame
        if marker in ALONE:
            at += 2
            continue
        if marker in FRAMES and frame is None:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            frame = Dimensions("JPEG", width, height, marker in PROGRESSIVE)
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    raise unreadable()
