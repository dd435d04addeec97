"""A compound that is written as two words is the one that the model was taught, and nothing else is read otherwise."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from pipelines.models import compounds, encoder
from pipelines.models.compounds import Compounds
from pipelines.samples import world, world_words
from pipelines.training.words import Phrasebook

BUNDLED = encoder.MODELS / "pixr-emoji"
ART = world.artwork()


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a Fire  fighter at night", "a Firefighter at night"),
        ("two fire fighters", "two firefighters"),
        ("fire-fighter, sun flower", "firefighter, sunflower"),
        ("campfire fighter", "campfire fighter"),
        ("a wild-fire fighter", "a wild-fire fighter"),
        ("fire fighterly", "fire fighterly"),
        ("fire and fighter", "fire and fighter"),
        ("", ""),
    ],
)
def test_two_words_are_joined_where_they_stand_side_by_side(text: str, read: str) -> None:
    assert Compounds(("fire fighter", "sun flower")).joined(text) == read


def test_a_folder_without_them_reads_texts_as_they_are(tmp_path: Path) -> None:
    assert Compounds.of(tmp_path).joined("fire fighter") == Compounds.of(None).joined("fire fighter") == "fire fighter"
    compounds.write(tmp_path, ["fire fighter"])
    assert Compounds.of(tmp_path).joined("fire fighter") == "firefighter"


def test_those_of_the_bundled_model_are_those_of_its_world_and_change_nothing_that_it_was_taught() -> None:
    phrases, held = Phrasebook(ART.concepts), Compounds.of(BUNDLED)
    assert list(held.parted) == phrases.compounds()
    assert {"fire fighter", "sun flower", "foot ball", "rain bow"} <= set(held.parted)
    assert not {"hot dog", "ice cream", "the me"} & set(held.parted)
    rng = random.Random(5)
    scenes = [world.compose(rng, rng.sample(range(len(ART.concepts)), 3), moving=False) for _ in range(2000)]
    taught = [*phrases.names, *phrases.words, *(world_words.plain(each, ART.concepts) for each in scenes)]
    assert [text for text in taught if held.joined(text) != text] == []


def test_a_fire_fighter_is_a_firefighter_and_no_ninja() -> None:
    model = encoder.load("pixr-emoji")
    names = [each.name for each in ART.concepts]
    asked = ["fire fighter", "FIRE-FIGHTER", "firefighter"]
    vectors = model.texts(asked)
    assert np.allclose(vectors[0], vectors[1:], atol=1e-5)
    assert [names[place] for place in (vectors @ model.texts(names).T).argmax(1)] == ["firefighter"] * len(asked)
