"""decord beside torch in one process, whichever of the two comes first."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

MAPPED = "[line for line in open('/proc/self/maps') if '/nvidia/' in line]"
DECORD = f"import pipelines.decode.decoders\nassert not {MAPPED}\n"
TORCH = "from pipelines.models import encoder\nencoder.load('pixr-emoji', threads=1).texts(['a goat'])\n"


PROGRAMS = (DECORD, DECORD + TORCH, TORCH + "import pipelines.decode.decoders\n")


def test_decord_brings_no_cuda_libraries_into_a_process() -> None:
    def run(program: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", program]
        return subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)

    with ThreadPoolExecutor() as side_by_side:
        for done in side_by_side.map(run, PROGRAMS):
            assert done.returncode == 0, (done.args[2], done.stderr)
