"""The metrics that a revision may be scaled by besides its requests, and the annotation that lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from upwell.autoscaler.quantities import parse_float
from upwell.autoscaler.structures import items, members, parse_structure, text

CONCURRENCY: Final = "concurrency"
RPS: Final = "rps"
CPU: Final = "cpu"
MEMORY: Final = "memory"
BACKLOG: Final = "backlog"
PROMETHEUS: Final = "prometheus"
REQUEST_METRICS: Final = (CONCURRENCY, RPS)
"""What is known of requests: counted by gateway and replicas."""
RESOURCES: Final = (CPU, MEMORY)
"""What a replica uses even if nothing is asked of it."""
METRICS: Final = (*REQUEST_METRICS, *RESOURCES, BACKLOG, PROMETHEUS)

LEAST_TARGET: Final = 0.01
MOST_METRICS: Final = 8
_MEMBERS: Final = ("metric", "target", "query")


@dataclass(frozen=True, slots=True)
class MetricTarget:
    """A further metric that a revision is scaled by, and what a replica is to have of it."""

    metric: str
    """One of METRICS, or for the HPA class any other."""
    target: float
    """A replica's share: requests in flight or a second, percent of the requested CPU, MiB of memory, events, or
    the query's unit."""
    query: str = ""
    """For `prometheus`: what to ask."""

    @property
    def label(self) -> str:
        """What tells it from a revision's other metrics."""
        return f"{self.metric}({self.query})" if self.query else self.metric


def parse_metrics(written: str) -> tuple[MetricTarget, ...]:
    """The metrics of the annotation: a list of `{metric, target, query}`. Raises ValueError with what is wrong."""
    found = tuple(
        _metric(each, f"metric {number}")
        for number, each in enumerate(items(parse_structure(written), "it", MOST_METRICS), start=1)
    )
    labels = [each.label for each in found]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"{label} is listed more than once")
    if sum(each.metric in REQUEST_METRICS for each in found) > 1:
        raise ValueError(f"a revision's requests are counted in one way: {CONCURRENCY} or {RPS}")
    return found


def _metric(value: object, where: str) -> MetricTarget:
    found = members(value, where, _MEMBERS)
    metric = text(found.get("metric", ""), f"{where}'s metric")
    if metric not in METRICS:
        raise ValueError(f"{where} must be one of {', '.join(METRICS)}, was {metric[:64]!r}")
    query = text(found.get("query", ""), f"{where}'s query")
    if bool(query) != (metric == PROMETHEUS):
        raise ValueError(
            f"{where} needs a query" if metric == PROMETHEUS else f"{where}, {metric}, takes no query"
        )
    return MetricTarget(metric, _target(found, where), query)


def _target(found: dict[str, object], where: str) -> float:
    written = text(found.get("target", ""), f"{where}'s target")
    try:
        target = parse_float(written)
    except ValueError:
        target = 0.0
    if target < LEAST_TARGET:
        raise ValueError(f"{where}'s target must be a number of at least {LEAST_TARGET}, was {written[:64]!r}")
    return target
