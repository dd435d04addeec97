"""Several nodes: the same moments as on one, made on all of them; one that dies takes nothing with it.

The nodes are further Ray nodes on this machine. They share its scratch folder and its cores, nothing else.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests
from psycopg import Connection

from cluster import ray_cluster, runtime
from cluster.embedded.keeper import kill_tree
from cluster.embedded.ray import Ray
from cluster.settings import Settings
from tests.conftest import until
from tests.pipelines.test_ingest import WHOLE, multiplied, rows, submit, wait

NODES, NODE_CPUS, NODE_STORE_MB = 2, 2, 128
KEEPER = "pipelines.sandbox.child"
COPIES = 6  # of each file


@pytest.fixture
def many(clips: Path, tmp_path: Path) -> Path:
    return multiplied(tmp_path / "many", [clips / name for name in WHOLE if name.endswith(".mp4")], COPIES)


@contextlib.contextmanager
def joined(settings: Settings, count: int, beside: int = 1) -> Iterator[list[psutil.Process]]:
    """Further nodes of the cluster, which has `beside` before."""
    environment = {**os.environ, **ray_cluster.environment(settings)}
    until(lambda: alive(settings) == beside, what=f"the first {beside} nodes")
    address = f"127.0.0.1:{runtime.known_port(settings, 'ray')}"
    python = Ray(settings).command().argv[0]  # by a path without spaces, as Ray needs it
    argv = (python, "-m", "tests.pipelines.further_node", address, str(NODE_CPUS), str(NODE_STORE_MB << 20))
    running: list[subprocess.Popen[bytes]] = []
    try:
        while len(running) < count:  # one by one: two that begin at once would take the same names for their sockets
            running.append(subprocess.Popen(argv, env=environment))
            until(lambda: alive(settings) == beside + len(running), 60, f"{len(running)} further nodes")
        yield [psutil.Process(process.pid) for process in running]
    finally:
        for process in running:
            kill_tree(process.pid)
            process.wait(30)
        until(lambda: alive(settings) <= beside, 90, "the further nodes are gone")


def alive(settings: Settings) -> int:
    """Nodes that the cluster counts as alive."""
    token = ray_cluster.token(settings)
    answer = requests.get(
        f"{runtime.endpoints(settings).ray_dashboard_url}/nodes?view=summary",
        headers={"Authorization": f"Bearer {token}"} if token else {},
        timeout=10,
    )
    answer.raise_for_status()
    summary = answer.json()["data"]["summary"]
    return sum(node["raylet"].get("state") == "ALIVE" for node in summary)


def decodes(node: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(KEEPER in line(child) for child in node.children(recursive=True))
    return False


def line(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_more_nodes_share_the_work_and_one_that_dies_takes_nothing_with_it(
    deployment: Settings, connection: Connection, many: Path
) -> None:
    wait(connection, submit(deployment, connection, many), timeout_s=400)
    expected = rows(connection)
    assert {row[1] for row in expected} == {"ready"}
    with joined(deployment, NODES) as nodes:
        connection.execute("TRUNCATE media.embeddings, media.segments, media.videos, media.jobs CASCADE")
        at_work: set[int] = set()
        dead: list[int] = []

        def look() -> None:
            at_work.update(node.pid for node in nodes if decodes(node))
            if len(at_work) == NODES and not dead:
                dead.append(nodes[0].pid)
                kill_tree(nodes[0].pid)

        job = wait(connection, submit(deployment, connection, many), look, timeout_s=400)
        assert (job["status"], len(at_work), len(dead)) == ("succeeded", NODES, 1), job["error"]
        assert rows(connection) == expected
