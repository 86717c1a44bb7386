"""Decisions of many revisions as rows of numbers, and what is kept of them.

A `RECORD` holds every field of a `Decision` in 160 bytes; `decode` makes the Decision when somebody reads it.
What is None is -1 in counts, NaN in floats and 0 in codes. Counts saturate at 2^31 - 1, as Kubernetes' own.
What numbers cannot hold, the signals of several metrics and the names of unusual ones, stands in `Details` beside.

`Histories` keeps the latest decisions that differ in outcome or reason, `SeriesColumns` load, want and ready over
time. Both are columns by row, a row being the engine's number of a revision; their memory grows with use.
"""

from __future__ import annotations

import math
import struct
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
GREATEST_COUNT = 2**31 - 1
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
_FLOATS = ("at", "stable_value", "panic_value", "target_value", "stable_window", "panic_threshold")
_UNKNOWN_COUNTS = ("scale", "desired", "wanted")
_UNKNOWN_FLOATS = ("in_flight", "next_check")
_LAYOUT = struct.Struct("=iiI4B10d14i2B3?3x")
"""A `RECORD` as it lies in memory, field by field."""
_RECORD_WORDS = RECORD.itemsize // 8
_OUTCOME_WORDS = 2
_RECORDS_A_SLAB = 8
_POINT = np.dtype([("load", "f4"), ("want", "i2"), ("ready", "i2")])
_GREATEST_POINT = 2**15 - 1
_MINUTE = 60


class Details(NamedTuple):
    """What a record has no room for. `metric` is set where it is none of `METRICS`."""

    metric: str = ""
    signals: tuple[SignalWant, ...] = ()
    binding: str = ""


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
    values: dict[str, Any] = dict(zip(RECORD.names or (), record.tolist(), strict=True))
    more = details or Details()
    status = STATUSES[values["status"]]
    panic_clamp, stable_clamp = divmod(values["clamps"], PANIC_CLAMP)
    state = State(
        or_none(values["panic_since"]),
        values["max_panic_replicas"],
        delay,
        values["excess_burst_capacity"],
        memory,
    )
    plain: dict[str, Any] = {name: values[name] for name in (*_FLOATS, *_COUNTS)}
    plain |= {name: or_none(values[name]) for name in _UNKNOWN_FLOATS}
    plain |= {name: None if values[name] == NONE else values[name] for name in _UNKNOWN_COUNTS}
    return Decision(
        **plain,
        state=state,
        metric=more.metric or (*METRICS, "")[values["metric"]],
        missing=MISSING[values["missing"]],
        stable_clamp=CLAMPS[stable_clamp],
        panic_clamp=CLAMPS[panic_clamp],
        panic=PANICS[values["panic"]],
        signals=more.signals,
        binding=more.binding,
        revision=revision,
        bounds=_bounds(values["bounds"]),
        activity=status and Activity(status, values["since"], values["initialized"], values["timed_out"]),
    )


def or_none(value: float) -> float | None:
    """None for NaN, which stands for it in columns."""
    return None if math.isnan(value) else value


def nan_for_none(value: float | None) -> float:
    """NaN for None."""
    return math.nan if value is None else value


def _count(value: int | None) -> int:
    return NONE if value is None else max(-GREATEST_COUNT, min(value, GREATEST_COUNT))


def bit(bound: Bound) -> int:
    """The bit of a bound in the mask of a record; from the lowest on they stand in the order of application."""
    return 1 << BOUNDS.index(bound)


def _bounds(mask: int) -> tuple[Bound, ...]:
    return tuple(bound for place, bound in enumerate(BOUNDS) if mask >> place & 1) if mask else ()


def _words(records: Records) -> Words:
    return np.ascontiguousarray(records).view(np.uint64).reshape(-1, _RECORD_WORDS)


