"""What requests have freed goes back to the system, also what the last of them freed after they asked for it."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading

import pytest

from cluster.settings import ROOT, Settings
from serve import memory
from serve.memory import Trimming
from serve.metrics import resident_bytes
from tests.serve.doors import opened

HELD = """
import gc, sys, time
from serve import app, memory
from serve.metrics import resident_bytes

gc.set_threshold(*app.GC_THRESHOLDS)
memory.trim()
held = [[b"1" * 100_000] for _ in range(2000)]  # too small for a mapping of its own
if sys.argv[1] == "cycles":
    for each in held:
        each.append(each)
last = b"2" * 100_000  # above them, so that nothing is given back by itself
full = resident_bytes()
memory.trim()
del held
end_s = time.monotonic() + 20
while resident_bytes() > full - 150e6 and time.monotonic() < end_s:
    time.sleep(0.05)
print(full, resident_bytes())
"""


@pytest.mark.parametrize("how", ["plainly", "cycles"])
def test_what_is_still_held_when_it_is_asked_for_is_given_back_a_moment_later(how: str) -> None:
    """Also what refers to itself, as exceptions and their frames do."""
    argv = [sys.executable, "-c", HELD, how]
    done = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    full, left = map(float, done.stdout.split())
    assert left < full - 150e6


def test_nothing_runs_when_nobody_asks_any_more() -> None:
    trimming, before = Trimming(interval_s=0.01, quiet_s=0.01), threading.active_count()
    for _ in range(100):
        trimming.ask()
    assert threading.active_count() <= before + 1
    for each in threading.enumerate():
        if each.name == "memory":
            each.join(20)
    assert not trimming._runs


async def test_refused_bodies_leave_nothing_behind_where_nobody_collects(settings: Settings) -> None:
    """Each is in the exception that refuses it, several times over, and that in the frames that it went through."""
    body = b'{"image":"' + b"a" * 6_000_000 + b'","intents":"search"}'
    async with opened(settings) as doors:

        async def refused() -> int:
            kind = {"Content-Type": "application/json"}
            return (await doors.http.post("/v1/search", content=body, headers=kind)).status_code

        assert await refused() == 422
        memory.release(all_of_it=True)
        before = resident_bytes()
        gc.disable()  # as good as: a replica looks through what is old after two million objects
        try:
            assert {await refused() for _ in range(20)} == {422}
            async with asyncio.timeout(30):
                while resident_bytes() > before + 60e6:  # noqa: ASYNC110  of what is looked at there is no event
                    await asyncio.sleep(0.1)
        finally:
            gc.enable()
