"""Decisions of many revisions as rows of numbers, and what is kept of them.

A `RECORD` holds every field of a `Decision` in 160 bytes; `decode` makes the Decision when somebody reads it.
What is None is -1 in counts, NaN in floats and 0 in codes. Counts saturate at 2^31 - 1, as wide as Kubernetes' own.
What numbers cannot hold, the signals of several metrics and the names of unusual ones, stands in `Details` beside.

`Histories` keeps the latest decisions that differ in outcome or reason, `SeriesColumns` load, want and ready over
time. Both are columns by row, a row being the engine's number of a revision; their memory grows with use.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from upwell.autoscaler.annotations import CONCURRENCY, RPS
from upwell.autoscaler.decision import (
    Activity,
    Bound,
    Clamp,
    Decision,
    Missing,
    Panic,
    SignalWant,
    State,
    Status,
)
from upwell.autoscaler.slabs import NO_SLAB, BoolArray, FloatArray, IntArray, Slabs, Words, grown
from upwell.autoscaler.window import MaxWindow

HISTORY = 64
"""Decisions kept of a revision."""
FINE_POINTS = 300
"""Points of a series that are as they were noted."""
COARSE_POINTS = 180
"""Points of a series that stand for a minute each."""

Records = npt.NDArray[np.void]
"""Rows of `RECORD`, shape (n,)."""

# The first 16 bytes are the outcome: `Decision.outcome` of two decisions is equal when these are.
RECORD = np.dtype(
    {
        "names": (
            *("scale", "desired", "bounds", "missing", "clamps", "mode", "status"),
            *("at", "stable_value", "panic_value", "in_flight", "target_value", "stable_window"),
            *("panic_threshold", "panic_since", "since", "next_check"),
            *("ready", "starting", "panic_window", "stable_raw", "panic_raw", "rate_floor", "rate_ceiling"),
            *("stable_want", "panic_want", "undelayed", "wanted", "activators"),
            *("max_panic_replicas", "excess_burst_capacity"),
            *("panic", "metric", "initialized", "timed_out", "put_off"),
        ),
        "formats": ("i4", "i4", "u4", *("u1",) * 4, *("f8",) * 10, *("i4",) * 14, "u1", "u1", "?", "?", "?"),
        "itemsize": 160,
    }
)
NONE = -1
GREATEST_COUNT = 2**31 - 1
PANICKING = 1
"""Bits of `mode`; the clamps are the stable window's plus this many times the panic window's."""
DELAYED = 2
PANIC_CLAMP = 16

METRICS = (CONCURRENCY, RPS)
BOUNDS = tuple(Bound)
CLAMPS = tuple(Clamp)
PANICS = tuple(Panic)
MISSING: tuple[Missing | None, ...] = (None, *Missing)
STATUSES: tuple[Status | None, ...] = (None, *Status)


class Details(NamedTuple):
    """What a record has no room for. `metric` is set where it is none of `METRICS`."""

    metric: str = ""
    signals: tuple[SignalWant, ...] = ()
    binding: str = ""


def encode(decision: Decision) -> np.void:
    """The record of a decision; its revision, `details(decision)`, delay and memory are left out."""
    raise NotImplementedError


def details(decision: Decision) -> Details | None:
    """What `encode` leaves out of a decision by several or unusual metrics, None for others."""
    raise NotImplementedError


def decode(
    record: np.void,
    revision: str = "",
    details: Details | None = None,
    *,
    delay: MaxWindow | None = None,
    memory: object = None,
) -> Decision:
    """The decision of a record. `delay` and `memory` go into its state; history does not keep them."""
    raise NotImplementedError


class Histories:
    """The latest `HISTORY` decisions of each row that differ in outcome or reason from the one before."""

    def append_changed(self, rows: IntArray, records: Records) -> BoolArray:
        """Keep those whose outcome differs from the last one kept for their row; says which. Rows are unique."""
        raise NotImplementedError

    def append(self, row: int, record: np.void, details: Details | None = None) -> bool:
        """As `append_changed` for one decision, with what its record has no room for."""
        raise NotImplementedError

    def of(self, row: int) -> Records:
        """What is kept of a row, oldest first."""
        raise NotImplementedError

    def decisions(self, row: int, revision: str) -> list[Decision]:
        """What is kept of a row as decisions, oldest first."""
        raise NotImplementedError

    def clear(self, row: int) -> None:
        """Forget a row."""
        raise NotImplementedError


class Series(NamedTuple):
    """Load, want and ready of a revision over time, oldest first; arrays of equal length.

    The latest 300 points are as noted; before these stand up to 180 with the greatest values of a minute each, at
    the minute's start.
    """

    times: FloatArray
    """Unix seconds."""
    load: FloatArray
    """The metric summed over all replicas; NaN when unknown."""
    want: IntArray
    """Replicas wanted; -1 when unknown."""
    ready: IntArray


class SeriesColumns:
    """The series of each row."""

    def note(self, now: float, rows: IntArray, load: FloatArray, want: IntArray, ready: IntArray) -> None:
        """Add a point to every row that is there (all of them in one call; unique), at one time, not decreasing.

        `load` may be NaN and `want` -1 where they are unknown.
        """
        raise NotImplementedError

    def of(self, row: int) -> Series:
        """The series of a row, empty when nothing was noted."""
        raise NotImplementedError

    def clear(self, row: int) -> None:
        """Forget a row, so that its number can be given to another revision."""
        raise NotImplementedError
