"""Which packets of a video are pictures that a player shows: some are fields, some are hidden, some come too early.

Pure functions of packets' bytes and times. Runs inside the sandbox.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

FIELD_SHARE_MAX = 0.75  # of the time between two pictures; a packet that comes sooner holds the other field of one
VP9_SUPERFRAME, VP9_SUPERFRAME_MASK = 0xC0, 0xE0

Row = tuple[int, bool]  # of a packet: the time that it states, and whether it is a key frame


@dataclass(frozen=True)
class FirstPictures:
    """What the first pictures that a decoder makes tell, in the stream's time base."""

    pts: int | None  # of the first
    interlaced_pace: int = 0  # the least time from one to the next, where they are made of two fields


def frames(rows: list[Row], pace: int) -> list[Row]:
    """One row for each picture: camcorders and broadcasters put each of its two fields into a packet with a time."""
    found: list[Row] = []
    for pts, is_key in sorted(rows):
        if found and pts - found[-1][0] <= FIELD_SHARE_MAX * pace:
            found[-1] = (found[-1][0], found[-1][1] or is_key)
        else:
            found.append((pts, is_key))
    return found


def from_first(rows: list[Row], first_pts: int) -> tuple[list[Row], int]:
    """The packets without those before the first picture, and how many those are; all of them, if a key frame was lost.

    A recording of a broadcast begins where it was switched on, a careless cut anywhere: what comes before the first key
    frame, or is shown before it and made of what came earlier, is nothing that any player shows.
    """
    early = [is_key for pts, is_key in rows if pts < first_pts]
    if any(early) or len(early) == len(rows):
        return rows, 0
    return [row for row in rows if row[0] >= first_pts], len(early)


def _vp8_hidden(data: memoryview) -> bool:
    """RFC 6386, 9.1: bit 4 of a frame's first byte says that it is shown."""
    return not data[0] & 0x10


def _vp9_hidden(data: memoryview) -> bool:
    """VP9 bitstream, 6.2: marker, profile, show_existing_frame, frame_type, show_frame; a superframe shows its last."""
    if data[0] >> 6 != 2 or data[-1] & VP9_SUPERFRAME_MASK == VP9_SUPERFRAME:
        return False
    at = 3 if data[0] >> 4 & 3 != 3 else 2  # profile 3 has a bit more before them
    shows_existing, shown = data[0] >> at & 1, data[0] >> (at - 2) & 1
    return not shows_existing and not shown


HIDDEN: Mapping[str, Callable[[memoryview], bool]] = {"vp8": _vp8_hidden, "vp9": _vp9_hidden}
