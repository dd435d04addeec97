"""Where Serve's inner servers listen.

A replica opens a gRPC server for its fellows on every address of the machine, and Serve has no setting for that. Here
it gets the node's own address: 127.0.0.1 in the embedded cluster, the node's in another. Knows no deployment.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

EVERYWHERE = "[::]:"


@dataclass(frozen=True)
class OnNode:
    """Opens a gRPC server's port on one address, where Serve says everywhere."""

    opened: Callable[[Any, str], Any]
    address: str

    def __call__(self, server: Any, where: str) -> Any:
        return self.opened(server, where.replace(EVERYWHERE, f"{self.address}:"))


def stay_on_node() -> None:
    """To be called while a replica is made, which is before Serve opens its server. Twice is no error."""
    ray: Any = importlib.import_module("ray")
    replica: Any = importlib.import_module("ray.serve._private.replica")
    opened = replica.add_port_to_grpc_server
    if not isinstance(opened, OnNode):
        replica.add_port_to_grpc_server = OnNode(opened, ray.util.get_node_ip_address())
