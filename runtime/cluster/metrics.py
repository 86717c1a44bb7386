"""The metrics of replicas, as each last told them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from upwell.runtime.cluster.interface import Replica
from upwell.runtime.measures import LABELS, cumulative, revision_labels

REPLICA_LABELS = [*LABELS, "k8s_pod_name"]


class ReplicaMetrics(Protocol):
    """A cluster that hears from its replicas."""

    def replica_metrics(self) -> Iterator[tuple[Replica, Mapping[str, Any]]]:
        """Each replica with what `QueueMetrics.snapshot` last said there; empty before its first message."""
        ...


class ReplicaCollector(Collector):
    """The families of replicas for a Prometheus registry."""

    def __init__(self, cluster: ReplicaMetrics) -> None:
        self._cluster = cluster

    def collect(self) -> Iterable[Metric]:
        """Families made from what replicas last told."""
        duration = HistogramMetricFamily(
            "kn_serving_invocation_duration_seconds", "Time in the replica.", labels=REPLICA_LABELS
        )
        depth = GaugeMetricFamily(
            "kn_serving_queue_depth", "Requests that the replica holds.", labels=REPLICA_LABELS
        )
        responses = CounterMetricFamily(
            "upwell_replica_responses",
            "Responses by status.",
            labels=[*REPLICA_LABELS, "http_response_status_code"],
        )
        timeouts = CounterMetricFamily(
            "upwell_replica_timeouts", "Requests cut off by a timeout.", labels=REPLICA_LABELS
        )
        starts = GaugeMetricFamily(
            "upwell_replica_start_milliseconds", "Phases of the start.", labels=[*REPLICA_LABELS, "phase"]
        )
        for replica, metrics in self._cluster.replica_metrics():
            labels = [*revision_labels(replica.revision), replica.name]
            for phase, milliseconds in replica.phases.items():
                starts.add_metric([*labels, phase], milliseconds)
            if metrics:
                duration.add_metric(labels, cumulative(metrics["buckets"]), metrics["seconds"])
                depth.add_metric(labels, metrics["queue_depth"])
                timeouts.add_metric(labels, metrics["timeouts"])
                for status, count in metrics["responses"].items():
                    responses.add_metric([*labels, status], count)
        return [duration, depth, responses, timeouts, starts]
