"""What a simulation notes while it runs, in columns, for the report to be made of."""

from __future__ import annotations

import enum
from array import array
from dataclasses import dataclass, field
from typing import Final

from upwell.runtime.simulate.replicas import ReplicaColumns
from upwell.runtime.simulate.trace import FloatArray

EPOCH: Final = 1_000_000
"""Where the virtual clock begins, in Unix seconds: an even one, long after what any window looks back on."""


class Fate(enum.IntEnum):
    """What became of a request."""

    ANSWERED = 0
    QUEUE_FULL = 1
    TIMED_OUT_WAITING = 2
    TIMED_OUT_AT_REPLICA = 3


@dataclass(slots=True)
class Observed:
    """All that happened, in columns. Times are those of the virtual clock, in seconds."""

    began: float
    ended: float
    arrived: FloatArray
    """By request, as all up to `cold`."""
    dispatched: array[float]
    """When a replica took it; 0 when none did."""
    finished: array[float]
    fate: array[int]
    cold: array[int]
    """1 when it found no replica ready."""
    replicas: ReplicaColumns = field(default_factory=ReplicaColumns)
    wants: list[tuple[float, int]] = field(default_factory=list)
    """Changes of the number of replicas that the autoscaler wants, over all revisions."""
    panics: list[tuple[float, float]] = field(default_factory=list)
    """From when to when a revision was in panic mode."""
    scales: list[tuple[float, int, int]] = field(default_factory=list)
    """Each call of the cluster's `scale` that changed something: when, which function, to how many."""
    ticks: int = 0
