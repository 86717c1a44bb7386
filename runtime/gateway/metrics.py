"""What the gateway counts, and how it stands on the metrics page.

Counting is plain integer work on the request path; Prometheus families are made when the page is read. Names are
Knative's where one exists (kn.revision.request.*, kn.serving.invocation.duration as its OpenTelemetry export
spells them), upwell's otherwise.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from upwell.runtime.measures import BUCKETS, LABELS, cumulative, revision_labels
from upwell.runtime.mesh.policy import Cause

if TYPE_CHECKING:
    from upwell.runtime.gateway.gateway import Gateway


CLIENT_CLOSED: Final = 499
"""Counted and logged, never sent: the client left first (nginx's number)."""
BAD_REQUEST: Final = "bad_request"
"""Reason of a request whose body was malformed or broke off, which the server answered."""


_QUOTA: Final = ("policy", "workload")


class CallCounters:
    """Totals of one revision since it is known."""

    __slots__ = ("buckets", "cold", "outcomes", "reasons", "refusals", "seconds", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.reasons: dict[str, int] = {}
        self.refusals: dict[tuple[str, str], int] = {}
        """By the policy that answered and its cause."""
        self.outcomes: dict[str, int] = {}
        """By what became of the request: succeeded, limited, broken, failed, or left where the client did."""
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0
        self.cold = 0

    def add(
        self, status: int, seconds: float, reason: str, *, cold: bool, refused: tuple[str, Cause] | None = None
    ) -> None:
        """Count one request that is over; `refused` names the policy that answered, and why."""
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds
        if reason:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if cold:
            self.cold += 1
        outcome = outcome_of(status, None if refused is None else refused[1], reason)
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        if refused is not None:
            key = (refused[0], refused[1].value)
            self.refusals[key] = self.refusals.get(key, 0) + 1

    @property
    def total(self) -> int:
        """Requests counted."""
        return sum(self.statuses.values())


def outcome_of(status: int, cause: Cause | None, reason: str = "") -> str:
    """What became of a request, as metrics, `upwell load` and `upwell topology` name it. With a `reason` no
    replica answered it in full, whatever the status that its answer began with."""
    if cause is not None and cause is not Cause.ANSWERED:
        return str(cause.value)
    if status == CLIENT_CLOSED:
        return "left"
    broken_off = reason not in ("", BAD_REQUEST) and cause is None
    return "failed" if status >= 500 or broken_off else "succeeded"


class GatewayCollector(Collector):
    """The gateway's families for a Prometheus registry."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def collect(self) -> Iterable[Metric]:
        """Families made from the counts of this moment, each in a pass of its own: with thousands of revisions
        whoever reads them gives way to requests in between."""
        yield self._durations()
        yield from self._counts()
        yield from self._moments()
        unrouted = CounterMetricFamily("upwell_gateway_unrouted_requests", "Requests that no route matched.")
        unrouted.add_metric([], self._gateway.unrouted)
        yield unrouted
        yield from self._quotas()
        mirroring = self._gateway.policing.mirroring
        copies = CounterMetricFamily(
            "upwell_gateway_copies", "Copies that mirrors asked for, by what became of them.", labels=["outcome"]
        )
        copies.add_metric(["sent"], mirroring.sent)
        copies.add_metric(["dropped"], mirroring.dropped)
        yield copies
        dropped = CounterMetricFamily("upwell_gateway_log_lines_dropped", "Access log lines not written.")
        dropped.add_metric([], self._gateway.access_log.dropped)
        yield dropped

    def _quotas(self) -> Iterable[Metric]:
        tokens = CounterMetricFamily(
            "upwell_quota_tokens", "Tokens asked for, by what became of them.", labels=(*_QUOTA, "outcome")
        )
        seconds = CounterMetricFamily(
            "upwell_quota_queue_seconds", "Time that requests waited for their turn.", labels=_QUOTA
        )
        waiting = GaugeMetricFamily("upwell_quota_waiting", "Requests that wait for their turn.", labels=_QUOTA)
        for quota in self._gateway.policing.quotas():
            for workload, counters in quota.counters.items():
                labels = [quota.policy, workload]
                tokens.add_metric([*labels, "incoming"], counters.incoming_tokens)
                tokens.add_metric([*labels, "accepted"], counters.accepted_tokens)
                tokens.add_metric([*labels, "rejected"], counters.rejected_tokens)
                seconds.add_metric(labels, counters.queue_seconds)
                waiting.add_metric(labels, counters.waiting)
        return [tokens, seconds, waiting]

    def _durations(self) -> Metric:
        duration = HistogramMetricFamily(
            "upwell_gateway_request_duration_seconds",
            "From the request's head to the end of its answer.",
            labels=list(LABELS),
        )
        for revision, entry in self._gateway.revisions.items():
            counters = entry.counters
            duration.add_metric(revision_labels(revision), cumulative(counters.buckets), counters.seconds)
        return duration

    def _counts(self) -> Iterable[Metric]:
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
        refused = CounterMetricFamily(
            "upwell_gateway_policy_refusals",
            "Requests that a policy answered in the place of a replica, by policy and cause.",
            labels=[*LABELS, "policy", "cause"],
        )
        outcomes = CounterMetricFamily(
            "upwell_gateway_outcomes",
            "Requests by what became of them.",
            labels=[*LABELS, "outcome"],
        )
        cold = CounterMetricFamily(
            "upwell_gateway_cold_starts",
            "Requests that waited for a first replica.",
            labels=list(LABELS),
        )
        for revision, entry in self._gateway.revisions.items():
            labels = revision_labels(revision)
            _add_each(responses, labels, entry.counters.statuses)
            _add_each(rejected, labels, entry.counters.reasons)
            _add_each(outcomes, labels, entry.counters.outcomes)
            for (policy, cause), count in entry.counters.refusals.items():
                refused.add_metric([*labels, policy, cause], count)
            cold.add_metric(labels, entry.counters.cold)
        return [responses, rejected, refused, outcomes, cold]

    def _moments(self) -> Iterable[Metric]:
        queued = GaugeMetricFamily("kn_revision_request_queued", "Requests that wait.", labels=list(LABELS))
        active = GaugeMetricFamily("kn_revision_request_active", "Requests at replicas.", labels=list(LABELS))
        for revision, entry in self._gateway.revisions.items():
            labels = revision_labels(revision)
            statistics = entry.activator.statistics()
            queued.add_metric(labels, statistics.waiting)
            active.add_metric(labels, statistics.in_flight)
        return [queued, active]


def _add_each(
    family: CounterMetricFamily, labels: list[str], counts: Mapping[int, int] | Mapping[str, int]
) -> None:
    for value, count in counts.items():
        family.add_metric([*labels, str(value)], count)
