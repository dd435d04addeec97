"""The space that both towers of the bundled model learn to point into.

Every concept and background has one fixed direction: mostly its own, partly shared with concepts that have keywords
or a kind in common, so that "food" lies near everything edible. A scene or a text points to the mean of what it names.
Fixed targets let pictures and words be learned apart and by plain classification, which converges in an hour of CPU
where contrast between the two alone would not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.samples.world import BACKGROUNDS, Concept

SHARED = 0.35  # of a concept's direction that follows from its keywords
BEHIND = 0.35  # weight of the background beside what is in front of it


def likeness(concepts: Sequence[Concept]) -> NDArray[np.float64]:
    """Cosines between the concepts' words, rare words counting more."""
    words = [{*c.keywords, *c.name.split(), f"kind:{c.kind}"} for c in concepts]
    vocabulary = {word: i for i, word in enumerate(sorted(set().union(*words)))}
    table = np.zeros((len(concepts), len(vocabulary)))
    for row, own in zip(table, words, strict=True):
        row[[vocabulary[word] for word in own]] = 1
    table *= np.log(len(concepts) / table.sum(0))
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    gram: NDArray[np.float64] = table @ table.T
    return gram


def directions(concepts: Sequence[Concept], dimensions: int, seed: int = 0) -> torch.Tensor:
    """Unit vectors [concepts + backgrounds, dimensions]."""
    rng = np.random.default_rng(seed)
    values, vectors = np.linalg.eigh(likeness(concepts))
    meaning = vectors[:, -dimensions:] * np.sqrt(np.clip(values[-dimensions:], 0, None))
    turn = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0][: meaning.shape[1]]
    own = rng.normal(size=(len(concepts) + len(BACKGROUNDS), dimensions))
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    own[: len(concepts)] = np.sqrt(1 - SHARED) * own[: len(concepts)] + np.sqrt(SHARED) * (meaning @ turn)
    table = torch.from_numpy(own).float()
    return torch.nn.functional.normalize(table, dim=-1)


def aim(table: torch.Tensor, concepts: torch.Tensor, backgrounds: torch.Tensor) -> torch.Tensor:
    """Where texts or scenes should point: rows of weights over concepts, and over backgrounds (all zero: unnamed)."""
    count = concepts.shape[1]
    front = torch.nn.functional.normalize(concepts @ table[:count], dim=-1)
    return torch.nn.functional.normalize(front + BEHIND * (backgrounds @ table[count:]), dim=-1)
