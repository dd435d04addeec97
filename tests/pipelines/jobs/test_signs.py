"""A step that takes long is alive, and says so; one that is cancelled is in nobody's way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.runtime import S3Endpoint
from pipelines import ingest
from pipelines.jobs import signs
from pipelines.models.registry import ModelInfo
from pipelines.settings import IngestSettings, ModelSettings
from pipelines.stages import AT_WORK, Done, JobContext

EVERY_S, MOST_S = 0.05, 60.0


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a step of a test waits for; open in the end, so that no thread is left."""
    made = threading.Event()
    yield made
    made.set()


def test_signs_come_before_what_a_long_step_gives(gate: threading.Event) -> None:
    def step() -> Iterator[str]:
        gate.wait()
        yield from "ab"

    given = signs.alive(step, "sign", EVERY_S, MOST_S)
    assert [next(given), next(given)] == ["sign", "sign"]
    gate.set()
    assert [each for each in given if each != "sign"] == ["a", "b"]


def test_a_short_step_gives_no_sign() -> None:
    assert list(signs.alive(lambda: "ab", "sign", MOST_S, MOST_S)) == ["a", "b"]


def test_a_step_is_said_to_be_alive_for_so_long_and_no_longer(gate: threading.Event) -> None:
    given = signs.alive(lambda: [str(gate.wait())], "sign", EVERY_S, EVERY_S * 3)
    assert next(given) == "sign"
    threading.Timer(EVERY_S * 20, gate.set).start()
    assert sum(each == "sign" for each in given) <= 3


def test_what_goes_wrong_in_a_step_goes_wrong_for_its_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        list(signs.alive(lambda: [1 // 0], 0, MOST_S, MOST_S))


def test_a_step_that_is_cancelled_keeps_nobody_waiting(gate: threading.Event) -> None:
    given = signs.alive(lambda: [str(gate.wait())], "sign", EVERY_S, MOST_S)
    assert next(given) == "sign"
    given.close()  # type: ignore[attr-defined]  # of a generator
    assert list(signs.alive(lambda: ["next"], "sign", MOST_S, MOST_S)) == ["next"]


def test_an_embedder_is_there_before_its_model_is_and_says_that_it_loads(
    gate: threading.Event, s3: S3Endpoint, tiny_model: Path, tiny_facts: dict[str, Any]
) -> None:
    model = ModelInfo(1, "tiny", tiny_facts["image_size"], tiny_facts["fit"], tiny_facts["fingerprint"])
    settings = IngestSettings(no_progress_timeout_s=1)
    place = JobContext("j", "j/1", "", s3, "b", settings, ModelSettings(name=str(tiny_model)), model)
    signs.begin(gate.wait)  # the model is loaded behind this
    embed = ingest.EmbedBatches(place)
    given = embed({"row": [ingest.pack(Done(7, "busy"))["row"]]})
    assert ingest.unpack(next(given)["row"][0]) == AT_WORK
    gate.set()
    rows = [ingest.unpack(each["row"][0]) for each in given]
    assert [row for row in rows if row != AT_WORK] == [Done(7, "busy")]
