"""A model is loaded once to be asked what it is; then its files answer for it, until they change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import Connection

from cluster import database
from cluster.errors import Rejected
from pipelines import encoder, models
from pipelines.settings import ModelSettings
from pipelines.stages import Model


class Loaded(Exception):
    """Somebody wanted to load it."""


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Connection]:
    with database.connect(postgres_url, autocommit=True) as opened:
        yield opened


@pytest.fixture
def unloadable(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> Model:
        raise Loaded

    monkeypatch.setattr(models, "_registered", load)


def know(connection: Connection, name: str) -> None:
    connection.execute("SELECT media.register_model(%s, 256, 'print')", (name,))
    connection.execute("UPDATE media.models SET files = %s, image_size = 64, fit = 'squash'", (encoder.digest(name),))


def test_a_model_whose_files_are_the_same_is_not_loaded(
    connection: Connection, tiny_model: Path, unloadable: None
) -> None:
    know(connection, str(tiny_model))
    made = models.register(connection, ModelSettings(name=str(tiny_model)), 0.5)
    assert made == Model(1, str(tiny_model), 64, "squash", "print")


def test_a_model_that_is_new_or_whose_files_have_changed_is_loaded(
    connection: Connection, tiny_model: Path, unloadable: None
) -> None:
    with pytest.raises(Loaded):
        models.register(connection, ModelSettings(name=str(tiny_model)), 0.5)
    know(connection, str(tiny_model))
    connection.execute("UPDATE media.models SET files = 'other'")
    with pytest.raises(Loaded):
        models.register(connection, ModelSettings(name=str(tiny_model)), 0.5)


def test_a_model_without_a_folder_is_always_loaded(connection: Connection, unloadable: None) -> None:
    know(connection, "ViT-B-32/laion2b_s34b_b79k")
    with pytest.raises(Loaded):
        models.register(connection, ModelSettings(name="ViT-B-32/laion2b_s34b_b79k"), 0.5)


def test_the_bundled_model_says_what_it_is(connection: Connection, unloadable: None) -> None:
    said = encoder.stated("pixr-emoji")
    assert said == encoder.load("pixr-emoji").facts(), "write it again: pipelines.encoder.state"
    made = models.register(connection, ModelSettings(name="pixr-emoji"), 0.5)
    assert made == Model(1, "pixr-emoji", said["image_size"], said["fit"], said["fingerprint"])
    assert models.register(connection, ModelSettings(name="pixr-emoji"), 0.5) == made


def test_what_a_folder_says_of_other_weights_is_not_believed(
    connection: Connection, tiny_model: Path, tmp_path: Path, unloadable: None
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    encoder.state(folder)
    assert encoder.stated(str(folder)) == encoder.load(str(folder)).facts()
    config = folder / "open_clip_config.json"
    config.write_text(config.read_text() + "\n")
    assert encoder.stated(str(folder)) is None
    with pytest.raises(Loaded):
        models.register(connection, ModelSettings(name=str(folder)), 0.5)


@pytest.mark.parametrize("words", ["", "[]", "{}", '{"weights": "x", "dimensions": "many"}', '{"weights": 1}'])
def test_a_folder_that_says_nonsense_of_itself_is_refused(tiny_model: Path, tmp_path: Path, words: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / encoder.FACTS).write_text(words)
    with pytest.raises(Rejected, match=r"facts\.json") as refused:
        encoder.stated(str(folder))
    assert refused.value.code == "model-broken"
    assert "delete it" in str(refused.value.hint)


def test_from_which_cosine_on_pictures_are_the_same_is_said_by_the_settings_else_by_the_model(
    connection: Connection, tiny_model: Path, tmp_path: Path, unloadable: None
) -> None:
    """What of several videos is a copy, and what of one keeps its time, is one question."""
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    curve = {"cosines": [0.0, 1.0], "relevance_ppm": [0, 1_000_000]}
    (folder / "calibration.json").write_text(json.dumps({"texts": curve, "pictures": curve, "same": 0.95}))
    know(connection, str(folder))
    for said_ppm, same in ((-1, 0.95), (0, 0.95), (900_000, 0.9)):
        made = models.register(connection, ModelSettings(name=str(folder), copies_cosine_ppm=said_ppm), 0.5)
        assert made.same == same
