"""Encoding scenes into video files with FFmpeg, and making broken files on purpose.

Frames go to FFmpeg through a pipe; the program is the one on PATH, else the static one of `imageio-ffmpeg`. Knows
scenes and codecs, nothing about captions or ground truth.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.errors import Rejected
from pipelines.samples import world
from pipelines.samples.world import Scene
from pipelines.samples.world_paint import Painter, Pixels

CODECS = {  # encoder with its arguments, audio codec, file suffix
    "h264": (("libx264", "-preset", "veryfast", "-crf", "24"), "aac", "mp4"),
    "hevc": (("libx265", "-preset", "ultrafast", "-crf", "26", "-tag:v", "hvc1"), "aac", "mp4"),
    "vp9": (
        ("libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-crf", "34", "-b:v", "0"),
        "libopus",
        "webm",
    ),
    "av1": (("libsvtav1", "-preset", "12", "-crf", "36"), "libopus", "mp4"),
    "mpeg4": (("mpeg4", "-q:v", "5"), "libmp3lame", "avi"),
}
FAULTS = ("truncated", "audio-only", "empty")
KEY_FRAME_S = 2
TONES_HZ = (262, 330, 392, 440, 523)


@dataclass(frozen=True)
class Form:
    """Codec, size and frame rate of a video."""

    codec: str = "h264"
    width: int = 640
    height: int = 360
    fps: int = 25
    sound: bool = True

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise Rejected(f"no codec {self.codec!r}", hint=f"known: {', '.join(CODECS)}")
        if min(self.width, self.height) < 64 or self.width % 2 or self.height % 2 or not 1 <= self.fps <= 120:
            raise Rejected(
                "this size or speed cannot be filmed",
                hint="even sides of at least 64 pixels, 1 to 120 frames a second",
            )

    @property
    def suffix(self) -> str:
        """The suffix of the file."""
        return CODECS[self.codec][2]

    def ms(self, frame: int) -> int:
        """Return when a frame begins, in milliseconds."""
        return round(frame * 1000 / self.fps)


def shoot(path: Path, form: Form, scenes: Sequence[Scene], frames: Sequence[int], dissolve: int) -> None:
    """Encode scenes one after another into a file.

    Args:
        path: The file to write.
        form: Codec, size and frame rate.
        scenes: The scenes.
        frames: Length of each in frames.
        dissolve: Frames at the beginning of each scene in which the one before fades out.

    Raises:
        Rejected: FFmpeg cannot encode it.
    """
    seconds = sum(frames) / form.fps
    command = [
        ffmpeg(),
        "-v",
        "error",
        "-y",
        *_picture(form),
        *_sound(path, form, seconds),
        *_coding(form),
        str(path),
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stderr is not None
    try:
        for frame in _frames(form, scenes, frames, dissolve):
            process.stdin.write(frame.tobytes())
        process.stdin.close()
        message = process.stderr.read().decode(errors="replace").strip()
    except BrokenPipeError:
        message = process.stderr.read().decode(errors="replace").strip() or "FFmpeg ended early"
    if process.wait() != 0:
        raise Rejected(f"FFmpeg cannot write {path.name}: {message[-300:]}", code="no-encoder")


def spoil(source: Path, target: Path, fault: str) -> None:
    """Write a broken file: `source` cut off ("truncated"), sound without video ("audio-only"), or no bytes ("empty").

    Raises:
        ValueError: the fault is unknown.
    """
    if fault == "truncated":
        data = source.read_bytes()
        target.write_bytes(data[: len(data) // 2])
    elif fault == "audio-only":
        tone = ["-f", "lavfi", "-i", "sine=frequency=440:duration=3", "-c:a", "aac", str(target)]
        subprocess.run([ffmpeg(), "-v", "error", "-y", *tone], check=True)
    elif fault == "empty":
        target.write_bytes(b"")
    else:
        raise ValueError(f"no fault {fault!r}")


def ffmpeg() -> str:
    """Return the path of the FFmpeg program."""
    import imageio_ffmpeg

    return shutil.which("ffmpeg") or str(imageio_ffmpeg.get_ffmpeg_exe())


def _frames(form: Form, scenes: Sequence[Scene], frames: Sequence[int], dissolve: int) -> Iterator[Pixels]:
    """Yield the frames, uint8 (height, width, 3), of all scenes."""
    painter = Painter(world.artwork(), form.width, form.height)
    last: Pixels | None = None
    for scene, count in zip(scenes, frames, strict=True):
        still = painter.paint(scene) if not any(i.dx or i.dy or i.spin for i in scene.items) else None
        for number in range(count):
            frame = painter.paint(scene.at(number / form.fps)) if still is None else still
            if last is not None and number < dissolve:
                share = (number + 1) / (dissolve + 1)
                yield (last * np.float32(1 - share) + frame * np.float32(share)).astype(np.uint8)
            else:
                yield frame
        last = frame if count else last


def _picture(form: Form) -> list[str]:
    """Return FFmpeg's arguments for the frames on its standard input."""
    size = f"{form.width}x{form.height}"
    return ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(form.fps), "-i", "-"]


def _sound(path: Path, form: Form, seconds: float) -> list[str]:
    """Return FFmpeg's arguments for a tone as long as the video."""
    if not form.sound:
        return []
    tone = TONES_HZ[sum(path.name.encode()) % len(TONES_HZ)]
    return ["-f", "lavfi", "-i", f"sine=frequency={tone}:duration={seconds:.3f}:sample_rate=48000"]


def _coding(form: Form) -> list[str]:
    """Return FFmpeg's arguments for encoding."""
    video, sound, _ = CODECS[form.codec]
    quiet = ["-x265-params", "log-level=error"] if form.codec == "hevc" else []
    audio = ["-c:a", sound, "-b:a", "64k"] if form.sound else ["-an"]
    keys = ["-pix_fmt", "yuv420p", "-g", str(KEY_FRAME_S * form.fps), "-threads", "2"]
    return ["-c:v", *video, *quiet, *keys, *audio, "-map_metadata", "-1", "-fflags", "+bitexact"]
