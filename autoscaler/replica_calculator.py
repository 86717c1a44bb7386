"""How many replicas one metric asks for, as the horizontal pod autoscaler of Kubernetes works it out.

What replicas use is averaged over those that were measured and compared with the target. Within the tolerance
nothing changes. Replicas that were not measured are assumed to use nothing when the others ask for more, and all
that they may when these ask for less; a replica that is not ready yet counts for nothing on the way up and is left
out on the way down. If the assumptions turn the direction around, nothing changes. A metric that is known as a sum
is divided by the target. After pkg/controller/podautoscaler/replica_calculator.go.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from upwell.autoscaler.decision import Missing, Reading, ReplicaReading, SignalWant, saturated
from upwell.autoscaler.metric_targets import CPU, MEMORY, MetricTarget

CPU_INITIALIZATION_PERIOD: Final = 300.0
"""Seconds after its start in which a replica's use of CPU counts only if it is ready."""
INITIAL_READINESS_DELAY: Final = 30.0
"""One that is not ready, and became so within this many seconds of its start, was never ready."""
CPU_SAMPLE_WINDOW: Final = 15.0
"""Seconds over which use of CPU is averaged: what was measured earlier after readiness holds the start as well."""
MEBIBYTE: Final = 1024.0 * 1024.0
FULL_UTILIZATION: Final = 100.0
_ROUNDING = 1e-6


class Tolerances(NamedTuple):
    """By which share of its target a metric may be off it without any change."""

    down: float
    up: float

    def hold(self, ratio: float) -> bool:
        """Whether a metric of `ratio` times its target is near enough."""
        return 1.0 - self.down <= ratio <= 1.0 + self.up


class Counted(NamedTuple):
    """The replicas that a metric is seen against: `current` are all that there are, ready or on the way."""

    current: int
    cpu_request: float
    """Cores that each has asked for."""
    tolerances: Tolerances


def propose(metric: MetricTarget, reading: Reading, counted: Counted, now: float) -> SignalWant:
    """What `metric` asks for at `now` (Unix seconds); its value is the sum over replicas in the target's unit."""
    if reading.missing is not None:
        return _unknown(metric, reading.missing)
    unit = _unit(metric, counted.cpu_request)
    if reading.replicas:
        return _of_replicas(metric, _sort(metric, reading.replicas, unit, now), counted)
    value = reading.value / unit
    if not math.isfinite(value):
        return _unknown(metric, Missing.METRICS_FAILED)
    value = max(0.0, value)
    raw = math.ceil(saturated(value / metric.target))
    held = counted.current > 0 and counted.tolerances.hold(value / (metric.target * counted.current))
    return SignalWant(metric.label, value, metric.target, raw, counted.current if held else raw)


def _unknown(metric: MetricTarget, missing: Missing) -> SignalWant:
    return SignalWant(metric.label, 0.0, metric.target, 0, 0, missing)


def _unit(metric: MetricTarget, cpu_request: float) -> float:
    """How much of what is measured makes one of the target's unit."""
    if metric.metric == CPU:
        return cpu_request / FULL_UTILIZATION
    return MEBIBYTE if metric.metric == MEMORY else 1.0


class _Replicas(NamedTuple):
    measured: list[float]
    missing: int
    unready: int


def _sort(metric: MetricTarget, replicas: Sequence[ReplicaReading], unit: float, now: float) -> _Replicas:
    measured, missing, unready = [], 0, 0
    for each in replicas:
        if each.value is None or not math.isfinite(each.value):
            if each.ready:
                missing += 1
            else:
                unready += 1
        elif metric.metric == CPU and _still_starting(each, now):
            unready += 1
        else:
            measured.append(max(0.0, each.value) / unit)
    return _Replicas(measured, missing, unready)


def _still_starting(replica: ReplicaReading, now: float) -> bool:
    """Whether what it uses says more of its start than of its work."""
    if now < replica.started_at + CPU_INITIALIZATION_PERIOD:
        return not replica.ready or now < replica.ready_changed_at + CPU_SAMPLE_WINDOW
    return not replica.ready and replica.ready_changed_at < replica.started_at + INITIAL_READINESS_DELAY


def _of_replicas(metric: MetricTarget, replicas: _Replicas, counted: Counted) -> SignalWant:
    total = sum(replicas.measured)
    if not replicas.measured or not math.isfinite(total):
        return _unknown(metric, Missing.METRICS_FAILED)
    values, target, current = replicas.measured, metric.target, counted.current
    first = ratio = _ratio(metric, values)
    assumed = replicas.unready if ratio > 1.0 else 0
    if replicas.missing or assumed:
        values = [*values, *_missing_values(metric, replicas.missing, ratio), *([0.0] * assumed)]
        ratio = _ratio(metric, values)
    raw = want = math.ceil(saturated(ratio * len(values)))
    turned = (first - 1.0) * (ratio - 1.0) < 0
    against = len(values) > len(replicas.measured) and (raw - current) * (ratio - 1.0) < 0
    if counted.tolerances.hold(ratio) or turned or against:
        want = current
    return SignalWant(metric.label, total, target, raw, want)


def _missing_values(metric: MetricTarget, missing: int, ratio: float) -> list[float]:
    if ratio == 1.0:
        return []
    full = max(FULL_UTILIZATION, metric.target) if metric.metric == CPU else metric.target
    return [full if ratio < 1.0 else 0.0] * missing


def _ratio(metric: MetricTarget, values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    if metric.metric == CPU:
        mean = math.floor(saturated(mean + _ROUNDING))  # utilization is whole percent
    return mean / metric.target
