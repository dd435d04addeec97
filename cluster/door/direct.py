"""A callback that keeps Serve's controller from starting proxies: the door takes their place.

Replicas open HTTP servers only if Serve's proxies are enabled. Serve then starts a proxy on the head node, which no
setting prevents. Knows nothing of the door.
"""

from __future__ import annotations

import importlib
from typing import Any


def without_proxies() -> None:
    """Make the controller of this process start no proxy. Serve calls this while it creates its controller."""
    proxy_state: Any = importlib.import_module("ray.serve._private.proxy_state")
    manager = proxy_state.ProxyStateManager
    assert hasattr(manager, "_get_target_nodes"), "another release of Ray: see how it starts its proxies"
    manager._get_target_nodes = _nowhere


def _nowhere(_manager: Any, _proxy_nodes: Any) -> list[tuple[str, str, str]]:
    return []
