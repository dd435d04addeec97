"""What the sandbox can be asked to do, by name. Loaded by its keeper, with the decoders, before anything is confined."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import av
from PIL import Image

from pipelines.decode import frames, probe
from pipelines.sandbox.sandbox import Array

Task = Callable[..., tuple[Mapping[str, Any], Mapping[str, Array]]]
TASKS: Mapping[str, Task] = {"probe": probe.probe, "decode": frames.decode}


def warm() -> None:
    """Load all that a task may load, once for all children: none of them can read a module any more."""
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    Image.init()
    frames.warm()
