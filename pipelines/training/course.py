"""The course of a training: words first, then pictures of growing size, and finally both contrasted with each other.

Everything is planned by the share of the time budget that is used up, so a slow machine trains less, not longer. The
state (weights, optimizers, running average, clock) is one file; a run that finds it continues from there.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from pipelines.samples.world import BACKGROUNDS, Scene
from pipelines.training import space
from pipelines.training.words import Phrasebook

SIZES = ((0.15, 48), (0.50, 64), (0.80, 80), (1.01, 96))  # until a share of the pictures' time: pixels a side
JOINT_FROM = 0.82  # from here on pictures and captions are contrasted as well
AVERAGE, AVERAGE_EVERY = 0.99, 4  # weight of the old average, and steps between updates
LEVEL_UP, LEVEL_STEP = 0.45, 0.004  # accuracy above which lessons become harder, and by how much a step
LEVEL_BY = ((0.25, 0.0), (0.45, 1.0), (0.65, 2.0))  # share of the pictures' time: least level


@dataclass(frozen=True)
class TrainingSchedule:
    """Time budget, batch sizes and learning rates."""

    minutes: float  # wall-clock time in all
    words_share: float = 0.07  # of the time, for words alone at the beginning
    batch: int = 64  # pictures
    batch_joint: int = 192  # pictures, once they are contrasted with captions
    texts: int = 256  # a batch
    rate: float = 2e-3
    words_rate: float = 1.5e-3


class Course:
    """The state of a training, and its steps."""

    def __init__(self, model: torch.nn.Module, tokenizer: Any, phrases: Phrasebook, plan: TrainingSchedule) -> None:
        """Set up the optimizers, the targets and the running average.

        Args:
            model: open_clip's model, with random weights.
            tokenizer: From texts to token ids, (texts, context).
            phrases: Texts with their targets.
            plan: Time budget, batch sizes and learning rates.
        """
        self.model, self.tokenizer, self.phrases, self.plan = model, tokenizer, phrases, plan
        self.table = space.directions(phrases.concepts, int(model.text.text_projection.shape[1]))  # type: ignore[union-attr, index]
        self.scale = torch.nn.Parameter(torch.tensor(math.log(16.0)))
        pictures, words = list(_parts(model, "visual")), list(_parts(model, "text"))
        self.pictures_optimizer = torch.optim.AdamW(_groups(pictures), lr=plan.rate, weight_decay=0.05)
        self.words_optimizer = torch.optim.AdamW(_groups(words), lr=plan.words_rate, weight_decay=0.02)
        self.pictures_optimizer.add_param_group({"params": [self.scale], "weight_decay": 0.0})
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.words_optimizer.zero_grad()
        self.spent_s, self.steps, self.pictures_seen, self.texts_seen = 0.0, 0, 0, 0
        self.level, self.accuracy = 0.0, 0.0
        self._since = time.monotonic()

    @property
    def share(self) -> float:
        """The share of the time budget that is used up."""
        return min(1.0, (self.spent_s + time.monotonic() - self._since) / (60 * self.plan.minutes))

    @property
    def pictures_share(self) -> float:
        """The share of the pictures' time that is used up; negative while only words are trained."""
        return (self.share - self.plan.words_share) / (1 - self.plan.words_share)

    @property
    def side(self) -> int:
        """The present size of pictures, in pixels a side."""
        return next(side for until, side in SIZES if self.pictures_share < until)

    @property
    def lesson(self) -> tuple[int, int, float]:
        """The lesson wanted at present: number of pictures, pixels a side, and level."""
        progress = max(0.0, self.pictures_share)
        least = float(np.interp(progress, [at for at, _ in LEVEL_BY], [level for _, level in LEVEL_BY]))
        batch = self.plan.batch_joint if progress >= JOINT_FROM else self.plan.batch
        return batch, self.side, max(self.level, least)

    def words_step(self, texts: list[str], fronts: torch.Tensor, behinds: torch.Tensor) -> float:
        """Train on texts, towards their targets.

        Args:
            texts: The texts.
            fronts: float32 (texts, concepts), weights of the concepts that each means.
            behinds: float32 (texts, backgrounds), weights of the backgrounds; all zero where none is named.

        Returns:
            The loss.
        """
        progress = min(1.0, self.share / self.plan.words_share)
        late = _cosine(max(0.0, self.pictures_share), self.steps)
        self._rate(self.words_optimizer, self.plan.words_rate * (1 - 0.8 * progress) * late)
        vectors = self.text(texts)
        loss = self._loss(vectors, fronts, behinds)
        self._apply(loss, self.words_optimizer)
        self.texts_seen += len(texts)
        return float(loss.detach())

    def pictures_step(self, pixels: torch.Tensor, scenes: list[Scene], captions: list[str]) -> float:
        """Train on pictures; near the end also contrast them with their captions.

        Args:
            pixels: uint8 (pictures, side, side, 3).
            scenes: What each shows.
            captions: A caption of each.

        Returns:
            The loss.
        """
        progress = max(0.0, self.pictures_share)
        self._rate(self.pictures_optimizer, self.plan.rate * _cosine(progress, self.steps))
        self._rate(self.words_optimizer, 0.3 * self.plan.words_rate * _cosine(progress, self.steps))
        with torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu.get_capabilities().get("avx512_bf16", False)):
            vectors = self.model.visual(normal(pixels))  # type: ignore[operator]
        vectors = functional.normalize(vectors.float(), dim=-1)  # (pictures, dimensions)
        fronts, behinds = targets(scenes, len(self.phrases.concepts))
        self._learned(vectors.detach() @ self.table[: fronts.shape[1]].T, fronts)
        loss = self._loss(vectors, fronts, behinds)
        if progress >= JOINT_FROM:
            loss = loss + 0.5 * self._contrast(vectors, self.text(captions))
        self._apply(loss, self.pictures_optimizer, self.words_optimizer if progress >= JOINT_FROM else None)
        self.pictures_seen += len(pixels)
        return float(loss.detach())

    def _learned(self, likeness: torch.Tensor, fronts: torch.Tensor) -> None:
        """Update the accuracy, from cosines (pictures, concepts), and make lessons harder when it is high."""
        right = fronts.gather(1, likeness.argmax(1, keepdim=True)).gt(0).float().mean()
        self.accuracy += 0.03 * (float(right) - self.accuracy)
        if self.accuracy > LEVEL_UP:
            self.level = min(2.0, self.level + LEVEL_STEP)

    def text(self, texts: list[str]) -> torch.Tensor:
        """Encode texts with the model in training, in three groups of similar length.

        Args:
            texts: The texts.

        Returns:
            float32 (texts, dimensions), unit length.
        """
        ids = self.tokenizer(texts)  # (texts, context)
        lengths = (ids != 0).sum(1)
        order = lengths.argsort()
        parts = [_read(self.model.text, ids[part, : int(lengths[part].max())]) for part in order.chunk(3)]
        return functional.normalize(torch.cat(parts)[order.argsort()], dim=-1)

    def _loss(self, vectors: torch.Tensor, fronts: torch.Tensor, behinds: torch.Tensor) -> torch.Tensor:
        """Return the loss of unit vectors (n, dimensions): classification errors, and the distance to the target."""
        count, scale = fronts.shape[1], self.scale.exp().clamp(max=60)
        loss = functional.cross_entropy(scale * vectors @ self.table[:count].T, fronts)
        has_background = behinds.sum(1) > 0
        if bool(has_background.any()):
            loss = loss + 0.2 * functional.cross_entropy(
                scale * vectors[has_background] @ self.table[count:].T, behinds[has_background]
            )
        distance = 1 - (vectors * space.aim(self.table, fronts, behinds)).sum(1).mean()
        return loss + 2 * distance

    def _contrast(self, pictures: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Return the contrastive loss of pictures and texts, (n, dimensions) each, where row i belongs to row i."""
        logits = 25.0 * pictures @ texts.T
        labels = torch.arange(len(logits))
        return (functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)) / 2

    def _apply(self, loss: torch.Tensor, *optimizers: torch.optim.Optimizer | None) -> None:
        """Take a step of the optimizers; every `AVERAGE_EVERY` steps update the running average."""
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        for optimizer in optimizers:
            if optimizer is not None:
                optimizer.step()
        self.pictures_optimizer.zero_grad()
        self.words_optimizer.zero_grad()
        self.steps += 1
        if self.steps % AVERAGE_EVERY == 0:
            self._average()

    @torch.no_grad()
    def _average(self) -> None:
        """Update the running average of the weights."""
        keep = min(AVERAGE, (1 + self.steps / AVERAGE_EVERY) / (10 + self.steps / AVERAGE_EVERY))
        for mean, value in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - keep)
            else:
                mean.copy_(value)

    def _rate(self, optimizer: torch.optim.Optimizer, rate: float) -> None:
        """Set an optimizer's learning rate."""
        for group in optimizer.param_groups:
            group["lr"] = rate

    def save(self, path: Path) -> None:
        """Write the state atomically."""
        self.spent_s, self._since = self.spent_s + time.monotonic() - self._since, time.monotonic()
        partial = path.with_suffix(".partial")
        torch.save({name: self._part(name) for name in (*STATES, *COUNTS)} | {"scale": self.scale.data}, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Continue from a saved state."""
        state = torch.load(path, weights_only=True)
        for name in STATES:
            getattr(self, name).load_state_dict(state[name])
        for name in COUNTS:
            setattr(self, name, state[name])
        self.scale.data.copy_(state["scale"])
        self._since = time.monotonic()

    def _part(self, name: str) -> Any:
        """Return one attribute as `save` stores it: its state dict if it is in `STATES`, else the value itself."""
        value = getattr(self, name)
        return value.state_dict() if name in STATES else value


STATES = ("model", "average", "pictures_optimizer", "words_optimizer")
COUNTS = ("spent_s", "steps", "pictures_seen", "texts_seen", "level", "accuracy")


def targets(scenes: list[Scene], count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what pictures of these scenes should be classified as.

    Args:
        scenes: The scenes.
        count: Number of concepts.

    Returns:
        float32 (scenes, count) and (scenes, backgrounds), weights that sum to 1 in each row.
    """
    fronts, behinds = torch.zeros(len(scenes), count), torch.zeros(len(scenes), len(BACKGROUNDS))
    for row, scene in enumerate(scenes):
        fronts[row, list(scene.concepts)] = 1 / len(scene.concepts)
        behinds[row, BACKGROUNDS.index(scene.background.name)] = 1
    return fronts, behinds


def normal(pixels: torch.Tensor) -> torch.Tensor:
    """Normalise pixels as the model's preprocessing does.

    Args:
        pixels: uint8 (pictures, side, side, 3).

    Returns:
        float32 (pictures, 3, side, side).
    """
    return (pixels.permute(0, 3, 1, 2).float() - 127.5) / 63.75


def _read(tower: Any, ids: torch.Tensor) -> torch.Tensor:
    """Run open_clip's text tower on shortened rows of ids (texts, length).

    The result is exact, because the tower attends backwards only and reads its output at the end token.
    """
    x = tower.token_embedding(ids) + tower.positional_embedding[: ids.shape[1]]
    x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[: ids.shape[1], : ids.shape[1]]))
    ends = (ids == tower.eos_id).int().argmax(1)
    read: torch.Tensor = x[torch.arange(len(x)), ends] @ tower.text_projection
    return read


def _cosine(progress: float, steps: int) -> float:
    """Return the factor of the learning rate: a warm-up of 200 steps, then a cosine."""
    return min(1.0, steps / 200) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def _parts(model: torch.nn.Module, tower: str) -> list[torch.nn.Parameter]:
    """Return the parameters of a tower."""
    return list(getattr(model, tower).parameters())


def _groups(parameters: list[torch.nn.Parameter]) -> list[dict[str, Any]]:
    """Group parameters for the optimizer: weights decay, gains and biases do not."""
    flat = [p for p in parameters if p.ndim < 2]
    return [{"params": [p for p in parameters if p.ndim >= 2]}, {"params": flat, "weight_decay": 0.0}]
