"""decord, imported without the CUDA libraries that its package would load into the whole process.

It loads all of them with `RTLD_GLOBAL` if torch has installed them, among them NVBLAS, which replaces the BLAS of a
torch that is imported later and ends the process at the first multiplication; they take 0.8 GB and most of a second in
every decoder. Samples are decoded on the CPU; the driver's libraries, which decord needs for NVDEC, are loaded before
that.
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
