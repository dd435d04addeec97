"""Which packets of a video are pictures that a player shows.

Some packets hold one of the two fields of a picture, some hold frames that are never shown, and some precede the first
frame that can be decoded. Pure functions of packets' bytes and times. Runs inside the sandbox.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

FIELD_SHARE_MAX = 0.75  # of the time between two pictures; a packet that comes sooner holds the other field
VP9_SUPERFRAME, VP9_SUPERFRAME_MASK = 0xC0, 0xE0

Row = tuple[int, bool]  # of a packet: its time stamp, and whether it is a key frame


@dataclass(frozen=True)
class FirstPictures:
    """What the first decoded pictures tell; times are in the stream's time base."""

    pts: int | None  # of the first picture
    interlaced_pace: int = 0  # the least time from one picture to the next, if each is made of two fields; else 0


def frames(rows: list[Row], pace: int) -> list[Row]:
    """Merge the rows of packets that hold two fields of one picture, and return one row per picture.

    Camcorders and broadcasters write each field as a packet of its own. `pace` is `FirstPictures.interlaced_pace`; 0 merges
    only rows of equal time.
    """
    pictures: list[Row] = []
    for pts, is_key in sorted(rows):
        if pictures and pts - pictures[-1][0] <= FIELD_SHARE_MAX * pace:
            pictures[-1] = (pictures[-1][0], pictures[-1][1] or is_key)
        else:
            pictures.append((pts, is_key))
    return pictures


def from_first(rows: list[Row], first_pts: int) -> tuple[list[Row], int]:
    """Return the packets from the first decodable picture on, and how many came before it.

    Recordings and careless cuts begin anywhere. What precedes the first key frame, or is shown before it and refers to
    earlier frames, is not shown by any player. If a key frame is among the early packets it was lost to damage, and all
    packets are returned.
    """
    early = [is_key for pts, is_key in rows if pts < first_pts]
    if any(early) or len(early) == len(rows):
        return rows, 0
    return [row for row in rows if row[0] >= first_pts], len(early)


def _vp8_hidden(data: memoryview) -> bool:
    """Whether a VP8 frame is never shown: bit 4 of its first byte is 0 (RFC 6386, 9.1)."""
    return not data[0] & 0x10


def _vp9_hidden(data: memoryview) -> bool:
    """Whether a VP9 frame is never shown (VP9 bitstream, 6.2); a superframe shows its last frame."""
    if data[0] >> 6 != 2 or data[-1] & VP9_SUPERFRAME_MASK == VP9_SUPERFRAME:
        return False
    # Marker, profile, show_existing_frame, frame_type, show_frame; profile 3 has one bit more before them.
    bit = 3 if data[0] >> 4 & 3 != 3 else 2
    shows_existing, shown = data[0] >> bit & 1, data[0] >> (bit - 2) & 1
    return not shows_existing and not shown


HIDDEN: Mapping[str, Callable[[memoryview], bool]] = {"vp8": _vp8_hidden, "vp9": _vp9_hidden}
