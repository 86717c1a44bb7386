"""From all that happened to what is reported: quantiles, replica-seconds and series, by sums over columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from upwell.runtime.simulate.observed import Fate, Observed
from upwell.runtime.simulate.replicas import RevisionPlan
from upwell.runtime.simulate.report import TOP_FUNCTIONS, FunctionReport, Quantiles, Series, SimulationReport
from upwell.runtime.simulate.trace import FloatArray, IntArray, Trace

MOST_BUCKETS: Final = 600
"""Points of a series: more than a chart has pixels to tell apart."""
BUCKETS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 86_400)
_PERCENTS: Final = (50, 90, 95, 99, 99.9)


class Columns:
    """What was observed, as arrays: times from the beginning of the trace in seconds, rounded to microseconds."""

    def __init__(self, trace: Trace, plans: Sequence[RevisionPlan], observed: Observed) -> None:
        began = observed.began
        self.trace = trace
        self.seconds = round(observed.ended - began, 6)
        self.function = trace.function
        self.finished = np.frombuffer(observed.finished) - began if len(trace) else np.empty(0)
        self.dispatched = np.frombuffer(observed.dispatched) - began if len(trace) else np.empty(0)
        self.fate = np.frombuffer(observed.fate, np.int8)
        self.cold = np.frombuffer(observed.cold, np.int8)
        self.answered = self.fate == Fate.ANSWERED
        self.latency = (self.finished - trace.times) * 1000
        self.queueing = np.maximum(self.dispatched - trace.times, 0.0) * 1000
        replicas = observed.replicas
        self.replica_function = np.array(replicas.function, np.int64)
        self.started, self.ready, self.drained, self.gone = (
            np.clip(np.array(column, np.float64) - began, 0.0, None)
            for column in (replicas.started, replicas.ready, replicas.drained, replicas.gone)
        )
        self.busy = np.array(replicas.busy, np.float64)
        self.capacity = np.array([plan.limits.burst_threshold for plan in plans], np.float64)
        self.wants = np.array(observed.wants, np.float64).reshape(-1, 2) - [began, 0]
        self.panics = np.array(observed.panics, np.float64).reshape(-1, 2) - began


def summarize(
    trace: Trace, plans: Sequence[RevisionPlan], observed: Observed, settings: Mapping[str, str]
) -> SimulationReport:
    """The report of one simulation."""
    columns = Columns(trace, plans, observed)
    answered = columns.answered
    replica_seconds = float((columns.gone - columns.started).sum())
    busy = float(columns.busy.sum())
    return SimulationReport(
        title=trace.name,
        settings=dict(settings),
        seconds=columns.seconds,
        requests=len(trace),
        rejected=int((~answered).sum()),
        cold_starts=int(columns.cold.sum()),
        latency=quantiles(columns.latency[answered]),
        queueing=quantiles(columns.queueing[answered]),
        replica_seconds=round(replica_seconds, 3),
        busy_replica_seconds=round(busy, 3),
        waste=_waste(replica_seconds, busy),
        greatest_replicas=_greatest(columns.started, columns.gone),
        functions=_functions(columns),
        function_count=len(trace.functions),
        series=series(columns),
    )


def quantiles(milliseconds: FloatArray) -> Quantiles:
    """The spread of durations, each quantile a value that occurred."""
    if len(milliseconds) == 0:
        return Quantiles()
    found = np.percentile(milliseconds, _PERCENTS, method="inverted_cdf")
    p50, p90, p95, p99, p999 = (round(float(value), 3) for value in found)
    mean, greatest = round(float(milliseconds.mean()), 3), round(float(milliseconds.max()), 3)
    return Quantiles(mean, p50, p90, p95, p99, p999, greatest)


def _waste(replica_seconds: float, busy: float) -> float:
    return round(max(0.0, 1 - busy / replica_seconds), 6) if replica_seconds > 0 else 0.0


def _greatest(started: FloatArray, gone: FloatArray) -> int:
    """The most intervals that hold at one time; one that ends as another begins counts no more."""
    times = np.concatenate((gone, started))
    steps = np.concatenate((np.full(len(gone), -1), np.full(len(started), 1)))
    order = np.argsort(times, kind="stable")
    return int(np.cumsum(steps[order]).max(initial=0))


def _functions(columns: Columns) -> tuple[FunctionReport, ...]:
    count = len(columns.trace.functions)
    requests = np.bincount(columns.function, minlength=count)
    top = np.argsort(-requests, kind="stable")[:TOP_FUNCTIONS]
    return tuple(_function(columns, int(index)) for index in top)


def _function(columns: Columns, index: int) -> FunctionReport:
    own = columns.function == index
    replicas = columns.replica_function == index
    started, gone = columns.started[replicas], columns.gone[replicas]
    return FunctionReport(
        name=columns.trace.functions[index],
        requests=int(own.sum()),
        rejected=int((own & ~columns.answered).sum()),
        cold_starts=int(columns.cold[own].sum()),
        latency=quantiles(columns.latency[own & columns.answered]),
        replica_seconds=round(float((gone - started).sum()), 3),
        busy_replica_seconds=round(float(columns.busy[replicas].sum()), 3),
        greatest_replicas=_greatest(started, gone),
    )


def series(columns: Columns) -> Series:
    """Everything over time, in at most MOST_BUCKETS buckets of a length that people count in."""
    width = next((each for each in BUCKETS if columns.seconds / each <= MOST_BUCKETS), BUCKETS[-1])
    count = max(1, int(np.ceil(columns.seconds / width)))
    edges = np.minimum(np.arange(count + 1, dtype=np.float64) * width, columns.seconds)
    lengths = np.maximum(np.diff(edges), 1e-9)
    times = columns.trace.times
    bucket = np.minimum((times // width).astype(np.int64), count - 1)
    weights = columns.capacity[columns.replica_function]
    changed = np.maximum(columns.wants[:, 0], 0.0)
    want = occupancy(changed, np.full(len(changed), columns.seconds), edges, columns.wants[:, 1])
    panic = occupancy(columns.panics[:, 0], columns.panics[:, 1], edges)
    return Series(
        bucket_seconds=float(width),
        times=_rounded(edges[:-1]),
        arrivals=_rounded(np.bincount(bucket, minlength=count) / lengths),
        load=_rounded(occupancy(times, columns.finished, edges) / lengths),
        capacity=_rounded(occupancy(columns.ready, columns.drained, edges, weights) / lengths),
        ready=_rounded(occupancy(columns.ready, columns.drained, edges) / lengths),
        want=_rounded(want / lengths),
        cold_starts=_counted(bucket, columns.cold != 0, count),
        rejected=_counted(bucket, ~columns.answered, count),
        panic=_rounded(panic / lengths / len(columns.trace.functions)),
    )


def occupancy(
    begins: FloatArray, ends: FloatArray, edges: FloatArray, weights: FloatArray | None = None
) -> FloatArray:
    """The time for which intervals overlap each bucket between two edges, summed; each counts by its weight."""
    return np.diff(_accumulated(begins, edges, weights) - _accumulated(ends, edges, weights))


def _accumulated(moments: FloatArray, edges: FloatArray, weights: FloatArray | None) -> FloatArray:
    """At each edge, the time that has passed since each moment before it, summed."""
    order = np.argsort(moments, kind="stable")
    ordered = moments[order]
    counted = np.ones(len(ordered)) if weights is None else weights[order]
    count = np.concatenate(([0.0], np.cumsum(counted)))
    total = np.concatenate(([0.0], np.cumsum(ordered * counted)))
    before = np.searchsorted(ordered, edges)
    return np.asarray(edges * count[before] - total[before])


def _rounded(values: FloatArray) -> tuple[float, ...]:
    # Differences of great sums leave dust, below zero too.
    return tuple((np.round(np.maximum(values, 0.0), 4) + 0.0).tolist())


def _counted(bucket: IntArray, chosen: npt.NDArray[np.bool_], count: int) -> tuple[int, ...]:
    return tuple(np.bincount(bucket[chosen], minlength=count).tolist())
