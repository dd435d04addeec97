"""The metrics of one replica, for Prometheus. Knows what is counted, not how an answer is made.

Besides searches, these are the replica's own resources: connections, places at gates, tasks, file descriptors, memory.
Each request uses some and gives them back, so that without requests the gauges must return to their old values.
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
CACHES = ("replica", "redis")  # sources of cached answers
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class ReplicaGauges:
    """Functions that return a replica's gauges; called when Prometheus reads them."""

    pool: Callable[[], Mapping[str, float]] = dict  # database connections by state (`pool_states`)
    gates: Callable[[], Mapping[str, Mapping[str, float]]] = dict  # places by gate and state: taken, waiting
    spools_set_aside: Callable[[], int] = int


def pool_states(readers: Mapping[str, float]) -> dict[str, float]:
    """Map states to the number of connections in them, from `Readers.gauges`.

    `waiting` counts callers without a connection; `replaced` is a total that only grows.
    """
    opened, idle = readers["connections_open"], readers["connections_idle"]
    counted = {state: readers[f"connections_{state}"] for state in ("waiting", "replaced")}
    return {"used": opened - idle, "idle": idle, **counted}


class Metrics:
    """One replica's metrics.

    `recall` returns, by model, the share of right results (0 to 1) among the last searches that were checked.
    """

    def __init__(self, recall: Callable[[], Mapping[str, float]], gauges: ReplicaGauges | None = None) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_RecallCollector(recall))
        self.registry.register(_ReplicaGaugesCollector(gauges or ReplicaGauges()))
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
        self._hits.set_function(lambda: self._cached / self._answered if self._answered else 0.0)
        self._cached = self._answered = 0

    def observe(self, query: Query, answer: SearchResult, seconds: float) -> None:
        """Count a search that was answered in `seconds`."""
        degraded = ",".join(answer.page.degraded)
        self._searches.labels(query.intent.value, degraded, answer.source, query.variant).inc()
        self._seconds.observe(seconds)
        for stage, spent in answer.seconds.items():
            self._stages.labels(stage).observe(spent)
        self._moments.inc(len(answer.page.shown))
        self._answered += 1
        self._cached += answer.source in CACHES


class _RecallCollector(Collector):
    """A gauge of recall for each model whose searches were checked; the models are known only when it is read."""

    def __init__(self, recall: Callable[[], Mapping[str, float]]) -> None:
        self._recall = recall

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("pixr_recall_at_10", "Of the last searches made again exactly.", labels=("model",))
        for model, mean in self._recall().items():
            family.add_metric((model,), mean)
        yield family


class Opened(Collector):
    """Gauges of what is open in the ledger (payouts, holds, orders …), as last read from the database.

    Before the first reading it has none.
    """

    def __init__(self) -> None:
        self.again_s = float("-inf")  # monotonic: when the database is to be asked again
        self._ages: Sequence[Age] = ()
        self._looked_s: float | None = None
        self._taken_s = 0.0

    def take(self, ages: Sequence[Age], looked_s: float | None) -> None:
        """Store what the ledger measured `looked_s` seconds ago; None means that it has not measured yet."""
        self._ages, self._looked_s, self._taken_s = ages, looked_s, time.monotonic()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        families: Mapping[str, tuple[str, Callable[[Age], float]]] = {
            "pixr_ledger_open": ("Things of the ledger that are open and should end.", lambda age: age.open),
            "pixr_ledger_open_late": ("Of those, open for longer than they may.", lambda age: age.late),
            "pixr_ledger_open_seconds": ("Age of the oldest one.", lambda age: age.oldest_s),
        }
        for name, (documentation, value) in families.items():
            family = GaugeMetricFamily(name, documentation, labels=("state",))
            for age in self._ages:
                family.add_metric((age.state,), value(age))
            yield family
        if self._looked_s is not None:
            since_s = self._looked_s + time.monotonic() - self._taken_s
            yield _gauge("pixr_ledger_looked_seconds", "How long ago the ledger looked.", since_s)


class _ReplicaGaugesCollector(Collector):
    """The gauges of `ReplicaGauges`, and those of the process."""

    def __init__(self, gauges: ReplicaGauges) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[GaugeMetricFamily]:
        pool = GaugeMetricFamily("pixr_pool_connections", "Connections to the database.", labels=("state",))
        for state, count in self._gauges.pool().items():
            pool.add_metric((state,), count)
        gates = GaugeMetricFamily("pixr_gate_places", "Places at a gate.", labels=("gate", "state"))
        for gate, states in self._gauges.gates().items():
            for state, count in states.items():
                gates.add_metric((gate, state), count)
        yield from (pool, gates)
        yield _gauge("pixr_background_tasks", "Background tasks that run.", tasks.running())
        yield _gauge("pixr_uncancelled_calls", "Calls that a caller's end does not reach.", tasks.uncancelled_running())
        yield _gauge("pixr_open_descriptors", "Files and sockets of the process.", open_descriptors())
        set_aside = self._gauges.spools_set_aside()
        yield _gauge("pixr_spools_set_aside", "Damaged spools of this machine, for a person to look at.", set_aside)
        yield _gauge("pixr_resident_bytes", "Memory of the process.", resident_bytes())


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, value=value)


def open_descriptors() -> int:
    """Return how many files and sockets this process has open, without the descriptor that counting itself takes."""
    return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208  no paths are wanted


def resident_bytes() -> int:
    """Return how much memory this process has, in bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES
