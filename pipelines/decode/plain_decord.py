"""decord, imported without the CUDA libraries that its package would load into the whole process.

decord's package loads, with `RTLD_GLOBAL`, all CUDA libraries that torch has installed. They take 0.8 GB and most of a
second in every decoder. One of them, NVBLAS, replaces the BLAS of a torch that is imported later, and ends the process
at the first multiplication. They are not needed here, since frames are decoded on the CPU. The GPU driver's libraries,
which a decord built with NVDEC needs, belong to another package and are still loaded.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, cast

PACKAGE = "nvidia"  # where decord looks for the libraries; None in `sys.modules` makes it count as not installed


def _load() -> ModuleType:
    """Import decord while the package `nvidia` is hidden."""
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
