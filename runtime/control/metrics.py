"""The metrics of the autoscaler, read from its latest decisions. Names are Knative's (kn.revision.*)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from upwell.autoscaler.decision import Decision
from upwell.autoscaler.engine import Engine
from upwell.runtime.measures import LABELS, revision_labels

_GAUGES: Final[tuple[tuple[str, str, Callable[[Decision], float]], ...]] = (
    ("kn_revision_pods_count", "Ready replicas.", lambda d: d.ready),
    ("kn_revision_pods_not_ready_count", "Replicas that start.", lambda d: d.starting),
    ("kn_revision_pods_desired", "Replicas that demand asks for.", lambda d: d.desired or 0),
    (
        "kn_revision_capacity_excess",
        "Capacity beyond the burst's.",
        lambda d: d.excess_burst_capacity,
    ),
    ("kn_revision_panic_mode", "1 in panic mode.", lambda d: float(d.panicking)),
)
_WINDOWS: Final[tuple[tuple[str, Callable[[Decision], float]], ...]] = (
    ("stable", lambda d: d.stable_value),
    ("panic", lambda d: d.panic_value),
    ("target", lambda d: d.target_value),
)


class AutoscalerCollector(Collector):
    """The autoscaler's families for a Prometheus registry."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        """Families made from the latest decisions."""
        statistics = self._engine.statistics()
        latest = statistics.latest
        for name, help_text, value in _GAUGES:
            gauge = GaugeMetricFamily(name, help_text, labels=list(LABELS))
            for revision, decision in latest.items():
                gauge.add_metric(revision_labels(revision), value(decision))
            yield gauge
        for metric in sorted({decision.metric for decision in latest.values()}):
            for window, value in _WINDOWS:
                gauge = GaugeMetricFamily(
                    f"kn_revision_{metric}_{window}", f"{metric}: {window}.", labels=list(LABELS)
                )
                for revision, decision in latest.items():
                    if decision.metric == metric:
                        gauge.add_metric(revision_labels(revision), value(decision))
                yield gauge
        yield CounterMetricFamily("upwell_autoscaler_ticks", "Ticks of the engine.", value=statistics.ticks)
        yield CounterMetricFamily("upwell_autoscaler_pokes", "Pokes by gateways.", value=statistics.pokes)
        reports = CounterMetricFamily(
            "upwell_autoscaler_reports", "Reports by what became of them.", labels=["acceptance"]
        )
        for acceptance, count in statistics.reports.items():
            reports.add_metric([str(acceptance)], count)
        yield reports
