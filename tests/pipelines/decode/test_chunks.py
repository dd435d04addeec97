"""How a video is cut into chunks."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.decode import chunks
from pipelines.media import Video
from pipelines.moments import shots


def video(frames: int, keys: list[int], step_ms: int = 33) -> Video:
    numbers = np.arange(frames)
    return Video(
        container="mp4", codec="h264", width=1920, height=1080, fps=30.0, duration_ms=frames * step_ms, has_audio=False,
        rotation=0, decoder="decord", frame_ms=(numbers * step_ms).astype(np.int32), frame_pts=numbers.astype(np.int64),
        key_frames=np.array(sorted({0, *keys}), np.int32),
    )  # fmt: skip


@given(st.integers(1, 3000), st.lists(st.integers(1, 2999), max_size=60), st.integers(1000, 60_000))
def test_every_frame_is_owned_once_and_seen_with_its_neighbours(frames: int, keys: list[int], chunk_ms: int) -> None:
    plan = chunks.plan(video(frames, [key for key in keys if key < frames]), chunk_ms)
    owned = [frame for chunk in plan for frame in range(chunk.own_first, chunk.own_stop)]
    assert owned == list(range(frames))
    for chunk in plan:
        assert chunk.first == 0 or chunk.own_first - chunk.first >= shots.BEFORE
        assert chunk.stop == frames or chunk.stop - chunk.own_stop == shots.AFTER


@given(st.integers(200, 3000), st.integers(10, 250))
def test_chunks_begin_at_key_frames(frames: int, every: int) -> None:
    made = video(frames, list(range(0, frames, every)))
    assert {chunk.first for chunk in chunks.plan(made, 5000)} <= set(made.key_frames.tolist())


def test_a_video_without_key_frames_is_one_chunk() -> None:
    assert len(chunks.plan(video(3000, []), 5000)) == 1


def test_frames_are_decoded_at_the_size_that_is_needed_and_never_enlarged() -> None:
    assert chunks.decode_size(video(1, []), 216) == (384, 216)
    assert chunks.decode_size(video(1, []), 4000) == (1920, 1080)


def test_many_key_frames_are_several_chunks_and_each_is_owned_once() -> None:
    made = video(30_000, list(range(0, 30_000, 10)))
    plan = chunks.plan(made, 5000, "key-frames")
    assert len(plan) == 3
    assert [frame for chunk in plan for frame in range(chunk.own_first, chunk.own_stop)] == list(range(3000))


def test_a_counted_video_has_few_long_chunks() -> None:
    made = dataclasses.replace(video(120_000, []), counted=True)
    plan = chunks.plan(made, 5000)
    assert len(plan) == 4
    assert [frame for chunk in plan for frame in range(chunk.own_first, chunk.own_stop)] == list(range(120_000))
