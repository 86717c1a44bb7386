"""Rolling windows over time: the averages and the maximum that decisions look at.

A window is a ring of buckets, one per `granularity` seconds, aligned to Unix time. Values recorded into one bucket
add up. The behaviour, gaps and late values included, is Knative's (pkg/autoscaler/aggregation):

- a value newer than the newest bucket clears what lies between; after a gap of a whole window all starts anew;
- a late value lands in its own bucket as long as that lies within a window of the newest, else it is ignored;
- `LinearWindow` divides by the number of buckets that could have been written since the first write, so that a
  young window is not diluted, and rounds to six digits;
- `WeightedWindow` gives the newest bucket the weight m and each older one (1 - m) times its successor's.

Windows live as long as their revision in the engine; record and average in any order of time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

_DIGITS = 1e6
_LEAST_SMOOTHING = 0.2
_COVERED_WEIGHT = 0.9999


class Contents(NamedTuple):
    """What a window holds: starts of the first and the newest bucket written, the sum, and the ring of buckets."""

    first: int | None
    newest: int | None
    total: float
    buckets: Sequence[float]


class LinearWindow:
    """The plain average per bucket. `window` and `granularity` are seconds, granularity a whole number of them."""

    __slots__ = ("_buckets", "_first", "_granularity", "_last", "_total", "_window")

    def __init__(self, window: float, granularity: int = 1) -> None:
        self._granularity = granularity
        self._window = window
        self._buckets = [0.0] * math.ceil(window / granularity)
        self._total = 0.0
        # Starts of the first and the newest written bucket, Unix seconds.
        self._first: int | None = None
        self._last: int | None = None

    @property
    def window(self) -> float:
        """The window's length in seconds."""
        return self._window

    @property
    def newest(self) -> int | None:
        """Where the newest bucket written starts (Unix seconds), None before the first write."""
        return self._last

    @property
    def contents(self) -> Contents:
        """All that the window holds, to be set as `contents` of one with the same length and granularity."""
        return Contents(self._first, self._last, self._total, tuple(self._buckets))

    @contents.setter
    def contents(self, contents: Contents) -> None:
        self._first, self._last, self._total, buckets = contents
        self._buckets = list(buckets)

    def record(self, now: float, value: float) -> bool:
        """Add `value` to the bucket of `now`; false when that lies too far in the past to count."""
        granularity = self._granularity
        bucket = int(now) // granularity * granularity
        last = self._last
        if bucket != last:
            if last is not None and bucket + self._window <= last:
                return False
            if self._first is None or bucket < self._first:
                self._first = bucket
            if last is None or bucket > last:
                self._advance(bucket)
        self._buckets[bucket // granularity % len(self._buckets)] += value
        self._total += value
        return True

    def _advance(self, bucket: int) -> None:
        last = self._last
        self._last = bucket
        if last is None or bucket - last >= self._window:
            self._first = bucket
            self._buckets = [0.0] * len(self._buckets)
            self._total = 0.0
            return
        buckets, size, granularity = self._buckets, len(self._buckets), self._granularity
        for index in range(last // granularity + 1, bucket // granularity + 1):
            slot = index % size
            self._total -= buckets[slot]
            buckets[slot] = 0.0
            # Once a turn, see that rounding has left nothing behind which would keep an idle revision up.
            if slot == 0 and not any(buckets):
                self._total = 0.0

    def empty(self, now: float) -> bool:
        """Whether nothing was written for longer than the window."""
        granularity = self._granularity
        return self._last is None or int(now) // granularity * granularity - self._last > self._window

    def average(self, now: float) -> float:
        """The mean value of a bucket over the window that ends at `now`, never negative."""
        last = self._last
        if last is None:
            return 0.0
        granularity = self._granularity
        missing = int(now) // granularity - last // granularity
        total, valid = self._total, len(self._buckets)
        if missing > 0:
            if missing * granularity >= self._window:
                return 0.0
            buckets, size, newest = self._buckets, valid, last // granularity
            for index in range(newest + 1, newest + missing + 1):
                total -= buckets[index % size]
            valid -= missing
        if self._first is not None:
            valid = min(valid, (last - self._first) // granularity + 1)
        return max(0.0, math.floor(total / valid * _DIGITS + 0.5) / _DIGITS)

    def resize(self, now: float, window: float) -> None:
        """Change the length at `now`, keeping as many of the newest buckets as fit."""
        if window == self._window:
            return
        old, last, granularity = self._buckets, self._last, self._granularity
        buckets = [0.0] * math.ceil(window / granularity)
        self._total = 0.0
        if last is None or self.empty(now):
            self._first = None
        else:
            newest = last // granularity
            for index in range(newest, newest - min(len(old), len(buckets)), -1):
                value = old[index % len(old)]
                buckets[index % len(buckets)] = value
                self._total += value
            self._first = last - (len(old) - 1) * granularity
        self._window = window
        self._buckets = buckets


class WeightedWindow(LinearWindow):
    """The exponentially weighted mean: bucket k back from now weighs m(1 - m)^k."""

    __slots__ = ("_smoothing",)

    def __init__(self, window: float, granularity: int = 1) -> None:
        super().__init__(window, granularity)
        self._smoothing = smoothing(len(self._buckets))

    def average(self, now: float) -> float:
        """The weighted mean over the window that ends at `now`, not rounded."""
        last = self._last
        if last is None or self.empty(now):
            return 0.0
        granularity, buckets = self._granularity, self._buckets
        size, newest = len(buckets), last // granularity
        weight, decay = self._smoothing, 1 - self._smoothing
        missing = max(0, int(now) // granularity - newest)
        if missing:
            weight *= decay**missing
        mean = 0.0
        for index in range(newest, newest - size + missing, -1):
            mean += buckets[index % size] * weight
            weight *= decay
        return mean

    def resize(self, now: float, window: float) -> None:
        """Change the length at `now`, and with it the speed at which weights decay."""
        super().resize(now, window)
        self._smoothing = smoothing(len(self._buckets))


def smoothing(buckets: int) -> float:
    """The newest bucket's weight, such that the whole window holds all but 0.0001 of the weights."""
    return max(1 - math.pow(1 - _COVERED_WEIGHT, 1 / buckets), _LEAST_SMOOTHING)


class _Peak(NamedTuple):
    bucket: int
    value: int


@dataclass(frozen=True, slots=True)
class MaxWindow:
    """The greatest value recorded in the last `duration` seconds, as an immutable value.

    Holds only the values that may yet become the maximum: each is newer and smaller than the one before it, so
    there are at most as many as buckets.
    """

    duration: float
    granularity: int
    peaks: tuple[_Peak, ...] = ()

    @property
    def current(self) -> int:
        """The maximum as of the latest record; 0 before the first."""
        return self.peaks[0].value if self.peaks else 0

    def record(self, now: float, value: int) -> MaxWindow:
        """The window after `value` was seen at `now` (Unix seconds, not decreasing)."""
        bucket = int(now) // self.granularity
        oldest = bucket - math.ceil(self.duration / self.granularity)
        kept = tuple(peak for peak in self.peaks if peak.value > value and peak.bucket > oldest)
        if not kept or kept[-1].bucket != bucket:
            kept = (*kept, _Peak(bucket, value))
        return MaxWindow(self.duration, self.granularity, kept)
