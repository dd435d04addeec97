"""The service `jobs`: the watch over ingest jobs, as the supervisor starts and checks it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from cluster import runtime
from cluster.embedded import leftovers
from cluster.errors import Temporary
from cluster.services import Command
from cluster.settings import EMBEDDED, ROOT, Settings
from pipelines.confinement.layers import AvailableLayers
from pipelines.jobs import watch
from pipelines.sandbox import scratch
from pipelines.sandbox.scratch import Scratch
from pipelines.settings import IngestSettings

SILENT_MAX_S = 60.0
TRIAL_MAX_S = 60.0


@dataclass
class Jobs:
    """One process that submits unfinished jobs again."""

    settings: Settings
    name: str = "jobs"
    needs: tuple[str, ...] = ("schema", "ray", "s3")
    start_timeout_s: float = 60.0

    def prepare(self) -> None:
        watch.beat_path(self.settings).unlink(missing_ok=True)
        folder = self._scratch.folder
        if self.settings.ray.address == EMBEDDED:  # its workers are on this machine
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            leftovers.remove_stale(folder.parent, scratch.beginning())
            folder.mkdir(mode=0o700, exist_ok=True)  # it may have been one of them
            leftovers.note(folder, self.settings.data_dir)

    def command(self) -> Command:
        return Command((sys.executable, "-m", "pipelines.jobs.watch"))

    def check(self) -> None:
        try:
            age_s = time.time() - watch.beat_path(self.settings).stat().st_mtime
        except FileNotFoundError as error:
            raise Temporary("the watch has not looked around yet") from error
        if age_s > SILENT_MAX_S:
            raise Temporary(f"the watch has been silent for {age_s:.0f} s")

    def tidy(self) -> None:
        if self.settings.ray.address == EMBEDDED:
            leftovers.remove(self._scratch.folder, self.settings.data_dir)

    @property
    def _scratch(self) -> Scratch:
        """Where the workers of this machine keep the files that they decode."""
        ingest, s3 = self.settings.section(IngestSettings), runtime.endpoints(self.settings).s3
        return Scratch.of(ingest, s3.url, self.settings.s3.bucket, 1)

    def address(self) -> str:
        return "resubmits unfinished jobs"

    def notes(self) -> Mapping[str, str]:
        """How decoders are confined on this machine, found out by trying; other nodes say so in their workers' logs."""
        ingest = self.settings.section(IngestSettings)
        argv = (sys.executable, "-m", "pipelines.confinement", str(ingest.sandbox_uid))
        try:
            done = subprocess.run(argv, capture_output=True, cwd=ROOT, timeout=TRIAL_MAX_S, check=True)
        except subprocess.SubprocessError as error:
            raise Temporary(f"how decoders are confined cannot be found out: {error}") from error
        found = AvailableLayers.from_json(json.loads(done.stdout))
        refused = (
            "" if found.is_strong or ingest.sandbox_weaker_accepted else "; jobs are refused (sandbox_weaker_accepted)"
        )
        return {"decoders": found.line() + refused}


def service(settings: Settings) -> Jobs:
    return Jobs(settings)
