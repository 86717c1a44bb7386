"""What a simulation found, as plain values: tables, charts, JSON and tests read these and nothing else.

Equal reports have equal JSON, to the byte: nothing in it depends on the machine, the time of day or an order of
hashing. Durations of requests are milliseconds, all other times seconds from the start of the trace.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Quantiles:
    """How a duration is spread over the requests that were answered, in milliseconds; all 0 without any."""

    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    greatest: float = 0.0


@dataclass(frozen=True, slots=True)
class FunctionReport:
    """One function's share of the whole."""

    name: str
    requests: int
    rejected: int
    cold_starts: int
    """Requests that found no replica ready."""
    latency: Quantiles
    replica_seconds: float
    busy_replica_seconds: float
    greatest_replicas: int
    """The most replicas that were there at one time, starting ones included."""


@dataclass(frozen=True, slots=True)
class Series:
    """What happened over time, summed over all functions: one value a bucket in each list, oldest first."""

    bucket_seconds: float
    times: tuple[float, ...]
    """Where each bucket begins."""
    arrivals: tuple[float, ...]
    """Requests a second."""
    load: tuple[float, ...]
    """Requests in flight, waiting ones included: the mean over the bucket."""
    capacity: tuple[float, ...]
    """Requests in flight that the ready replicas are meant to take (total, not target): the mean."""
    ready: tuple[float, ...]
    """Replicas that serve: the mean."""
    want: tuple[float, ...]
    """Replicas that the autoscaler wanted: the mean."""
    cold_starts: tuple[int, ...]
    """Requests that arrived in the bucket and found no replica ready."""
    rejected: tuple[int, ...]
    panic: tuple[float, ...]
    """The share of time for which a function was in panic mode, of all functions with traffic: from 0 to 1."""


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """What one combination of settings came to."""

    settings: Mapping[str, str]
    """What was varied, by annotation name, `config-autoscaler` key or `container-concurrency`."""
    p50: float
    p99: float
    greatest: float
    cold_starts: int
    rejected: int
    replica_seconds: float
    waste: float
    on_front: bool
    """No other point is better in p99 latency or replica-seconds without being worse in the other."""

    @property
    def label(self) -> str:
        """The settings in one line."""
        return " ".join(f"{name}={value}" for name, value in self.settings.items())


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """A whole simulation."""

    title: str
    settings: Mapping[str, str]
    """What was simulated under, in the order in which a person would read it; values as text."""
    seconds: float
    """From the first moment of the trace until the last request was over and the last tick was made."""
    requests: int
    rejected: int
    """Refused at a full queue, or out of time before or at a replica."""
    cold_starts: int
    latency: Quantiles
    """From arrival to answer, of the requests that were answered."""
    queueing: Quantiles
    """From arrival until a replica took the request, likewise."""
    replica_seconds: float
    """Time for which replicas existed, from the decision to start one until it was gone."""
    busy_replica_seconds: float
    """Time for which replicas served at least one request."""
    waste: float
    """The share of replica-seconds that were not busy, from 0 to 1."""
    greatest_replicas: int
    functions: tuple[FunctionReport, ...]
    """The functions with the most requests, at most TOP_FUNCTIONS of them."""
    function_count: int
    series: Series
    sweep: tuple[SweepPoint, ...] | None = None
    recommended: SweepPoint | None = None
    reason: str = ""
    """Why that setting is recommended, in a sentence."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `json.dumps` of it is the same for equal reports."""
        return asdict(self)

    def encode(self) -> str:
        """The JSON text that `upwell simulate -o json` prints."""
        return json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


TOP_FUNCTIONS = 20
