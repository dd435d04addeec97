"""Questions about sample videos, and how good the answers to them are.

Asks for moments by plain caption, by keyword, by picture and by another moment, and judges the answers by the known content of
the samples. Knows only a function from a question to hits, not how it searches.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from benchmarks.run import Figure
from pipelines.models.relevance import PPM
from pipelines.samples import world, world_words
from pipelines.samples.samples import FilmedShot, Sample
from pipelines.training.pictures import Studio

HITS = 5
OVERLAP_MIN = 0.5
PICTURES = 300
PICTURE_SIDE = 270
BINS = 10  # of stated relevance


@dataclass(frozen=True)
class Hit:
    """An answer: a time range of a file."""

    file: str
    start_ms: int
    end_ms: int
    relevance_ppm: int = 0


@dataclass(frozen=True)
class Question:
    """A question about a clip, and what is a right answer to it.

    Right are the shot that it was made from, and other moments that show `concepts`. It is asked by text or by picture;
    with neither, it asks for moments like the shot.
    """

    file: str
    shot: FilmedShot
    concepts: frozenset[str]
    text: str = ""
    picture: Image.Image | None = None


Search = Callable[[Question], Sequence[Hit]]
Asked = Sequence[tuple[Question, Sequence[Hit]]]


def captions(written: Sequence[Sample], seed: int) -> list[Question]:
    """Return one question per clip: a plain caption of one of its shots."""
    rng = random.Random(f"captions {seed}")
    chosen = ((sample, rng.choice(sample.shots)) for sample in written)
    return [Question(sample.file, shot, frozenset(shot.concepts), shot.caption) for sample, shot in chosen]


def keywords(written: Sequence[Sample], seed: int) -> list[Question]:
    """Return one question per clip: a keyword. Every moment that shows a concept with this keyword is right."""
    rng = random.Random(f"keywords {seed}")
    concepts = {concept.name: concept for concept in world.artwork().concepts}
    questions = []
    for sample in written:
        shot = rng.choice(sample.shots)
        words = [word for name in shot.concepts for word in world_words.queries(concepts[name])]
        word = rng.choice(words) if words else shot.concepts[0]
        meant = frozenset(name for name, c in concepts.items() if word in world_words.queries(c) or word == name)
        questions.append(Question(sample.file, shot, meant, word))
    return questions


def pictures(written: Sequence[Sample], seed: int, count: int = PICTURES) -> list[Question]:
    """Return questions that are new pictures of single concepts in the clips."""
    rng = random.Random(f"pictures {seed}")
    concepts = {concept.name: concept for concept in world.artwork().concepts}
    seen = [(sample.file, shot, name) for sample in written for shot in sample.shots for name in shot.concepts]
    painter = Studio(world.artwork(), seed=seed, others=0.0, worn=False)
    questions = []
    for file, shot, name in rng.sample(seen, min(count, len(seen))):
        picture = Image.fromarray(painter.portrait(concepts[name].index, PICTURE_SIDE))
        questions.append(Question(file, shot, frozenset([name]), picture=picture))
    return questions


def likenesses(written: Sequence[Sample], seed: int) -> list[Question]:
    """Return a question for each clip that shares a concept with another clip: which moments are like one of its shots?"""
    rng = random.Random(f"likenesses {seed}")
    clips_with = Counter(name for sample in written for name in {n for shot in sample.shots for n in shot.concepts})
    questions = []
    for sample in written:
        shots = [shot for shot in sample.shots if any(clips_with[name] > 1 for name in shot.concepts)]
        if shots:
            shot = rng.choice(shots)
            questions.append(Question(sample.file, shot, frozenset(shot.concepts)))
    return questions


def overlap(hit: Hit, shot: FilmedShot) -> float:
    """Return the intersection over union of a hit and a shot, in time."""
    common = min(hit.end_ms, shot.end_ms) - max(hit.start_ms, shot.start_ms)
    union = max(hit.end_ms, shot.end_ms) - min(hit.start_ms, shot.start_ms)
    return max(0, common) / union if union > 0 else 0.0


def shows(hit: Hit, truth: dict[str, Sample], concepts: frozenset[str], *, whole: bool) -> bool:
    """Return whether the shot that a hit overlaps most shows all (`whole`) or any of the concepts."""
    best = max(truth[hit.file].shots, key=lambda shot: overlap(hit, shot))
    found = concepts & set(best.concepts)
    return found == concepts if whole else bool(found)


def judge(written: Sequence[Sample], search: Search, seed: int) -> list[Figure]:
    """Put all questions to `search`, and return the figures."""
    truth = {sample.file: sample for sample in written}
    by_caption, by_keyword = _ask(captions(written, seed), search), _ask(keywords(written, seed), search)
    by_picture, by_likeness = _ask(pictures(written, seed), search), _ask(likenesses(written, seed), search)
    others = [(question, _elsewhere(question, hits)) for question, hits in by_likeness]
    return [
        *_of_captions(by_caption, truth),
        _figure("keyword R@5", _right(by_keyword, truth, whole=False), HITS, 0.70),
        _figure("picture, a moment of the same concept R@1", _right(by_picture, truth, whole=False), 1, 0.85),
        _figure("more like this, another clip of the same concept R@1", _right(others, truth, whole=False), 1, 0.85),
        _honesty("text", [*_stated(by_caption, truth, whole=True), *_stated(by_keyword, truth, whole=False)]),
        _honesty("picture or moment", [*_stated(by_picture, truth, whole=False), *_stated(others, truth, whole=False)]),
    ]


def _ask(questions: Sequence[Question], search: Search) -> Asked:
    return [(question, search(question)[:HITS]) for question in questions]


def _elsewhere(question: Question, hits: Sequence[Hit]) -> list[Hit]:
    return [hit for hit in hits if hit.file != question.file]


def _of_captions(asked: Asked, truth: dict[str, Sample]) -> list[Figure]:
    own = [[hit.file == question.file for hit in hits] for question, hits in asked]
    right = _right(asked, truth, whole=True)
    firsts = [[overlap(hits[0], q.shot) >= OVERLAP_MIN] for q, hits in asked if hits and hits[0].file == q.file]
    return [
        _figure("caption R@1, the very clip", own, 1, 0.80),
        _figure("caption R@5, the very clip", own, HITS, 0.95),
        _figure("caption R@1, any moment that shows it all", right, 1),
        _figure("caption R@5, any moment that shows it all", right, HITS),
        _figure("the right moment (IoU >= 0.5) of clips found at rank 1", firsts, 1, 0.85),
    ]


def _right(asked: Asked, truth: dict[str, Sample], *, whole: bool) -> list[list[bool]]:
    return [[shows(hit, truth, question.concepts, whole=whole) for hit in hits] for question, hits in asked]


def _figure(name: str, found: Sequence[Sequence[bool]], count: int, wanted: float | None = None) -> Figure:
    """Make a figure: the share of questions with at least one right answer among their first `count`."""
    share = float(np.mean([any(hits[:count]) for hits in found])) if found else 0.0
    value = f"{share:.3f} of {len(found)}"
    return Figure(name, value) if wanted is None else Figure(name, value, f"{wanted:.2f} wanted", share / wanted)


def _stated(asked: Asked, truth: dict[str, Sample], *, whole: bool) -> list[tuple[float, bool]]:
    """Return the stated relevance (0 to 1) of each answer, and whether the answer is right."""
    return [
        (hit.relevance_ppm / PPM, shows(hit, truth, question.concepts, whole=whole))
        for question, hits in asked
        for hit in hits
    ]


def _honesty(kind: str, stated: Sequence[tuple[float, bool]]) -> Figure:
    """Make a figure of calibration: the mean gap between stated relevance and the share of right answers, over ten bins."""
    relevance, right = np.array([s for s, _ in stated]), np.array([float(r) for _, r in stated])
    bins = np.minimum((relevance * BINS).astype(int), BINS - 1)
    gaps = [(bins == b).mean() * abs(relevance[bins == b].mean() - right[bins == b].mean()) for b in np.unique(bins)]
    value = f"{relevance.mean():.3f} stated, {right.mean():.3f} right, gap {sum(gaps):.3f} of {len(stated)} answers"
    return Figure(f"relevance of answers to a {kind}", value)
