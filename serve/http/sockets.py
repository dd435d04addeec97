"""The address that Ray Serve's gRPC servers listen on.

A replica opens a gRPC server for other replicas on all addresses of the machine, and Serve has no setting for that.
This module makes it listen on the node's own address only: 127.0.0.1 in the embedded cluster. Knows no deployment.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

EVERYWHERE = "[::]:"


@dataclass(frozen=True)
class OnNode:
    """A replacement for Serve's function that opens a port; it listens on one address instead of all."""

    open_port: Callable[[Any, str], Any]
    address: str

    def __call__(self, server: Any, where: str) -> Any:
        return self.open_port(server, where.replace(EVERYWHERE, f"{self.address}:"))


def stay_on_node() -> None:
    """Make this process's replica listen on the node's address only; call it before Serve opens its server.

    Calling it twice does nothing more.
    """
    ray: Any = importlib.import_module("ray")
    replica: Any = importlib.import_module("ray.serve._private.replica")
    open_port = replica.add_port_to_grpc_server
    if not isinstance(open_port, OnNode):
        replica.add_port_to_grpc_server = OnNode(open_port, ray.util.get_node_ip_address())
