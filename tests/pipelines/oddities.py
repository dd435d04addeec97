"""Files as phones, recorders, cameras and broadcasters make them, each from a recipe; and how FFmpeg and PyAV show them.

A recipe writes a file and names the picture track that is shown and, where FFmpeg's own figure is not what plays, how
long it plays. Nothing in here uses our own probe.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.pipelines import fields
from tests.pipelines.conftest import ffmpeg

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
SLOW264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-bf", "3")  # with B-frames
COPY = ("-c", "copy")
TS_PACKET, VIDEO_PID = 188, 256
WRAP_S = (1 << 33) / 90_000  # where the clock of a program stream starts again
DEFAULT_DURATION = b"\x23\xe3\x83\x84"  # of Matroska, four bytes long
VOID = b"\xec\x86" + bytes(6)


@dataclass(frozen=True)
class Made:
    """A file, the track that is shown, and how long it plays where FFmpeg's header line says something else."""

    path: Path
    track: int = 0
    duration_ms: int = 0


Recipe = Callable[[Path], Made]


def pattern(size: str = "160x120", rate: str = "25", seconds: float = 4) -> tuple[str, ...]:
    return ("-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate}:d={seconds}")


def film(path: Path, *options: str, rate: str = "25", seconds: float = 4, size: str = "160x120") -> Path:
    return ffmpeg(path, *pattern(size, rate, seconds), *(options or X264))


def encoded(name: str, rate: str, seconds: float, *options: str, duration_ms: int = 0) -> Recipe:
    """The test pattern at a rate."""
    return lambda folder: Made(
        film(folder / name, *(options or SLOW264), rate=rate, seconds=seconds), duration_ms=duration_ms
    )


def copied(name: str, *options: str, before: Sequence[str] = ()) -> Recipe:
    """The packets of a film of 4 s in another way."""

    def make(folder: Path) -> Made:
        base = film(folder / "base.mp4", *SLOW264, "-g", "25")
        return Made(ffmpeg(folder / name, *before, "-i", str(base), *COPY, *options))

    return make


def held(name: str, seconds: int, *options: str) -> Recipe:
    """The last frame stays: screen recorders write nothing while nothing moves."""

    def make(folder: Path) -> Made:
        base = film(folder / "base.mp4", *(options or X264))
        remuxed(base, folder / name, lambda packets, base_s: setattr(packets[-1], "duration", int(seconds / base_s)))
        return Made(folder / name)

    return make


def remuxed(source: Path, target: Path, change: Callable[[list[Any], Any], None]) -> None:
    """The packets of the picture, changed, in a file of the same kind."""
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        stream = read.streams.video[0]
        copy = write.add_stream_from_template(stream)
        packets = [packet for packet in read.demux(stream) if packet.size and packet.pts is not None]
        change(packets, stream.time_base)
        for packet in packets:
            packet.stream = copy
            write.mux(packet)


def wrapped(name: str, before_s: float, seconds: float = 12) -> Recipe:
    """A stream whose clock starts again `before_s` after its begin."""

    def make(folder: Path) -> Made:
        offset = ("-output_ts_offset", str(WRAP_S - before_s), "-mpegts_copyts", "1", "-muxdelay", "0")
        return Made(film(folder / name, *SLOW264, "-g", "10", *offset, rate="5", seconds=seconds))

    return make


def uneven(name: str, *options: str) -> Recipe:
    """Frames at times of their own: every second pair comes late."""
    times = ("-vf", "setpts=(N+floor(N/2)*3)/25/TB", "-fps_mode", "passthrough", "-enc_time_base", "1/25")
    return lambda folder: Made(film(folder / name, *times, *SLOW264, *options, seconds=2))


def without_rate(name: str, rate: str) -> Recipe:
    """Matroska that does not say how long a frame is."""

    def make(folder: Path) -> Made:
        path = film(folder / name, *SLOW264, rate=rate, seconds=2)
        data = path.read_bytes()
        assert data.count(DEFAULT_DURATION) == 1
        at = data.index(DEFAULT_DURATION)
        path.write_bytes(data[:at] + VOID + data[at + len(VOID) :])
        return Made(path)

    return make


def two_tracks(name: str, first: str, second: str, shown: int, *options: str, one_frame: int | None = None) -> Recipe:
    """Two pictures of these sizes, of which one may have a single frame."""

    def make(folder: Path) -> Made:
        inputs: list[str] = []
        for number, size in enumerate((first, second)):
            single = ("-frames:v", "1") if number == one_frame else ()
            inputs += ["-i", str(film(folder / f"{number}.mp4", *X264, *single, rate="25", seconds=3, size=size))]
        return Made(ffmpeg(folder / name, *inputs, "-map", "0", "-map", "1", *COPY, *options), shown)

    return make


