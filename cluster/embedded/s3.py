"""The embedded S3 gateway: JuiceFS over a folder of blocks and a SQLite meta file, both in the data folder.

Creates the deployment's buckets. Knows no object.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cluster import runtime
from cluster.embedded import object_owners
from cluster.errors import Rejected, Temporary
from cluster.observability import health
from cluster.runtime import LOOPBACK
from cluster.services import Command
from cluster.settings import Settings
from cluster.storage import Storage

log = logging.getLogger(__name__)


IO_RETRIES = 1  # for a block that cannot be written: the disk is full, and callers retry by themselves
JUICEFS_TIMEOUT_S = 30.0


@dataclass
class S3Gateway:
    """The service `s3`."""

    settings: Settings
    name: str = "s3"
    needs: tuple[str, ...] = ()
    start_timeout_s: float = 30.0

    @property
    def _folder(self) -> Path:
        return self.settings.data_dir / "s3"

    @property
    def _blocks(self) -> str:
        return f"{self._folder / 'blocks'}/"

    @property
    def _meta(self) -> str:
        return f"sqlite3://{self._folder / 'meta.db'}"

    def prepare(self) -> None:
        runtime.port(self.settings, "s3", 9000)
        runtime.port(self.settings, "s3-metrics", 9567)
        runtime.secret(self.settings, "s3")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        formatted = self._folder / "formatted"
        if formatted.exists():
            self._follow_data_folder()
            object_owners.take_over(self._folder / "meta.db")
            return
        (self._folder / "meta.db").unlink(missing_ok=True)  # left by an interrupted `juicefs format`
        _juice("format", "--storage", "file", "--bucket", self._blocks, "--trash-days", "0", self._meta, "pixr")
        formatted.touch()

    def _follow_data_folder(self) -> None:
        """Correct the absolute path of the blocks in JuiceFS's meta file after the data folder was moved or copied."""
        if json.loads(_juice("config", self._meta))["Bucket"] != self._blocks:
            _juice("config", self._meta, "--bucket", self._blocks, "--yes")
            log.warning("the data folder was moved or copied: objects are kept in %s from now on", self._blocks)

    def command(self) -> Command:
        listen = f"{LOOPBACK}:{runtime.known_port(self.settings, 's3')}"
        metrics = f"{LOOPBACK}:{runtime.known_port(self.settings, 's3-metrics')}"
        options = (
            "--multi-buckets",
            "--no-banner",
            "--keep-etag",
            "--no-usage-report",
            "--no-agent",
            "--metrics",
            metrics,
            "--io-retries",
            str(IO_RETRIES),
        )
        cache = ("--cache-dir", str(self._folder / "cache"), "--cache-size", "256")
        environment = {"MINIO_ROOT_USER": "pixr", "MINIO_ROOT_PASSWORD": runtime.secret(self.settings, "s3")}
        return Command((_juicefs(), "gateway", *options, *cache, self._meta, listen), environment)

    def check(self) -> None:
        """Check that the gateway answers; create the buckets after the first start."""
        endpoint = runtime.endpoints(self.settings).s3
        health.s3(endpoint)
        marker = self._folder / f"bucket-{self.settings.s3.bucket}"
        if not marker.exists():
            for bucket in {self.settings.s3.bucket, *self.settings.s3.ingest_buckets}:
                Storage(endpoint).ensure_bucket(bucket)
            marker.touch()

    def address(self) -> str:
        return f"http://{LOOPBACK}:{runtime.known_port(self.settings, 's3')}"


def _juicefs() -> str:
    return str(Path(sys.executable).with_name("juicefs"))


def _juice(verb: str, *arguments: str) -> str:
    """Run a command of JuiceFS to its end and return its output.

    Raises:
        Temporary: it did not end in time.
        Rejected: it failed.
    """
    argv = (_juicefs(), verb, *arguments)
    try:
        process = subprocess.run(argv, capture_output=True, text=True, timeout=JUICEFS_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise Temporary(f"`juicefs {verb}` did not end within {JUICEFS_TIMEOUT_S:.0f} s") from error
    if process.returncode:
        lines = process.stderr.strip().splitlines()
        raise Rejected(f"the S3 gateway's `juicefs {verb}` failed: {lines[-1] if lines else process.returncode}")
    return process.stdout
