"""`python -m tests.pipelines.surveyor`: a driver that asks the nodes as a job does, and says what it hears.

One line while no node can confine a decoder, one of where tasks run once one can. A process of its own: Ray reads its
environment once.
"""

from __future__ import annotations

import json
import time

from cluster import ray_cluster
from cluster import settings as settings_module
from cluster.errors import Rejected
from pipelines.nodes import Survey
from pipelines.settings import IngestSettings

TASKS, WAIT_S = 20, 240.0


def where() -> str:
    """The node of a task."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def main() -> None:
    """Ask, wait for a node that joins, and place tasks."""
    ray_cluster.connect(settings_module.load())
    import ray

    survey = Survey(IngestSettings())
    try:
        survey.require()
    except Rejected as refused:
        print(json.dumps({"refused": str(refused), "placing": survey.placing(), "nodes": names()}), flush=True)
    deadline = time.monotonic() + WAIT_S
    while "!" in str(survey.placing()) and time.monotonic() < deadline:
        time.sleep(0.5)
    survey.require()
    task = ray.remote(num_cpus=0, scheduling_strategy="SPREAD")(where)
    found = ray.get([task.options(**survey.placing()).remote() for _ in range(TASKS)])
    accepting = Survey(IngestSettings(sandbox_weaker_accepted=True))
    accepting.require()
    print(json.dumps({"found": found, "cpus": survey.cpus(), "accepting": accepting.placing()}), flush=True)


def names() -> list[str]:
    """Nodes that are alive."""
    import ray

    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