def with_cover(name: str) -> Recipe:
    """A picture of the cover before the film."""

    def make(folder: Path) -> Made:
        cover = ffmpeg(folder / "cover.png", *pattern("640x480", "1", 1), "-frames:v", "1")
        inputs = ("-i", str(cover), *pattern("160x120", "25", 3), "-map", "0", "-map", "1")
        path = folder / name
        ffmpeg(path, *inputs, "-c:v:0", "png", "-c:v:1", "libx264", "-pix_fmt:v:1", "yuv420p",
               "-disposition:v:0", "attached_pic")  # fmt: skip
        with av.open(str(path)) as container:
            return Made(path, next(s.index for s in container.streams.video if s.codec_context.name == "h264"))

    return make


def one_frame_and_sound(name: str, seconds: int) -> Recipe:
    """A podcast: one picture for all of it."""

    def make(folder: Path) -> Made:
        picture = film(folder / "picture.mp4", *X264, "-frames:v", "1")
        sound = ("-f", "lavfi", "-i", f"sine=440:duration={seconds}", "-c:v", "copy", "-c:a", "aac")
        return Made(ffmpeg(folder / name, "-i", str(picture), *sound))

    return make


def hidden_frames(name: str, codec: str) -> Recipe:
    """Pictures that only others are made of, in packets of their own: muxers put those of VP9 together unless told not to."""

    def make(folder: Path) -> Made:
        path = folder / "whole.webm"
        options = ("-c:v", codec, "-b:v", "200k", "-auto-alt-ref", "1", "-lag-in-frames", "16", "-cpu-used", "2")
        for number in ("1", "2"):
            film(path, *options, "-pass", number, "-passlogfile", str(folder / "pass"), seconds=3)
        split = ("-bsf:v", "vp9_superframe_split", "-fflags", "-autobsf") if "vp9" in codec else ()
        return Made(ffmpeg(folder / name, "-i", str(path), *COPY, *split))

    return make


def begun_late(name: str, *options: str) -> Recipe:
    """A recording of a broadcast: it begins between two key frames, with pictures that nobody can make."""

    def make(folder: Path) -> Made:
        whole = film(folder / f"whole_{name}", *options)
        data, begin = whole.read_bytes(), frames_of(whole)[9][0]
        parts = [data[at : at + TS_PACKET] for at in range(0, len(data), TS_PACKET)]
        path = folder / name
        path.write_bytes(
            b"".join(part for n, part in enumerate(parts) if n * TS_PACKET >= begin or _pid(part) != VIDEO_PID)
        )
        return Made(path)

    return make


def _pid(packet: bytes) -> int:
    return (packet[1] & 0x1F) << 8 | packet[2]


def with_exif(name: str) -> Recipe:
    """A camera's Motion JPEG: beside each picture stands what PyAV has no name for."""

    def make(folder: Path) -> Made:
        film(folder / "%d.png", "-frames:v", "5")
        for number in range(1, 6):
            about = Image.Exif()
            about[271] = "a camera"
            Image.open(folder / f"{number}.png").save(folder / f"{number}.jpg", exif=about)
        return Made(ffmpeg(folder / name, "-framerate", "25", "-i", str(folder / "%d.jpg"), *COPY))

    return make


