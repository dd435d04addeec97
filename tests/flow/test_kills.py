"""Under load each of the things that a search asks is killed, in turn and all together: always an answer, never a wrong one.

A request ends within its deadline with an answer or a 503 that says when to come again; `degraded` names what was left
out; all is whole again by itself; and every moment that was shown is in the journal once.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import psutil
import pytest

from cluster import runtime
from pipelines.samples.samples import Sample
from serve.search.answer import UNPAID
from serve.settings import SearchSettings
from tests.conftest import until
from tests.flow.test_soak import SETTLED_WITHIN_S, compare, everything_recorded, settled
from tests.replica import Replica, streaming
from tests.stack import Stack, family, whole

pytestmark = pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR")  # said by the package that brings PostgreSQL
VIEWERS = 3
EVERY_S = 0.1
QUIET_S = 2.0  # of load before the kill, and once more when all is whole
WATCHED_S = 3.0  # from a kill on, and until all is whole again
REPLICA_AWAY_S = 8.0  # nobody starts it but the test
BACK_WITHIN_S = 60.0
SLACK_S = 2.0  # of a machine of two cores that restarts what was killed, beyond a search's own deadline
ALL = ("encoder", "redis", "replica", "postgres")
# What an answer may lack while something is away. Words without vectors, a hurried look, a page from before.
MAY_LACK = {
    "encoder": {"vector"},
    "redis": set[str](),
    "replica": {"recall"},
    "postgres": {"vector", "text", "recall", "database", "popular"},
    "all": {"vector", "text", "recall", "database", "popular"},
}


@dataclass(frozen=True)
class Seen:
    """One request: when it was sent, how it ended, what it lacked and which model answered it."""

    key: str
    sent_at: float
    took_s: float
    status: int
    retry_after: str | None
    degraded: frozenset[str]
    shown: dict[int, int]
    model: str


@dataclass
class Viewer:
    """Asks without pause, each time for something that nobody asked before."""

    stack: Stack
    captions: list[str]
    name: str
    asked: dict[str, int]  # beside the text
    seen: list[Seen] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with httpx.Client(base_url=runtime.serve_url(self.stack.settings), timeout=30) as client:
            for number in itertools.count():
                if self.stop.wait(EVERY_S):
                    return
                key = f"{self.name}-{number}"
                text = f"{self.captions[number % len(self.captions)]} {key}"
                began, at = time.monotonic(), time.time()
                answer = client.get("/v1/search", params={"q": text, **self.asked}, headers={"Idempotency-Key": key})
                took_s = time.monotonic() - began
                found = answer.json() if answer.status_code == 200 else {"moments": [], "degraded": []}
                shown = {int(each["segment_id"]): each["relevance_ppm"] for each in found["moments"]}
                if not UNPAID.isdisjoint(found["degraded"]):
                    shown = {}  # nobody knows how relevant it is: it earns nothing and is not recorded
                lacking = frozenset(found["degraded"])
                retry_after, model = (answer.headers.get(name) for name in ("retry-after", "x-pixr-model"))
                self.seen.append(Seen(key, at, took_s, answer.status_code, retry_after, lacking, shown, model or ""))


@contextmanager
def viewers(stack: Stack, captions: list[str], name: str, **asked: int) -> Iterator[list[Viewer]]:
    turned = [captions[number:] + captions[:number] for number in range(VIEWERS)]
    made = [Viewer(stack, each, f"{name}-{number}", asked) for number, each in enumerate(turned)]
    threads = [threading.Thread(target=each.run) for each in made]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        for each in made:
            each.stop.set()
        for thread in threads:
            thread.join(60)


@pytest.fixture(scope="module")
def replica(stack: Stack, catalogue: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """The database's replica that the stack's settings name."""
    folder = tmp_path_factory.mktemp("replica") / "data"
    with streaming(stack.settings, folder, stack.settings.postgres.replica_urls[0]) as made:
        yield made


def kill(stack: Stack, replica: Replica, what: str) -> None:
    if what == "replica":
        replica.kill()
        return
    killed = family(stack, "QueryEncoder") if what == "encoder" else [psutil.Process(stack.pids[what])]
    assert killed
    for process in killed:
        process.kill()
    psutil.wait_procs(killed, timeout=5)


@pytest.mark.parametrize("what", [*ALL, "all"])
def test_whatever_is_killed_every_search_is_answered_or_sent_away_in_time(
    stack: Stack, catalogue: list[Sample], replica: Replica, what: str
) -> None:
    until(lambda: whole(stack), BACK_WITHIN_S, "whole at the start")
    captions = [sample.shots[0].caption for sample in catalogue if sample.shots]
    with viewers(stack, captions, f"kills-{what}") as asking:
        time.sleep(QUIET_S)
        killed_at = time.time()
        for each in ALL if what == "all" else (what,):
            kill(stack, replica, each)
        time.sleep(REPLICA_AWAY_S if what in ("replica", "all") else WATCHED_S)
        if what in ("replica", "all"):
            replica.start()
        until(lambda: whole(stack), BACK_WITHIN_S, "whole again by itself")
        whole_at = time.time()
        time.sleep(QUIET_S)
    seen = [each for viewer in asking for each in viewer.seen]
    longest_s = stack.settings.section(SearchSettings).deadline_s + SLACK_S
    assert {each.status for each in seen} <= {200, 503}
    assert [each for each in seen if each.took_s > longest_s] == []
    assert [each for each in seen if each.status == 503 and not each.retry_after] == []
    before = [each for each in seen if each.sent_at + each.took_s < killed_at]
    after = [each for each in seen if each.sent_at > whole_at]
    for quiet in (before, after):
        assert len(quiet) > VIEWERS
        assert {(each.status, each.degraded) for each in quiet} == {(200, frozenset())}
    during = [each for each in seen if each not in before and each not in after]
    assert {name for each in during for name in each.degraded} <= MAY_LACK[what]
    if what in ("encoder", "redis", "replica"):
        assert {each.status for each in during} == {200}  # none of these can cost an answer
    if what in ("encoder", "all"):
        assert any("vector" in each.degraded for each in during)
    answered = {each.key: each.shown for each in seen if each.status == 200}
    until(lambda: everything_recorded(stack, answered), SETTLED_WITHIN_S, "every answered search recorded")
    until(lambda: settled(stack), SETTLED_WITHIN_S, "everything folded and paid")
    compare(stack, answered)
    assert stack.json("audit")["clean"]
