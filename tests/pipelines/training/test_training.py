"""Training: targets mean what the words say, a stopped course goes on, and lessons repeat."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipelines.models import encoder
from pipelines.models.relevance import PPM, Curve
from pipelines.samples import world
from pipelines.training import calibrate, shape, space, tokens
from pipelines.training.course import Course, TrainingSchedule
from pipelines.training.pictures import Studio
from pipelines.training.questions import Catalogue
from pipelines.training.words import Phrasebook

ART = world.artwork()


@pytest.fixture(scope="module")
def phrases() -> Phrasebook:
    return Phrasebook(ART.concepts)


def course(phrases: Phrasebook, minutes: float = 60.0) -> Course:
    torch.manual_seed(1)
    words = tokens.build(phrases.corpus())
    cfg = shape.config(words.get_vocab_size(), backbone="mobilenetv4_conv_small_035", width=64, layers=1)
    return Course(shape.create(cfg), tokens.encoder(words, shape.CONTEXT), phrases, TrainingSchedule(minutes))


def test_every_text_has_a_target_of_weight_one(phrases: Phrasebook) -> None:
    texts, fronts, behinds = phrases.texts(random.Random(1), 200)
    assert np.allclose(fronts.sum(1), 1)
    assert set(behinds.sum(1)) <= {0.0, 1.0}
    assert all(texts)


def test_a_keyword_points_between_the_concepts_it_stands_for(phrases: Phrasebook) -> None:
    word = next(word for word in phrases.words if len(phrases.meanings[word]) == 3)
    table = space.directions(ART.concepts, 256)
    weights = torch.zeros(1, len(ART.concepts))
    weights[0, phrases.meanings[word]] = 1 / 3
    cosines = (space.aim(table, weights, torch.zeros(1, len(world.BACKGROUNDS))) @ table.T)[0]
    assert set(cosines.topk(3).indices.tolist()) == set(phrases.meanings[word])


def test_concepts_with_words_in_common_lie_nearer(phrases: Phrasebook) -> None:
    table = space.directions(ART.concepts, 256)[: len(ART.concepts)]
    likeness = torch.from_numpy(space.likeness(ART.concepts)).float().fill_diagonal_(0)
    cosines = table @ table.T
    assert cosines[likeness > 0.3].mean() > 4 * cosines[likeness < 0.01].abs().mean()


def test_reading_short_rows_gives_what_open_clips_tower_gives(phrases: Phrasebook) -> None:
    one = course(phrases)
    texts = ["dog", "a dog and an apple in a forest", "a cat", "two times rocket"]
    one.model.eval()
    with torch.inference_mode():
        whole = functional.normalize(one.model.text(one.tokenizer(texts)), dim=-1)  # type: ignore[operator]
        assert torch.allclose(one.text(texts), whole, atol=1e-5)


def test_a_few_steps_lower_the_loss(phrases: Phrasebook) -> None:
    one, rng, losses = course(phrases), random.Random(2), []
    one.steps = 200  # past the warming up
    for _ in range(15):
        texts, fronts, behinds = phrases.texts(rng, 64)
        losses.append(one.words_step(texts, torch.from_numpy(fronts), torch.from_numpy(behinds)))
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_a_stopped_course_goes_on_where_it_was(phrases: Phrasebook, tmp_path: Path) -> None:
    one = course(phrases)
    lesson = Studio(ART, seed=3).lesson(8, 64)
    one.pictures_step(torch.from_numpy(lesson.pixels), lesson.scenes, lesson.captions)
    one.save(tmp_path / "state.pt")
    other = course(phrases)
    other.resume(tmp_path / "state.pt")
    assert (other.steps, other.pictures_seen) == (1, 8)
    assert other.spent_s == pytest.approx(one.spent_s)
    for mine, theirs in zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_curve_of_relevance_is_the_share_of_right_answers() -> None:
    rng = np.random.default_rng(5)
    cosines = rng.uniform(0, 1, 40_000)
    right = (rng.uniform(0, 1, len(cosines)) < cosines**2).astype(float)
    xs, ys = calibrate.rising(cosines, right)
    curve = Curve(tuple(xs), tuple(ys))
    at = np.linspace(0.05, 0.95, 19)
    assert np.abs(curve.ppm(at) / PPM - at**2).max() < 0.05


def test_a_curve_never_falls_where_the_shares_do() -> None:
    cosines, right = np.linspace(0, 1, 600), np.tile([1.0, 0.0, 0.0], 200)
    right[400:] = 0.0
    Curve(*(tuple(points) for points in calibrate.rising(cosines, right)))


def test_an_answer_is_right_when_it_shows_one_of_each_group() -> None:
    shown = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1]], bool)
    catalogue = Catalogue(np.zeros((3, 2), np.float32), shown, np.arange(3))
    first = np.array([[0, 1, 2], [2, 1, 0]])
    right = catalogue.right(first, [[{0}, {1}], [{1, 2}]])
    assert right.tolist() == [[True, False, False], [True, False, True]]


def test_lessons_follow_from_their_seed() -> None:
    one, two = Studio(ART, seed=9).lesson(6, 64), Studio(ART, seed=9).lesson(6, 64)
    assert np.array_equal(one.pixels, two.pixels)
    assert one.captions == two.captions


@pytest.mark.slow
def test_the_command_trains_goes_on_and_leaves_a_folder_that_loads(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "pipelines.training", "--out", str(tmp_path), "--note-every-s", "1"]
    argv += ["--backbone", "mobilenetv4_conv_small_035", "--words-share", "0.2"]
    runs = []
    for minutes in ("0.7", "1.4"):
        subprocess.run([*argv, "--minutes", minutes], cwd=world.ARTWORK.parents[1], check=True)
        lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        runs.append(lines[sum(map(len, runs)) :])
    first, second = runs
    assert first[-1]["steps"] < second[0]["steps"]
    assert second[-1]["pictures"] >= first[-1]["pictures"] > 0
    assert all({"loss", "r1", "r5", "concept"} <= set(line) for line in first + second)
    assert encoder.load(str(tmp_path / "model")).texts(["a dog"]).shape == (1, shape.DIMENSIONS)
