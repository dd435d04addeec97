"""The encoder as the replicas see it: what they must know of its model, and what they may ask it.

Wherever it runs; `encoding` is the deployment that holds it and the way there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.models.cutoff import Cutoff
from pipelines.models.relevance import Calibration

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class EncoderInfo:
    """What a replica must know of the model that encodes queries."""

    name: str
    dimensions: int
    fingerprint: str
    calibration: Calibration
    cutoff: Cutoff = field(default_factory=Cutoff, compare=False)  # what is too far to be shown


class Encoding(Protocol):
    """The encoder, wherever it runs. A model is named as in the catalogue, "" is the encoder's own.

    Every call may raise `Temporary`.
    """

    async def answers(self) -> None:
        """Ask the encoder itself, whatever is known of it."""

    async def facts(self, model: str = "") -> EncoderInfo: ...

    def prepare(self, models: Iterable[str]) -> None: ...

    async def text(self, text: str, model: str = "") -> Vector: ...

    async def image(self, data: bytes, model: str = "") -> Vector: ...

    async def close(self) -> None: ...
