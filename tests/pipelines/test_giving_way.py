"""A job's workers leave the CPU to searches."""

from __future__ import annotations

import os
import threading

from pipelines.ingest import give_way


def test_a_worker_gives_way_and_takes_nothing_back() -> None:
    seen: list[int] = []

    def work() -> None:  # niceness is a thread's own
        for niceness in (10, 5):
            give_way(niceness)
            seen.append(os.getpriority(os.PRIO_PROCESS, 0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [max(10, os.getpriority(os.PRIO_PROCESS, 0))] * 2
