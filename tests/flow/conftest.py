"""The whole stack, once for all flow tests, started and used through the command line as a stranger would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import samples
from tests.stack import Stack, running

SEED = 1  # the demo's own, of which the README speaks


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("the stack")) as made:
        yield made


@pytest.fixture(scope="package")
def catalogue_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("catalogue"))


@pytest.fixture(scope="package")
def catalogue(stack: Stack, catalogue_folder: str) -> list[samples.Sample]:
    """The demo's videos, good and bad, ingested."""
    made = samples.demo(Path(catalogue_folder), SEED)
    job = stack.json("ingest", catalogue_folder)
    assert job["status"] == "succeeded", job
    return made
