"""What one replica counts for Prometheus. Knows what is counted, nothing of how an answer is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from serve.query import Query
    from serve.search import Answer

BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
CACHES = ("replica", "redis")  # where an answer that was not made anew comes from


class Metrics:
    """One replica's counters. `recall` gives the share of right answers among the last that were checked, by model."""

    def __init__(self, recall: Callable[[], Mapping[str, float]]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Recall(recall))
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

    def observe(self, query: Query, answer: Answer, seconds: float) -> None:
        """One search was answered."""
        degraded = ",".join(answer.page.degraded)
        self._searches.labels(query.intent.value, degraded, answer.source, query.variant).inc()
        self._seconds.observe(seconds)
        for stage, spent in answer.seconds.items():
            self._stages.labels(stage).observe(spent)
        self._moments.inc(len(answer.page.shown))
        self._all += 1
        self._kept += answer.source in CACHES


class _Recall(Collector):
    """A gauge for every model that was looked at, which are known only when they are asked for."""

    def __init__(self, recall: Callable[[], Mapping[str, float]]) -> None:
        self._recall = recall

    def collect(self) -> Iterator[GaugeMetricFamily]:
        found = GaugeMetricFamily("pixr_recall_at_10", "Of the last searches made again exactly.", labels=("model",))
        for model, mean in self._recall().items():
            found.add_metric((model,), mean)
        yield found
