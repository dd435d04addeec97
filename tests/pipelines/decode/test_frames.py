"""Decoding: the right frames at the right times, the same whatever the chunks."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipelines import stages
from pipelines.confinement import profiles
from pipelines.decode import chunks
from pipelines.media import Failure, Video
from pipelines.moments import shots
from pipelines.moments.shots import Rules
from pipelines.sandbox.sandbox import Result
from pipelines.settings import IngestSettings
from tests.pipelines.conftest import CUTS_MS, ffmpeg

PROFILE = profiles.decode(IngestSettings(decode_timeout_s=60, decode_memory_max_mb=2048, decode_output_max_mb=256))


def decoded(
    path: Path, chunk_ms: int = 60_000, mode: str = "frames", **changes: Any
) -> tuple[Video, dict[str, NDArray[Any]]]:
    """A file's chunks, one after the other, joined."""
    video = stages.probe(path, IngestSettings())
    assert isinstance(video, Video), video
    width, height = chunks.decode_size(video, 90)
    sizes = {"width": width, "height": height, "model_side": 48, "fit": "squash", "thumbnail_side": 90}
    parts: list[Result] = []
    for chunk in chunks.plan(video, chunk_ms, mode):
        order = chunks.order(video, chunk, mode) | sizes
        order |= {"interval_ms": 1000, "path": str(path), "scratch": f"{path}-scratch.mkv", **changes}
        part = stages.sandbox().run("decode", order, PROFILE)
        assert isinstance(part, Result), part
        parts.append(part)
    return video, {name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays}


@pytest.mark.parametrize(
    "name",
    ["cuts.mp4", "hevc.mp4", "vp9.webm", "av1.mkv", "mpeg4.avi", "mpeg2.mpg", "transport.ts", "matroska.mkv",
     "fragmented.mp4", "rotated.mp4", "open_gop.mp4", "variable.mp4"],
)  # fmt: skip
def test_chunks_change_nothing(clips: Path, name: str) -> None:
    video, whole = decoded(clips / name)
    _, parts = decoded(clips / name, chunk_ms=1500)
    assert whole["frame_ms"].tolist() == video.frame_ms.tolist()
    for key in ("frame_ms", "features", "candidate_ms", "candidates", "sharpness", "thumbnails"):
        assert np.array_equal(whole[key], parts[key]), key


@pytest.mark.parametrize("name", ["cuts.mp4", "vp9.webm", "transport.ts", "hevc.mp4", "mpeg2.mpg", "rotated.mp4"])
def test_the_cuts_are_found_where_they_are(clips: Path, name: str) -> None:
    video, found = decoded(clips / name)
    starts = [
        s.start_ms for s in shots.find(found["frame_ms"], found["features"], video.duration_ms, Rules(1000, 9000))
    ]
    assert len(starts) == len(CUTS_MS)
    assert max(abs(a - b) for a, b in zip(starts, CUTS_MS, strict=True)) <= 40


def test_both_decoders_see_the_same(clips: Path) -> None:
    _, first = decoded(clips / "cuts.mp4", mode="interval", decoder="decord")
    _, second = decoded(clips / "cuts.mp4", mode="interval", decoder="av")
    assert np.array_equal(first["candidate_ms"], second["candidate_ms"])
    assert np.abs(first["candidates"].astype(int) - second["candidates"].astype(int)).mean() < 4


def test_a_frame_carries_the_number_that_is_painted_into_it(tmp_path: Path) -> None:
    """Frame n is a grey, brighter than the one before: a frame returned twice, or at a wrong time, would show."""
    grey = "geq=lum='20+2*N':cb=128:cr=128,format=yuv420p"
    encoding = ("-c:v", "libx264", "-qp", "0", "-g", "30", "-bf", "2")
    path = ffmpeg(tmp_path / "grey.mp4", "-f", "lavfi", "-i", f"color=size=64x64:rate=25:duration=4,{grey}", *encoding)
    for chunk_ms in (1000, 60_000):
        _, found = decoded(path, chunk_ms)
        assert np.all(np.diff(found["features"][:, shots.LUMA]) > 0)
        assert found["frame_ms"].tolist() == [number * 40 for number in range(100)]
        for decoder in ("decord", "av"):
            _, found = decoded(path, chunk_ms, "interval", decoder=decoder, interval_ms=120)
            assert np.all(np.diff(found["candidates"].mean(axis=(1, 2, 3))) > 0), decoder
            assert found["candidate_ms"].tolist() == [number * 40 for number in range(0, 100, 3)]


def test_a_rotated_frame_is_turned_upright(clips: Path, tmp_path: Path) -> None:
    _, found = decoded(clips / "rotated.mp4")
    upright = ffmpeg(tmp_path / "upright.png", "-i", str(clips / "rotated.mp4"), "-frames:v", "1")
    expected = np.asarray(Image.open(upright).convert("RGB").resize((48, 48), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(found["candidates"][0].astype(int) - expected).mean() < 12


def test_thumbnails_are_webp_of_the_picture(clips: Path) -> None:
    _, found = decoded(clips / "portrait.mp4")
    first = Image.open(io.BytesIO(found["thumbnails"][: found["thumbnail_sizes"][0]].tobytes()))
    assert first.format == "WEBP"
    assert first.size == (90, 160)


def test_key_frames_alone_are_decoded_when_asked(clips: Path) -> None:
    video = stages.probe(clips / "cuts.mp4", IngestSettings())
    assert isinstance(video, Video)
    [chunk] = chunks.plan(video, 1000, "key-frames")
    order = chunks.order(video, chunk, "key-frames")
    width, height = chunks.decode_size(video, 90)
    order |= {"width": width, "height": height, "model_side": 48, "fit": "squash", "thumbnail_side": 90,
              "interval_ms": 1000, "path": str(clips / "cuts.mp4"), "scratch": ""}  # fmt: skip
    result = stages.sandbox().run("decode", order, PROFILE)
    assert isinstance(result, Result)
    assert result.arrays["frame_ms"].tolist() == video.frame_ms[video.key_frames].tolist()


def test_a_decoder_that_is_out_of_time_is_a_result(clips: Path) -> None:
    hasty = dataclasses.replace(PROFILE, timeout_s=0.01)
    arguments = {"path": str(clips / "cuts.mp4"), "pixels_max": 10**8, "duration_max_s": 1000, "share_min": 0.9}
    result = stages.sandbox().run("probe", arguments, hasty)
    assert isinstance(result, Failure)
    assert result.code == "out-of-time"
