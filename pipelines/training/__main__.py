"""Trains the bundled model: `python -m pipelines.training --minutes 180`.

Runs on two CPU cores: one learns, one paints. Stopped and started again with the same state file it goes on where it
was. Every few minutes it measures recall on scenes of seeds it never trains with, writes a line to the log and the
model's folder (the running average of the weights).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import time
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from pipelines import compounds, encoder, world, world_words
from pipelines.training import shape, tokens
from pipelines.training.course import JOINT_FROM, Course, Plan, normal
from pipelines.training.pictures import Lesson, Studio, paint
from pipelines.training.words import Phrasebook

HELD_OUT_SEED = 1 << 40  # training seeds stay far below


def recall(course: Course, lesson: Lesson) -> dict[str, float]:
    """Of held-out scenes: how often the plain caption finds its picture, and the picture its concept."""
    model, concepts = course.average, course.phrases.concepts
    with torch.inference_mode():
        pictures = functional.normalize(model.visual(normal(torch.from_numpy(lesson.pixels))), dim=-1)  # type: ignore[operator]
        captions = [world_words.plain(scene, concepts) for scene in lesson.scenes]
        texts = functional.normalize(model.text(course.tokenizer(captions)), dim=-1)  # type: ignore[operator]
    order = (texts @ pictures.T).argsort(dim=1, descending=True)
    own = torch.arange(len(order))[:, None]
    named = (pictures @ course.table[: len(concepts)].T).argmax(1)
    right = [int(index) in scene.concepts for index, scene in zip(named, lesson.scenes, strict=True)]
    found = {f"r{k}": float((order[:, :k] == own).any(1).float().mean()) for k in (1, 5)}
    return found | {"concept": float(np.mean(right))}


def log(path: Path, line: dict[str, Any]) -> None:
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in line.items()}
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(rounded) + "\n")
    print(json.dumps(rounded), flush=True)


def train(course: Course, folder: Path, cfg: dict[str, Any], words: Any, seed: int, every_s: float) -> None:
    """Until the budget is used up."""
    context = multiprocessing.get_context("spawn")
    lessons: Queue[Lesson] = context.Queue(4)
    wanted = context.Array("d", course.lesson)
    painter = context.Process(target=paint, args=(lessons, wanted, seed + course.steps), daemon=True)
    painter.start()
    rng = random.Random(seed + course.steps)
    held_out = Studio(world.artwork(), seed=HELD_OUT_SEED, others=0.0).lesson(512, shape.IMAGE_SIZE)
    losses: list[float] = []
    noted = time.monotonic()
    while course.share < 1:
        course.model.train()
        joint = course.pictures_share >= JOINT_FROM and course.steps % 3 == 0
        if course.pictures_share < 0 or joint:
            texts, fronts, behinds = course.phrases.texts(rng, course.plan.texts)
            losses.append(course.words_step(texts, torch.from_numpy(fronts), torch.from_numpy(behinds)))
        else:
            wanted[:] = course.lesson
            lesson = lessons.get()
            losses.append(course.pictures_step(torch.from_numpy(lesson.pixels), lesson.scenes, lesson.captions))
        if time.monotonic() - noted > every_s or course.share >= 1:
            note(course, folder, cfg, words, held_out, losses)
            losses, noted = [], time.monotonic()
    painter.terminate()


def note(course: Course, folder: Path, cfg: dict[str, Any], words: Any, held_out: Lesson, losses: list[float]) -> None:
    """Measure, log, keep the state, write the model."""
    line = {
        "at": time.strftime("%H:%M:%S", time.gmtime()),
        "share": course.share,
        "steps": course.steps,
        "pictures": course.pictures_seen,
        "texts": course.texts_seen,
        "side": course.side if course.pictures_share >= 0 else 0,
        "level": course.lesson[2],
        "accuracy": course.accuracy,
        "loss": float(np.mean(losses)) if losses else 0.0,
        "scale": float(course.scale.detach().exp()),
    }
    log(folder / "log.jsonl", line | recall(course, held_out))
    course.save(folder / "state.pt")
    shape.write(folder / "model", cfg, course.average, words)
    compounds.write(folder / "model", course.phrases.compounds())
    encoder.state(folder / "model")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipelines.training", description=__doc__)
    parser.add_argument("--minutes", type=float, default=180, help="wall-clock budget in all, also over several runs")
    parser.add_argument("--out", type=Path, default=Path("build/training"), help="state, log and the model's folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--backbone", default=shape.BACKBONE, help="any vision model timm knows")
    parser.add_argument("--words-share", type=float, default=Plan.words_share)
    parser.add_argument("--note-every-s", type=float, default=240)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    phrases = Phrasebook(world.artwork().concepts)
    words = tokens.build(phrases.corpus())
    cfg = shape.config(words.get_vocab_size(), backbone=options.backbone)
    plan = Plan(options.minutes, words_share=options.words_share)
    tokenizer = tokens.encoder(words, shape.CONTEXT)
    course = Course(shape.create(cfg).to(memory_format=torch.channels_last), tokenizer, phrases, plan)
    if (options.out / "state.pt").is_file():
        course.resume(options.out / "state.pt")
    train(course, options.out, cfg, words, options.seed, options.note_every_s)


if __name__ == "__main__":
    main()
