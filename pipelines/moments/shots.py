"""Where a video cuts: measured on small planes, a batch of frames at a time, decided on the measurements alone.

`measure` looks a few frames to both sides and no further, `find` sees the measurements of the whole video; so it makes
no difference in which chunks the frames were decoded. Hard cuts stand out of their neighbourhood; in dissolves and
fades a frame is the mean of the frames before and after it, which no motion imitates. Plain numpy; knows no decoder.
"""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipelines.media import Floats, Shot, Times

# The columns of a measurement.
CHANGE, HISTOGRAM, SPAN, RESIDUAL, LUMA, CONTRAST, LASTING = range(7)
FEATURES = 7

REACH = 10  # frames to each side that a measurement looks at
SETTLE = 2  # frames after a cut until the picture is clean
BEFORE = REACH + 1  # frames a chunk must see before the first it owns
AFTER = REACH + SETTLE + 1  # and after the last

SHORT_SIDE, LONG_SIDE = 27, 48  # of a plane, whatever the video's size
POINTS, CHROMA_POINTS = 3, 2  # that a cell looks at, along each of its sides
BINS = 8  # a colour channel

CUT_CHANGE_MIN = 9.0  # of 255
CUT_HISTOGRAM_MIN = 0.10
CUT_HISTOGRAM_FLOOR = 0.04  # of the largest change; a shaken camera moves colours and keeps them
CUT_RATIO_MIN = 3.0  # times the neighbourhood's mean
CUT_LASTING_MIN = 0.4  # of the change; less goes back to what was before: lightning, a photographer
FLASH_FRAMES_MAX = 4
PEAK_CHANGE_MIN = 5.0  # below, no frame is worth an extra sample
BLEND_SPAN_MIN = 14.0
BLEND_RATIO_MAX = 0.30
BLENDED_MIN = 3  # frames on end that are such a mean; a slow pan has one now and then
FLAT_CONTRAST_MAX = 4.0
NEW_CHANGE = 1.0  # of 255, summed over frames: less is the same picture

LIMITED_RANGE = (
    np.array([[1.164, 0, 1.596], [1.164, -0.392, -0.813], [1.164, 2.017, 0]], np.float32),
    np.array([[16], [128], [128]], np.float32),
)
FULL_RANGE = (
    np.array([[1, 0, 1.402], [1, -0.344, -0.714], [1, 1.772, 0]], np.float32),
    np.array([[0], [128], [128]], np.float32),
)


@dataclass(frozen=True)
class Rules:
    """How long a shot may be."""

    shot_min_ms: int
    shot_max_ms: int


@dataclass(frozen=True)
class Plane:
    """One of a frame's planes as it lies in memory: rows [height, at least `width`], of 8 bits a sample or of 16."""

    rows: NDArray[np.uint8] | NDArray[np.uint16]
    width: int


def grid(*, upright: bool) -> tuple[int, int]:
    """Rows and columns of a plane's cells."""
    return (LONG_SIDE, SHORT_SIDE) if upright else (SHORT_SIDE, LONG_SIDE)


def plane(
    luma: Plane, blue: Plane, red: Plane, cells: tuple[int, int], *, depth: int = 8, full: bool = False
) -> Floats:
    """A small float RGB plane [3, cells], 0 to 255, of a frame's Y'CbCr planes of `depth` bits.

    Each cell is the mean of points that are spread over it evenly, so that noise and grain average out and a large
    frame costs no more than a small one. The matrix is that of BT.601: a cut is one in any.
    """
    means = np.stack(
        [_means(luma, cells, POINTS), _means(blue, cells, CHROMA_POINTS), _means(red, cells, CHROMA_POINTS)]
    )
    matrix, zero = FULL_RANGE if full else LIMITED_RANGE
    if depth > 8:
        means /= np.float32(1 << (depth - 8))
    colours: Floats = np.clip(matrix @ (means - zero), 0, 255)
    return colours


def _means(samples: Plane, cells: tuple[int, int], points: int) -> Floats:
    places = _places(samples.rows.shape, samples.width, cells, points)
    total = samples.rows.reshape(-1).take(places, mode="clip").sum(axis=0, dtype=np.uint32)
    means: Floats = total * np.float32(1 / points**2)
    return means


@lru_cache(maxsize=64)
def _places(shape: tuple[int, int], width: int, cells: tuple[int, int], points: int) -> NDArray[np.intp]:
    """Where the points of each cell lie in a plane that is read as one row, [points * points, cells]."""
    down, across = (
        ((np.arange(count * points) + 0.5) * length / (count * points)).astype(np.intp).reshape(count, points)
        for length, count in ((shape[0], cells[0]), (width, cells[1]))
    )
    places = down.T[:, None, :, None] * shape[1] + across.T[None, :, None, :]
    return places.reshape(points**2, -1)


