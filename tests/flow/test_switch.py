"""Another model is filled in, switched to and left again by the command line, while searches go on as if nothing was."""

from __future__ import annotations

import itertools
import shutil
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipelines.models.encoder import MODELS
from pipelines.samples.samples import Sample
from tests.conftest import until
from tests.flow.test_kills import viewers
from tests.stack import Stack

BUNDLED = MODELS / "pixr-emoji"
FILLED_WITHIN_S = 120.0
FELT_S = 3.0  # of load after a switch
LATE_SHARE_MAX = (
    0.02  # of a viewer's searches: two cores that fill in a model at the same time may leave an encoder late
)


def models(stack: Stack) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in stack.json("index", "status")["models"]}


def test_a_model_is_changed_and_changed_back_while_searches_go_on(
    stack: Stack, catalogue: list[Sample], tmp_path: Path
) -> None:
    (used,) = (name for name, each in models(stack).items() if each["active"])
    other = str(shutil.copytree(BUNDLED, tmp_path / "next"))
    captions = [sample.shots[0].caption for sample in catalogue if sample.shots]
    with viewers(stack, captions, "switch", relevance_min_ppm=0) as asking:
        job = stack.json("index", "backfill", other)["job"]["id"]
        done = f"SELECT FROM media.jobs WHERE id = '{job}' AND status = 'succeeded'"  # a command takes a second of CPU
        until(lambda: stack.rows(done), FILLED_WITHIN_S, "all have a vector")
        stack.pixr("index", "build", "--model", other)
        for name in (other, used):
            assert stack.json("index", "switch", name)["model"]["active"]
            time.sleep(FELT_S)
    stack.pixr("index", "unfollow", other)
    for viewer in asking:
        lacking = [each for each in viewer.seen if (each.status, each.degraded) != (200, frozenset())]
        assert {each.status for each in lacking} <= {200}, lacking
        assert len(lacking) <= LATE_SHARE_MAX * len(viewer.seen), lacking
        assert all(each.shown for each in viewer.seen if each not in lacking)
        assert [name for name, _ in itertools.groupby(viewer.seen, key=lambda each: each.model)] == [
            quote(name) for name in (used, other, used)
        ]
    assert models(stack)[used]["active"]
    assert not models(stack)[other]["followed"]
