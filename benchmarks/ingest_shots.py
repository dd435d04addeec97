"""Shot detection on films whose cuts are known to the frame, beside PySceneDetect's adaptive detector.

The camera pans, shakes and zooms over painted scenes with grain. Shots are joined by hard cuts, dissolves and fades through
black; lightning flashes are there to mislead. Needs the extra `benchmarks` (`pip install -e '.[benchmarks]'`).
"""

from __future__ import annotations

import dataclasses
import json
import random
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import ingest_files
from benchmarks.run import Figure
from cluster.errors import Rejected
from cluster.settings import Settings
from pipelines import stages
from pipelines.decode import chunks, frames
from pipelines.media import Bytes8, Video
from pipelines.moments import shots
from pipelines.samples import film, world
from pipelines.samples.world_paint import Painter
from pipelines.settings import IngestSettings

FILMS = 5
SHOTS = 18  # a film
SHOT_FRAMES = (40, 110)
BLEND_FRAMES = (8, 30)
BLACK_FRAMES = (2, 12)
RATE = 25
WIDTH, HEIGHT = 640, 360
MARGIN = 1.5  # of a scene around what the camera sees
TOLERANCE_FRAMES = 3
KINDS = ("hard", "hard", "dissolve", "fade")
SEED = 21  # not the films that the thresholds were looked at with
FRAME_PLANE_ROUNDS = 20
REPEATS = 3  # of both, film by film in turns; CPU is a film's median


@dataclass(frozen=True)
class Join:
    """A transition between two shots; the frames from `first` up to but not including `stop` belong to neither."""

    kind: str
    first: int
    stop: int


def run(settings: Settings) -> Iterator[Figure]:
    """Measure F1 by kind of cut, CPU seconds, and the time of the detector alone per frame."""
    made = [_made(settings, number) for number in range(FILMS)]
    ours, theirs = zip(*(_both(path) for path, _ in made), strict=True)
    truth = [joins for _, joins in made]
    for name, kinds in (
        ("hard cuts", ("hard",)),
        ("dissolves and fades", ("dissolve", "fade")),
        ("all", ("hard", "dissolve", "fade")),
    ):
        mine, other = (_f1(truth, [found for found, _ in results], kinds) for results in (ours, theirs))
        yield Figure(
            f"shots, {name}, F1", f"{mine:.3f}", f"{other:.3f} PySceneDetect adaptive", mine / max(other, 1e-9)
        )
    mine_s, other_s = sum(cpu for _, cpu in ours), sum(cpu for _, cpu in theirs)
    yield Figure(
        "shots, whole pass, CPU", f"{mine_s:.1f} s", f"{other_s:.1f} s PySceneDetect adaptive", mine_s / other_s
    )
    yield Figure("shots, detector alone, CPU a frame", f"{_detector_ms():.2f} ms", "0.4 ms wanted")


def _both(path: Path) -> tuple[tuple[list[int], float], tuple[list[int], float]]:
    """Return the frames at which shots begin in a film, and the median CPU seconds: ours, then PySceneDetect's."""
    rounds = [(_ours(path), _adaptive(path)) for _ in range(REPEATS)]
    (ours, _), (theirs, _) = rounds[0]
    mine_s, other_s = (statistics.median(each[side][1] for each in rounds) for side in (0, 1))
    return (ours, mine_s), (theirs, other_s)


def _ours(path: Path) -> tuple[list[int], float]:
    """Return the frames at which our shots begin, and the CPU seconds."""
    ingest = IngestSettings()
    began = time.process_time()
    video = stages.probe(path, ingest)
    assert isinstance(video, Video), video
    [chunk] = chunks.plan(video, 10**9)
    width, height = chunks.decode_size(video, ingest.thumbnail_side_px)
    sizes = {"width": width, "height": height, "model_side": 64, "fit": "squash", "thumbnail_side": 216}
    sizes |= {"interval_ms": 10**9, "path": str(path), "scratch": ""}  # no samples: PySceneDetect takes none
    _, arrays = frames.decode(**chunks.order(video, chunk), **sizes)
    rules = shots.Rules(ingest.shot_min_ms, 10**9)
    found = shots.find(arrays["frame_ms"], arrays["features"], video.duration_ms, rules)
    return [round(shot.start_ms * RATE / 1000) for shot in found[1:]], time.process_time() - began


def _adaptive(path: Path) -> tuple[list[int], float]:
    try:
        from scenedetect import AdaptiveDetector, detect
    except ImportError as error:
        raise Rejected("PySceneDetect is not installed", hint="pip install -e '.[benchmarks]'") from error
    began = time.process_time()
    found = detect(str(path), AdaptiveDetector())
    return [start.frame_num for start, _ in found[1:]], time.process_time() - began


def _f1(truth: Sequence[Sequence[Join]], found: Sequence[Sequence[int]], kinds: Sequence[str]) -> float:
    """Return the F1 score for transitions of these kinds.

    A second find at the same transition is wrong. A find at a transition of another kind is neither right nor wrong.
    """
    hits = wrong = wanted = 0
    for joins, places in zip(truth, found, strict=True):
        taken: set[Join] = set()
        wanted += sum(join.kind in kinds for join in joins)
        for place in places:
            near = [j for j in joins if j.first - TOLERANCE_FRAMES <= place <= j.stop + TOLERANCE_FRAMES]
            fresh = [join for join in near if join not in taken]
            taken.update(fresh[:1])
            hits += bool(fresh) and fresh[0].kind in kinds
            wrong += not near or (not fresh and near[0].kind in kinds)
    return 2 * hits / max(1, hits + wrong + wanted)


