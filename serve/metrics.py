"""What one replica counts for Prometheus. Knows what is counted, nothing of how an answer is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from serve.query import Query
    from serve.search import Answer

BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
CACHES = ("replica", "redis")  # where an answer that was not made anew comes from


class Metrics:
    """One replica's counters. `recall` gives the share of right answers among the last that were checked."""

    def __init__(self, recall: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        labels = ("intent", "degraded", "source", "variant")
        self._searches = Counter("pixr_searches", "Searches answered.", labels, registry=self.registry)
        self._seconds = Histogram("pixr_search_seconds", "Time to answer.", buckets=BUCKETS_S, registry=self.registry)
        self._recall = Gauge("pixr_recall_at_10", "Of the last searches made again exactly.", registry=self.registry)
        self._recall.set_function(recall)
        self._moments = Counter("pixr_moments_shown", "Moments in answers.", registry=self.registry)
        self._hits = Gauge("pixr_cache_hit_ratio", "Of all searches, those that were kept.", registry=self.registry)
        self._hits.set_function(lambda: self._kept / self._all if self._all else 0.0)
        self._kept = self._all = 0

    def observe(self, query: Query, answer: Answer, seconds: float) -> None:
        """One search was answered."""
        degraded = ",".join(answer.page.degraded)
        self._searches.labels(query.intent.value, degraded, answer.source, query.variant).inc()
        self._seconds.observe(seconds)
        self._moments.inc(len(answer.page.shown))
        self._all += 1
        self._kept += answer.source in CACHES
