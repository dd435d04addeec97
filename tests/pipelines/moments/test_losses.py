"""What may be lost of a video: judged over all of it."""

from __future__ import annotations

import pytest

from pipelines.moments.losses import Losses


def test_a_chunk_that_is_lost_does_not_cost_a_film() -> None:
    assert Losses(15_000, lost=1400).refusal(0.9) is None


def test_more_than_a_tenth_lost_is_refused_in_one_true_line() -> None:
    failure = Losses(1000, lost=101, pictures=50).refusal(0.9)
    assert failure is not None
    assert (failure.code, failure.final) == ("damaged", True)
    assert failure.reason == "101 of 1000 frames cannot be decoded"


def test_concealed_frames_are_there_unless_nothing_else_is() -> None:
    assert Losses(1000, concealed=900, pictures=5).refusal(0.9) is None
    failure = Losses(1000, concealed=1000, pictures=0).refusal(0.9)
    assert failure is not None
    assert "all of 1000 frames are damaged" in failure.reason


def test_what_was_staged_by_an_older_release_is_not_judged() -> None:
    assert Losses(0, lost=500).refusal(0.9) is None


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        (Losses(9), ""),
        (Losses(9, lost=2), "2 frames could not be decoded"),
        (Losses(9, lost=2, concealed=3), "2 frames could not be decoded; 3 frames are damaged"),
    ],
)
def test_what_was_lost_is_said(losses: Losses, words: str) -> None:
    assert losses.warning() == words
