"""decord, without the CUDA libraries that its package loads into the whole process when torch has brought them.

It opens all of them for everybody (`RTLD_GLOBAL`), NVBLAS among them, which stands in for the BLAS of a torch that is
loaded later and ends the process at the first multiplication; they take 0.8 GB and most of a second in every decoder.
Samples are decoded on the CPU here; the driver's own libraries, which decord needs for NVDEC, are loaded before that.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, cast

PACKAGE = "nvidia"  # where decord looks for them; a module that is None counts as not installed


def _load() -> ModuleType:
    modules = cast("dict[str, Any]", sys.modules)
    before = modules.get(PACKAGE)
    modules[PACKAGE] = None
    try:
        import decord
    finally:
        if before is None:
            del modules[PACKAGE]
        else:
            modules[PACKAGE] = before
    return cast("ModuleType", decord)


decord = _load()
