"""The target space of both towers of the bundled model.

Every concept and background has a fixed direction: mostly its own, partly shared with concepts that have keywords or a
kind in common, so that "food" is near everything edible. The target of a scene or a text is the mean of what it names.
With fixed targets pictures and words can be trained separately by plain classification, which converges in an hour of
CPU time, where contrasting the two alone would not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.samples.world import BACKGROUNDS, Concept

SHARED = 0.35  # share of a concept's direction that follows from its keywords
BEHIND = 0.35  # weight of the background, where that of the concepts is 1


def likeness(concepts: Sequence[Concept]) -> NDArray[np.float64]:
    """Return the cosines between the concepts' words, in which rare words weigh more.

    Args:
        concepts: The concepts.

    Returns:
        float64 (concepts, concepts).
    """
    words = [{*c.keywords, *c.name.split(), f"kind:{c.kind}"} for c in concepts]
    vocabulary = {word: i for i, word in enumerate(sorted(set().union(*words)))}
    table = np.zeros((len(concepts), len(vocabulary)))  # 1 where a concept has a word
    for row, concept_words in zip(table, words, strict=True):
        row[[vocabulary[word] for word in concept_words]] = 1
    table *= np.log(len(concepts) / table.sum(0))
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    gram: NDArray[np.float64] = table @ table.T
    return gram


def directions(concepts: Sequence[Concept], dimensions: int, seed: int = 0) -> torch.Tensor:
    """Return the target directions.

    Args:
        concepts: The concepts.
        dimensions: Of the space.
        seed: Seed of the directions' own parts.

    Returns:
        float32 (concepts + backgrounds, dimensions), unit length.
    """
    rng = np.random.default_rng(seed)
    values, vectors = np.linalg.eigh(likeness(concepts))
    meaning = vectors[:, -dimensions:] * np.sqrt(np.clip(values[-dimensions:], 0, None))  # (concepts, dimensions)
    turn = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0][: meaning.shape[1]]
    targets = rng.normal(size=(len(concepts) + len(BACKGROUNDS), dimensions))
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    targets[: len(concepts)] = np.sqrt(1 - SHARED) * targets[: len(concepts)] + np.sqrt(SHARED) * (meaning @ turn)
    table = torch.from_numpy(targets).float()
    return torch.nn.functional.normalize(table, dim=-1)


def aim(table: torch.Tensor, concepts: torch.Tensor, backgrounds: torch.Tensor) -> torch.Tensor:
    """Return the targets of texts or scenes.

    Args:
        table: float32 (concepts + backgrounds, dimensions), as `directions` returns it.
        concepts: float32 (n, concepts), weights.
        backgrounds: float32 (n, backgrounds), weights; all zero where none is named.

    Returns:
        float32 (n, dimensions), unit length.
    """
    count = concepts.shape[1]
    front = torch.nn.functional.normalize(concepts @ table[:count], dim=-1)
    return torch.nn.functional.normalize(front + BEHIND * (backgrounds @ table[count:]), dim=-1)
