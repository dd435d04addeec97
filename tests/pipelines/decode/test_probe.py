"""What a file is, and the one clear reason when it is no video."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from pipelines import stages
from pipelines.decode import probe
from pipelines.decode.containers import Undecodable
from pipelines.media import Failure, Video
from pipelines.settings import IngestSettings
from tests.pipelines.conftest import ffmpeg

SETTINGS = IngestSettings()


def probed(path: Path) -> Video:
    found = stages.probe(path, SETTINGS)
    assert isinstance(found, Video), found
    return found


@pytest.mark.parametrize(
    ("name", "container", "codec", "decoder"),
    [
        ("cuts.mp4", "mp4", "h264", "decord"),
        ("vp9.webm", "webm", "vp9", "decord"),
        ("av1.mkv", "matroska", "av1", "decord"),
        ("prores.mov", "mov", "prores", "decord"),
        ("fragmented.mp4", "mp4", "h264", "decord"),
        ("variable.mp4", "mp4", "h264", "decord"),
        ("transport.ts", "mpegts", "h264", "av"),
        ("edited.mp4", "mp4", "h264", "av"),
        ("open_gop.mp4", "mp4", "h264", "av"),
        ("rotated.mp4", "mp4", "h264", "av"),
        ("mpeg2.mpg", "mpeg", "mpeg2video", "av"),
    ],
)
def test_a_file_is_described_and_goes_to_the_decoder_that_is_right(
    clips: Path, name: str, container: str, codec: str, decoder: str
) -> None:
    video = probed(clips / name)
    assert (video.container, video.codec, video.decoder) == (container, codec, decoder)
    assert np.all(np.diff(video.frame_ms) > 0)
    assert video.frame_ms[0] == 0
    assert video.warning == ""


def test_a_rotated_file_is_described_as_it_is_shown(clips: Path) -> None:
    assert (probed(clips / "rotated.mp4").width, probed(clips / "rotated.mp4").height) == (180, 320)


def test_sound_is_noticed(clips: Path) -> None:
    assert probed(clips / "audio_first.mp4").has_audio
    assert not probed(clips / "cuts.mp4").has_audio


def test_a_track_of_sound_without_any_is_none(tmp_path: Path) -> None:
    """Part of a stream, whose programme names sound that this part lacks: nothing is heard of it."""
    sound = ("-f", "lavfi", "-i", "sine=440:duration=2", "-c:v", "libx264", "-c:a", "aac", "-shortest")
    whole = ffmpeg(tmp_path / "whole.ts", "-f", "lavfi", "-i", "testsrc2=s=160x120:r=25:d=2", *sound)
    data = whole.read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    silent = [each for each in packets if int.from_bytes(each[1:3]) & 0x1FFF != 0x101]  # where FFmpeg puts the sound
    (tmp_path / "silent.ts").write_bytes(b"".join(silent))
    assert len(silent) < len(packets)
    with av.open(str(tmp_path / "silent.ts")) as container:
        assert len(container.streams.audio) == 1
    assert probed(whole).has_audio
    assert not probed(tmp_path / "silent.ts").has_audio


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("truncated.mp4", "damaged", "index (moov) is missing"),
        ("truncated.mkv", "damaged", "cut off or damaged"),
        ("cut_off.mp4", "damaged", "of 360 frames are there"),
        ("empty.mp4", "empty", "0 bytes"),
        ("text.mp4", "not-a-video", "no video format"),
        ("playlist.mp4", "not-allowed", "playlist or script"),
        ("concat.mp4", "not-allowed", "playlist or script"),
        ("audio_only.mp4", "no-video", "sound but no picture"),
    ],
)
def test_what_is_no_video_is_refused_for_good_with_one_reason(broken: Path, name: str, code: str, words: str) -> None:
    found = stages.probe(broken / name, SETTINGS)
    assert isinstance(found, Failure)
    assert found.final
    assert found.code == code
    assert words in found.reason


def test_a_picture_that_is_too_large_is_refused(clips: Path) -> None:
    found = stages.probe(clips / "cuts.mp4", IngestSettings(pixels_max=1000))
    assert isinstance(found, Failure)
    assert found.code == "too-large"


def test_a_file_that_is_too_long_is_refused(clips: Path) -> None:
    found = stages.probe(clips / "cuts.mp4", IngestSettings(duration_max_s=5))
    assert isinstance(found, Failure)
    assert found.code == "too-long"


@pytest.mark.parametrize("name", ["matroska.mkv", "transport.ts"])
def test_a_hole_that_a_demuxer_skips_in_silence_is_spoken_of(clips: Path, tmp_path: Path, name: str) -> None:
    whole = (clips / name).read_bytes()
    begin = len(whole) // 2 // 188 * 188
    path = tmp_path / name
    path.write_bytes(whole[:begin] + whole[begin + len(whole) // 8 // 188 * 188 :])
    video = probed(path)
    assert len(video.frame_ms) < 350
    assert video.warning.startswith("no picture for ")
    assert video.decoder == "av"


def test_a_damaged_tail_is_kept_with_a_warning(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "tail.mp4").write_bytes((clips / "faststart.mp4").read_bytes()[:-200])
    video = probed(tmp_path / "tail.mp4")
    assert 324 <= len(video.frame_ms) < 360
    assert video.warning.endswith("of 360 frames are missing")
    assert video.decoder == "av"


def test_a_joined_stream_whose_times_run_over_is_too_long(clips: Path, tmp_path: Path) -> None:
    """Its clock goes 26 h ahead and back 24 times: that many milliseconds are no number of 32 bits."""
    pieces = []
    for offset_s in (0, 26 * 3600):
        offset = ("-output_ts_offset", str(offset_s), "-mpegts_copyts", "1", "-muxdelay", "0")
        source = ("-i", str(clips / "transport.ts"), "-t", "1", "-c", "copy")
        pieces.append(ffmpeg(tmp_path / f"{offset_s}.ts", *source, *offset).read_bytes())
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(pieces) * 24)
    found = stages.probe(path, SETTINGS)
    assert isinstance(found, Failure), found
    assert (found.code, found.final) == ("too-long", True)


@pytest.mark.parametrize("timeless", [1, 3])
def test_pictures_without_a_time_stand_before_the_others_whatever_the_clock_shows(
    clips: Path, tmp_path: Path, timeless: int
) -> None:
    """A broadcast that was cut at 25 h of its clock: that hour is not its length."""
    offset = ("-output_ts_offset", str(25 * 3600), "-mpegts_copyts", "1", "-muxdelay", "0")
    path = ffmpeg(tmp_path / "cut.ts", "-i", str(clips / "transport.ts"), "-c", "copy", *offset)
    path.write_bytes(without_times(path.read_bytes(), timeless))
    video = probed(path)
    assert len(video.frame_ms) == 360
    assert video.duration_ms == pytest.approx(12_000, abs=500)


def without_times(stream: bytes, count: int) -> bytes:
    """A transport stream whose first pictures state no time; padding stands in its place."""
    data = bytearray(stream)
    for at in range(0, len(data), 188):
        packet = data[at : at + 188]
        if packet[1] & 0x5F != 0x41 or packet[2] != 0 or count == 0:  # the first stream of FFmpeg's, a packet's begin
            continue
        begin = at + 4 + (packet[4] + 1 if packet[3] & 0x20 else 0)
        length = data[begin + 8]
        data[begin + 7] &= 0x3F
        data[begin + 9 : begin + 9 + length] = b"\xff" * length
        count -= 1
    return bytes(data)


@pytest.mark.parametrize("duration_ms", [0, -5000])
def test_a_file_that_ends_before_it_begins_is_damaged(duration_ms: int) -> None:
    with pytest.raises(Undecodable) as refused:
        probe._lasts(duration_ms, SETTINGS.duration_max_s)
    assert (refused.value.code, refused.value.final) == ("damaged", True)


@pytest.mark.parametrize("name", ["probe_file_max_mb", "decode_file_max_mb"])
def test_no_file_at_all_is_no_setting(name: str) -> None:
    """What libraries say of damage is one."""
    with pytest.raises(ValueError, match=name):
        IngestSettings(**{name: 0})  # type: ignore[arg-type]  # any of them


def test_more_than_times_can_tell_is_no_setting() -> None:
    with pytest.raises(ValueError, match="duration_max_s"):
        IngestSettings(duration_max_s=3_000_000)
