"""Each process is killed alone under load: every search ends well in time, and all is whole again (`outage`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import psutil
import pytest

from tests.hostile.conftest import Scene
from tests.hostile.outage import VICTIMS, answered

KILLED_WITHIN_S = 5.0


def killed(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=KILLED_WITHIN_S)


@pytest.mark.slow
@pytest.mark.parametrize("name", VICTIMS)
def test_a_process_is_killed_and_every_search_ends_well_in_time(
    scene: Scene, show: Callable[..., None], name: str
) -> None:
    answered(scene, show, name, killed)
