"""What is near enough to be shown: texts that the model knows, and the nearer the better they could be met."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

from pipelines.models import encoder, relevance
from pipelines.models.cutoff import PLAIN_PPM, REFERENCE, Cutoff, Reference
from pipelines.models.relevance import Calibration
from pipelines.training.cut import LabelledTexts, nonsense

EAST, NORTH, WEST = np.array([1, 0], np.float32), np.array([0, 1], np.float32), np.array([-1, 0], np.float32)
COSINES = np.linspace(-1, 1, 41)
HELD = Reference(np.stack([EAST]), np.stack([EAST, NORTH]))


def test_a_text_that_is_not_known_is_met_by_nothing() -> None:
    cutoff = Cutoff(known_min=0.5, reference=HELD)
    assert cutoff.least(NORTH) == math.inf
    assert not cutoff.passes(relevance.general(), NORTH, COSINES, asked_by_text=True).any()
    assert cutoff.least(EAST) == 0


def test_the_least_cosine_rises_with_what_a_text_could_attain_and_has_a_floor() -> None:
    cutoff = Cutoff(known_min=-1, floor=0.3, base=0.1, slope=0.5, reference=HELD)
    assert cutoff.least(EAST) == pytest.approx(0.6)
    assert cutoff.least(WEST) == pytest.approx(0.3)
    shown = COSINES[cutoff.passes(relevance.general(), EAST, COSINES, asked_by_text=True)]
    assert shown.min() == pytest.approx(0.6)


def test_a_model_without_a_reference_is_cut_by_relevance(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        cutoff, curves = Cutoff.of(folder), relevance.general()
        for asked_by_text in (True, False):
            passed = cutoff.passes(curves, EAST, COSINES, asked_by_text=asked_by_text)
            assert (passed == (curves.ppm(COSINES, asked_by_text=asked_by_text) >= PLAIN_PPM)).all()
    assert not Cutoff().passes(relevance.general(), EAST, np.array([]), asked_by_text=True).size


def test_numbers_that_make_no_sense_are_refused() -> None:
    for wrong in ({"texts_ppm": -1}, {"pictures_ppm": 1_000_001}, {"slope": -0.1}):
        with pytest.raises(ValueError, match=r"."):
            Cutoff(**wrong)


def test_the_bundled_model_has_a_cut_that_was_fitted_to_its_own_weights() -> None:
    folder = encoder.MODELS / "pixr-emoji"
    fitted = json.loads((folder / relevance.FILE).read_text(encoding="utf-8"))["cut"]
    cutoff = Cutoff.of(folder)
    assert (folder / REFERENCE).stat().st_size < 2_000_000
    assert cutoff.reference is not None
    assert {name: getattr(cutoff, name) for name in fitted} == fitted
    model = encoder.load("pixr-emoji", threads=1)
    gorilla, noise = model.texts(["gorilla", "asdfghjkl"])
    assert cutoff.reference.known(gorilla) > 0.999  # else the reference is of other weights: fit the cut again
    assert 0.2 < cutoff.least(gorilla) < 0.5
    assert cutoff.least(noise) == math.inf
    assert cutoff.passes(Calibration.of(folder), gorilla, np.array([0.7, 0.1]), asked_by_text=True).tolist() == [1, 0]


def test_what_the_fit_counts_as_lost_is_what_the_cut_hides() -> None:
    cutoff = Cutoff(known_min=0.5, floor=0.3, base=0.1, slope=0.5, reference=HELD)
    texts = np.stack([EAST, NORTH, (EAST + NORTH) / 2**0.5]).astype(np.float32)
    best = np.array([0.61, 0.9, 0.4])
    asked = LabelledTexts(best, (texts @ HELD.texts.T).max(1), (texts @ HELD.pictures.T).max(1))
    hidden = [
        not cutoff.passes(relevance.general(), text, np.array([cosine]), asked_by_text=True)[0]
        for text, cosine in zip(texts, best, strict=True)
    ]
    assert asked.lost(cutoff).tolist() == hidden == [False, True, True]


def test_nonsense_repeats_by_its_seed() -> None:
    assert nonsense(random.Random(1), 8) == nonsense(random.Random(1), 8)
    assert len(set(nonsense(random.Random(1), 100))) > 90
