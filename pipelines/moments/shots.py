"""Finding the shots of a video: cuts, dissolves and fades, decided on seven measurements per frame.

`measure` works on small colour planes, a batch of frames at a time, and looks at most `REACH` frames to each side;
`find` sees the measurements of the whole video. So it makes no difference in which chunks the frames were decoded. A
hard cut is a change that stands out from its neighbourhood. In a dissolve or fade a frame is the mean of the frames
before and after it, which motion does not imitate. Plain numpy; knows no decoder.
"""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipelines.media import Floats, Shot, Times

# The columns of the measurements, (frames, FEATURES): mean absolute change from the frame before (0..255), share of the
# colour histogram that changed, change over 2 * REACH frames, difference from the mean of both ends of that span, mean
# and standard deviation of the luma, and the part of the change that is not undone within FLASH_FRAMES_MAX frames.
CHANGE, HISTOGRAM, SPAN, RESIDUAL, LUMA, CONTRAST, LASTING = range(7)
FEATURES = 7

REACH = 10  # frames to each side that a measurement looks at
SETTLE = 2  # frames after a cut until the picture is clean
BEFORE = REACH + 1  # frames a chunk must see before the first it owns
AFTER = REACH + SETTLE + 1  # and after the last

SHORT_SIDE, LONG_SIDE = 27, 48  # cells of a plane, whatever the video's size
POINTS, CHROMA_POINTS = 3, 2  # samples along each side of a cell
BINS = 8  # of the histogram of a colour channel

CUT_CHANGE_MIN = 9.0  # of 255
CUT_HISTOGRAM_MIN = 0.10
CUT_HISTOGRAM_FLOOR = 0.04  # for changes of 3 * CUT_CHANGE_MIN and more; a shaken camera moves colours and keeps them
CUT_RATIO_MIN = 3.0  # times the mean change of the neighbourhood
CUT_LASTING_MIN = 0.4  # share of the change; below it the picture goes back to what it was: lightning, a camera flash
FLASH_FRAMES_MAX = 4
PEAK_CHANGE_MIN = 5.0  # of 255; below it a frame gets no extra sample
BLEND_SPAN_MIN = 14.0  # of 255
BLEND_RATIO_MAX = 0.30  # RESIDUAL / SPAN
BLENDED_MIN = 3  # consecutive frames of a dissolve; a slow pan has single ones
FLAT_CONTRAST_MAX = 4.0  # of 255
NEW_CHANGE = 1.0  # of 255, summed over frames; below it the picture counts as the same

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
    """Limits of a shot's length in milliseconds."""

    shot_min_ms: int
    shot_max_ms: int


@dataclass(frozen=True)
class Plane:
    """One of a frame's planes as the decoder left it in memory."""

    rows: NDArray[np.uint8] | NDArray[np.uint16]  # (height, at least `width`): rows may be padded
    width: int


def grid(*, upright: bool) -> tuple[int, int]:
    """Return rows and columns of a plane's cells; upright videos have more rows."""
    return (LONG_SIDE, SHORT_SIDE) if upright else (SHORT_SIDE, LONG_SIDE)


def plane(
    luma: Plane, blue: Plane, red: Plane, cells: tuple[int, int], *, depth: int = 8, full: bool = False
) -> Floats:
    """Reduce a frame to a small RGB plane.

    Each cell is the mean of points spread evenly over it, so noise and grain average out, and a large frame costs no
    more than a small one. The matrix of BT.601 is used for every video, since cuts show with any matrix.

    Args:
        luma: Y' plane.
        blue: Cb plane, of any subsampling.
        red: Cr plane, of any subsampling.
        cells: Rows and columns of the result (`grid`).
        depth: Bits a sample.
        full: Whether samples use the full range, as JPEG does, in place of 16 to 235.

    Returns:
        float32 (3, rows * columns): R, G and B, each 0 to 255.
    """
    means = np.stack(  # (3, cells)
        [_means(luma, cells, POINTS), _means(blue, cells, CHROMA_POINTS), _means(red, cells, CHROMA_POINTS)]
    )
    matrix, zero = FULL_RANGE if full else LIMITED_RANGE
    if depth > 8:
        means /= np.float32(1 << (depth - 8))
    colours: Floats = np.clip(matrix @ (means - zero), 0, 255)
    return colours


