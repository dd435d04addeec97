"""The metrics of all processes, described for `pixr docs metrics`.

For a replica's metrics, an example of `Metrics` is given values and read as Prometheus reads it. So the page agrees
with `/metrics`. The metrics of an ingest job are the figures of its report.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from cluster.reference.metrics_page import Metric
from ledger.archive import retention
from ledger.audit import ages
from ledger.audit.ages import Age
from pipelines.jobs import report
from pipelines.jobs.gauges import PREFIX
from serve.http import gates
from serve.metrics import Metrics, ReplicaGauges, pool_states
from serve.replica.connections import Connections
from serve.replica.ledger_retention import Row
from serve.replica.readers import Readers
from serve.replica.results import MADE, REPLICA, SHARED, ResultPage
from serve.search.page import CURSOR, SearchResult
from serve.search.query import Intent, Query
from serve.settings import SearchSettings

ANY = "…"  # the value of a label whose values the code does not limit


def of_replicas() -> Sequence[Metric]:
    """Return the metrics of a replica in the order of `/metrics`, since a help text may refer to the one before."""
    return list(_read(_example()))


def of_ingest() -> Sequence[Metric]:
    """Return the metrics of an ingest job, as Ray names them, in the order of the report."""
    return [Metric(f"ray_{PREFIX}{name}", "gauge", meaning, {"job": ()}) for name, meaning in report.FIGURES.items()]


def _read(example: Metrics) -> Iterator[Metric]:
    """Describe each metric of an example, with the values that its labels have in the example."""
    for family in example.registry.collect():
        values: dict[str, list[str]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label != "le" and value not in values.setdefault(label, []):  # `le` is a bucket of a histogram
                    values[label].append(value)
        labels = {label: () if ANY in found else found for label, found in values.items()}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield Metric(name, family.type, family.documentation, labels)


def _example() -> Metrics:
    """Return the metrics of a replica after searches of each kind, with a value for each of its other gauges."""
    search = SearchSettings()
    readers, gate, other_gates = Readers(Connections("", search), [], search), gates.searches(search), gates.of(search)
    own = ReplicaGauges(lambda: pool_states(readers.gauges()), lambda: gates.places(gate, other_gates), lambda: 0)
    example = Metrics(lambda: {ANY: 1.0}, own)
    page = ResultPage(b"[]", (), None, degraded=(ANY,), seconds={ANY: 0.0})
    for intent, source in product(Intent, (MADE, REPLICA, SHARED, CURSOR)):
        example.observe(Query(1, text=ANY, intent=intent, variant=ANY), SearchResult(page, source), 0.0)
    example.open.take([Age(state, 0, 0, None, 0.0, 0.0, ()) for state in ages.STATES], 0.0)
    example.retention.take([Row(name, 0, 0.0, 0, 0) for name in retention.KEPT])
    return example
