"""Video files for the benchmarks of ingest: made once with FFmpeg, kept in the data folder, lengthened by stream copy."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cluster.settings import Settings
from pipelines.samples import film

RATE = 30
SCENE_S = 5
GROUP_S = 2  # from key frame to key frame
SCENES = (
    "testsrc2=size={size}:rate={rate}",
    "gradients=size={size}:rate={rate}:speed=0.02:seed=1",
    "smptehdbars=size={size}:rate={rate},noise=alls=12:allf=t",
    "testsrc=size={size}:rate={rate}",
    "gradients=size={size}:rate={rate}:speed=0.05:seed=9:nb_colors=6",
    "rgbtestsrc=size={size}:rate={rate},noise=alls=8:allf=t",
)


def folder(settings: Settings) -> Path:
    made = settings.data_dir / "benchmark-files"
    made.mkdir(parents=True, exist_ok=True)
    return made


def base(settings: Settings, width: int, height: int) -> Path:
    """Return the path of a film, H.264, half a minute, six scenes with hard cuts; it is made at the first call."""
    path = folder(settings) / f"base-{height}.mp4"
    if not path.exists():
        inputs: list[str] = []
        for scene in SCENES:
            picture = scene.format(size=f"{width}x{height}", rate=RATE)
            inputs += ["-f", "lavfi", "-t", str(SCENE_S), "-i", picture]
        chains = "".join(f"[{i}:v]format=yuv420p,setsar=1[v{i}];" for i in range(len(SCENES)))
        joined = "".join(f"[v{i}]" for i in range(len(SCENES))) + f"concat=n={len(SCENES)}:v=1:a=0[v]"
        coding = ("-c:v", "libx264", "-preset", "superfast", "-crf", "23", "-g", str(RATE * GROUP_S), "-bf", "2")
        _ffmpeg(path, *inputs, "-filter_complex", chains + joined, "-map", "[v]", *coding)
    return path


def lengthened(settings: Settings, source: Path, seconds: int, first_s: int = 0) -> Path:
    """Return the path of a file of this length: the source repeated by stream copy, from its key frame at `first_s` on."""
    path = folder(settings) / f"{source.stem}-{first_s}-{seconds}.mp4"
    if not path.exists():
        start = ("-stream_loop", "-1", "-i", str(source))
        _ffmpeg(path, *start, "-ss", str(first_s), "-t", str(seconds), "-c", "copy")
    return path


def shortened(settings: Settings, number: int) -> Path:
    """Return the path of film `number` of many different ones of two seconds; it is made at the first call."""
    path = folder(settings) / f"short-{number:04d}.mp4"
    if not path.exists():
        picture = f"gradients=size=640x360:rate={RATE}:seed={number + 1}:duration=2"
        _ffmpeg(path, "-f", "lavfi", "-i", picture, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
    return path


def _ffmpeg(out: Path, *arguments: str) -> None:
    draft = out.with_suffix(".draft.mp4")
    subprocess.run([film.ffmpeg(), "-v", "error", "-y", *arguments, str(draft)], check=True)
    draft.replace(out)
