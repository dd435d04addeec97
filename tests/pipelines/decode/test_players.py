"""A file is what players show of it: how long, how large, which way up, which track; by FFmpeg and PyAV, not our probe."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from pipelines import stages
from pipelines.media import Failure
from pipelines.settings import IngestSettings
from pipelines.stages import Decoded
from tests.pipelines import counted, oddities
from tests.pipelines.conftest import ffmpeg

SETTINGS = IngestSettings()
APART_MS = 60
MANY_CHUNKS = (
    "second_is_default.mkv", "wrapped_at_59_s.ts", "turned_90_mirrored.mp4", "hidden_vp9.webm", "fields.ts",
    "begun_late_h264.ts", "begun_late_mpeg2.ts",
)  # fmt: skip


@pytest.mark.parametrize("name", oddities.RECIPES)
def test_a_file_is_as_players_show_it(tmp_path: Path, name: str) -> None:
    made = oddities.RECIPES[name](tmp_path)
    expected = oddities.shown(made)
    video = counted.probed(made.path)
    height, width, _ = expected.picture.shape
    assert (video.width, video.height, video.track) == (width, height, made.track)
    assert abs(video.duration_ms - expected.duration_ms) <= APART_MS
    assert video.warning == ""
    assert np.abs(video.frame_ms - expected.frame_ms).max() <= 1
    [found] = counted.decoded(made.path, 10**9, interval_ms=1000)
    assert isinstance(found, Decoded), found
    assert (found.losses.lost, found.losses.concealed) == (0, 0)
    assert len(found.frame_ms) == len(expected.frame_ms)
    picture = Image.fromarray(expected.picture).resize((64, 64), Image.Resampling.BICUBIC)
    assert np.abs(found.candidates[0].astype(int) - np.asarray(picture).astype(int)).mean() < 10


def test_it_is_the_same_in_chunks(tmp_path: Path) -> None:
    """A track that is not the first, a wrapped clock, a mirrored matrix: each chunk finds its own frames."""
    for name in MANY_CHUNKS:
        path = oddities.RECIPES[name](tmp_path).path
        [whole] = counted.decoded(path, 10**9, interval_ms=200)
        parts = counted.decoded(path, 1000, interval_ms=200)
        assert isinstance(whole, Decoded)
        for key in ("frame_ms", "candidate_ms", "candidates", "features"):
            joined = np.concatenate([getattr(part, key) for part in parts])
            assert np.array_equal(joined, getattr(whole, key)), (name, key)


@pytest.mark.parametrize(
    ("name", "rate"),
    [("no_rate.mkv", 30), ("no_rate_slow.mkv", 3), ("held.mp4", 25), ("ntsc.mkv", 29.97), ("slideshow.mp4", 0.2),
     ("uneven.mkv", 39 / 3.84), ("largest.ts", 25), ("wrapped_at_3_s.ts", 5), ("one_frame_held.mp4", 1 / 9)],
)  # fmt: skip
def test_the_rate_is_that_of_the_frames(tmp_path: Path, name: str, rate: float) -> None:
    assert counted.probed(oddities.RECIPES[name](tmp_path).path).fps == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize(("transfer", "code"), [("smpte2084", 572), ("arib-std-b67", 721)])
def test_paper_white_of_hdr_is_light_in_a_thumbnail(tmp_path: Path, transfer: str, code: int) -> None:
    """203 nits stand at 58 % of PQ and 75 % of HLG (BT.2408): a plain conversion shows PQ as a middle grey."""
    path = hdr(tmp_path / "white.mp4", transfer, f"{code}")
    assert counted.probed(path).decoder == "av"
    [found] = counted.decoded(path, interval_ms=1000)
    assert isinstance(found, Decoded)
    light = found.candidates[0].astype(int)
    assert 195 <= light.min() <= light.max() <= 225


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_hdr_looks_as_ffmpeg_maps_it(tmp_path: Path, transfer: str) -> None:
    """Shades up to 1,000 nits, in colours of BT.2020, beside what FFmpeg's own filters make of them."""
    top = 64 + round(876 * (0.75 if transfer == "smpte2084" else 1.0))
    path = hdr(tmp_path / "shades.mp4", transfer, f"64+({top}-64)*X/W", "512+120*sin(Y/40)", "512+120*cos(Y/40)")
    [found] = counted.decoded(path, interval_ms=1000)
    assert isinstance(found, Decoded)
    to_light = "zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt709"
    mapped = f"{to_light},tonemap=mobius:desat=0:peak=4.926,zscale=t=iec61966-2-1:m=bt709:r=tv,format=rgb24"
    expected = ffmpeg(tmp_path / "mapped.png", "-i", str(path), "-vf", mapped, "-frames:v", "1")
    wanted = np.asarray(Image.open(expected).convert("RGB").resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
    got = found.candidates[0].astype(int)
    assert np.abs(got - wanted).mean() < 14
    plain = ffmpeg(tmp_path / "plain.png", "-i", str(path), "-frames:v", "1")
    pale = np.asarray(Image.open(plain).convert("RGB").resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(got - pale).mean() > 2 * np.abs(got - wanted).mean()


def hdr(path: Path, transfer: str, luma: str, blue: str = "512", red: str = "512") -> Path:
    """Two frames of 10 bits whose codes are given by formulas."""
    picture = f"color=s=160x120:r=1:d=2,format=yuv420p10le,geq=lum='{luma}':cb='{blue}':cr='{red}'"
    colours = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc:log-level=error:range=limited"
    tags = ("-color_primaries", "bt2020", "-color_trc", transfer, "-colorspace", "bt2020nc", "-color_range", "tv")
    return ffmpeg(path, "-f", "lavfi", "-i", picture, "-c:v", "libx265", "-crf", "4", "-x265-params", colours, *tags)


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("unknown_codec.mp4", "unknown-codec", "the codec of the picture (zzz1) is not known"),
        ("unknown_codec.mkv", "unknown-codec", "is not known"),
        ("picture.gif", "not-a-video", "in no video format that is accepted"),
        ("sound.wav", "not-a-video", "in no video format that is accepted"),
        ("cover_only.mp4", "no-video", "sound but no picture"),
        ("cut.ts", "damaged", "neither picture nor sound can be found"),
        ("encrypted.mp4", "encrypted", "the picture is encrypted (DRM)"),
        ("initial.mp4", "damaged", "has a header but no picture data"),
        ("piece.m4s", "damaged", "is a piece of a stream without its header (moov)"),
    ],
)
def test_what_is_refused_has_a_true_reason(tmp_path: Path, name: str, code: str, words: str) -> None:
    """Under the name of a video, as people have them."""
    path = REFUSED[name](tmp_path)
    path = path.rename(path.with_name(f"{path.name}.mp4"))
    found = stages.probe(path, SETTINGS)
    assert isinstance(found, Failure), found
    assert (found.code, found.final) == (code, True)
    assert words in found.reason
    assert "\n" not in found.reason


