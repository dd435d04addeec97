"""The judge of the benchmarks: right answers count, wrong ones do not, and the product is held to its floors."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from benchmarks import moments, questions
from benchmarks.questions import Hit, Question
from benchmarks.run import Figure, row
from cluster import settings
from pipelines.samples import world
from pipelines.samples.film import Form
from pipelines.samples.samples import FilmedShot, Sample
from tests.pipelines.conftest import X264, ffmpeg

NAMES = [concept.name for concept in world.artwork().concepts[:40]]


def clip(number: int, *shots: tuple[str, ...]) -> Sample:
    seen = tuple(
        FilmedShot(2000 * i, 2000 * (i + 1), f"clip {number}.{i}", names, "sky") for i, names in enumerate(shots)
    )
    return Sample(f"{number}.mp4", "", "", (), "ana", "", Form(), 2000 * len(shots), seen)


CLIPS = [clip(number, (NAMES[number],), (NAMES[number + 20], NAMES[(number + 1) % 20])) for number in range(20)]


def perfect(question: Question) -> list[Hit]:
    """Every moment that shows what is asked for, the very one first, those of other clips only for a likeness."""
    hits = [
        (sample.file != question.file or shot != question.shot, Hit(sample.file, shot.start_ms, shot.end_ms, 1_000_000))
        for sample in CLIPS
        for shot in sample.shots
        if (
            question.concepts <= set(shot.concepts)
            if question.text.startswith("clip")
            else question.concepts & set(shot.concepts)
        )
    ]
    return [hit for _, hit in sorted(hits, key=lambda each: each[0])]


def wrong(question: Question) -> list[Hit]:
    """A moment of another clip that shows none of it."""
    others = [(s, shot) for s in CLIPS for shot in s.shots if s.file != question.file]
    return next(
        [Hit(s.file, shot.start_ms, shot.end_ms)] for s, shot in others if not question.concepts & {*shot.concepts}
    )


def shares(figures: list[Figure]) -> list[float]:
    return [
        float(figure.value.split()[0]) for figure in figures if " of " in figure.value and "gap" not in figure.value
    ]


def test_the_judge_gives_everything_to_right_answers_and_nothing_to_wrong_ones() -> None:
    assert shares(questions.judge(CLIPS, perfect, 1)) == [1.0] * 8
    assert shares(questions.judge(CLIPS, wrong, 1)) == [0.0] * 8


def test_a_clip_found_at_the_wrong_moment_is_no_right_moment() -> None:
    def beside(question: Question) -> list[Hit]:
        other = next(s for s in CLIPS if s.file == question.file).shots
        shot = next(shot for shot in other if shot != question.shot)
        return [Hit(question.file, shot.start_ms, shot.end_ms)]

    by_name = {figure.name: figure for figure in questions.judge(CLIPS, beside, 1)}
    assert by_name["caption R@1, the very clip"].value.startswith("1.000")
    assert by_name["the right moment (IoU >= 0.5) of clips found at rank 1"].value.startswith("0.000")


def test_relevance_that_overstates_has_a_gap() -> None:
    honest = questions._honesty("text", [(0.75, True), (0.75, True), (0.75, True), (0.75, False)])
    boasting = questions._honesty("text", [(0.95, True), (0.95, False)])
    assert "gap 0.000" in honest.value
    assert "gap 0.450" in boasting.value


@pytest.mark.parametrize(("hit", "share"), [((0, 2000), 1.0), ((1000, 3000), 1 / 3), ((2000, 4000), 0.0)])
def test_overlap_is_intersection_over_union(hit: tuple[int, int], share: float) -> None:
    assert questions.overlap(Hit("", *hit), CLIPS[0].shots[0]) == pytest.approx(share)


def test_a_row_of_the_log_has_as_many_cells_as_its_head() -> None:
    line = row(Figure("a | b", "1 s", "2 s", 0.5), "pixr bench x")
    assert line.count("|") == 8
    assert line.endswith("| a / b: 1 s | 2 s | 0.50 |")


def test_the_bare_loop_runs_whatever_standard_error_is(tmp_path: Path) -> None:
    """decord's complaints are read back from there: in a pipe, or in a file that is only written, they cannot be."""
    film = ffmpeg(tmp_path / "film.mp4", "-f", "lavfi", "-t", "3", "-i", "testsrc2=size=320x180:rate=30", *X264)
    argv = (sys.executable, "-m", "benchmarks.ingest", str(film))

    def run(stderr: int | IO[bytes]) -> subprocess.CompletedProcess[bytes]:
        data = tmp_path / str(stderr if isinstance(stderr, int) else "written data")
        environment = {**os.environ, "PIXR_INGEST_MODE": "interval", "PIXR_DATA_DIR": str(data)}
        return subprocess.run(argv, env=environment, stdout=subprocess.PIPE, stderr=stderr, check=False, timeout=300)

    with (tmp_path / "said").open("wb") as written, ThreadPoolExecutor() as side_by_side:
        for done in side_by_side.map(run, (subprocess.PIPE, written)):
            assert done.returncode == 0, (done.stderr, (tmp_path / "said").read_bytes())
            assert int(done.stdout.split()[0]) == 90


@pytest.mark.slow
def test_the_whole_product_finds_moments_as_well_as_it_says(tmp_path: Path) -> None:
    """Sixty clips of a seed of their own through ingest and search; by picture it needs more clips to be measured."""
    written = moments.clips(tmp_path / "videos", 60, seed=77)
    figures = list(moments.whole(settings.load(), tmp_path / "videos", written, seed=77))
    held = {f.name: f.ratio or 0.0 for f in figures if f.name.startswith(("caption", "the right moment", "keyword"))}
    wanted = {f.name for f in figures if "wanted" in f.baseline}
    assert len(held.keys() & wanted) == 4
    assert {name: ratio for name, ratio in held.items() if name in wanted and ratio < 1} == {}
