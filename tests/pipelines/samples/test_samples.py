"""Sample videos are real files, and the truth about them is exact."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import av
import base58
import numpy as np
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cluster.cli.context import Context
from cluster.errors import Rejected
from pipelines.samples import film, samples, world
from pipelines.samples.cli import samples as command
from pipelines.samples.film import Form
from pipelines.samples.world_paint import Painter

SMALL = Form(width=160, height=90, fps=10, sound=False)


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_the_same_seed_gives_the_same_videos_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        samples.write(tmp_path / name, 2, seed, forms=(SMALL,), shots=(2, 2), seconds=(1.0, 1.0))
    truth = {name: (tmp_path / name / "truth.jsonl").read_text() for name in ("one", "two", "three")}
    assert truth["one"] == truth["two"] != truth["three"]
    file = json.loads(truth["one"].splitlines()[0])["file"]
    assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_every_shot_of_the_truth_is_what_the_video_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts: list[samples.Script] = []
    real = samples.plan
    monkeypatch.setattr(samples, "plan", lambda *a, **k: scripts.append(real(*a, **k)) or scripts[-1])
    for sample in samples.write(tmp_path, 3, 11, forms=(SMALL,), shots=(2, 3), seconds=(1.0, 2.0)):
        script, frames = scripts.pop(0), decoded(tmp_path / sample.file)
        assert len(frames) == sum(script.frames)
        assert sample.duration_ms == SMALL.ms(len(frames))
        painter = Painter(world.artwork(), SMALL.width, SMALL.height)
        for scene, shot in zip(script.scenes, sample.shots, strict=True):
            last = shot.end_ms * SMALL.fps // 1000 - 1
            first = shot.start_ms * SMALL.fps // 1000
            painted = painter.paint(scene.at((last - first) / SMALL.fps)).astype(float)
            assert np.abs(frames[last] - painted).mean() < 12
            assert {world.artwork().concepts[i].name for i in scene.concepts} == set(shot.concepts)


def test_shots_follow_each_other_without_a_gap_and_no_concept_comes_twice(tmp_path: Path) -> None:
    (sample,) = samples.write(tmp_path, 1, 5, forms=(SMALL,), shots=(3, 3), seconds=(0.5, 1.0))
    bounds = [(shot.start_ms, shot.end_ms) for shot in sample.shots]
    assert bounds[0][0] == 0
    assert all(before[1] == after[0] for before, after in itertools.pairwise(bounds))
    names = [name for shot in sample.shots for name in shot.concepts]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("codec", film.CODECS)
def test_every_codec_gives_a_video_of_that_codec_with_sound(tmp_path: Path, codec: str) -> None:
    form = Form(codec, width=128, height=72, fps=10)
    (sample,) = samples.write(tmp_path, 1, 1, forms=(form,), shots=(1, 1), seconds=(1.0, 1.0))
    with av.open(str(tmp_path / sample.file)) as container:
        assert container.streams.video[0].codec_context.codec.canonical_name == codec
        assert len(container.streams.audio) == 1
        assert len(list(container.decode(video=0))) == 10


def test_the_manifest_names_every_file_once_with_its_creator(tmp_path: Path) -> None:
    written = samples.write(tmp_path, 4, 2, forms=(SMALL,), creators=2, shots=(1, 1), seconds=(0.3, 0.3))
    with (tmp_path / "manifest.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["file"] for row in rows] == [sample.file for sample in written]
    assert {row["creator"] for row in rows} == {"ana", "bruno"}
    assert all(row["title"] and row["description"] and row["tags"] for row in rows)
    assert samples.read(tmp_path) == written


def test_a_folder_that_is_written_again_holds_nothing_of_before_but_what_was_never_ours(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    for count, seed in ((3, 1), (2, 2)):
        made = samples.write(tmp_path, count, seed, forms=(SMALL,), shots=(1, 1), seconds=(0.5, 0.5))
    ours = {sample.file for sample in made}
    assert {file.name for file in tmp_path.iterdir()} == ours | {"manifest.csv", "truth.jsonl", "mine.txt"}


def test_wallets_are_public_keys_that_follow_from_creator_and_seed() -> None:
    raw = base58.b58decode(samples.wallet("ana", 1))
    Ed25519PublicKey.from_public_bytes(raw)
    assert len(raw) == 32
    assert samples.wallet("ana", 1) == samples.wallet("ana", 1)
    assert len({samples.wallet(creator, seed) for creator in ("ana", "bruno") for seed in (1, 2)}) == 4


def test_faulty_files_cannot_be_played(tmp_path: Path) -> None:
    (good,) = samples.write(tmp_path, 1, 1, forms=(SMALL,), shots=(1, 1), seconds=(1.0, 1.0))
    for name in film.FAULTS:
        sample = samples.fault(tmp_path, good, name)
        assert sample.fault == name
        with pytest.raises((av.FFmpegError, IndexError)):
            decoded(tmp_path / sample.file)


def test_the_demo_has_what_a_catalogue_has(demo_folder: Path) -> None:
    written = samples.read(demo_folder)
    good = [sample for sample in written if not sample.fault]
    assert len(good) >= 8
    assert {sample.fault for sample in written if sample.fault} == set(film.FAULTS)
    assert {sample.form.codec for sample in good} == set(film.CODECS)
    assert sum(sample.form.height > sample.form.width for sample in good) == 1
    assert sum(not sample.form.sound for sample in good) == 1
    assert len({sample.creator for sample in good}) == 3
    assert all(shot.end_ms - shot.start_ms >= 2000 for sample in good for shot in sample.shots)


def test_a_form_that_cannot_be_filmed_is_refused() -> None:
    for form in ({"codec": "dirac"}, {"width": 641}, {"height": 10}, {"fps": 0}):
        with pytest.raises(Rejected):
            Form(**form)  # type: ignore[arg-type]


def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    ran = CliRunner().invoke(command, [str(tmp_path / "new"), "--count", "1", "--json"], obj=Context(None))
    assert ran.exit_code == 0, ran.output
    files = json.loads(ran.output)["files"]
    assert [path.name for path in (tmp_path / "new").glob("*.mp4")] == files
