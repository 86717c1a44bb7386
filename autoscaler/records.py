"""Decisions of many revisions as rows of numbers.

A `RECORD` holds every field of a `Decision` in 160 bytes; `decode` makes the Decision when somebody reads it.
What is None is -1 in counts, NaN in floats and 0 in codes. Counts saturate at `GREATEST_COUNT`. What numbers
cannot hold, the signals of several metrics and the names of unusual ones, stands in `Details` beside.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from upwell.autoscaler.arrays import Words
from upwell.autoscaler.decision import (
    GREATEST_COUNT,
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
from upwell.autoscaler.metric_targets import CONCURRENCY, RPS
from upwell.autoscaler.window import MaxWindow

Records = npt.NDArray[np.void]
"""Rows of `RECORD`, shape (n,)."""

# The first 16 bytes are the outcome: `Decision.outcome` of two decisions is equal when these and the binding are.
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
PANICKING = 1
"""Bits of `mode`; the clamps are the stable window's plus this many times the panic window's."""
DELAYED = 2
PANIC_CLAMP = 16

METRICS = (CONCURRENCY, RPS)
"""What a record names by number; any other name stands in `Details`."""
BOUNDS = tuple(Bound)
CLAMPS = tuple(Clamp)
PANICS = tuple(Panic)
MISSING: tuple[Missing | None, ...] = (None, *Missing)
STATUSES: tuple[Status | None, ...] = (None, *Status)

_COUNTS = (
    *("ready", "starting", "panic_window", "stable_raw", "panic_raw", "rate_floor", "rate_ceiling"),
    *("stable_want", "panic_want", "undelayed", "wanted", "activators"),
)
_LAYOUT = struct.Struct("=iiI4B10d14i2B3?3x")
"""A `RECORD` as it lies in memory, field by field."""
RECORD_WORDS = RECORD.itemsize // 8
OUTCOME_WORDS = 2


class Details(NamedTuple):
    """What a record has no room for. `metric` is set where it is none of `METRICS`."""

    metric: str = ""
    signals: tuple[SignalWant, ...] = ()
    binding: str = ""


_NO_DETAILS = Details()


def encode(decision: Decision) -> np.void:
    """The record of a decision; its revision, `details(decision)`, delay and memory are left out."""
    state, activity = decision.state, decision.activity
    packed = _LAYOUT.pack(
        # the outcome
        _count(decision.scale),
        _count(decision.desired),
        sum(bit(bound) for bound in set(decision.bounds)),
        MISSING.index(decision.missing),
        CLAMPS.index(decision.stable_clamp) + PANIC_CLAMP * CLAMPS.index(decision.panic_clamp),
        PANICKING * decision.panicking + DELAYED * decision.delayed,
        STATUSES.index(activity.status) if activity else 0,
        # floats
        decision.at,
        decision.stable_value,
        decision.panic_value,
        nan_for_none(decision.in_flight),
        decision.target_value,
        decision.stable_window,
        decision.panic_threshold,
        nan_for_none(state.panic_since),
        activity.since if activity else 0.0,
        nan_for_none(decision.next_check),
        # counts
        *[_count(getattr(decision, name)) for name in _COUNTS],
        _count(state.max_panic_replicas),
        _count(state.excess_burst_capacity),
        # codes and flags; only decisions in bulk are put off
        PANICS.index(decision.panic),
        METRICS.index(decision.metric) if decision.metric in METRICS else len(METRICS),
        activity.initialized if activity else False,
        activity.timed_out if activity else False,
        False,
    )
    record: np.void = np.frombuffer(packed, RECORD)[0]
    return record


def details(decision: Decision) -> Details | None:
    """What `encode` leaves out of a decision by several or unusual metrics, None for others."""
    metric = "" if decision.metric in METRICS else decision.metric
    if not metric and not decision.signals and not decision.binding:
        return None
    return Details(metric, decision.signals, decision.binding)


def decode(
    record: np.void,
    revision: str = "",
    details: Details | None = None,
    *,
    delay: MaxWindow | None = None,
    memory: object = None,
) -> Decision:
    """The decision of a record. `delay` and `memory` go into its state; history does not keep them."""
    # fmt: off
    (
        scale, desired, bounds, missing, clamps, _, status,
        at, stable_value, panic_value, in_flight, target_value, stable_window, panic_threshold,
        panic_since, since, next_check,
        ready, starting, panic_window, stable_raw, panic_raw, rate_floor, rate_ceiling,
        stable_want, panic_want, undelayed, wanted, activators,
        max_panic_replicas, excess_burst_capacity,
        panic, metric, initialized, timed_out, _,
    ) = record.tolist()
    # fmt: on
    more = details or _NO_DETAILS
    panic_clamp, stable_clamp = divmod(clamps, PANIC_CLAMP)
    stands = STATUSES[status]
    return Decision(
        at=at,
        state=State(or_none(panic_since), max_panic_replicas, delay, excess_burst_capacity, memory),
        metric=more.metric or (*METRICS, "")[metric],
        stable_value=stable_value,
        panic_value=panic_value,
        in_flight=or_none(in_flight),
        ready=ready,
        starting=starting,
        target_value=target_value,
        stable_window=stable_window,
        panic_window=panic_window,
        panic_threshold=panic_threshold,
        missing=MISSING[missing],
        stable_raw=stable_raw,
        panic_raw=panic_raw,
        rate_floor=rate_floor,
        rate_ceiling=rate_ceiling,
        stable_clamp=CLAMPS[stable_clamp],
        panic_clamp=CLAMPS[panic_clamp],
        stable_want=stable_want,
        panic_want=panic_want,
        panic=PANICS[panic],
        undelayed=undelayed,
        desired=None if desired == NONE else desired,
        signals=more.signals,
        binding=more.binding,
        activators=activators,
        revision=revision,
        scale=None if scale == NONE else scale,
        wanted=None if wanted == NONE else wanted,
        bounds=_bounds(bounds),
        activity=None if stands is None else Activity(stands, since, bool(initialized), bool(timed_out)),
        next_check=or_none(next_check),
    )


def or_none(value: float) -> float | None:
    """None for NaN, which stands for it in columns."""
    return None if math.isnan(value) else value


def nan_for_none(value: float | None) -> float:
    """NaN for None."""
    return math.nan if value is None else value


def _count(value: int | None) -> int:
    return NONE if value is None else max(-GREATEST_COUNT, min(int(value), GREATEST_COUNT))


def bit(bound: Bound) -> int:
    """The bit of a bound in the mask of a record; from the lowest on they stand in the order of application."""
    return 1 << BOUNDS.index(bound)


def _bounds(mask: int) -> tuple[Bound, ...]:
    return tuple(bound for place, bound in enumerate(BOUNDS) if mask >> place & 1) if mask else ()


def words_of(records: Records) -> Words:
    """Records as they lie in memory, shape (n, RECORD_WORDS)."""
    return np.ascontiguousarray(records).view(np.uint64).reshape(-1, RECORD_WORDS)
