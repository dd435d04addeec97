"""The visual world: what it shows, how it is named, and that a scene looks alike wherever it is painted."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from pipelines.samples import world, world_paint, world_words
from pipelines.training.pictures import Studio

ART = world.artwork()


def test_the_artwork_is_small_and_every_concept_has_a_picture_and_a_name_of_its_own() -> None:
    size = sum(file.stat().st_size for file in world.ARTWORK.iterdir())
    assert size <= 8_000_000
    assert len(ART.concepts) >= 500
    assert len({concept.name for concept in ART.concepts}) == len(ART.concepts)
    for concept in ART.concepts:
        assert world.SEEN in concept.sets
        alpha = np.asarray(ART.sprite(concept.index))[..., 3]
        assert (alpha > 128).mean() > 0.02, concept.name


@pytest.mark.parametrize("name", ["noto-v1", "fluent-emoji-flat", "fxemoji"])
def test_the_other_sets_show_the_concepts_they_claim(name: str) -> None:
    shown = [concept for concept in ART.concepts if name in concept.sets]
    assert len(shown) > 200
    assert all(np.asarray(ART.sprite(concept.index, name))[..., 3].any() for concept in shown[::7])


def test_scenes_follow_from_their_seed() -> None:
    one, two, three = (world.compose(random.Random(seed), [1, 2]) for seed in (5, 5, 6))
    assert one == two != three


def test_the_plain_caption_names_everything_to_be_seen() -> None:
    rng = random.Random(1)
    for _ in range(100):
        scene = world.compose(rng, rng.sample(range(len(ART.concepts)), rng.randint(1, 3)))
        caption = world_words.plain(scene, ART.concepts)
        assert all(ART.concepts[index].name in caption for index in scene.concepts)
        assert world_words.BEHIND[scene.background.name][0] in caption


def test_items_stay_in_the_frame_however_long_they_move() -> None:
    rng = random.Random(2)
    for _ in range(50):
        scene = world.compose(rng, [1, 2, 3])
        for second in (0.0, 1.0, 7.0, 100.0):
            assert all(0 <= item.x <= 1 and 0 <= item.y <= 1 for item in scene.at(second).items)


@pytest.mark.parametrize("name", world.BACKGROUNDS)
def test_every_background_can_be_painted_at_any_shape(name: str) -> None:
    for width, height in ((64, 64), (160, 90), (90, 160)):
        painted = world_paint.background(world.Background(name, 3), width, height)
        assert painted.shape == (height, width, 3)


def test_an_unknown_background_is_refused() -> None:
    with pytest.raises(ValueError, match="no background"):
        world.Background("nowhere", 1)


def test_training_pictures_look_like_frames_of_the_same_scene() -> None:
    rng = random.Random(4)
    studio = Studio(ART, seed=1, others=0.0, worn=False)
    scene = world.compose(rng, rng.sample(range(len(ART.concepts)), 3), wide=16 / 9)
    plain = world.Scene(world.Background("grey", 1), scene.items)
    frame = world_paint.Painter(ART, 640, 360).paint(plain)
    squashed = np.asarray(Image.fromarray(frame).resize((96, 96), Image.Resampling.BOX), np.float32)
    behind = Image.fromarray(world_paint.background(plain.background, 128, 128))
    painted = studio.paint(plain, behind, 16 / 9, 96).astype(np.float32)
    assert np.abs(painted - squashed).mean() < 6
    assert np.corrcoef(painted.ravel(), squashed.ravel())[0, 1] > 0.95


@pytest.mark.parametrize(
    ("name", "spoken"),
    [
        ("dog", "a dog"),
        ("apple", "an apple"),
        ("jeans", "jeans"),
        ("octopus", "an octopus"),
        ("wine glass", "a wine glass"),
    ],
)
def test_names_get_their_article(name: str, spoken: str) -> None:
    assert world_words.with_article(name) == spoken