def _means(samples: Plane, cells: tuple[int, int], points: int) -> Floats:
    """Return the mean sample of each cell, float32 (cells,)."""
    places = _places(samples.rows.shape, samples.width, cells, points)  # (points * points, cells)
    total = samples.rows.reshape(-1).take(places, mode="clip").sum(axis=0, dtype=np.uint32)
    means: Floats = total * np.float32(1 / points**2)
    return means


@lru_cache(maxsize=64)
def _places(shape: tuple[int, int], width: int, cells: tuple[int, int], points: int) -> NDArray[np.intp]:
    """Return the indices of each cell's points in the flattened plane, (points * points, cells)."""
    down, across = (
        ((np.arange(count * points) + 0.5) * length / (count * points)).astype(np.intp).reshape(count, points)
        for length, count in ((shape[0], cells[0]), (width, cells[1]))
    )
    places = down.T[:, None, :, None] * shape[1] + across.T[None, :, None, :]
    return places.reshape(points**2, -1)


def measure(small: Floats) -> Floats:
    """Measure each frame against its neighbours.

    Rows nearer than `BEFORE` to the start or `AFTER` to the end are incomplete, because their windows are cut short.

    Args:
        small: float32 (frames, 3, cells), the planes of consecutive frames, as `plane` makes them.

    Returns:
        float32 (frames, FEATURES), with the columns named at the head of this module.
    """
    count = len(small)
    features = np.zeros((count, FEATURES), np.float32)
    flat = small.reshape(count, -1)  # (frames, 3 * cells)
    # (frames, cells), by the weights of BT.601
    luma = small[:, 0] * np.float32(0.299) + small[:, 1] * np.float32(0.587) + small[:, 2] * np.float32(0.114)
    features[:, LUMA] = luma.mean(axis=1)
    features[:, CONTRAST] = luma.std(axis=1)
    if count > 1:
        features[1:, CHANGE] = _apart(flat[1:], flat[:-1])
        bins = _histograms(small)  # (frames, 3 * BINS)
        features[1:, HISTOGRAM] = np.abs(bins[1:] - bins[:-1]).sum(axis=1) / 2
        features[:, LASTING] = _lasting(flat, features[:, CHANGE])
    if count > 2 * REACH:
        early, late, here = flat[: -2 * REACH], flat[2 * REACH :], flat[REACH:-REACH]
        features[REACH:-REACH, SPAN] = _apart(late, early)
        features[REACH:-REACH, RESIDUAL] = _apart(here, (late + early) * np.float32(0.5))
    return features


def change(before: Floats, plane: Floats) -> float:
    """Return the CHANGE that `measure` will give a frame.

    Args:
        before: float32 (3, cells), the plane of the frame before.
        plane: float32 (3, cells), the plane of the frame.

    Returns:
        Mean absolute difference, 0 to 255.
    """
    return float(_apart(plane.reshape(1, -1), before.reshape(1, -1))[0])


def _apart(rows: Floats, other_rows: Floats) -> Floats:
    """Return the mean absolute difference of each pair of rows: two arrays (n, values) give (n,)."""
    difference = rows - other_rows
    means: Floats = np.abs(difference, out=difference).mean(axis=1)
    return means


def _lasting(flat: NDArray[np.float32], change: Floats) -> Floats:
    """Return each change (frames,) without the part that a flash explains.

    A flash begins with a change that is undone within FLASH_FRAMES_MAX frames, and ends with the change that undoes it.
    """
    lasting = change.copy()
    for frames in range(2, FLASH_FRAMES_MAX + 2):
        distance = _apart(flat[frames:], flat[:-frames])
        begins, ends = lasting[1 : 1 + len(distance)], lasting[frames:]
        np.minimum(begins, distance, out=begins)  # from the frame before to those after: a flash that begins here
        np.minimum(ends, distance, out=ends)  # from those before to this one: a flash that ends here
    return lasting


