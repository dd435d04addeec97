"""Sample videos: scenes of the visual world as real files, with a manifest and exact ground truth.

Every video has several shots; `truth.jsonl` says what each shows, from when to when. The same seed gives the same
videos. It also makes the broken files that real catalogues contain: truncated, without video, empty. Knows the encoders
of FFmpeg; knows no model and no database.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import base58
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipelines.samples import film, world, world_words
from pipelines.samples.film import Form
from pipelines.samples.world import Scene

HANDLES = ("ana", "bruno", "chidi", "daria", "emeka", "fatima", "goran", "hana")
FORMS = (
    Form(),
    Form(width=854, height=480),
    Form(width=360, height=640, sound=False),
    Form(width=1280, height=720, fps=24),
)
DISSOLVE_FRAMES = 8
TRUTH = "truth.jsonl"


@dataclass(frozen=True)
class FilmedShot:
    """What a shot shows, from when to when."""

    start_ms: int
    end_ms: int
    caption: str
    concepts: tuple[str, ...]
    background: str


@dataclass(frozen=True)
class Sample:
    """A video of the manifest, with its ground truth."""

    file: str
    title: str
    description: str
    tags: tuple[str, ...]
    creator: str
    wallet: str
    form: Form
    duration_ms: int
    shots: tuple[FilmedShot, ...]
    fault: str = ""  # what is wrong with the file; "" for a good one


@dataclass(frozen=True)
class Script:
    """The plan of a video: scenes with their lengths in frames."""

    scenes: tuple[Scene, ...]
    frames: tuple[int, ...]
    dissolves: bool  # whether a scene dissolves into the next

    def shots(self, form: Form) -> tuple[FilmedShot, ...]:
        """Return the ground truth; a dissolve belongs to the shot that it leads to."""
        concepts, shots, start = world.artwork().concepts, [], 0
        for scene, count in zip(self.scenes, self.frames, strict=True):
            names = tuple(concepts[index].name for index in scene.concepts)
            bounds = form.ms(start), form.ms(start + count)
            shots.append(FilmedShot(*bounds, world_words.plain(scene, concepts), names, scene.background.name))
            start += count
        return tuple(shots)


def write(
    out: Path,
    count: int,
    seed: int,
    *,
    forms: Sequence[Form] = FORMS,
    creators: int = 3,
    shots: tuple[int, int] = (2, 4),
    seconds: tuple[float, float] = (2.0, 4.0),
    concepts: tuple[int, int] = (1, 2),
) -> list[Sample]:
    """Make videos in a folder, with `manifest.csv` and `truth.jsonl`, and delete the videos made there before.

    Args:
        out: The folder.
        count: Number of videos.
        seed: The same seed gives the same videos.
        forms: Codecs, sizes and frame rates, taken in turn.
        creators: Number of creators, who own the videos in turn.
        shots: Least and most shots of a video.
        seconds: Least and greatest length of a shot.
        concepts: Least and most concepts of a shot.

    Returns:
        The videos.
    """
    out.mkdir(parents=True, exist_ok=True)
    for former in read(out) if (out / TRUTH).exists() else []:
        (out / Path(former.file).name).unlink(missing_ok=True)
    samples = []
    for number in range(count):
        rng = random.Random(f"sample {seed} {number}")
        form = forms[number % len(forms)]
        script = plan(rng, form, shots=shots, seconds=seconds, concepts=concepts)
        samples.append(_produce(out, number, seed, creators, form, script))
    describe(out, samples)
    return samples


def read(folder: Path) -> list[Sample]:
    """Return the videos that a folder's ground truth describes."""
    lines = (folder / TRUTH).read_text(encoding="utf-8").splitlines()
    return [_sample(json.loads(line)) for line in lines]


def demo(out: Path, seed: int) -> list[Sample]:
    """Make the demo's set: nine good videos of three creators, and three broken files.

    The good ones have several codecs and sizes, one is upright and one has no sound. The broken ones are truncated,
    without video, and empty.
    """
    forms = (
        Form(width=854, height=480),
        Form(width=1280, height=720, fps=24),
        Form(width=360, height=640),
        Form("hevc"),
        Form("vp9"),
        Form("av1"),
        Form("mpeg4"),
        Form(sound=False),
        Form(width=960, height=540),
    )
    good = write(out, len(forms), seed, forms=forms, shots=(3, 4), seconds=(2.0, 3.2), concepts=(1, 2))
    faulty = [fault(out, good[index], name) for index, name in enumerate(film.FAULTS)]
    describe(out, [*good, *faulty])
    return [*good, *faulty]


