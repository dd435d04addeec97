"""Awkward files with exact truth: every frame shows its number, so none may come twice, be missing, or bear a wrong time.

Each file is decoded whole and in chunks, by the decoder that ingest would choose.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import stages
from pipelines.confinement import profiles
from pipelines.decode import chunks
from pipelines.media import Failure
from pipelines.stages import Decoded
from tests.pipelines import counted
from tests.pipelines.conftest import ffmpeg
from tests.pipelines.counted import FRAME_MS, FRAMES, X264, Seen

SINE = ("-f", "lavfi", "-i", "sine=440")
COPY = ("-c", "copy")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params")
MPEG = ("-q:v", "3", "-bf", "2", "-g", "25")
OPEN = "log-level=error:keyint=25:min-keyint=25:open-gop=1:bframes=2:b-adapt=0:scenecut=0"
UNEVEN = ("-vf", "setpts=(N+floor(N/2))/25/TB", "-fps_mode", "passthrough", "-enc_time_base", "1/25", *X264)

SPARSE_MS = 280  # seven frames

Truth = Callable[[int], int]  # the time of frame n


def plain(number: int) -> int:
    return number * FRAME_MS


# What FFmpeg is told after `-i`; "@" stands for the plain file where something must come before it.
WHOLE: dict[str, tuple[str, ...]] = {
    "h264.mov": COPY, "h264.mkv": COPY, "h264.ts": COPY, "h264.avi": COPY,
    "fragmented.mp4": (*COPY, "-movflags", "frag_keyframe+empty_moov"),
    "late_clock.ts": (*COPY, "-output_ts_offset", "1000"),
    "late_clock.mp4": (*COPY, "-output_ts_offset", "5"),
    "late_clock.mkv": (*COPY, "-output_ts_offset", "5"),
    "hevc.mp4": (*X265, "log-level=error:keyint=25"),
    "hevc_10_bit.mp4": ("-pix_fmt", "yuv420p10le", *X265, "log-level=error:keyint=25"),
    "hevc_open_gop.mp4": (*X265, OPEN),
    "open_gop.mp4": (*X264, "-x264-params", OPEN.partition(":")[2].replace("bframes=2:", "")),
    "long_gop.mp4": ("-c:v", "libx264", "-preset", "veryfast", "-g", "1000", "-bf", "3"),
    "pyramid.mp4": ("-c:v", "libx264", "-preset", "veryfast", "-bf", "8", "-x264-params", "b-pyramid=normal:keyint=50"),
    "444.mp4": ("-pix_fmt", "yuv444p", *X264),
    "wide_pixels.mp4": ("-vf", "setsar=2", *X264),
    "vp8.webm": ("-c:v", "libvpx", "-b:v", "1M", "-g", "25"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-cpu-used", "5", "-g", "25", "-auto-alt-ref", "1", "-lag-in-frames", "16"),
    "av1.mkv": ("-c:v", "libsvtav1", "-preset", "10", "-g", "25"),
    "av1.mp4": ("-c:v", "libsvtav1", "-preset", "10", "-g", "25"),
    "prores.mov": ("-c:v", "prores_ks"),
    "mjpeg.avi": ("-c:v", "mjpeg", "-q:v", "3"),
    "mpeg4.avi": ("-c:v", "mpeg4", *MPEG),
    "mpeg4.mp4": ("-c:v", "mpeg4", *MPEG),
    "mpeg2.mpg": ("-c:v", "mpeg2video", *MPEG),
    "mpeg2.ts": ("-c:v", "mpeg2video", *MPEG),
    "interlaced.ts": ("-c:v", "mpeg2video", *MPEG, "-flags", "+ildct+ilme"),
}  # fmt: skip


@pytest.fixture(scope="session")
def plain_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return counted.film(tmp_path_factory.mktemp("counted") / "plain.mp4")


def check(path: Path, numbers: range | list[int], time_of: Truth = plain, turn: int = 0) -> None:
    """Whole or in chunks: exactly these frames, each at its time; and the first of each interval where those are asked."""
    expected: Seen = [(time_of(number), number) for number in numbers]
    first_of = {time_ms // SPARSE_MS: (time_ms, number) for time_ms, number in reversed(expected)}
    for chunk_ms in (60_000, 1500):
        assert counted.seen(counted.decoded(path, chunk_ms), turn) == expected
        sparse = counted.decoded(path, chunk_ms, mode="interval", interval_ms=SPARSE_MS)
        assert counted.seen(sparse, turn) == sorted(first_of.values())


@pytest.mark.parametrize("name", WHOLE)
def test_every_frame_comes_once_at_its_time(plain_file: Path, tmp_path: Path, name: str) -> None:
    check(ffmpeg(tmp_path / name, "-i", str(plain_file), *WHOLE[name]), range(FRAMES))


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_variable_frame_rate_keeps_each_frames_own_time(plain_file: Path, tmp_path: Path, ending: str) -> None:
    path = ffmpeg(tmp_path / f"uneven.{ending}", "-i", str(plain_file), *UNEVEN)
    check(path, range(FRAMES), lambda number: (number + number // 2) * FRAME_MS)


@pytest.mark.parametrize(("name", "start_s"), [("edited.mp4", 1.52), ("edited.mov", 2.52)])
def test_what_an_edit_list_hides_is_not_there(plain_file: Path, tmp_path: Path, name: str, start_s: float) -> None:
    path = ffmpeg(tmp_path / name, "-ss", str(start_s), "-i", str(plain_file), *COPY)
    first = round(start_s * 25)
    check(path, range(first, FRAMES), lambda number: (number - first) * FRAME_MS)


@pytest.mark.parametrize(("degrees", "turn"), [(90, -1), (180, 2), (270, 1)])
def test_a_rotated_file_is_upright(plain_file: Path, tmp_path: Path, degrees: int, turn: int) -> None:
    path = ffmpeg(tmp_path / "turned.mp4", "-display_rotation", str(degrees), "-i", str(plain_file), *COPY)
    check(path, range(FRAMES), turn=turn)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_picture_that_begins_after_the_sound_begins_late(plain_file: Path, tmp_path: Path, ending: str) -> None:
    shifted = ("-itsoffset", "0.52", "-i", str(plain_file), "-map", "0:a", "-map", "1:v", "-c:v", "copy", "-c:a", "aac")
    path = ffmpeg(tmp_path / f"late.{ending}", *SINE, *shifted, "-t", "20")
    check(path, range(FRAMES), lambda number: 520 + number * FRAME_MS)


@pytest.mark.parametrize("ending", ["ts", "mkv", "mp4"])
def test_a_change_of_resolution_on_the_way(tmp_path: Path, ending: str) -> None:
    counted.film(tmp_path / "small.ts", frames=75)
    counted.film(tmp_path / "large.ts", size=(256, 192), frames=75, first=75)
    (tmp_path / "list.txt").write_text("file 'small.ts'\nfile 'large.ts'\n", encoding="ascii")
    joined = ("-f", "concat", "-safe", "0", "-i", str(tmp_path / "list.txt"), *COPY)
    check(ffmpeg(tmp_path / f"joined.{ending}", *joined), range(FRAMES))


def test_a_clock_that_starts_again_in_the_middle_goes_on(tmp_path: Path) -> None:
    first, second = counted.film(tmp_path / "a.ts", frames=75), counted.film(tmp_path / "b.ts", frames=75, first=75)
    path = tmp_path / "both.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    check(path, range(FRAMES))


@pytest.mark.parametrize(("ending", "options"), [("mp4", ("-movflags", "faststart")), ("mkv", ()), ("ts", ())])
def test_what_a_truncated_tail_leaves_is_kept(
    plain_file: Path, tmp_path: Path, ending: str, options: tuple[str, ...]
) -> None:
    whole = ffmpeg(tmp_path / f"whole.{ending}", "-i", str(plain_file), *COPY, *options)
    data = whole.read_bytes()
    path = tmp_path / f"cut.{ending}"
    path.write_bytes(data[: len(data) * 96 // 100])
    found = counted.seen(counted.decoded(path))
    assert found == [(plain(number), number) for _, number in found]
    assert found == counted.seen(counted.decoded(path, chunk_ms=1500))
    assert 0.9 * FRAMES <= len(found) < FRAMES
    assert [number for _, number in found][: len(found) - 4] == list(range(len(found) - 4))  # the last may lack others


def damaged(folder: Path, damage: str) -> Path:
    """A film that is spoiled in the middle."""
    path = counted.film(folder / "hole.mp4", *X264[:-4], "-g", "10", "-bf", "2", "-movflags", "faststart")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    if damage == "hole":
        data[middle : middle + 300] = bytes(300)
    else:
        for at in (middle + 11, middle + 120, middle + 250):
            data[at] ^= 0x10
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("damage", ["hole", "flips"])
def test_damage_in_the_middle_loses_pictures_and_makes_none_wrong(tmp_path: Path, damage: str) -> None:
    path = damaged(tmp_path, damage)
    assert counted.probed(path).decoder == "decord"
    found = counted.seen(counted.decoded(path))
    assert found == [(plain(number), number) for _, number in found]
    assert FRAMES - 25 <= len(found) < FRAMES


def test_the_first_decoder_s_word_on_damage_is_heard(tmp_path: Path) -> None:
    """It says it on standard error alone, and goes on with pictures that are wrong."""
    path = damaged(tmp_path, "flips")
    [task] = counted.tasks(counted.probed(path), 60_000, mode="interval", interval_ms=40)
    assert task.order["decoder"] == "decord"
    order = {**task.order, "path": str(path), "scratch": ""}
    said = stages.sandbox().run("decode", order, profiles.decode(counted.SETTINGS))
    assert isinstance(said, Failure)
    assert (said.code, said.final) == ("decoder-failed", False)
    assert said.reason.startswith("decord: [h264")
    assert isinstance(stages.decode(path, task, counted.SETTINGS), Decoded)  # the second decoder has its turn


def test_key_frame_mode_sees_the_key_frames_and_nothing_else(plain_file: Path, tmp_path: Path) -> None:
    for path in (plain_file, ffmpeg(tmp_path / "open.ts", "-i", str(plain_file), "-c:v", "mpeg2video", *MPEG)):
        keys = counted.probed(path).key_frames.tolist()
        assert len(keys) >= FRAMES // 25
        found = counted.seen(counted.decoded(path, mode="key-frames"))
        assert found == [(plain(number), number) for number in keys]


def test_interval_mode_sees_one_frame_each_interval(plain_file: Path) -> None:
    for chunk_ms in (1500, 60_000):
        found = counted.seen(counted.decoded(plain_file, chunk_ms, mode="interval", interval_ms=1000))
        assert found == [(plain(number), number) for number in range(0, FRAMES, 25)]


def test_a_counted_file_in_several_chunks_is_the_same(plain_file: Path, tmp_path: Path, monkeypatch: Any) -> None:
    path = ffmpeg(tmp_path / "counted.avi", "-i", str(plain_file), *COPY)
    monkeypatch.setattr(chunks, "COUNTED_MS_MIN", 1)
    assert counted.probed(path).counted
    assert len(counted.decoded(path, chunk_ms=2500)) == 2
    assert counted.seen(counted.decoded(path, chunk_ms=2500)) == [(plain(n), n) for n in range(FRAMES)]


def test_key_frames_in_several_chunks_are_the_same(plain_file: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(chunks, "KEY_FRAMES_MAX", 4)
    keys = counted.probed(plain_file).key_frames.tolist()
    parts = counted.decoded(plain_file, mode="key-frames")
    assert len(parts) == -(-len(keys) // 4) > 1
    assert counted.seen(parts) == [(plain(n), n) for n in keys]


@pytest.fixture(scope="session")
def films(plain_file: Path) -> list[Path]:
    """Files for the property below: three containers, two codecs, both decoders, cuts in the picture."""
    folder = plain_file.parent
    return [
        plain_file,
        ffmpeg(folder / "property.ts", "-i", str(plain_file), *COPY),
        ffmpeg(folder / "property.mkv", "-i", str(plain_file), *X265, OPEN),
        ffmpeg(folder / "uneven.mp4", "-i", str(plain_file), *UNEVEN),
    ]


@given(st.integers(0, 3), st.integers(500, 9000))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_where_the_chunks_are_cut_changes_nothing(films: list[Path], which: int, chunk_ms: int) -> None:
    whole = counted.decoded(films[which], 10**9, interval_ms=300)
    parts = counted.decoded(films[which], chunk_ms, interval_ms=300)
    assert len(whole) == 1
    for name in ("frame_ms", "features", "candidate_ms", "sharpness", "candidates"):
        assert np.array_equal(joined(whole, name), joined(parts, name)), name
    assert [picture for part in whole for picture in thumbnails(part)] == [
        picture for part in parts for picture in thumbnails(part)
    ]


def joined(parts: list[Decoded | Failure], name: str) -> np.ndarray:
    return np.concatenate([getattr(part, name) for part in parts])


def thumbnails(part: Decoded | Failure) -> list[bytes]:
    assert isinstance(part, Decoded)
    return list(part.thumbnails)
