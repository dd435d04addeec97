"""A decoder that was taken over may answer anything: it is a crash, whatever it says, and no worker stumbles over it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import stages
from pipelines.confinement.profiles import Profile
from pipelines.media import Failure, Video
from pipelines.sandbox import answers
from pipelines.sandbox.sandbox import Result, Sandbox
from pipelines.settings import IngestSettings
from tests.pipelines import counted

SETTINGS = IngestSettings()
Lie = Callable[[dict[str, Any], dict[str, Any]], object]  # changes values and arrays


def put(**changes: Any) -> Lie:
    """Other values."""
    return lambda values, _: values.update(changes)


def arrays(**changes: Callable[[Any], Any]) -> Lie:
    """Arrays made of the true ones."""
    return lambda _, found: found.update({name: change(found[name]) for name, change in changes.items()})


def without(name: str) -> Lie:
    return lambda values, found: values.pop(name, None) if name in values else found.pop(name)


def at(place: int, number: int) -> Callable[[Any], Any]:
    """A row with another number in one place."""

    def change(row: Any) -> Any:
        changed = row.copy()
        changed[place] = number
        return changed

    return change


def as_type(dtype: str) -> Callable[[Any], Any]:
    return lambda array: array.astype(dtype)


def no_last(array: Any) -> Any:
    return array[:-1]


def twice(array: Any) -> Any:
    return np.concatenate([array, array])


def flat(array: Any) -> Any:
    return array.reshape(-1)


LIES_OF_A_PROBE: Mapping[str, Lie] = {
    **{f"no {name}": without(name) for name in ("codec", "duration_ms", "frame_ms", "key_frames", "warning")},
    "one more value": put(more=1),
    "one more array": lambda _, found: found.update(more=found["frame_ms"]),
    "a text for a width": put(width="320"),
    "a truth for a width": put(width=True),
    "no width": put(width=0),
    "a width beyond a column": put(width=1 << 31),
    "a rate that is none": put(fps=float("nan")),
    "a rate without end": put(fps=float("inf")),
    "a NUL in a name": put(codec="h264\0"),
    "a line in a warning": put(warning="one\ntwo"),
    "a long warning": put(warning="w" * 301),
    "half a pair in a name": put(container="\ud800"),
    "a list for a name": put(codec=["h264"]),
    "no length": put(duration_ms=0),
    "a length beyond all": put(duration_ms=10**12),
    "a length that the frames exceed": put(duration_ms=1000),
    "a turn by 45 degrees": put(rotation=45),
    "a turn that is no number": put(rotation=False),
    "another decoder": put(decoder="sh"),
    "a track before the first": put(track=-1),
    "one for a truth": put(counted=1),
    "no frames": arrays(frame_ms=lambda row: row[:0], frame_pts=lambda row: row[:0]),
    "times of another type": arrays(frame_ms=as_type("<i8")),
    "times that are no row": arrays(frame_ms=lambda row: row.reshape(-1, 1)),
    "a time too few": arrays(frame_ms=no_last),
    "times that fall": arrays(frame_ms=at(0, 5000)),
    "a time before all": arrays(frame_ms=at(0, -(1 << 31))),
    "stamps that fall": arrays(frame_pts=at(0, 1 << 60)),
    "a key frame that is none": arrays(key_frames=at(-1, 360)),
    "a key frame before the first": arrays(key_frames=at(0, -1)),
}

LIES_OF_A_DECODER: Mapping[str, Lie] = {
    **{f"no {name}": without(name) for name in ("decoded", "frame_ms", "features", "thumbnails")},
    "one more value": put(more=1),
    "a text for a count": put(decoded="360"),
    "less than nothing": put(concealed=-1),
    "more than all": put(decoded=100_000),
    "more made up than decoded": put(decoded=1, concealed=2),
    "a time that was not ordered": arrays(frame_ms=at(0, 1)),
    "times that fall": arrays(frame_ms=at(0, 5000)),
    "times of another type": arrays(frame_ms=as_type("<f4")),
    "a measurement too few": arrays(features=no_last),
    "measurements in a row": arrays(features=flat),
    "a measurement that is no number": arrays(features=at(0, np.nan)),
    "measurements of another type": arrays(features=as_type("<f8")),
    "a picture that was not ordered": arrays(candidate_ms=at(0, 7)),
    "a picture twice": arrays(
        **dict.fromkeys(("candidate_ms", "sharpness", "candidates", "thumbnail_sizes", "thumbnails"), twice)
    ),
    "frames twice": arrays(frame_ms=lambda row: np.sort(twice(row)), features=twice),
    "a picture too few": arrays(candidates=no_last),
    "pictures of another size": arrays(candidates=lambda array: array[:, :-1]),
    "pictures of another type": arrays(candidates=as_type("<i4")),
    "a sharpness too few": arrays(sharpness=no_last),
    "a sharpness without end": arrays(sharpness=at(0, np.inf)),
    "a thumbnail too few": arrays(thumbnail_sizes=no_last),
    "a thumbnail of less than nothing": arrays(thumbnail_sizes=at(0, -5)),
    "thumbnails that are longer than all": arrays(thumbnail_sizes=at(0, (1 << 31) - 1)),
    "a byte too few": arrays(thumbnails=no_last),
}


class Taken(Sandbox):
    """A sandbox whose children were taken over: each runs, and then says something else."""

    def __init__(self, lies: Mapping[str, Lie]) -> None:
        super().__init__()
        self._lies = lies
        self.ran: list[str] = []

    def run(self, task: str, arguments: Mapping[str, Any], profile: Profile) -> Result | Failure:
        found = super().run(task, arguments, profile)
        self.ran.append(str(arguments.get("decoder", task)))
        return told(found, self._lies[task]) if task in self._lies else found


def told(found: Result | Failure, lie: Lie) -> Result:
    assert isinstance(found, Result), found
    values, changed = dict(found.values), dict(found.arrays)
    lie(values, changed)
    return Result(values, changed, found.cpu_seconds, found.memory_mb)


@pytest.fixture(scope="module")
def true_answers(clips: Path) -> tuple[Result, Result, Mapping[str, Any]]:
    """Of a probe, and of a decoder to its order."""
    seen: dict[str, Result] = {}
    orders: list[Mapping[str, Any]] = []

    class Listening(Sandbox):
        def run(self, task: str, arguments: Mapping[str, Any], profile: Profile) -> Result | Failure:
            found = super().run(task, arguments, profile)
            assert isinstance(found, Result), found
            seen[task] = found
            orders.append(arguments)
            return found

    with pytest.MonkeyPatch.context() as patch:
        box = Listening()
        patch.setattr(stages, "sandbox", lambda: box)
        assert not isinstance(counted.decoded(clips / "cuts.mp4")[0], Failure)
        box.close()
    return seen["probe"], seen["decode"], orders[-1]


def is_crash(found: object) -> bool:
    return isinstance(found, Failure) and (found.code, found.final) == ("decoder-crashed", False)


@pytest.mark.parametrize("lie", LIES_OF_A_PROBE.values(), ids=LIES_OF_A_PROBE)
def test_a_mean_description_of_a_file_is_a_crash(true_answers: tuple[Result, Result, Any], lie: Lie) -> None:
    truth = true_answers[0]
    assert isinstance(answers.video(truth.values, truth.arrays, SETTINGS.duration_max_s), Video)
    mean = told(truth, lie)
    assert is_crash(answers.video(mean.values, mean.arrays, SETTINGS.duration_max_s))


@pytest.mark.parametrize("lie", LIES_OF_A_DECODER.values(), ids=LIES_OF_A_DECODER)
def test_a_mean_chunk_is_a_crash(true_answers: tuple[Result, Result, Any], lie: Lie) -> None:
    _, truth, order = true_answers
    assert answers.chunk(truth.values, truth.arrays, order) is None
    mean = told(truth, lie)
    assert is_crash(answers.chunk(mean.values, mean.arrays, order))


def test_a_chunk_without_cuts_has_no_measurements(true_answers: tuple[Result, Result, Any]) -> None:
    _, truth, order = true_answers
    assert is_crash(answers.chunk(truth.values, truth.arrays, {**order, "cuts": False}))


def test_a_worker_takes_a_mean_answer_for_a_crash(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where it was that of the first decoder, the second has its turn."""
    path = clips / "cuts.mp4"
    task = counted.tasks(counted.probed(path), 60_000, mode="interval", interval_ms=1000)[0]
    assert task.order["decoder"] == "decord"
    box = Taken({"probe": put(codec="\0"), "decode": without("features")})
    monkeypatch.setattr(stages, "sandbox", lambda: box)
    try:
        assert is_crash(stages.probe(path, SETTINGS))
        assert is_crash(stages.decode(path, task, SETTINGS))
        assert box.ran == ["probe", "decord", "av"]
    finally:
        box.close()
