"""Signs of life: what a step gives, and before that a sign now and then that it is still at work.

Ray Data ends a run in which no row has moved for a while: to it silence is a hang. A large file on its way, a long chunk
and a model that is loaded are none, and the rows that are signs tell it so. Steps are taken in a thread of their own, one
at a time, in the order in which they were begun. A task that Ray repeats after its worker's death may give fewer signs than
the first time, and lose as many rows: the next round takes those up. Knows no step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from typing import TypeVar

Given = TypeVar("Given")


def begin(step: Callable[[], Given]) -> Future[Given]:
    """Begin a step, and wait for nothing."""
    return _thread().submit(step)


def alive(step: Callable[[], Iterable[Given]], sign: Given, every_s: float, most_s: float) -> Iterator[Given]:
    """Take a step and give what it gives; until then a `sign` every `every_s` seconds, for `most_s` seconds at most."""
    taken = begin(lambda: list(step()))
    deadline = time.monotonic() + most_s
    try:
        while not wait([taken], every_s).done and time.monotonic() < deadline:
            yield sign
        yield from taken.result()
    finally:
        if not taken.done():  # it was cancelled: what is asked for next does not wait behind it
            _thread.cache_clear()


@lru_cache(maxsize=1)
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="step")