def measure(small: Floats) -> Floats:
    """Seven numbers a frame, of planes [N, 3, cells].

    Rows nearer than BEFORE to the start or AFTER to the end stand on shortened windows.
    """
    count = len(small)
    out = np.zeros((count, FEATURES), np.float32)
    flat = small.reshape(count, -1)
    luma = small[:, 0] * np.float32(0.299) + small[:, 1] * np.float32(0.587) + small[:, 2] * np.float32(0.114)
    out[:, LUMA] = luma.mean(axis=1)
    out[:, CONTRAST] = luma.std(axis=1)
    if count > 1:
        out[1:, CHANGE] = _apart(flat[1:], flat[:-1])
        bins = _histograms(small)
        out[1:, HISTOGRAM] = np.abs(bins[1:] - bins[:-1]).sum(axis=1) / 2
        out[:, LASTING] = _lasting(flat, out[:, CHANGE])
    if count > 2 * REACH:
        early, late, here = flat[: -2 * REACH], flat[2 * REACH :], flat[REACH:-REACH]
        out[REACH:-REACH, SPAN] = _apart(late, early)
        out[REACH:-REACH, RESIDUAL] = _apart(here, (late + early) * np.float32(0.5))
    return out


def change(before: Floats, plane: Floats) -> float:
    """What CHANGE will be of a frame, from its plane and the one before."""
    return float(_apart(plane.reshape(1, -1), before.reshape(1, -1))[0])


def _apart(one: Floats, other: Floats) -> Floats:
    """Mean absolute difference of rows."""
    difference = one - other
    means: Floats = np.abs(difference, out=difference).mean(axis=1)
    return means


def _lasting(flat: NDArray[np.float32], change: Floats) -> Floats:
    """What of a change is still there a few frames later, and was not there a few frames before."""
    lasting = change.copy()
    for frames in range(2, FLASH_FRAMES_MAX + 2):
        apart = _apart(flat[frames:], flat[:-frames])
        begins, ends = lasting[1 : 1 + len(apart)], lasting[frames:]
        np.minimum(begins, apart, out=begins)  # from the frame before to those after: a flash that begins here
        np.minimum(ends, apart, out=ends)  # from those before to this one: a flash that ends here
    return lasting


def _histograms(small: Floats) -> Floats:
    """Shares of three coarse colour histograms a frame, [N, 3 * BINS]."""
    count, colours, cells = small.shape
    level = (small * np.float32(BINS / 256)).astype(np.int32)
    level += (np.arange(count * colours, dtype=np.int32) * BINS).reshape(count, colours, 1)
    found = np.bincount(level.ravel(), minlength=count * colours * BINS).reshape(count, colours * BINS)
    shares: Floats = (found / (colours * cells)).astype(np.float32)
    return shares


def peaks(change: Floats) -> NDArray[np.bool_]:
    """Frames that change more than any other within REACH: the only places where a cut can be found later."""
    if not len(change):
        return np.zeros(0, bool)
    padded = np.pad(change, REACH, constant_values=-1.0)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * REACH + 1)
    first = windows[:, :REACH].max(axis=1) < change  # of equal ones the first
    result: NDArray[np.bool_] = first & (windows.max(axis=1) <= change) & (change > PEAK_CHANGE_MIN)
    return result


def find(frame_ms: Times, features: Floats, end_ms: int, rules: Rules) -> list[Shot]:
    """The shots of a whole video, without gaps, in order."""
    starts = [int(frame_ms[0])]
    for found in (hard_cuts(features), blends(features)):  # what is certain comes first
        for at in frame_ms[found].tolist():
            place = bisect.bisect(starts, at)
            before, behind = starts[max(0, place - 1)], starts[place] if place < len(starts) else end_ms
            if at - before >= rules.shot_min_ms and behind - at >= rules.shot_min_ms:
                starts.insert(place, at)
    ends, new = [*starts[1:], end_ms], frame_ms[_new_pictures(features)]
    return [part for start, stop in zip(starts, ends, strict=True) for part in _cut(start, stop, rules, new)]


