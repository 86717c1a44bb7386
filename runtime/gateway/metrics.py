"""What the gateway counts, and how it stands on the metrics page.

Counting is plain integer work on the request path; Prometheus families are made when the page is read. Names are
Knative's where one exists (kn.revision.request.*, kn.serving.invocation.duration as its OpenTelemetry export
spells them), upwell's otherwise.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from upwell.runtime.gateway.gateway import Gateway

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds in seconds: fine where a warm function answers, and reaching the default timeout."""


class CallCounters:
    """Totals of one revision since it is known."""

    __slots__ = ("buckets", "cold", "reasons", "seconds", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.reasons: dict[str, int] = {}
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0
        self.cold = 0

    def add(self, status: int, seconds: float, reason: str, *, cold: bool) -> None:
        """Count one request that is over."""
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds
        if reason:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if cold:
            self.cold += 1

    @property
    def total(self) -> int:
        """Requests counted."""
        return sum(self.statuses.values())


def histogram_buckets(counts: Iterable[int]) -> list[tuple[str, float]]:
    """Cumulative (upper bound, count) pairs for Prometheus from per-bucket counts in the order of BUCKETS."""
    bounds = [*(str(bound) for bound in BUCKETS), "+Inf"]
    return [(bound, float(count)) for bound, count in zip(bounds, accumulate(counts), strict=True)]


def revision_labels(revision: str) -> list[str]:
    """The values of the labels k8s_namespace_name and kn_revision_name."""
    namespace, _, name = revision.partition("/")
    return [namespace, name]


LABELS: Final = ["k8s_namespace_name", "kn_revision_name"]


class GatewayCollector(Collector):
    """The gateway's families for a Prometheus registry."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def collect(self) -> Iterable[Metric]:
        """Families made from the counts of this moment."""
        duration = HistogramMetricFamily(
            "upwell_gateway_request_duration_seconds",
            "From the request's head to the end of its answer.",
            labels=LABELS,
        )
        responses = CounterMetricFamily(
            "upwell_gateway_requests",
            "Requests by status of the answer.",
            labels=[*LABELS, "http_response_status_code"],
        )
        rejected = CounterMetricFamily(
            "upwell_gateway_rejections",
            "Requests that no replica answered in full, by reason.",
            labels=[*LABELS, "reason"],
        )
        cold = CounterMetricFamily(
            "upwell_gateway_cold_starts", "Requests that waited for a revision without a replica.", labels=LABELS
        )
        queued = GaugeMetricFamily("kn_revision_request_queued", "Requests held for a free slot.", labels=LABELS)
        active = GaugeMetricFamily("kn_revision_request_active", "Requests at replicas.", labels=LABELS)
        unrouted = CounterMetricFamily("upwell_gateway_unrouted_requests", "Requests that no route matched.")
        unrouted.add_metric([], self._gateway.unrouted)
        for revision, entry in self._gateway.statistics().items():
            labels = revision_labels(revision)
            counters = entry.counters
            duration.add_metric(labels, histogram_buckets(counters.buckets), counters.seconds)
            _add_each(responses, labels, counters.statuses)
            _add_each(rejected, labels, counters.reasons)
            cold.add_metric(labels, counters.cold)
            statistics = entry.activator.statistics()
            queued.add_metric(labels, statistics.waiting)
            active.add_metric(labels, statistics.in_flight)
        return [duration, responses, rejected, cold, queued, active, unrouted]


def _add_each(
    family: CounterMetricFamily, labels: list[str], counts: Mapping[int, int] | Mapping[str, int]
) -> None:
    for value, count in counts.items():
        family.add_metric([*labels, str(value)], count)
