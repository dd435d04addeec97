"""The whole stack, once for all flow tests, started and used through the command line as a stranger would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.samples import samples
from tests.stack import Stack, running


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("the stack")) as made:
        yield made


@pytest.fixture(scope="package")
def catalogue(stack: Stack, demo_folder: Path) -> list[samples.Sample]:
    """The demo's videos, good and bad, ingested."""
    job = stack.json("ingest", str(demo_folder))
    assert job["status"] == "succeeded", job
    return samples.read(demo_folder)
