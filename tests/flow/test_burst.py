"""A burst: who cannot be answered in time is sent away at once, and more replicas come, and go again, of themselves."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from cluster import runtime
from tests.conftest import until
from tests.stack import Stack, family, running

CLIENTS, SECONDS = 32, 25
REPLICAS_MAX = 3
AT_ONCE_S = 1.5  # beside 32 clients on a small machine


@pytest.fixture
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    said = {
        "REPLICAS_MAX": str(REPLICAS_MAX), "SEARCHES_MAX": "1", "WAITING_MAX": "1", "SCALE_DOWN_DELAY_S": "5",
        "ADDRESS_RATE_PER_S": "1000000", "ADDRESS_BURST": "1000000",
    }  # fmt: skip
    with running(
        tmp_path_factory.mktemp("burst"), **{f"PIXR_SEARCH_{name}": value for name, value in said.items()}
    ) as made:
        yield made


def replicas(stack: Stack) -> int:
    return len(family(stack, "ServeReplica:pixr:SearchApi"))


def asking(url: str, client: int, until_s: float) -> list[tuple[httpx.Response, float]]:
    """What one client got, and after how long, until it stopped asking."""
    got = []
    with httpx.Client(base_url=url, timeout=30) as http:
        for number in itertools.count():
            began = time.monotonic()
            if began > until_s:
                return got
            answer = http.get("/v1/search", params={"q": f"client{client} number{number}", "intent": "typing"})
            got.append((answer, time.monotonic() - began))
    return got


@pytest.mark.slow
def test_a_burst_is_shed_and_met_by_more_replicas(stack: Stack) -> None:
    assert replicas(stack) == 1
    url, end = runtime.serve_url(stack.settings), time.monotonic() + SECONDS
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(asking, url, client, end) for client in range(CLIENTS)]
        until(lambda: replicas(stack) == REPLICAS_MAX, SECONDS, "more replicas")
    got = [each for client in clients for each in client.result()]
    codes = Counter(answer.status_code for answer, _ in got)
    assert codes.keys() == {200, 503}, codes
    shed = [(answer, seconds) for answer, seconds in got if answer.status_code == 503]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer, _ in shed)
    assert sorted(seconds for _, seconds in shed)[int(0.95 * len(shed))] < AT_ONCE_S
    until(lambda: replicas(stack) == 1, 60, "one replica again")
    calm = asking(url, CLIENTS, time.monotonic() + 2)
    assert {answer.status_code for answer, _ in calm} == {200}
