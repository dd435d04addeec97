"""decord beside torch in one process, whichever of the two comes first."""

from __future__ import annotations

import subprocess
import sys

import pytest

MAPPED = "[line for line in open('/proc/self/maps') if '/nvidia/' in line]"
DECORD = f"import pipelines.decoders\nassert not {MAPPED}\n"
TORCH = "from pipelines import encoder\nencoder.load('pixr-emoji', threads=1).texts(['a goat'])\n"


@pytest.mark.parametrize("program", [DECORD, DECORD + TORCH, TORCH + "import pipelines.decoders\n"])
def test_decord_brings_no_cuda_libraries_into_a_process(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
