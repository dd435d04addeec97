"""`python -m tests.pipelines.further_node ADDRESS CPUS STORE_BYTES`: a further Ray node on the loopback address, until it
is killed. `ray start` refuses a second node there.
"""

from __future__ import annotations

import signal
import sys

from ray._private.node import Node
from ray._private.parameter import RayParams


def main() -> None:
    """Join, and stay."""
    address, cpus, store_bytes = sys.argv[1:]
    parameters = RayParams(
        gcs_address=address,
        node_ip_address="127.0.0.1",
        num_cpus=int(cpus),
        object_store_memory=int(store_bytes),
        min_worker_port=0,
        max_worker_port=0,
        node_manager_port=0,
        dashboard_agent_listen_port=0,
        include_log_monitor=False,
    )
    Node(parameters, head=False, shutdown_at_exit=True, spawn_reaper=True)
    signal.pause()


if __name__ == "__main__":
    main()