RECIPES: dict[str, Recipe] = {
    "fields.ts": lambda folder: Made(fields.film(folder / "fields.ts", 160)),
    "begun_late_mpeg2.ts": begun_late("begun_late_mpeg2.ts", "-c:v", "mpeg2video", "-g", "15", "-bf", "2", "-q:v", "3"),
    "begun_late_h264.ts": begun_late("begun_late_h264.ts", *SLOW264, "-g", "25"),
    "exif.mov": with_exif("exif.mov"),
    "slideshow.mp4": encoded("slideshow.mp4", "1/5", 25),
    "slideshow.mkv": encoded("slideshow.mkv", "1/5", 25),
    "slideshow.ts": encoded("slideshow.ts", "1/5", 25, duration_ms=25_000),
    "one_a_second.mp4": encoded("one_a_second.mp4", "1", 6),
    "one_a_second.mov": encoded("one_a_second.mov", "1", 6),
    "one_in_ten_seconds.mp4": encoded("one_in_ten_seconds.mp4", "1/10", 60),
    "two_a_second.avi": encoded("two_a_second.avi", "2", 6, "-c:v", "mpeg4", "-q:v", "3"),
    "ntsc.mkv": encoded("ntsc.mkv", "30000/1001", 3),
    "ntsc.webm": encoded("ntsc.webm", "30000/1001", 2, "-c:v", "libvpx", "-b:v", "1M"),
    "held.mp4": held("held.mp4", 20),
    "held.mov": held("held.mov", 7),
    "held_b_frames.mp4": held("held_b_frames.mp4", 20, *SLOW264),
    "one_frame_held.mp4": held("one_frame_held.mp4", 9, *X264, "-frames:v", "1"),
    "mirrored.mp4": copied("mirrored.mp4", before=("-display_hflip:v:0",)),
    "upside_down.mp4": copied("upside_down.mp4", before=("-display_vflip:v:0",)),
    "turned.mov": copied("turned.mov", before=("-display_rotation:v:0", "180")),
    **{
        f"turned_{degrees}_mirrored.{ending}": copied(
            f"turned_{degrees}_mirrored.{ending}",
            before=("-display_rotation:v:0", str(degrees), "-display_hflip:v:0"),
        )
        for degrees, ending in ((90, "mp4"), (180, "mp4"), (270, "mp4"), (90, "mov"))
    },
    "turned_flipped.mp4": copied("turned_flipped.mp4", before=("-display_rotation:v:0", "90", "-display_vflip:v:0")),
    "wrapped_at_3_s.ts": wrapped("wrapped_at_3_s.ts", 3),
    "wrapped_at_once.ts": wrapped("wrapped_at_once.ts", 0.1),
    "wrapped_at_11_s.ts": wrapped("wrapped_at_11_s.ts", 11),
    "wrapped_at_59_s.ts": wrapped("wrapped_at_59_s.ts", 59, 70),
    "wrapped_at_61_s.ts": wrapped("wrapped_at_61_s.ts", 61, 70),
    "edited.mp4": copied("edited.mp4", before=("-ss", "1.5")),
    "edited.mov": copied("edited.mov", before=("-ss", "0.52")),
    "uneven.mp4": uneven("uneven.mp4"),
    "uneven.mkv": uneven("uneven.mkv"),
    "uneven_closed.mov": uneven("uneven_closed.mov", "-g", "8"),
    "no_rate.mkv": without_rate("no_rate.mkv", "30"),
    "no_rate_slow.mkv": without_rate("no_rate_slow.mkv", "3"),
    "second_is_default.mkv": two_tracks(
        "second_is_default.mkv", "64x48", "320x180", 1, "-disposition:v:0", "0", "-disposition:v:1", "default"
    ),
    "first_is_default.mkv": two_tracks(
        "first_is_default.mkv", "64x48", "320x180", 0, "-disposition:v:0", "default", "-disposition:v:1", "0"
    ),
    "largest.ts": two_tracks("largest.ts", "64x48", "320x180", 1),
    "preview_first.mkv": two_tracks("preview_first.mkv", "640x480", "160x120", 1, one_frame=0),
    "preview_first.mp4": two_tracks("preview_first.mp4", "640x480", "160x120", 1, one_frame=0),
    "preview_second.mp4": two_tracks("preview_second.mp4", "160x120", "640x480", 0, one_frame=1),
    "cover.mp4": with_cover("cover.mp4"),
    "podcast.mp4": one_frame_and_sound("podcast.mp4", 30),
    "podcast.mkv": one_frame_and_sound("podcast.mkv", 8),
    "hidden_vp9.webm": hidden_frames("hidden_vp9.webm", "libvpx-vp9"),
    "hidden_vp8.webm": hidden_frames("hidden_vp8.webm", "libvpx"),
    "twelve_hours.mp4": encoded("twelve_hours.mp4", "1/21600", 43_200),
}


def frames_of(path: Path) -> list[tuple[int, int]]:
    """Where the packets of the picture lie in a file, and how long they are."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(container.streams.video[0]) if packet.size]


@dataclass(frozen=True)
class Shown:
    """A file as FFmpeg and PyAV show it: sizes after turning, times from the container's start."""

    duration_ms: int
    frame_ms: list[int]
    picture: NDArray[np.uint8]  # the first


def shown(made: Made) -> Shown:
    """Ask FFmpeg for the length and the first picture, PyAV for the time of each frame."""
    first = ffmpeg(made.path.with_suffix(".first.png"), "-i", str(made.path), "-map", f"0:{made.track}",
                   "-frames:v", "1")  # fmt: skip
    with av.open(str(made.path)) as container:
        stream = container.streams[made.track]
        start = container.start_time or 0
        start_s = (start if container.format.name == "mpegts" else max(0, start)) / av.time_base
        times = [round((float(frame.time) - start_s) * 1000) for frame in container.decode(stream)]
    return Shown(
        made.duration_ms or _duration_ms(made.path), sorted(times), np.asarray(Image.open(first).convert("RGB"))
    )


def _duration_ms(path: Path) -> int:
    """What `ffmpeg -i` says."""
    said = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path)], capture_output=True, text=True, check=False
    )
    found = re.search(r"Duration: (\d+):(\d+):([\d.]+)", said.stderr)
    assert found, said.stderr
    return round((int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])) * 1000)