def unknown_codec(name: str, known: bytes, unknown: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = oddities.film(folder / name, seconds=1)
        path.write_bytes(path.read_bytes().replace(known, unknown))
        return path

    return make


def cover_only(folder: Path) -> Path:
    cover = ffmpeg(folder / "cover.png", *oddities.pattern("64x64", "1", 1), "-frames:v", "1")
    sound = ("-f", "lavfi", "-i", "sine=440:duration=2", "-i", str(cover), "-map", "0", "-map", "1")
    return ffmpeg(folder / "cover_only.mp4", *sound, "-c:v", "copy", "-disposition:v:0", "attached_pic")


def cut_ts(folder: Path) -> Path:
    path = folder / "cut.ts"
    path.write_bytes((b"\x47\x1f\xff\x10" + bytes(184)) * 9)
    return path


def encrypted(folder: Path) -> Path:
    key = ("-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "00" * 16, "-encryption_kid", "11" * 16)
    return oddities.film(folder / "encrypted.mp4", *oddities.X264, *key, seconds=2)


def initial(folder: Path) -> Path:
    """The initial segment of a stream alone, as DASH and HLS have it."""
    path = oddities.film(folder / "initial.mp4", *oddities.X264, "-movflags", "frag_keyframe+empty_moov")
    path.write_bytes(path.read_bytes().partition(b"moof")[0][:-4])
    return path


def piece(folder: Path) -> Path:
    """A media segment of a stream alone, without the initial one."""
    path = oddities.film(folder / "piece.mp4", *oddities.X264, "-movflags", "frag_keyframe+empty_moov")
    whole = path.read_bytes()
    path.write_bytes(whole[whole.index(b"moof") - 4 :])
    return path


REFUSED: dict[str, Callable[[Path], Path]] = {
    "unknown_codec.mp4": unknown_codec("unknown_codec.mp4", b"avc1", b"zzz1"),
    "unknown_codec.mkv": unknown_codec("unknown_codec.mkv", b"V_MPEG4/ISO/AVC", b"V_MPEG9/XYZ/QQQ"),
    "picture.gif": lambda folder: oddities.film(folder / "picture.gif", "-an", seconds=1),
    "sound.wav": lambda folder: ffmpeg(folder / "sound.wav", "-f", "lavfi", "-i", "sine=440:duration=1"),
    "cover_only.mp4": cover_only,
    "cut.ts": cut_ts,
    "encrypted.mp4": encrypted,
    "initial.mp4": initial,
    "piece.m4s": piece,
}


def test_the_clock_starts_with_the_first_picture_that_is_shown(tmp_path: Path) -> None:
    """A copy that begins with a key frame before which pictures are shown that need nothing older."""
    x265 = "keyint=25:min-keyint=25:scenecut=0:bframes=2:radl=2:open-gop=0:b-adapt=0:log-level=error"
    whole = oddities.film(tmp_path / "whole.mkv", "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", x265)

    def from_second_key(packets: list[Any], base: Any) -> None:
        del packets[: [number for number, packet in enumerate(packets) if packet.is_keyframe][1]]

    oddities.remuxed(whole, tmp_path / "late.mkv", from_second_key)
    with av.open(str(tmp_path / "late.mkv")) as container:
        times = sorted(packet.pts for packet in container.demux(video=0) if packet.size)
        assert container.start_time
        assert times[0] < container.start_time // 1000
    video = counted.probed(tmp_path / "late.mkv")
    assert video.frame_ms.tolist() == [time - times[0] for time in times]
    assert abs(video.duration_ms - 40 * len(times)) <= APART_MS
    [found] = counted.decoded(tmp_path / "late.mkv", 10**9, interval_ms=1000)
    assert isinstance(found, Decoded)
    assert (len(found.frame_ms), found.losses.lost, found.losses.concealed) == (len(times), 0, 0)


def test_pictures_without_times_of_their_own_come_at_a_steady_pace(tmp_path: Path) -> None:
    """A program stream that was made by copying: it states the time of the first picture in each of its packets."""
    base = oddities.film(tmp_path / "base.mp4", *oddities.SLOW264)
    path = ffmpeg(tmp_path / "copied.mpeg", "-i", str(base), *oddities.COPY, "-bsf:v", "h264_mp4toannexb")
    with av.open(str(path)) as container:
        stated = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert stated.count(None) > len(stated) / 4
    video = counted.probed(path)
    assert (video.frame_ms.tolist(), video.duration_ms) == ([40 * number for number in range(100)], 4000)
    parts = counted.decoded(path, 1000, interval_ms=200)
    assert [part.losses.lost for part in parts if isinstance(part, Decoded)] == [0] * len(parts)


def test_sound_after_the_picture_counts_where_the_header_counts_from_the_first_picture(tmp_path: Path) -> None:
    """Muxers of Matroska disagree on whether its length counts from 0."""
    sound = (
        "-f",
        "lavfi",
        "-i",
        "sine=440:duration=2.6",
        "-c:a",
        "libopus",
        "-c:v",
        "libx264",
        "-output_ts_offset",
        "0.5",
    )
    path = oddities.film(tmp_path / "late.mkv", *sound, seconds=2)
    data = path.read_bytes()
    length = data.index(b"\x44\x89\x88") + 3
    from_zero = struct.unpack(">d", data[length : length + 8])[0]
    path.write_bytes(data[:length] + struct.pack(">d", from_zero - 500) + data[length + 8 :])
    assert abs(counted.probed(path).duration_ms - 2600) <= APART_MS


def glitched(folder: Path) -> Path:
    """100 bytes zeroed in a frame of a film whose key frames are 10 s apart."""
    whole = oddities.film(folder / "whole.mp4", *oddities.X264, "-g", "250", seconds=40)
    position, size = oddities.frames_of(whole)[253]
    data = bytearray(whole.read_bytes())
    data[position + size // 3 : position + size // 3 + 100] = bytes(100)
    path = folder / "glitched.mp4"
    path.write_bytes(data)
    return path


def test_one_glitch_costs_two_seconds_of_pictures_and_no_film(tmp_path: Path) -> None:
    """FFmpeg shows all frames: those that it made up count as there, and those long after the glitch are good again."""
    video = counted.probed(glitched(tmp_path))
    parts = counted.decoded(tmp_path / "glitched.mp4", 10_000, interval_ms=1000)
    assert len(video.frame_ms) == 1000
    assert len(parts) > 1
    losses = [part.losses for part in parts if isinstance(part, Decoded)]
    assert len(losses) == len(parts)
    assert sum(each.lost for each in losses) == 0
    assert 0 < sum(each.concealed for each in losses) <= 60
    assert sum(len(part.candidate_ms) for part in parts if isinstance(part, Decoded)) >= 37
