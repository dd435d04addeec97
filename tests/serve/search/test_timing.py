"""Where the time of a search goes: added up by stage, in a header, and as a metric; a kept answer took none of it."""

from __future__ import annotations

import re
import time

import pytest

from cluster.observability.stopwatch import Stopwatch
from cluster.settings import Settings
from serve.replica.encoding import QueryEncoder
from serve.search.response import server_timing
from tests.serve.doors import near, opened
from tests.serve.scenes import Gallery

UNASKED = "a banana on a clock"  # by any other test: its answer would be kept
MADE_OF = {"encode", "vector", "text", "relevance", "moments"}


def test_a_stage_that_comes_again_is_added_up_and_one_that_fails_is_timed() -> None:
    watch = Stopwatch()
    for _ in range(2):
        with watch.time("one"):
            time.sleep(0.01)
    with pytest.raises(ValueError, match="no"), watch.time("two"):
        raise ValueError("no")
    assert watch.spent_s["one"] >= 0.02
    assert watch.spent_s.keys() == {"one", "two"}


def test_the_header_is_in_milliseconds() -> None:
    assert server_timing({"encode": 0.0123, "total": 1.0}) == "encode;dur=12.3, total;dur=1000.0"


async def test_an_answer_says_where_its_time_went_and_a_kept_one_that_it_took_none(
    hung: tuple[Settings, Gallery], model: QueryEncoder
) -> None:
    async with opened(hung[0], near(model)) as doors:
        first, second = [await doors.http.get("/v1/search", params={"q": UNASKED}) for _ in range(2)]
        metrics = (await doors.http.get("/metrics")).text
    spent = {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", first.headers["server-timing"])}
    assert spent.keys() == MADE_OF | {"total"}
    assert max(spent[name] for name in MADE_OF) <= spent["total"]
    assert re.fullmatch(r"total;dur=[\d.]+", second.headers["server-timing"])
    for stage in MADE_OF:
        assert f'pixr_search_stage_seconds_count{{stage="{stage}"}} 1.0' in metrics
