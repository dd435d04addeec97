"""The service `jobs`: the watch over ingest jobs, as the supervisor starts and checks it."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from cluster.errors import Temporary
from cluster.services import Command
from cluster.settings import Settings
from pipelines import watch

SILENT_MAX_S = 60.0


@dataclass
class Jobs:
    """One process that submits unfinished jobs again."""

    settings: Settings
    name: str = "jobs"
    needs: tuple[str, ...] = ("schema", "ray", "s3")
    start_timeout_s: float = 60.0

    def prepare(self) -> None:
        watch.beat_path(self.settings).unlink(missing_ok=True)

    def command(self) -> Command:
        return Command((sys.executable, "-m", "pipelines.watch"))

    def check(self) -> None:
        try:
            age_s = time.time() - watch.beat_path(self.settings).stat().st_mtime
        except FileNotFoundError as error:
            raise Temporary("the watch has not looked around yet") from error
        if age_s > SILENT_MAX_S:
            raise Temporary(f"the watch has been silent for {age_s:.0f} s")

    def address(self) -> str:
        return "resubmits unfinished jobs"


def service(settings: Settings) -> Jobs:
    return Jobs(settings)
