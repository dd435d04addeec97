"""The tasks of the sandbox, by name; the keeper loads this module, and the decoders with it."""

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
    """Load every module that a task may need. To be called before the fork: confined children cannot load modules."""
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    Image.init()
    frames.warm()
