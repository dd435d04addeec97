"""Metrics of a running job: the figures of its report, and how full Ray's object store is, as Ray metrics.

Prometheus reads them from the metrics port of each node, as `ray_pixr_ingest_…{job="…"}`. Knows no stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import Connection

from cluster import ray_cluster
from cluster.settings import Settings
from pipelines.jobs import jobs, report

if TYPE_CHECKING:
    from ray.util.metrics import Gauge

PREFIX = "pixr_ingest_"


class Gauges:
    """The metrics of one job; its driver calls `show` every few seconds."""

    def __init__(self, settings: Settings, job_id: str) -> None:
        self._settings, self._job = settings, job_id
        self._store = ray_cluster.ObjectStore()
        self._gauges: dict[str, Gauge] = {}

    def show(self, connection: Connection) -> None:
        """Look at the object store, note its peak in the job's report, and set every gauge.

        Raises:
            Temporary: no node says how full its object store is.
        """
        self._store.look()
        share, spilled_mb = round(self._store.peak_share, 3), round(self._store.spilled_mb, 1)
        jobs.note(connection, self._job, {"object_store_peak_share": share, "object_store_spilled_mb": spilled_mb})
        figures = report.of(self._settings, connection, jobs.get(connection, self._job))
        for name, value in figures.items():
            if isinstance(value, int | float):
                self._of(name).set(value, {"job": self._job})

    def _of(self, name: str) -> Gauge:
        """Return the gauge of a figure, created at its first use."""
        from ray.util.metrics import Gauge

        if name not in self._gauges:
            self._gauges[name] = Gauge(PREFIX + name, f"{name.replace('_', ' ')} of a job", ("job",))
        return self._gauges[name]