def _detector_ms() -> float:
    """Return the CPU milliseconds per 1080p frame of the detector alone: planes, measurements and peaks.

    The frames are random numbers.
    """
    rng = np.random.default_rng(0)
    luma, blue, red = (rng.integers(0, 255, (64, 1080 // half, 1920 // half), np.uint8) for half in (1, 2, 2))
    cells, took = shots.grid(upright=False), []
    for _ in range(FRAME_PLANE_ROUNDS):
        began, planes = time.process_time(), []
        for frame in zip(luma, blue, red, strict=True):
            first, second, third = (shots.Plane(rows, rows.shape[1]) for rows in frame)
            planes.append(shots.plane(first, second, third, cells))
            shots.change(planes[0], planes[-1])
        measured = shots.measure(np.stack(planes))
        shots.peaks(measured[:, shots.CHANGE])
        took.append(time.process_time() - began)
    return statistics.median(took) * 1000 / len(planes)


def _made(settings: Settings, number: int) -> tuple[Path, list[Join]]:
    """Return the path of a film, and its true transitions; both are made at the first call and stored."""
    path = ingest_files.folder(settings) / f"shots-{SEED}-{number}.mp4"
    truth = path.with_suffix(".json")
    if not truth.exists():
        joins = _film(path, random.Random(f"{SEED} {number}"))
        truth.write_text(json.dumps([dataclasses.astuple(join) for join in joins]), encoding="utf-8")
    return path, [Join(*row) for row in json.loads(truth.read_text(encoding="utf-8"))]


def _film(path: Path, rng: random.Random) -> list[Join]:
    command = [film.ffmpeg(), "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}"]
    command += [
        "-r",
        str(RATE),
        "-i",
        "-",
        "-c:v",
        "libx264",
        "-preset",
        "superfast",
        "-crf",
        "25",
        "-pix_fmt",
        "yuv420p",
    ]
    process = subprocess.Popen([*command, str(path)], stdin=subprocess.PIPE)
    assert process.stdin is not None
    joins, count = [], 0
    previous: Bytes8 | None = None
    for number in range(SHOTS):
        shot = _shot(rng)
        kind = rng.choice(KINDS) if number else "start"
        between = _between(rng, kind, previous, shot[0])
        if number:
            joins.append(Join(kind, count, count + len(between)))
        for frame in (*between, *shot):
            process.stdin.write(frame.tobytes())
        count, previous = count + len(between) + len(shot), shot[-1]
    process.stdin.close()
    assert process.wait() == 0
    return joins


def _between(rng: random.Random, kind: str, last: Bytes8 | None, first: Bytes8) -> list[Bytes8]:
    if last is None or kind == "hard":
        return []
    length = rng.randint(*BLEND_FRAMES)
    shares = [(number + 1) / (length + 1) for number in range(length)]
    black = np.zeros_like(first)
    if kind == "dissolve":
        return [_mixed(last, first, share) for share in shares]
    dark = [black] * rng.randint(*BLACK_FRAMES)
    return [_mixed(last, black, share) for share in shares] + dark + [_mixed(black, first, share) for share in shares]


def _mixed(one: Bytes8, other: Bytes8, share: float) -> Bytes8:
    return (one * np.float32(1 - share) + other * np.float32(share)).astype(np.uint8)


def _shot(rng: random.Random) -> list[Bytes8]:
    """Paint the frames of one shot: a scene under a moving camera, with grain and occasionally a flash."""
    length = rng.randint(*SHOT_FRAMES)
    concepts = rng.sample(range(len(world.artwork().concepts)), rng.randint(1, 4))
    scene = world.compose(rng, concepts, wide=WIDTH / HEIGHT)
    painter = Painter(world.artwork(), round(WIDTH * MARGIN), round(HEIGHT * MARGIN))
    grain = np.random.default_rng(rng.randrange(2**32)).normal(0, 5, (4, HEIGHT, WIDTH, 1)).astype(np.float32)
    path = _camera(rng, length)
    flash = rng.randrange(10, length - 10) if rng.random() < 0.15 else -1
    shot = []
    for number, (x, y, zoom) in enumerate(path):
        picture = Image.fromarray(painter.paint(scene.at(number / RATE)))
        side_x, side_y = WIDTH * zoom, HEIGHT * zoom
        left, top = x * (picture.width - side_x), y * (picture.height - side_y)
        cut = picture.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, (left, top, left + side_x, top + side_y))
        pixels = np.asarray(cut, np.float32) + grain[number % len(grain)]
        shot.append(np.clip(pixels + (120 if number == flash else 0), 0, 255).astype(np.uint8))
    return shot


def _camera(rng: random.Random, length: int) -> NDArray[np.float64]:
    """Return position (x and y, 0 to 1) and zoom of each frame, (length, 3): a pan with a zoom and a shaking hand."""
    ends = np.array([[rng.random(), rng.random(), rng.uniform(0.9, 1.4)] for _ in range(2)])
    share = np.linspace(0, 1, length)[:, None]
    path = ends[0] * (1 - share) + ends[1] * share
    shake = np.random.default_rng(rng.randrange(2**32)).normal(0, rng.choice([0.0, 0.004, 0.012]), (length, 2))
    path[:, :2] += shake
    clipped: NDArray[np.float64] = np.clip(path, [0, 0, 0.9], [1, 1, 1.4])
    return clipped
