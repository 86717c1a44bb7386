"""Load, want and ready of each revision over time, for plots.

Columns by row, a row being the engine's number of a revision; their memory grows with use.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from upwell.autoscaler.arrays import FloatArray, IntArray, Words, grown
from upwell.autoscaler.records import NONE
from upwell.autoscaler.slabs import NO_SLAB, Slabs

FINE_POINTS = 300
"""Points of a series that are as they were noted."""
COARSE_POINTS = 180
"""Points of a series that stand for a minute each."""
_POINT = np.dtype([("load", "f4"), ("want", "i2"), ("ready", "i2")])
_GREATEST_POINT = 2**15 - 1
_MINUTE = 60


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


class SeriesKeeper(Protocol):
    """What an engine notes points in."""

    def note(self, now: float, rows: IntArray, load: FloatArray, want: IntArray, ready: IntArray) -> None:
        """A point of every row that is there."""
        ...

    def of(self, row: int) -> Series:
        """The series of a row."""
        ...

    def clear(self, row: int) -> None:
        """Forget a row."""
        ...


class NoSeries:
    """Keeps nothing, for whoever draws from elsewhere."""

    def note(self, now: float, rows: IntArray, load: FloatArray, want: IntArray, ready: IntArray) -> None:
        """Drop it."""

    def of(self, row: int) -> Series:
        """Nothing."""
        return Series(np.zeros(0), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))

    def clear(self, row: int) -> None:
        """Nothing is there."""


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
