"""Validation of what sandboxed children answer, before a worker uses it.

A compromised decoder may write anything. So each value must have its type and be within its bounds, and each array its
dtype, its shape, and only times that the request names; later code can then rely on them. Knows the answers of `probe`
and `frames`, not how they arrived (see `sandbox`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from pipelines.media import Failure, Video
from pipelines.moments import shots
from pipelines.sandbox.sandbox import Array, unreadable

INT_MAX = (1 << 31) - 1
NAME_CHARS_MAX, WARNING_CHARS_MAX = 40, 300
TURNS = (0, 90, 180, 270)
DECODERS = ("decord", "av")

Is = Callable[[Any], bool]  # whether a value is valid


def video(values: Mapping[str, Any], arrays: Mapping[str, Array], duration_max_s: int) -> Video | Failure:
    """Return the video that `probe` has described, or a failure if the description is invalid."""
    try:
        _require(_known(values, VIDEO) and set(arrays) == {"frame_ms", "frame_pts", "key_frames"}, "names")
        longest_ms, duration_ms = duration_max_s * 1000, values["duration_ms"]
        times, pts, keys = arrays["frame_ms"], arrays["frame_pts"], arrays["key_frames"]
        count = len(_row(times, np.int32))
        _require(count > 0 and len(_row(pts, np.int64)) == count, "frames")
        _require(duration_ms <= longest_ms and _within(times, -longest_ms, duration_ms - 1), "a length")
        _require(_rises(times) and _rises(pts), "times")
        _require(_rises(_row(keys, np.int32)) and _within(keys, 0, count - 1), "key frames")
        return Video(**values, frame_ms=times, frame_pts=pts, key_frames=keys)
    except _Unreadable as error:
        return unreadable(str(error))


def chunk(values: Mapping[str, Any], arrays: Mapping[str, Array], order: Mapping[str, Any]) -> Failure | None:
    """Return why the answer of `frames.decode` does not fit its request, or None if it does."""
    try:
        requested_ms = np.asarray(order["frame_ms"], np.int32)
        _require(_known(values, CHUNK) and values["concealed"] <= values["decoded"] <= len(requested_ms), "counts")
        _require(set(arrays) == CHUNK_ARRAYS, "names")
        _frames(arrays, requested_ms, cuts=order["cuts"])
        _pictures(arrays, requested_ms, order["model_side"])
    except _Unreadable as error:
        return unreadable(str(error))
    return None


def _frames(arrays: Mapping[str, Array], requested_ms: Array, *, cuts: bool) -> None:
    """Check times and measurements of the frames: (frames,) and (frames, FEATURES)."""
    times, features = _row(arrays["frame_ms"], np.int32), arrays["features"]
    _require(_rises(times) and bool(np.isin(times, requested_ms).all()), "times of frames")
    _require(len(times) <= len(requested_ms), "how many frames")
    _require(features.dtype == np.float32 and bool(np.isfinite(features).all()), "measurements")
    _require(features.shape == (len(times) if cuts else 0, shots.FEATURES), "how many measurements")


def _pictures(arrays: Mapping[str, Array], requested_ms: Array, side: int) -> None:
    """Check the candidates: times (candidates,), pictures (candidates, side, side, 3), and thumbnails."""
    times, sizes = _row(arrays["candidate_ms"], np.int32), _row(arrays["thumbnail_sizes"], np.int32)
    sharpness, pictures, data = arrays["sharpness"], arrays["candidates"], _row(arrays["thumbnails"], np.uint8)
    _require(bool((times[1:] > times[:-1]).all() and np.isin(times, requested_ms).all()), "times of pictures")
    _require(len(_row(sharpness, np.float32)) == len(times) and bool(np.isfinite(sharpness).all()), "sharpness")
    _require(pictures.dtype == np.uint8 and pictures.shape == (len(times), side, side, 3), "pictures")
    _require(len(sizes) == len(times) and bool((sizes > 0).all()), "thumbnails")
    _require(int(sizes.sum(dtype=np.int64)) == len(data), "sizes of thumbnails")


# ── Values ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Unreadable(ValueError):
    """Error for an invalid answer."""


def _require(holds: bool, what: str) -> None:
    """Raise `_Unreadable` unless the condition holds."""
    if not holds:
        raise _Unreadable(what)


def _known(values: Mapping[str, Any], expected: Mapping[str, Is]) -> bool:
    """Whether the values have exactly the expected names, and each is valid."""
    return set(values) == set(expected) and all(is_right(values[name]) for name, is_right in expected.items())


def _text(chars_max: int, chars_min: int = 0) -> Is:
    """Return a check for printable text with a number of characters within bounds."""
    return lambda value: isinstance(value, str) and chars_min <= len(value) <= chars_max and value.isprintable()


def _whole(least: int, most: int = INT_MAX) -> Is:
    """Return a check for an int within bounds."""
    return lambda value: type(value) is int and least <= value <= most  # True is an int to isinstance


def _rate(value: Any) -> bool:
    """Whether a value is a finite, non-negative number."""
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value <= INT_MAX


def _truth(value: Any) -> bool:
    """Whether a value is a bool."""
    return isinstance(value, bool)


def _one_of(*values: Any) -> Is:
    """Return a check for one of these values, of the same type."""
    return lambda value: any(type(value) is type(each) and value == each for each in values)


VIDEO: Mapping[str, Is] = {
    "container": _text(NAME_CHARS_MAX, 1), "codec": _text(NAME_CHARS_MAX, 1), "width": _whole(1), "height": _whole(1),
    "fps": _rate, "duration_ms": _whole(1), "has_audio": _truth, "rotation": _one_of(*TURNS),
    "decoder": _one_of(*DECODERS), "warning": _text(WARNING_CHARS_MAX), "counted": _truth, "mirrored": _truth,
    "track": _whole(0),
}  # fmt: skip
CHUNK: Mapping[str, Is] = {"decoded": _whole(0), "concealed": _whole(0)}
CHUNK_ARRAYS = {
    "frame_ms", "features", "candidate_ms", "sharpness", "candidates", "thumbnail_sizes", "thumbnails"
}  # fmt: skip


# ── Arrays ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _row(array: Array, dtype: DTypeLike) -> Array:
    """Return the array if it is one-dimensional and of this dtype."""
    _require(array.dtype == dtype and array.ndim == 1, "an array")
    return array


def _rises(row: Array) -> bool:
    """Whether the values never fall; compared directly, since differences may overflow."""
    return bool((row[1:] >= row[:-1]).all())


def _within(row: Array, least: int, most: int) -> bool:
    """Whether all values are within bounds."""
    return not len(row) or bool(row.min() >= least and row.max() <= most)
