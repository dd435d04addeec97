"""Where a video cuts, decided on measurements alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines.moments import shots
from pipelines.moments.shots import Rules

RULES = Rules(shot_min_ms=500, shot_max_ms=10_000)
RATE = 30


def pictures(*lengths: int, seed: int = 0) -> NDArray[np.float32]:
    """Small planes [N, 3, cells] of scenes of these lengths: each a random picture with a little noise."""
    random = np.random.default_rng(seed)
    parts = []
    for length in lengths:
        scene = random.uniform(20, 235, (1, 3, 18 * 32))
        parts.append(scene + random.normal(0, 1.5, (length, 3, 18 * 32)))
    return np.concatenate(parts).clip(0, 255).astype(np.float32)


def times(count: int) -> NDArray[np.int32]:
    return (np.arange(count) * 1000 // RATE).astype(np.int32)


def starts(planes: NDArray[np.float32], rules: Rules = RULES) -> list[int]:
    count = len(planes)
    found = shots.find(times(count), shots.measure(planes), count * 1000 // RATE, rules)
    return [shot.start_ms for shot in found]


def test_hard_cuts_are_found_where_they_are() -> None:
    assert starts(pictures(60, 90, 45)) == [0, 2000, 5000]


def test_a_still_picture_has_no_cut() -> None:
    assert starts(pictures(200)) == [0]


def test_a_dissolve_is_one_cut_in_its_middle() -> None:
    first, second = pictures(60), pictures(60, seed=1)
    share = np.linspace(0, 1, 30, dtype=np.float32)[:, None, None]
    blend = first[-1:] * (1 - share) + second[:1] * share
    found = starts(np.concatenate([first, blend, second]))
    assert len(found) == 2
    assert abs(found[1] - 2500) <= 500


def test_a_fade_through_black_is_one_cut() -> None:
    first, second = pictures(60), pictures(60, seed=1)
    share = np.linspace(1, 0, 15, dtype=np.float32)[:, None, None]
    black = np.zeros((10, *first.shape[1:]), np.float32)
    found = starts(np.concatenate([first, first[-1:] * share, black, second[:1] * share[::-1], second]))
    assert len(found) == 2
    assert abs(found[1] - (75 + 5) * 1000 // RATE) <= 600


def test_motion_is_no_dissolve() -> None:
    wide = np.random.default_rng(3).uniform(20, 235, (3, 18, 400)).astype(np.float32)
    wide = (wide + np.roll(wide, 1, 2) + np.roll(wide, 2, 2)) / 3
    pan = np.stack([wide[:, :, at : at + 32].reshape(3, -1) for at in range(200)])
    assert len(starts(pan)) <= 2


def test_flicker_does_not_make_thousands_of_shots() -> None:
    light = np.where(np.arange(900) % 2, 40, 220).astype(np.float32)
    flicker = np.broadcast_to(light[:, None, None], (900, 3, 18 * 32))
    assert len(starts(flicker)) <= 900 * 1000 // RATE // RULES.shot_min_ms


def test_lightning_is_no_cut() -> None:
    for length in range(1, shots.FLASH_FRAMES_MAX + 1):
        planes = pictures(60, 60).copy()
        planes[30 : 30 + length] = planes[30 : 30 + length] * 0.3 + 170
        planes[90 : 90 + length] += 60
        assert starts(planes) == [0, 2000], length


def test_a_flat_picture_is_one_shot() -> None:
    for level in (0, 128, 255):
        assert starts(np.full((240, 3, 18 * 32), level, np.float32)) == [0]


def test_a_flat_picture_between_cuts_is_one_shot() -> None:
    planes = pictures(60, 90, 60)
    planes[60:150] = 128
    assert starts(planes) == [0, 2000, 5000]


def test_a_film_that_fades_in_from_black_and_out_is_cut_in_no_black() -> None:
    share = np.linspace(0, 1, 15, dtype=np.float32)[:, None, None]
    scene, black = pictures(90), np.zeros((60, 3, 18 * 32), np.float32)
    film = np.concatenate([black, scene[:1] * share, scene, scene[-1:] * share[::-1], black])
    assert all(1500 < start < 6000 for start in starts(film)[1:])


def shot_ends(frame_ms: list[int], change: list[float], end_ms: int) -> list[int]:
    features = np.zeros((len(frame_ms), shots.FEATURES), np.float32)
    features[:, shots.CHANGE], features[:, shots.CONTRAST] = change, 50
    found = shots.find(np.array(frame_ms, np.int32), features, end_ms, Rules(1000, 12_000))
    return [shot.end_ms for shot in found]


def test_twelve_hours_of_two_pictures_are_two_moments() -> None:
    assert shot_ends([0, 21_600_000], [0, 3], 43_200_000) == [21_600_000, 43_200_000]


def test_a_last_picture_that_is_held_is_one_moment() -> None:
    times = [number * 40 for number in range(100)]
    assert shot_ends(times, [0.5] * 100, 63_960) == [3960, 63_960]


def test_a_still_picture_is_one_moment_however_many_frames_repeat_it() -> None:
    day = [number * 1000 for number in range(86_400)]
    assert shot_ends(day, [0] * 86_400, 86_400_000) == [86_400_000]


def test_what_moves_slowly_is_cut_as_ever() -> None:
    times = [number * 40 for number in range(1500)]
    assert shot_ends(times, [0.02] * 1500, 60_000) == [12_000, 24_000, 36_000, 48_000, 60_000]


@given(st.lists(st.integers(1, 40_000), max_size=40), st.lists(st.floats(0, 40, width=32), min_size=41, max_size=41))
def test_there_are_no_more_moments_than_pictures(steps: list[int], change: list[float]) -> None:
    times = [0, *itertools.accumulate(steps)]
    ends = shot_ends(times, change[: len(times)], times[-1] + 100_000)
    assert ends == sorted(set(ends))
    assert ends[-1] == times[-1] + 100_000
    held = Rules(1000, 12_000).shot_max_ms // 2
    assert len(ends) <= 1 + 2 * len(times) + sum(min(step, held) for step in steps) // 6000


def test_moments_of_one_length_hold_a_frame_each() -> None:
    found = shots.fixed(0, 43_200_000, 5000, np.array([0, 21_600_000], np.int32))
    assert [(shot.start_ms, shot.end_ms) for shot in found] == [(0, 21_600_000), (21_600_000, 43_200_000)]


def test_a_long_shot_is_cut_into_equal_parts() -> None:
    found = shots.find(times(1800), shots.measure(pictures(1800)), 60_000, Rules(1000, 12_000))
    assert [shot.end_ms - shot.start_ms for shot in found] == [12_000] * 5


@given(st.lists(st.integers(1, 80), min_size=1, max_size=6), st.integers(0, 5))
def test_shots_cover_the_video_without_gap_or_overlap(lengths: list[int], seed: int) -> None:
    planes = pictures(*lengths, seed=seed)
    end = len(planes) * 1000 // RATE + 1
    found = shots.find(times(len(planes)), shots.measure(planes), end, RULES)
    assert found[0].start_ms == 0
    assert found[-1].end_ms == end
    assert all(before.end_ms == after.start_ms for before, after in itertools.pairwise(found))


@given(st.integers(1, 60_000), st.integers(100, 10_000), st.integers(0, 5000))
def test_fixed_shots_cover_the_video(length_ms: int, each_ms: int, start_ms: int) -> None:
    found = shots.fixed(start_ms, start_ms + length_ms, each_ms)
    assert found[0].start_ms == start_ms
    assert found[-1].end_ms == start_ms + length_ms
    assert all(before.end_ms == after.start_ms for before, after in itertools.pairwise(found))
    assert all(shot.end_ms - shot.start_ms < each_ms * 2 for shot in found)


COLOURS = {  # by Y', Cb and Cr in 8 bits of limited range, as BT.601 has it
    (235, 128, 128): (255, 255, 255),
    (16, 128, 128): (0, 0, 0),
    (82, 90, 240): (255, 0, 0),
    (145, 54, 34): (0, 255, 0),
    (41, 240, 110): (0, 0, 255),
}


@pytest.mark.parametrize(("codes", "colour"), COLOURS.items())
@pytest.mark.parametrize(("depth", "height", "width"), [(8, 1080, 1920), (10, 360, 640), (8, 2, 2), (8, 7, 5)])
def test_a_plane_shows_the_colours_of_a_frame(
    codes: tuple[int, ...], colour: tuple[int, ...], depth: int, height: int, width: int
) -> None:
    kind = np.uint8 if depth == 8 else np.uint16
    rest = np.array(77 << (depth - 8), kind)  # what lies beside the picture in memory
    planes = []
    for code, half in zip(codes, (1, 2, 2), strict=True):
        down, across = -(-height // half), -(-width // half)
        rows = np.full((down, across + 13), rest)
        rows[:, :across] = code << (depth - 8)
        planes.append(shots.Plane(rows, across))
    plane = shots.plane(*planes, shots.grid(upright=False), depth=depth)
    assert plane.shape == (3, shots.SHORT_SIDE * shots.LONG_SIDE)
    assert np.abs(plane - np.array(colour)[:, None]).max() < 4


def test_each_cell_of_a_plane_is_its_part_of_the_frame() -> None:
    rows, columns = cells = shots.grid(upright=True)
    steps = np.linspace(16, 235, rows * columns).reshape(rows, columns)
    luma = np.repeat(np.repeat(steps, 20, 0), 20, 1).astype(np.uint8)
    grey = shots.Plane(np.full((rows * 10, columns * 10), 128, np.uint8), columns * 10)
    plane = shots.plane(shots.Plane(luma, columns * 20), grey, grey, cells)
    assert np.abs(plane[1] - ((steps - 16) * 1.164).ravel()).max() < 2


def test_jumps_of_a_shaken_camera_are_no_cuts() -> None:
    picture = pictures(1)[0].reshape(3, 18, 32)
    shaken = [np.roll(picture, at, 2).reshape(3, -1) for at in np.random.default_rng(5).integers(0, 2, 20).cumsum() * 9]
    held = np.repeat(np.stack(shaken), 12, 0)  # as different as a cut, again and again, in the same colours
    assert starts(held) == [0]


def test_a_measurement_looks_no_further_than_it_says() -> None:
    planes = pictures(40, 40, 40)
    whole = shots.measure(planes)
    part = shots.measure(planes[30:90])
    inside = slice(shots.BEFORE, 60 - shots.AFTER)
    assert np.array_equal(whole[30:90][inside], part[inside])
