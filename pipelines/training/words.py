"""Training texts as people might type them, with their targets in the space of both towers.

A text mentions one to three things, often in a template, sometimes with a background. Each mention is the name of a
concept or one of its keywords. A keyword may belong to several concepts; its target is then midway between theirs.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipelines.samples.world import BACKGROUNDS, Concept
from pipelines.samples.world_words import BEHIND, TEMPLATES, queries, with_article

Rows = NDArray[np.float32]
PART_LETTERS_MIN = 3  # of each part of a compound, so that "the me" and "me at" are not taken for compounds


class Phrasebook:
    """Maker of texts with their targets; it knows all mentions, each with the concepts that it stands for."""

    def __init__(self, concepts: Sequence[Concept]) -> None:
        self.concepts = concepts
        self.names = [concept.name for concept in concepts]
        self.meanings: dict[str, list[int]] = {}
        for concept in concepts:
            for word in queries(concept):
                self.meanings.setdefault(word, []).append(concept.index)
        for concept in concepts:
            self.meanings[concept.name] = [concept.index]
        self.words = sorted(set(self.meanings) - set(self.names))

    def corpus(self) -> list[str]:
        """Return all words of the world, for the tokenizer."""
        behind = [phrase for phrases in BEHIND.values() for phrase in phrases]
        return [
            *self.names,
            *self.words,
            *behind,
            *(t.format("") for t in TEMPLATES),
            "two three four five six times",
        ]

    def compounds(self) -> list[str]:
        """Return the compound words of the world in two parts, except those also spelled as two words ("hot dog")."""
        spoken = [re.findall("[a-z]+", text.lower()) for text in self.corpus()]
        words = {word for text in spoken for word in text}
        apart = {pair for text in spoken for pair in pairwise(text)}
        parted = {
            (word[:cut], word[cut:])
            for word in words
            for cut in range(PART_LETTERS_MIN, len(word) + 1 - PART_LETTERS_MIN)
        }
        return sorted(" ".join(pair) for pair in parted - apart if words.issuperset(pair))

    def texts(self, rng: random.Random, count: int) -> tuple[list[str], Rows, Rows]:
        """Return texts, and float32 weights of the concepts (count, concepts) and backgrounds (count, backgrounds) meant."""
        texts = []
        fronts = np.zeros((count, len(self.concepts)), np.float32)
        behinds = np.zeros((count, len(BACKGROUNDS)), np.float32)
        for front, behind in zip(fronts, behinds, strict=True):
            mentions = []
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                mention, meaning = self.mention(rng)
                front[meaning] += 1 / len(meaning)
                mentions.append(mention)
            text = self._joined(rng, mentions)
            if rng.random() < 0.4:
                name = rng.choice(BACKGROUNDS)
                behind[BACKGROUNDS.index(name)] = 1
                text = f"{text} {rng.choice(BEHIND[name])}"
            texts.append(rng.choice(TEMPLATES).format(text) if rng.random() < 0.6 else text)
        return texts, fronts / fronts.sum(1, keepdims=True), behinds

    def mention(self, rng: random.Random) -> tuple[str, list[int]]:
        """Return a name, with or without article or number, or a keyword; and the concepts that it means."""
        if rng.random() < 0.5:
            word = rng.choice(self.words)
            return word, self.meanings[word]
        name = rng.choice(self.names)
        spelled = (
            name,
            with_article(name),
            with_article(name),
            f"{rng.choice(('two', 'three', 'four'))} times {name}",
        )
        return rng.choice(spelled), self.meanings[name]

    def _joined(self, rng: random.Random, mentions: list[str]) -> str:
        """Join mentions into one text."""
        if rng.random() < 0.2 or len(mentions) == 1:
            return " ".join(mentions)
        return f"{', '.join(mentions[:-1])} and {mentions[-1]}"
