"""A service stands still under load: it neither answers nor closes, as behind a switch that died or on a disk that hangs.

No connection to it fails, so that only deadlines tell: every search ends well in time all the same (`outage`).
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Sequence

import psutil
import pytest

from tests.hostile.conftest import Scene
from tests.hostile.outage import answered

STILL_S = 20.0
SERVICES = ("postgres", "redis", "s3", "encoder", "solana")


def stands_still(processes: Sequence[psutil.Process]) -> None:
    """These and their children are stopped, and go on after a while, unless somebody has replaced them."""
    everybody = [member for each in processes for member in (each, *each.children(recursive=True))]
    told(everybody, signal.SIGSTOP)
    try:
        time.sleep(STILL_S)
    finally:
        told(everybody, signal.SIGCONT)


def told(processes: Sequence[psutil.Process], what: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(what)


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVICES)
def test_a_service_stands_still_and_every_search_ends_well_in_time(
    scene: Scene, show: Callable[..., None], name: str
) -> None:
    answered(scene, show, name, stands_still)
