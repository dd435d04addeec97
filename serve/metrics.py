"""What one replica counts for Prometheus. Knows what is counted, nothing of how an answer is made.

Beside what was answered stand the replica's own means: connections, places at its gates, tasks, descriptors, memory.
Each request takes of them and gives back; when nobody asks they must stand where they stood before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from cluster import tasks
from serve.replica.ledger_retention import RetentionCollector

if TYPE_CHECKING:
    from ledger.audit.ages import Age
    from serve.search.page import SearchResult
    from serve.search.query import Query

BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
CACHES = ("replica", "redis")  # where an answer that was not made anew comes from
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class ReplicaGauges:
    """What a replica works with, each asked when Prometheus asks."""

    pool: Callable[[], Mapping[str, float]] = dict  # database connections by state: used, idle, waiting …
    gates: Callable[[], Mapping[str, Mapping[str, float]]] = dict  # places by gate and state: taken, waiting
    spools_set_aside: Callable[[], int] = int


def pool_states(readers: Mapping[str, float]) -> dict[str, float]:
    """Connections by state, from `Readers.gauges`; `waiting` are the callers without one, `replaced` ever grows."""
    opened, idle = readers["connections_open"], readers["connections_idle"]
    counted = {state: readers[f"connections_{state}"] for state in ("waiting", "replaced")}
    return {"used": opened - idle, "idle": idle, **counted}


class Metrics:
    """One replica's counters. `recall` gives the share of right answers among the last that were checked, by model."""

    def __init__(self, recall: Callable[[], Mapping[str, float]], means: ReplicaGauges | None = None) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_RecallCollector(recall))
        self.registry.register(_ReplicaGaugesCollector(means or ReplicaGauges()))
        self.open = Opened()
        self.registry.register(self.open)
        self.retention = RetentionCollector()
        self.registry.register(self.retention)
        labels = ("intent", "degraded", "source", "variant")
        self._searches = Counter("pixr_searches", "Searches answered.", labels, registry=self.registry)
        self._seconds = Histogram("pixr_search_seconds", "Time to answer.", buckets=BUCKETS_S, registry=self.registry)
        self._stages = Histogram(
            "pixr_search_stage_seconds", "Time of a stage.", ("stage",), buckets=BUCKETS_S, registry=self.registry
        )
        self._moments = Counter("pixr_moments_shown", "Moments in answers.", registry=self.registry)
        self._hits = Gauge("pixr_cache_hit_ratio", "Of all searches, those that were kept.", registry=self.registry)
        self._hits.set_function(lambda: self._kept / self._all if self._all else 0.0)
        self._kept = self._all = 0

    def observe(self, query: Query, answer: SearchResult, seconds: float) -> None:
        """One search was answered."""
        degraded = ",".join(answer.page.degraded)
        self._searches.labels(query.intent.value, degraded, answer.source, query.variant).inc()
        self._seconds.observe(seconds)
        for stage, spent in answer.seconds.items():
            self._stages.labels(stage).observe(spent)
        self._moments.inc(len(answer.page.shown))
        self._all += 1
        self._kept += answer.source in CACHES


class _RecallCollector(Collector):
    """A gauge for every model that was looked at, which are known only when they are asked for."""

    def __init__(self, recall: Callable[[], Mapping[str, float]]) -> None:
        self._recall = recall

    def collect(self) -> Iterator[GaugeMetricFamily]:
        found = GaugeMetricFamily("pixr_recall_at_10", "Of the last searches made again exactly.", labels=("model",))
        for model, mean in self._recall().items():
            found.add_metric((model,), mean)
        yield found


class Opened(Collector):
    """What the ledger has found open, as the database last said; nothing before it was asked."""

    def __init__(self) -> None:
        self.again_s = float("-inf")  # when it is to be asked next
        self._ages: Sequence[Age] = ()
        self._looked_s: float | None = None
        self._taken_s = 0.0

    def take(self, found: Sequence[Age], looked_s: float | None) -> None:
        """What was found, so many seconds ago."""
        self._ages, self._looked_s, self._taken_s = found, looked_s, time.monotonic()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        said: Mapping[str, tuple[str, Callable[[Age], float]]] = {
            "pixr_ledger_open": ("Things of the ledger that are open and should end.", lambda each: each.open),
            "pixr_ledger_open_late": ("Of those, open for longer than they may.", lambda each: each.late),
            "pixr_ledger_open_seconds": ("Age of the oldest one.", lambda each: each.oldest_s),
        }
        for name, (documentation, value) in said.items():
            family = GaugeMetricFamily(name, documentation, labels=("state",))
            for each in self._ages:
                family.add_metric((each.state,), value(each))
            yield family
        if self._looked_s is not None:
            since_s = self._looked_s + time.monotonic() - self._taken_s
            yield _gauge("pixr_ledger_looked_seconds", "How long ago the ledger looked.", since_s)


class _ReplicaGaugesCollector(Collector):
    """Gauges of what the replica works with."""

    def __init__(self, means: ReplicaGauges) -> None:
        self._means = means

    def collect(self) -> Iterator[GaugeMetricFamily]:
        pool = GaugeMetricFamily("pixr_pool_connections", "Connections to the database.", labels=("state",))
        for state, count in self._means.pool().items():
            pool.add_metric((state,), count)
        gates = GaugeMetricFamily("pixr_gate_places", "Places at a gate.", labels=("gate", "state"))
        for gate, states in self._means.gates().items():
            for state, count in states.items():
                gates.add_metric((gate, state), count)
        yield from (pool, gates)
        yield _gauge("pixr_background_tasks", "Background tasks that run.", tasks.running())
        yield _gauge("pixr_uncancelled_calls", "Calls that a caller's end does not reach.", tasks.uncancelled_running())
        yield _gauge("pixr_open_descriptors", "Files and sockets of the process.", open_descriptors())
        aside = self._means.spools_set_aside()
        yield _gauge("pixr_spools_set_aside", "Damaged spools of this machine, for a person to look at.", aside)
        yield _gauge("pixr_resident_bytes", "Memory of the process.", resident_bytes())


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, value=value)


def open_descriptors() -> int:
    """How many files and sockets this process has open; the one by which they are counted is not among them."""
    return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208  no paths are wanted


def resident_bytes() -> int:
    """How much memory this process has."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES
