"""Killed at random times under load: every search that was answered is in the journal to the unit, once, and on chain."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import psutil
import psycopg
import pytest

from cluster import runtime
from ledger import spool
from ledger.appearances import Hashes
from ledger.settings import Economics
from pipelines.samples import Sample
from tests.conftest import until
from tests.stack import Copies, Stack, all_healthy, family, is_ledger_actor, near_enough

SHORT_S, LONG_S = 40.0, 600.0
KILL_EVERY_S = (4.0, 9.0)
SEARCH_EVERY_S = 0.15
EACH_WITHIN_S = 60.0
BACK_WITHIN_S = 90.0
SETTLED_WITHIN_S = 180.0
VICTIMS = ("actor", "replica", "postgres", "redis", "solana")

Shown = dict[int, int]  # relevance by segment


@dataclass
class Load:
    """Viewers who search without pause; what each was answered, and earns, is kept by the search's key."""

    stack: Stack
    queries: list[str]
    near: dict[str, set[int]]  # what the model alone shows for each: words have more shown, which earn nothing
    copies: Copies
    name: str
    answered: dict[str, Shown] = field(default_factory=dict)
    refused: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with httpx.Client(base_url=runtime.serve_url(self.stack.settings), timeout=20) as client:
            number = 0
            while not self.stop.wait(SEARCH_EVERY_S):
                key, query = f"{self.name}-{number}", self.queries[number % len(self.queries)]
                number += 1
                try:
                    answer = client.get("/v1/search", params={"q": query}, headers={"Idempotency-Key": key})
                except httpx.HTTPError:
                    self.refused += 1  # not answered: it may be in the journal, or not
                    continue
                if answer.status_code == 200:
                    shown = {int(each["segment_id"]): each["relevance_ppm"] for each in answer.json()["moments"]}
                    earning = self.near[query] & self.copies.first(shown)
                    self.answered[key] = {moment: ppm for moment, ppm in shown.items() if moment in earning}
                else:
                    self.refused += 1


def victim(stack: Stack, kind: str) -> list[psutil.Process]:
    if kind in ("postgres", "redis", "solana"):
        pid = stack.pids.get(kind)
        return [psutil.Process(pid)] if pid and psutil.pid_exists(pid) else []
    if kind == "replica":
        return family(stack, "ServeReplica")
    return [each for each in family(stack, "ray::Actor") if is_ledger_actor(each)]


def kill_at_random(stack: Stack, seconds: float, seed: int) -> dict[str, int]:
    """Ends one process after the other for `seconds`, and longer until each kind had its turn; how often each."""
    rng, killed = random.Random(seed), dict.fromkeys(VICTIMS, 0)
    began = time.monotonic()
    order: list[str] = []
    while (passed := time.monotonic() - began) < seconds or not all(killed.values()):
        assert passed < seconds + EACH_WITHIN_S, f"not everything could be killed: {killed}"
        order = order or rng.sample(VICTIMS, len(VICTIMS))
        kind = order.pop(0)
        for process in victim(stack, kind)[:1]:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended since it was found
                process.kill()
                killed[kind] += 1
        time.sleep(rng.uniform(*KILL_EVERY_S))
    return killed


def recorded_searches(stack: Stack) -> Iterator[tuple[bytes, dict[int, tuple[int, int]]]]:
    """Every search in the database: its key, and relevance and amount by segment."""
    for payload, form in stack.rows("SELECT payload, format FROM ledger.appearance_batches"):
        heads, rows = spool.unpack(bytes(payload), form)
        ends = np.cumsum(heads["count"].astype(np.int64))
        for head, end in zip(heads, ends, strict=True):
            mine = rows[end - int(head["count"]) : end]
            yield (
                bytes(head["key"]),
                {int(r["segment_id"]): (int(r["relevance_ppm"]), int(r["amount_pix"])) for r in mine},
            )


def settled(stack: Stack) -> bool:
    """Everything recorded is folded, everything due is paid, nothing is on its way, no spool waits for an heir."""
    try:
        waiting, live = stack.rows(
            "SELECT (SELECT coalesce(sum(recorded - folded), 0)::bigint FROM ledger.incarnations),"
            " (SELECT count(*) FROM ledger.attempts WHERE state = 'live')"
            " + (SELECT count(*) FROM ledger.batches WHERE ended_at IS NULL)"
        )[0]
    except psycopg.Error:
        return False
    return (waiting, live) == (0, 0) and stack.json("payouts", "run", "--timeout", "120") is not None


def soak(stack: Stack, catalogue: list[Sample], seconds: float, seed: int) -> None:
    until(lambda: all_healthy(stack), BACK_WITHIN_S, "healthy at the start")
    queries = [sample.shots[0].caption for sample in catalogue if sample.shots]
    near = {query: near_enough(stack, query) for query in queries}
    copies = Copies.of(stack)
    turned = [queries[number:] + queries[:number] for number in range(2)]
    loads = [Load(stack, each, near, copies, f"soak-{seed}-{number}") for number, each in enumerate(turned)]
    threads = [threading.Thread(target=load.run) for load in loads]
    for thread in threads:
        thread.start()
    try:
        killed = kill_at_random(stack, seconds, seed)
    finally:
        for load in loads:
            load.stop.set()
        for thread in threads:
            thread.join(60)
    until(lambda: all_healthy(stack), BACK_WITHIN_S, f"healthy again after {killed}")
    answered = {key: shown for load in loads for key, shown in load.answered.items()}
    assert len(answered) > seconds / 2, f"{len(answered)} answered, {sum(load.refused for load in loads)} refused"
    until(lambda: everything_recorded(stack, answered), SETTLED_WITHIN_S, "every answered search recorded")
    until(lambda: settled(stack), SETTLED_WITHIN_S, "everything folded and paid")
    compare(stack, answered)
    report = stack.json("audit", "--full")
    assert report["clean"], report


def everything_recorded(stack: Stack, answered: dict[str, Shown]) -> bool:
    hashes = Hashes(stack.settings)
    viewer, found = anonymous(hashes), {key for key, _ in recorded_searches(stack)}
    return all(hashes.key(viewer, key) in found for key, shown in answered.items() if shown)


def anonymous(hashes: Hashes) -> str:
    """The viewer of the requests of this machine that have no key: their address."""
    return hashes.viewer("address", "127.0.0.1").hex()


def compare(stack: Stack, answered: dict[str, Shown]) -> None:
    """To the unit: what was shown is what was recorded, each search once."""
    hashes, rate = Hashes(stack.settings), stack.settings.section(Economics).rate_pix
    viewer = anonymous(hashes)
    wanted = {
        hashes.key(viewer, key): {segment: (ppm, ppm * rate // 1_000_000) for segment, ppm in shown.items()}
        for key, shown in answered.items()
        if shown
    }
    found: dict[bytes, list[Any]] = {}
    for key, shown in recorded_searches(stack):
        if key in wanted:
            found.setdefault(key, []).append(shown)
    assert {key: [shown] for key, shown in wanted.items()} == found


def test_a_minute_of_kills_costs_no_unit(stack: Stack, catalogue: list[Sample]) -> None:
    soak(stack, catalogue, SHORT_S, 1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_ten_minutes_of_kills_cost_no_unit(stack: Stack, catalogue: list[Sample]) -> None:
    soak(stack, catalogue, LONG_S, 2)
