"""The real encoder, loaded once a test run, and a gallery of painted scenes with their vectors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster import runtime
from cluster import settings as settings_module
from cluster.database import database
from cluster.settings import Settings
from pipelines.settings import ModelSettings
from serve.replica.encoding import QueryEncoder
from serve.settings import SearchSettings
from tests.conftest import fresh_database, on_ground
from tests.serve import scenes
from tests.serve.scenes import Gallery, Scenes


@pytest.fixture(scope="session")
def model() -> QueryEncoder:
    """The bundled model, as a deployment holds it."""
    made = settings_module.load(environ={})
    return QueryEncoder(made.section(ModelSettings), made.section(SearchSettings).image_pixels_max)


@pytest.fixture(scope="session")
def painted(model: QueryEncoder) -> Scenes:
    return scenes.paint(model)


@pytest.fixture(scope="session")
def hung(
    ground: Settings, _template: str, painted: Scenes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Settings, Gallery]]:
    """A deployment with the gallery in its catalogue, for tests that change nothing in it."""
    ends = runtime.endpoints(ground)
    with fresh_database(ground, _template) as url:
        settings = on_ground(tmp_path_factory.mktemp("gallery"), url, ends.s3, ends.redis_url)
        with database.connect(url) as connection:
            gallery = scenes.hang(connection, painted)
        yield settings, gallery