def fixed(start_ms: int, end_ms: int, length_ms: int, frame_ms: Times | None = None) -> list[Shot]:
    """Shots of one length, on an absolute grid; a last one shorter than half joins its neighbour.

    Where the times of frames are given, a shot in which none begins joins the one before.
    """
    starts = [start_ms, *range((start_ms // length_ms + 1) * length_ms, end_ms, length_ms)]
    if len(starts) > 1 and end_ms - starts[-1] < length_ms // 2:
        starts.pop()
    if frame_ms is not None:
        places = np.searchsorted(frame_ms, [*starts[1:], end_ms])
        begin = np.searchsorted(frame_ms, starts)
        starts = [start for at, start in enumerate(starts) if at == 0 or places[at] > begin[at]]
    return [Shot(start, stop) for start, stop in zip(starts, [*starts[1:], end_ms], strict=True) if stop > start]


def hard_cuts(features: Floats) -> NDArray[np.intp]:
    """Frames with which something else begins."""
    change, histogram = features[:, CHANGE], features[:, HISTOGRAM]
    around = _mean_around(change)
    cut = peaks(change) & (change >= CUT_CHANGE_MIN) & (change >= CUT_RATIO_MIN * around)
    cut &= histogram >= np.where(change >= 3 * CUT_CHANGE_MIN, CUT_HISTOGRAM_FLOOR, CUT_HISTOGRAM_MIN)
    return np.flatnonzero(cut & ~_flashes(features))


def _flashes(features: Floats) -> NDArray[np.bool_]:
    """Frames whose change goes back to what was before."""
    change = features[:, CHANGE]
    flashes: NDArray[np.bool_] = (change >= CUT_CHANGE_MIN) & (features[:, LASTING] < CUT_LASTING_MIN * change)
    return flashes


def blends(features: Floats) -> NDArray[np.intp]:
    """The middle frames of dissolves and fades; a fade through black, or another flat picture, counts once, in the
    middle of it. What is flat from the start, to the end or between hard cuts is no fade but a picture."""
    span, residual = features[:, SPAN], features[:, RESIDUAL]
    blended = (span >= BLEND_SPAN_MIN) & (residual <= BLEND_RATIO_MAX * span)
    near_cut = np.zeros(len(features), bool)
    for cut in hard_cuts(features):
        near_cut[max(0, cut - 2 * REACH) : cut + 2 * REACH] = True
    flat = (features[:, CONTRAST] <= FLAT_CONTRAST_MAX) & ~_flashes(features)
    faded = flat & ~_cut_off(flat, hard_cuts(features))
    middles: list[int] = []
    for first, stop in _runs((blended & ~near_cut) | faded, gap=REACH):
        dark = np.flatnonzero(faded[first:stop])
        if len(dark):
            middles.append(first + int(dark[0] + dark[-1] + 1) // 2)
        elif any(last - start >= BLENDED_MIN for start, last in _runs(blended[first:stop], gap=1)):
            middles.append(first + int(np.argmax(span[first:stop])))
    return np.array(middles, np.intp)


def _cut_off(flat: NDArray[np.bool_], cuts: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Flat frames in a run that begins or ends at a hard cut, at the start or at the end of the video."""
    edges = {0, len(flat), *cuts.tolist()}
    found = np.zeros(len(flat), bool)
    for first, stop in _runs(flat, gap=1):
        found[first:stop] = first in edges or stop in edges
    return found


def _new_pictures(features: Floats) -> NDArray[np.intp]:
    """The first frame, and each by which the picture has changed by NEW_CHANGE since the last of these."""
    level = np.floor(np.cumsum(features[:, CHANGE], dtype=np.float64) / NEW_CHANGE)
    return np.flatnonzero(np.diff(level, prepend=-1.0))


def _mean_around(values: Floats) -> Floats:
    """Mean of up to REACH neighbours on each side, without the frame itself."""
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    index = np.arange(len(values))
    low, high = np.maximum(index - REACH, 0), np.minimum(index + REACH + 1, len(values))
    sums = total[high] - total[low] - values
    mean: Floats = (sums / np.maximum(high - low - 1, 1)).astype(np.float32)
    return mean


def _runs(mask: NDArray[np.bool_], gap: int) -> list[tuple[int, int]]:
    """[first, stop) of the runs of True; runs no further apart than `gap` are one."""
    where = np.flatnonzero(mask)
    if not len(where):
        return []
    breaks = np.flatnonzero(np.diff(where) > gap)
    firsts = where[np.concatenate([[0], breaks + 1])]
    lasts = where[np.concatenate([breaks, [len(where) - 1]])]
    return [(int(first), int(last) + 1) for first, last in zip(firsts, lasts, strict=True)]


def _cut(start: int, stop: int, rules: Rules, new: Times) -> list[Shot]:
    """A shot that is too long, in equal parts; where its picture stands still, from one picture to another."""
    parts = -(-(stop - start) // rules.shot_max_ms)
    edges = [start]
    for part in range(1, parts):
        edge = _moved(start + (stop - start) * part // parts, Shot(start, stop), new, rules.shot_max_ms // 2)
        if edge - edges[-1] >= rules.shot_min_ms and stop - edge >= rules.shot_min_ms:
            edges.append(edge)
    return [Shot(first, last) for first, last in itertools.pairwise([*edges, stop])]


def _moved(edge: int, shot: Shot, new: Times, held_min_ms: int) -> int:
    """An edge, or where it falls into a picture that is held: the nearer of this one's begin and its end."""
    place = int(np.searchsorted(new, edge, side="right"))
    begins = max(shot.start_ms, int(new[place - 1])) if place else shot.start_ms
    ends = min(shot.end_ms, int(new[place])) if place < len(new) else shot.end_ms
    if ends - begins <= held_min_ms:
        return edge
    if ends == shot.end_ms or (begins > shot.start_ms and edge - begins <= ends - edge):
        return begins
    return ends
