"""One ground for all tests of the simulation, since making one reads the whole state machine of the schema."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.settings import Settings
from tests.conftest import fresh_database
from tests.ledger.simulator.ground import Ground


@pytest.fixture(scope="package")
def stage(ground: Settings, _template: str) -> Iterator[Ground]:
    with fresh_database(ground, _template) as url, Ground(url) as made:
        yield made


@pytest.fixture
def places(ground: Settings, _template: str) -> Iterator[tuple[str, str]]:
    """Two databases, for processes side by side."""
    with fresh_database(ground, _template) as one, fresh_database(ground, _template) as other:
        yield one, other