def _histograms(small: Floats) -> Floats:
    """Return coarse colour histograms of planes (frames, 3, cells) as shares, (frames, 3 * BINS)."""
    count, colours, cells = small.shape
    # (frames, 3, cells): the bin of each value, numbered through all frames and colours
    level = (small * np.float32(BINS / 256)).astype(np.int32)
    level += (np.arange(count * colours, dtype=np.int32) * BINS).reshape(count, colours, 1)
    counts = np.bincount(level.ravel(), minlength=count * colours * BINS).reshape(count, colours * BINS)
    shares: Floats = (counts / (colours * cells)).astype(np.float32)
    return shares


def peaks(change: Floats) -> NDArray[np.bool_]:
    """Return which frames are peaks of change; a hard cut can only be at one of them.

    The change at a peak is above `PEAK_CHANGE_MIN` and the largest within `REACH` frames to each side. Of equal changes
    the first counts.

    Args:
        change: float32 (frames,), the column CHANGE.

    Returns:
        bool (frames,).
    """
    if not len(change):
        return np.zeros(0, bool)
    padded = np.pad(change, REACH, constant_values=-1.0)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * REACH + 1)  # (frames, 2 * REACH + 1)
    first = windows[:, :REACH].max(axis=1) < change  # of equal changes the first counts
    result: NDArray[np.bool_] = first & (windows.max(axis=1) <= change) & (change > PEAK_CHANGE_MIN)
    return result


def find(frame_ms: Times, features: Floats, end_ms: int, rules: Rules) -> list[Shot]:
    """Divide a whole video into shots.

    Args:
        frame_ms: int32 (frames,), presentation times in milliseconds, ascending.
        features: float32 (frames, FEATURES), as `measure` gives them.
        end_ms: End of the video in milliseconds.
        rules: Limits of a shot's length.

    Returns:
        The shots in order, without gaps.
    """
    starts = [int(frame_ms[0])]
    for cut_frames in (hard_cuts(features), blends(features)):  # hard cuts first, because they are certain
        for time_ms in frame_ms[cut_frames].tolist():
            index = bisect.bisect(starts, time_ms)
            previous_ms, next_ms = starts[max(0, index - 1)], starts[index] if index < len(starts) else end_ms
            if time_ms - previous_ms >= rules.shot_min_ms and next_ms - time_ms >= rules.shot_min_ms:
                starts.insert(index, time_ms)
    ends, new_pictures_ms = [*starts[1:], end_ms], frame_ms[_new_pictures(features)]
    return [
        part for start, stop in zip(starts, ends, strict=True) for part in _cut(start, stop, rules, new_pictures_ms)
    ]