class Histories:
    """The latest `HISTORY` decisions of each row that differ in outcome or reason from the one before.

    A row's decisions lie in a ring of slabs of eight, which it takes one by one as it comes to them.
    """

    def __init__(self) -> None:
        self._slabs = Slabs(_RECORDS_A_SLAB, _RECORD_WORDS)
        # By row: the outcome last kept, whether it names a binding metric, how many were kept ever, and the slabs.
        self._outcomes = np.zeros((0, _OUTCOME_WORDS), np.uint64)
        self._bound = np.zeros(0, np.bool_)
        self._kept = np.zeros(0, np.int64)
        self._ring = np.zeros((0, HISTORY // _RECORDS_A_SLAB), np.int32)
        # By row and by which of the kept ones it is; only for rows that have any.
        self._details: dict[int, dict[int, Details]] = {}

    def append_changed(self, rows: IntArray, records: Records) -> BoolArray:
        """Keep those whose outcome differs from the last one kept for their row; says which. Rows are unique."""
        if len(rows):
            self._grow(int(rows.max()))
        words = _words(records)
        changed = self._differ(rows, words) | self._bound[rows]
        if changed.any():
            self._append(rows[changed], words[changed])
        return changed

    def append(self, row: int, record: np.void, details: Details | None = None) -> bool:
        """As `append_changed` for one decision, with what its record has no room for."""
        self._grow(row)
        words = _words(np.array([record], RECORD))
        binding = details.binding if details else ""
        is_same = self._kept[row] > 0 and self._outcomes[row].tobytes() == words[0, :_OUTCOME_WORDS].tobytes()
        if is_same and binding == self._binding(row):
            return False
        self._append(np.array([row]), words)
        if details is not None:
            self._bound[row] = binding != ""
            self._add_details(row, details)
        return True

    def _differ(self, rows: IntArray, words: Words) -> BoolArray:
        """Which outcomes differ from the last kept, bindings aside."""
        differ: BoolArray = (self._outcomes[rows] != words[:, :_OUTCOME_WORDS]).any(axis=1)
        differ |= self._kept[rows] == 0
        return differ

    def _binding(self, row: int) -> str:
        latest = self._details.get(row, {}).get(int(self._kept[row]) - 1)
        return latest.binding if latest else ""

    def _add_details(self, row: int, details: Details) -> None:
        latest = int(self._kept[row]) - 1
        mine = self._details.setdefault(row, {})
        mine[latest] = details
        for old in [each for each in mine if each <= latest - HISTORY]:
            del mine[old]

    def _append(self, rows: IntArray, words: Words) -> None:
        place = self._kept[rows] % HISTORY
        which, item = np.divmod(place, _RECORDS_A_SLAB)
        slabs = self._ring[rows, which].astype(np.int64)
        new = np.flatnonzero(slabs == NO_SLAB)
        if len(new):
            slabs[new] = self._slabs.take(len(new))
            self._ring[rows[new], which[new]] = slabs[new]
        self._slabs.put(slabs, item, words)
        self._outcomes[rows] = words[:, :_OUTCOME_WORDS]
        self._bound[rows] = False
        self._kept[rows] += 1

    def of(self, row: int) -> Records:
        """What is kept of a row, oldest first."""
        if row >= len(self._kept):
            return np.zeros(0, RECORD)
        kept = int(self._kept[row])
        slabs = [self._slabs.get(slab) for slab in self._ring[row].tolist() if slab != NO_SLAB]
        if not slabs:
            return np.zeros(0, RECORD)
        ring = np.concatenate(slabs)
        ring = ring[:kept] if kept <= HISTORY else np.roll(ring, -(kept % HISTORY), axis=0)
        return np.ascontiguousarray(ring).view(RECORD).reshape(-1)

    def decisions(self, row: int, revision: str) -> list[Decision]:
        """What is kept of a row as decisions, oldest first."""
        records, mine = self.of(row), self._details.get(row, {})
        first = int(self._kept[row]) - len(records) if len(records) else 0
        return [decode(record, revision, mine.get(first + index)) for index, record in enumerate(records)]

    def clear(self, row: int) -> None:
        """Forget a row."""
        if row >= len(self._kept):
            return
        slabs = self._ring[row]
        self._slabs.give_back(slabs[slabs != NO_SLAB].astype(np.int64))
        self._ring[row] = NO_SLAB
        self._kept[row] = 0
        self._details.pop(row, None)

    def _grow(self, row: int) -> None:
        if row >= len(self._kept):
            self._outcomes = grown(self._outcomes, row, 0)
            self._bound = grown(self._bound, row, False)
            self._kept = grown(self._kept, row, 0)
            self._ring = grown(self._ring, row, NO_SLAB)


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


class _Ring:
    """The latest points of each row, all noted at the same times.

    A row has a slab only while one of its points is other than zero: what rests throughout costs nothing.
    """

    def __init__(self, points: int) -> None:
        self._points = points
        self._slabs = Slabs(points, 1)
        self._times = np.zeros(points)
        self._noted = 0
        # By row: its slab, and the number of the first point noted and of the latest that is not zero.
        self._slab = np.zeros(0, np.int32)
        self._first = np.zeros(0, np.int64)
        self._latest = np.zeros(0, np.int64)

    def note(self, now: float, rows: IntArray, points: npt.NDArray[np.void]) -> None:
        place = self._noted % self._points
        self._times[place] = now
        if len(rows):
            self._grow(int(rows.max()))
            self._write(place, rows, points.view(np.uint64))
        self._noted += 1

    def _write(self, place: int, rows: IntArray, words: Words) -> None:
        first = self._first[rows]
        self._first[rows] = np.where(first == NONE, self._noted, first)
        awake = words != 0
        self._latest[rows[awake]] = self._noted
        slabs = self._slab[rows].astype(np.int64)
        new = np.flatnonzero(awake & (slabs == NO_SLAB))
        if len(new):
            self._slab[rows[new]] = slabs[new] = self._slabs.take(len(new))
        kept = np.flatnonzero(slabs != NO_SLAB)
        self._slabs.put(slabs[kept], np.full(len(kept), place), words[kept, np.newaxis])
        rests = rows[kept[self._latest[rows[kept]] <= self._noted - self._points]]
        if len(rests):
            self._slabs.give_back(self._slab[rests].astype(np.int64))
            self._slab[rests] = NO_SLAB

    def of(self, row: int) -> tuple[FloatArray, npt.NDArray[np.void]]:
        """Times and points of a row, oldest first."""
        first = int(self._first[row]) if row < len(self._first) else NONE
        if first == NONE:
            return np.zeros(0), np.zeros(0, _POINT)
        places = np.arange(max(first, self._noted - self._points), self._noted) % self._points
        slab = int(self._slab[row])
        words = np.zeros((self._points, 1), np.uint64) if slab == NO_SLAB else self._slabs.get(slab)
        return self._times[places], words[places].view(_POINT).reshape(-1)

    def dropped(self, row: int) -> bool:
        """Whether points of a row were noted that are no longer there."""
        return row < len(self._first) and NONE < int(self._first[row]) < self._noted - self._points

    def clear(self, row: int) -> None:
        if row < len(self._slab):
            if self._slab[row] != NO_SLAB:
                self._slabs.give_back(self._slab[row : row + 1].astype(np.int64))
            self._slab[row] = NO_SLAB
            self._first[row] = NONE

    def _grow(self, row: int) -> None:
        if row >= len(self._slab):
            self._slab = grown(self._slab, row, NO_SLAB)
            self._first = grown(self._first, row, NONE)
            self._latest = grown(self._latest, row, 0)


class SeriesColumns:
    """The series of each row: fine points, and coarse ones of a minute that reach further back."""

    def __init__(self) -> None:
        self._fine = _Ring(FINE_POINTS)
        self._coarse = _Ring(COARSE_POINTS)
        self._minute = NONE
        # By row: the greatest values of this minute, and whether anything was noted in it.
        self._greatest = np.zeros(0, _POINT)
        self._there = np.zeros(0, np.bool_)

    def note(self, now: float, rows: IntArray, load: FloatArray, want: IntArray, ready: IntArray) -> None:
        """Add a point to every row that is there (all of them in one call; unique), at one time, not decreasing.

        `load` may be NaN and `want` -1 where they are unknown. Where nothing is ready and nothing known to be
        wanted, unknown counts as zero. Counts saturate at 32,767.
        """
        points = np.zeros(len(rows), _POINT)
        some = (ready > 0) | (want > 0) | (load > 0)
        points["load"] = np.where(some, load, 0.0)
        points["want"] = np.where(some, np.minimum(want, _GREATEST_POINT), 0)
        points["ready"] = np.minimum(ready, _GREATEST_POINT)
        self._fine.note(now, rows, points)
        minute = int(now // _MINUTE)
        if minute != self._minute:
            self._end_minute()
            self._minute = minute
        self._raise(rows, points)

    def _raise(self, rows: IntArray, points: npt.NDArray[np.void]) -> None:
        if len(rows):
            self._greatest = grown(self._greatest, int(rows.max()), 0)
            self._there = grown(self._there, int(rows.max()), False)
        greatest, there = self._greatest[rows], self._there[rows]
        for name, greater in (("load", np.fmax), ("want", np.maximum), ("ready", np.maximum)):
            points[name] = np.where(there, greater(greatest[name], points[name]), points[name])
        self._greatest[rows] = points
        self._there[rows] = True

    def _end_minute(self) -> None:
        rows = np.flatnonzero(self._there)
        if len(rows):
            self._coarse.note(self._minute * _MINUTE, rows, self._greatest[rows])
        self._there[:] = False

    def of(self, row: int) -> Series:
        """The series of a row, empty when nothing was noted."""
        times, points = self._fine.of(row)
        if self._fine.dropped(row):
            minutes, greatest = self._coarse.of(row)
            before = minutes < times[0]
            times = np.concatenate((minutes[before], times))
            points = np.concatenate((greatest[before], points))
        return Series(
            times,
            points["load"].astype(np.float64),
            points["want"].astype(np.int64),
            points["ready"].astype(np.int64),
        )

    def clear(self, row: int) -> None:
        """Forget a row, so that its number can be given to another revision."""
        self._fine.clear(row)
        self._coarse.clear(row)
        if row < len(self._there):
            self._there[row] = False
