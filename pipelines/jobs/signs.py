"""Signs of life: rows that a slow step yields until its result is there, so that Ray Data does not take it for hung.

Ray Data ends a run in which no row has moved for a while, but a large download, a long chunk or loading a model takes
its time. Steps run in a thread of their own, one at a time, in the order in which they were begun. If Ray repeats a
task after its worker's death, it drops as many of the task's rows as it had received before. If fewer of these are
signs the second time, real rows are lost; the next round of the job takes up their videos. Knows no step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from typing import TypeVar

Given = TypeVar("Given")  # what a step returns


def begin(step: Callable[[], Given]) -> Future[Given]:
    """Start a step in the thread, and return at once."""
    return _thread().submit(step)


def alive(step: Callable[[], Iterable[Given]], sign: Given, every_s: float, most_s: float) -> Iterator[Given]:
    """Run a step and yield its rows; while it runs, yield a sign every `every_s` seconds.

    Args:
        step: The step.
        sign: The row that is yielded as a sign of life.
        every_s: Seconds between signs.
        most_s: Seconds after which no more signs are yielded.

    Yields:
        Signs, then the rows of the step.
    """
    future = begin(lambda: list(step()))
    deadline = time.monotonic() + most_s
    try:
        while not wait([future], every_s).done and time.monotonic() < deadline:
            yield sign
        yield from future.result()
    finally:
        if not future.done():  # it was cancelled: the next step must not wait for it
            _thread.cache_clear()


@lru_cache(maxsize=1)
def _thread() -> ThreadPoolExecutor:
    """Return the thread that steps run in."""
    return ThreadPoolExecutor(1, thread_name_prefix="step")