def fixed(start_ms: int, end_ms: int, length_ms: int, frame_ms: Times | None = None) -> list[Shot]:
    """Divide a video into shots of one length on an absolute time grid.

    A last shot shorter than half the length joins the one before, as does a shot in which no frame begins.

    Args:
        start_ms: Time of the first frame in milliseconds.
        end_ms: End of the video in milliseconds.
        length_ms: Length of a shot in milliseconds.
        frame_ms: int32 (frames,), times of the frames, ascending; None where they are not known.

    Returns:
        The shots in order, without gaps.
    """
    starts = [start_ms, *range((start_ms // length_ms + 1) * length_ms, end_ms, length_ms)]
    if len(starts) > 1 and end_ms - starts[-1] < length_ms // 2:
        starts.pop()
    if frame_ms is not None:
        # (shots,) each: the first frame of the shot, and the first one after it
        stops = np.searchsorted(frame_ms, [*starts[1:], end_ms])
        firsts = np.searchsorted(frame_ms, starts)
        starts = [start for number, start in enumerate(starts) if number == 0 or stops[number] > firsts[number]]
    return [Shot(start, stop) for start, stop in zip(starts, [*starts[1:], end_ms], strict=True) if stop > start]


def hard_cuts(features: Floats) -> NDArray[np.intp]:
    """Return the indices of frames that start a new shot (hard cut).

    Args:
        features: float32 (frames, FEATURES).

    Returns:
        Indices of frames, ascending.
    """
    change, histogram = features[:, CHANGE], features[:, HISTOGRAM]
    around = _mean_around(change)
    cut = peaks(change) & (change >= CUT_CHANGE_MIN) & (change >= CUT_RATIO_MIN * around)
    cut &= histogram >= np.where(change >= 3 * CUT_CHANGE_MIN, CUT_HISTOGRAM_FLOOR, CUT_HISTOGRAM_MIN)
    return np.flatnonzero(cut & ~_flashes(features))


def _flashes(features: Floats) -> NDArray[np.bool_]:
    """Return which frames, bool (frames,), begin or end a flash: a large change most of which is soon undone."""
    change = features[:, CHANGE]
    flashes: NDArray[np.bool_] = (change >= CUT_CHANGE_MIN) & (features[:, LASTING] < CUT_LASTING_MIN * change)
    return flashes


def blends(features: Floats) -> NDArray[np.intp]:
    """Return the middle frames of dissolves and fades.

    A fade through black, or through another flat picture, counts once, in its middle. A run of flat frames that begins
    or ends at a hard cut, or at an end of the video, is a picture and not a fade.

    Args:
        features: float32 (frames, FEATURES).

    Returns:
        Indices of frames, ascending.
    """
    span, residual = features[:, SPAN], features[:, RESIDUAL]  # (frames,) each, as are the masks below
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
    """Return which flat frames, bool (frames,), are in a run that touches a hard cut or an end of the video."""
    edges = {0, len(flat), *cuts.tolist()}
    cut_off = np.zeros(len(flat), bool)
    for first, stop in _runs(flat, gap=1):
        cut_off[first:stop] = first in edges or stop in edges
    return cut_off


def _new_pictures(features: Floats) -> NDArray[np.intp]:
    """Return the first frame, and each at which the sum of all changes so far passes a multiple of `NEW_CHANGE`."""
    level = np.floor(np.cumsum(features[:, CHANGE], dtype=np.float64) / NEW_CHANGE)
    return np.flatnonzero(np.diff(level, prepend=-1.0))


def _mean_around(values: Floats) -> Floats:
    """Return the mean, (frames,), of up to `REACH` neighbours on each side, without the frame itself."""
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    index = np.arange(len(values))
    low, high = np.maximum(index - REACH, 0), np.minimum(index + REACH + 1, len(values))
    sums = total[high] - total[low] - values
    mean: Floats = (sums / np.maximum(high - low - 1, 1)).astype(np.float32)
    return mean


def _runs(mask: NDArray[np.bool_], gap: int) -> list[tuple[int, int]]:
    """Return [first, stop) of the runs of True in a mask; runs at most `gap` apart are one."""
    where = np.flatnonzero(mask)
    if not len(where):
        return []
    breaks = np.flatnonzero(np.diff(where) > gap)
    firsts = where[np.concatenate([[0], breaks + 1])]
    lasts = where[np.concatenate([breaks, [len(where) - 1]])]
    return [(int(first), int(last) + 1) for first, last in zip(firsts, lasts, strict=True)]


def _cut(start: int, stop: int, rules: Rules, new: Times) -> list[Shot]:
    """Divide a shot that is longer than `rules.shot_max_ms` into the fewest equal parts that are not.

    `new` holds the times in milliseconds at which the picture changed. An edge within a picture that is held for long
    is then moved to an end of that picture. An edge that makes a part shorter than `rules.shot_min_ms` is left out.
    """
    parts = -(-(stop - start) // rules.shot_max_ms)
    edges = [start]
    for part in range(1, parts):
        edge = _moved(start + (stop - start) * part // parts, Shot(start, stop), new, rules.shot_max_ms // 2)
        if edge - edges[-1] >= rules.shot_min_ms and stop - edge >= rules.shot_min_ms:
            edges.append(edge)
    return [Shot(first, last) for first, last in itertools.pairwise([*edges, stop])]


def _moved(edge: int, shot: Shot, new: Times, held_min_ms: int) -> int:
    """Move an edge that falls into a picture held for longer than `held_min_ms` to the nearer end of that picture."""
    index = int(np.searchsorted(new, edge, side="right"))
    begins = max(shot.start_ms, int(new[index - 1])) if index else shot.start_ms
    ends = min(shot.end_ms, int(new[index])) if index < len(new) else shot.end_ms
    if ends - begins <= held_min_ms:
        return edge
    if ends == shot.end_ms or (begins > shot.start_ms and edge - begins <= ends - edge):
        return begins
    return ends
