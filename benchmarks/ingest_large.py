"""The whole ingest job beside a bare loop, as `ingest` does it, with a model of ViT-B/32's size."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import big_model, ingest
from benchmarks.run import Figure
from cluster.settings import Settings


def run(settings: Settings) -> Iterator[Figure]:
    """Measure with a model of random weights, which costs as much as a trained one."""
    yield from ingest.beside(settings, str(big_model.folder(settings)), f"{big_model.ARCHITECTURE}, random weights")
