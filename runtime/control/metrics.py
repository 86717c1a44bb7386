"""The metrics of the autoscaler, read from its latest decisions. Names are Knative's (kn.revision.*) where it has
one.

While demand is not known the scale is held, and what is there counts as what is desired and requested.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from upwell.autoscaler.decision import Decision, SignalWant
from upwell.autoscaler.engine import Engine, EngineStatistics
from upwell.autoscaler.metric_targets import REQUEST_METRICS
from upwell.runtime.cluster.interface import Replica, ReplicaState
from upwell.runtime.measures import LABELS, revision_labels


def _held(count: int | None, decision: Decision) -> int:
    return decision.ready + decision.starting if count is None else count


_OF_DECISIONS: Final[tuple[tuple[str, str, Callable[[Decision], float]], ...]] = (
    ("kn_revision_pods_desired", "Replicas that demand asks for.", lambda d: _held(d.desired, d)),
    ("kn_revision_pods_requested", "Replicas asked for after all bounds.", lambda d: _held(d.wanted, d)),
    ("kn_revision_capacity_excess", "Capacity beyond the burst's.", lambda d: d.excess_burst_capacity),
    ("kn_revision_panic_mode", "1 in panic mode.", lambda d: d.panicking),
    ("upwell_revision_activators", "Activators that are to stand before it.", lambda d: d.activators),
    ("upwell_revision_demand_known", "0 while demand cannot be told.", lambda d: d.valid),
)
_OF_REPLICAS: Final[tuple[tuple[str, str, tuple[ReplicaState, ...]], ...]] = (
    ("kn_revision_pods_count", "Ready replicas.", (ReplicaState.READY,)),
    (
        "kn_revision_pods_not_ready_count",
        "Replicas that start or end.",
        (ReplicaState.STARTING, ReplicaState.DRAINING),
    ),
    ("kn_revision_pods_pending_count", "Replicas that start.", (ReplicaState.STARTING,)),
    ("kn_revision_pods_terminating_count", "Replicas that end.", (ReplicaState.DRAINING,)),
)
_OF_REQUESTS: Final[tuple[tuple[str, str, Callable[[Decision], float]], ...]] = (
    ("stable", "over the stable window", lambda d: d.stable_value),
    ("panic", "over the panic window", lambda d: d.panic_value),
    ("target", "aimed at for a replica", lambda d: d.target_value),
)
_OF_SIGNALS: Final[tuple[tuple[str, str, Callable[[Decision, SignalWant], float]], ...]] = (
    ("value", "A metric over all replicas.", lambda d, s: s.value),
    ("target", "A replica's share of a metric.", lambda d, s: s.target),
    ("want", "Replicas that a metric asks for.", lambda d, s: s.want),
    ("missing", "1 while a metric cannot be read.", lambda d, s: s.missing is not None),
    ("binding", "1 for the metric that asks for most.", lambda d, s: s.metric == d.binding),
)
_SIGNAL_LABELS: Final = (*LABELS, "metric")


class AutoscalerCollector(Collector):
    """The autoscaler's families for a Prometheus registry; `replicas` gives those of a revision that are not
    gone."""

    def __init__(self, engine: Engine, replicas: Callable[[str], Sequence[Replica]]) -> None:
        self._engine = engine
        self._replicas = replicas

    def collect(self) -> Iterable[Metric]:
        """Families made from the latest decisions, and from the replicas there are."""
        statistics = self._engine.statistics()
        latest = [(revision_labels(revision), decision) for revision, decision in statistics.latest.items()]
        for name, help_text, value in _OF_DECISIONS:
            gauge = GaugeMetricFamily(name, help_text, labels=LABELS)
            for labels, decision in latest:
                gauge.add_metric(labels, value(decision))
            yield gauge
        yield from self._counts(statistics.latest)
        yield from _wants(latest)
        yield from _requests(latest)
        yield from _signals([each for each in latest if each[1].signals])
        yield from _totals(statistics)

    def _counts(self, revisions: Mapping[str, Decision]) -> Iterator[Metric]:
        counted = [
            (revision_labels(revision), Counter(replica.state for replica in self._replicas(revision)))
            for revision in revisions
        ]
        for name, help_text, states in _OF_REPLICAS:
            gauge = GaugeMetricFamily(name, help_text, labels=LABELS)
            for labels, counts in counted:
                gauge.add_metric(labels, sum(counts[state] for state in states))
            yield gauge


_Latest = Sequence[tuple[list[str], Decision]]


def _wants(latest: _Latest) -> Iterator[Metric]:
    gauge = GaugeMetricFamily(
        "upwell_revision_want", "Replicas that a window asks for.", labels=(*LABELS, "window")
    )
    for labels, decision in latest:
        gauge.add_metric([*labels, "stable"], decision.stable_want)
        gauge.add_metric([*labels, "panic"], decision.panic_want)
    yield gauge


def _requests(latest: _Latest) -> Iterator[Metric]:
    for metric in REQUEST_METRICS:
        scaled = [each for each in latest if each[1].metric == metric]
        for name, meaning, value in _OF_REQUESTS if scaled else ():
            gauge = GaugeMetricFamily(f"kn_revision_{metric}_{name}", f"{metric} {meaning}.", labels=LABELS)
            for labels, decision in scaled:
                gauge.add_metric(labels, value(decision))
            yield gauge


def _signals(latest: _Latest) -> Iterator[Metric]:
    for name, help_text, value in _OF_SIGNALS if latest else ():
        gauge = GaugeMetricFamily(f"upwell_revision_signal_{name}", help_text, labels=_SIGNAL_LABELS)
        for labels, decision in latest:
            for signal in decision.signals:
                gauge.add_metric([*labels, signal.metric], value(decision, signal))
        yield gauge


def _totals(statistics: EngineStatistics) -> Iterator[Metric]:
    yield GaugeMetricFamily("upwell_autoscaler_revisions", "Revisions scaled.", value=statistics.revisions)
    yield GaugeMetricFamily("upwell_autoscaler_reporters", "Who reports load.", value=statistics.reporters)
    yield CounterMetricFamily("upwell_autoscaler_ticks", "Ticks of the engine.", value=statistics.ticks)
    yield CounterMetricFamily("upwell_autoscaler_pokes", "Pokes by gateways.", value=statistics.pokes)
    yield CounterMetricFamily(
        "upwell_autoscaler_pokes_that_raised", "Pokes that raised a scale.", value=statistics.pokes_that_raised
    )
    reports = CounterMetricFamily(
        "upwell_autoscaler_reports", "Reports by what became of them.", labels=["acceptance"]
    )
    for acceptance, count in statistics.reports.items():
        reports.add_metric([str(acceptance)], count)
    yield reports
