"""The service `jobs`: the watch over ingest jobs (`jobs/watch.py`), as the supervisor starts and checks it."""

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

SILENT_MAX_S = 60.0  # since the watch's last round
TRIAL_MAX_S = 60.0  # of finding out how decoders are confined


@dataclass
class Jobs:
    """The process that submits unfinished jobs, and the scratch folder of the workers on this machine."""

    settings: Settings
    name: str = "jobs"
    needs: tuple[str, ...] = ("schema", "ray", "s3")
    start_timeout_s: float = 60.0

    def prepare(self) -> None:
        """Remove the watch's beat file, and create the scratch folder if Ray's workers run on this machine."""
        watch.beat_path(self.settings).unlink(missing_ok=True)
        folder = self._scratch.folder
        if self.settings.ray.address == EMBEDDED:  # its workers are on this machine
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            leftovers.remove_stale(folder.parent, scratch.beginning())
            folder.mkdir(mode=0o700, exist_ok=True)  # it may have been removed as a stale one
            leftovers.note(folder, self.settings.data_dir)

    def command(self) -> Command:
        """Return the command that the supervisor runs."""
        return Command((sys.executable, "-m", "pipelines.jobs.watch"))

    def check(self) -> None:
        """Check that the watch is at work.

        Raises:
            Temporary: it has not finished a round lately.
        """
        try:
            age_s = time.time() - watch.beat_path(self.settings).stat().st_mtime
        except FileNotFoundError as error:
            raise Temporary("the watch has not looked around yet") from error
        if age_s > SILENT_MAX_S:
            raise Temporary(f"the watch has been silent for {age_s:.0f} s")

    def tidy(self) -> None:
        """Delete the scratch folder if Ray's workers run on this machine."""
        if self.settings.ray.address == EMBEDDED:
            leftovers.remove(self._scratch.folder, self.settings.data_dir)

    @property
    def _scratch(self) -> Scratch:
        """The folder in which workers of this machine keep the files that they decode."""
        ingest, s3 = self.settings.section(IngestSettings), runtime.endpoints(self.settings).s3
        return Scratch.of(ingest, s3.url, self.settings.s3.bucket, 1)

    def address(self) -> str:
        """Return what `pixr status` shows in place of an address."""
        return "resubmits unfinished jobs"

    def notes(self) -> Mapping[str, str]:
        """Try the layers and return how decoders are confined on this machine; other nodes log it in their workers."""
        ingest = self.settings.section(IngestSettings)
        argv = (sys.executable, "-m", "pipelines.confinement", str(ingest.sandbox_uid))
        try:
            trial = subprocess.run(argv, capture_output=True, cwd=ROOT, timeout=TRIAL_MAX_S, check=True)
        except subprocess.SubprocessError as error:
            raise Temporary(f"how decoders are confined cannot be found out: {error}") from error
        available = AvailableLayers.from_json(json.loads(trial.stdout))
        is_enough = available.is_strong or ingest.sandbox_weaker_accepted
        return {"decoders": available.line() + ("" if is_enough else "; jobs are refused (sandbox_weaker_accepted)")}


def service(settings: Settings) -> Jobs:
    """Return the service, for the entry point `pixr.services`."""
    return Jobs(settings)