def fault(out: Path, of: Sample, name: str) -> Sample:
    """Copy a sample's file with a fault; return it as a sample of its own without shots."""
    target = f"{name}-{Path(of.file).stem}.mp4"
    film.spoil(out / of.file, out / target, name)
    return replace(of, file=target, title=f"A file that is {name}", fault=name, shots=(), duration_ms=0)


def plan(
    rng: random.Random,
    form: Form,
    *,
    shots: tuple[int, int],
    seconds: tuple[float, float],
    concepts: tuple[int, int],
) -> Script:
    """Choose the scenes of a video: no concept twice, and adjacent scenes with different backgrounds.

    Args:
        rng: Source of randomness.
        form: Size and frame rate of the video.
        shots: Least and most shots.
        seconds: Least and greatest length of a shot.
        concepts: Least and most concepts of a shot.

    Returns:
        The plan.
    """
    number = rng.randint(*shots)
    sizes = [rng.randint(*concepts) for _ in range(number)]
    unused = rng.sample(range(len(world.artwork().concepts)), sum(sizes))
    scenes: list[Scene] = []
    for size in sizes:
        scene_concepts, unused = unused[:size], unused[size:]
        scene = world.compose(rng, scene_concepts, wide=form.width / form.height)
        while scenes and scene.background.name == scenes[-1].background.name:
            scene = replace(scene, background=world.background(rng))
        scenes.append(scene)
    frames = tuple(round(rng.uniform(*seconds) * form.fps) for _ in scenes)
    return Script(tuple(scenes), frames, dissolves=rng.random() < 0.25)


def wallet(creator: str, seed: int) -> str:
    """Return a valid Solana address for an invented creator: a public Ed25519 key in base58."""
    secret = hashlib.sha256(f"sample wallet {seed} {creator}".encode()).digest()
    return base58.b58encode(Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()).decode()


def describe(out: Path, samples: Sequence[Sample]) -> None:
    """Write the manifest and the ground truth."""
    with (out / "manifest.csv").open("w", encoding="utf-8", newline="") as lines:
        table = csv.writer(lines)
        table.writerow(("file", "title", "description", "tags", "creator", "wallet"))
        for s in samples:
            table.writerow((s.file, s.title, s.description, ";".join(s.tags), s.creator, s.wallet))
    truth = "".join(json.dumps(asdict(sample), ensure_ascii=False) + "\n" for sample in samples)
    (out / TRUTH).write_text(truth, encoding="utf-8")


def _sample(row: dict[str, Any]) -> Sample:
    """Return a sample from a line of the ground truth."""
    shots = tuple(FilmedShot(**shot | {"concepts": tuple(shot["concepts"])}) for shot in row["shots"])
    return Sample(**row | {"shots": shots, "form": Form(**row["form"]), "tags": tuple(row["tags"])})


def _produce(out: Path, number: int, seed: int, creators: int, form: Form, script: Script) -> Sample:
    """Make one video."""
    shots = script.shots(form)
    names = [name for shot in shots for name in shot.concepts]
    kinds = {concept.name: concept.kind for concept in world.artwork().concepts}
    creator = HANDLES[number % min(creators, len(HANDLES))]
    file = f"{number:04d}-{names[0].replace(' ', '-').replace(chr(39), '')}.{form.suffix}"
    film.shoot(out / file, form, script.scenes, script.frames, DISSOLVE_FRAMES if script.dissolves else 0)
    return Sample(
        file=file,
        title=f"{names[0].capitalize()} and {names[-1]}" if len(names) > 1 else names[0].capitalize(),
        description=f"First {', then '.join(shot.caption for shot in shots)}.",
        tags=tuple(dict.fromkeys(kinds[name] for name in names)),
        creator=creator,
        wallet=wallet(creator, seed),
        form=form,
        duration_ms=shots[-1].end_ms,
        shots=shots,
    )
