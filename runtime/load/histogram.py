"""Durations in buckets whose width grows with the value: bounded memory, bounded relative error.

The scheme is that of Gil Tene's HdrHistogram: below 256 units a bucket a unit, above it 128 equal buckets for
each doubling. The unit is a microsecond, so a percentile is told at most 1/128 and a microsecond too high, and
never too low. Least, greatest and mean are exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

MICROSECOND: Final = 1e-6
BITS: Final = 8
"""Of a value that its bucket keeps."""
EXACT: Final = 1 << BITS
HALF: Final = EXACT >> 1
LONGEST: Final = (1 << 37) - 1
"""Microseconds, some 38 hours; what takes longer is counted there."""


def bucket_of(seconds: float) -> int:
    """The bucket of a duration; negative ones count as none."""
    units = int(seconds * 1_000_000)
    if 0 <= units < EXACT:
        return units
    units = min(max(units, 0), LONGEST)
    shift = max(0, units.bit_length() - BITS)
    return shift * HALF + (units >> shift)


def upper_edge(bucket: int) -> float:
    """The seconds that every duration in the bucket is below."""
    if bucket < EXACT:
        return (bucket + 1) * MICROSECOND
    shift = bucket // HALF - 1
    return (bucket - shift * HALF + 1 << shift) * MICROSECOND


BUCKETS: Final = bucket_of(LONGEST * MICROSECOND) + 1


class Histogram:
    """Counts of durations in seconds."""

    __slots__ = ("_counts", "count", "greatest", "least", "total")

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self.count = 0
        self.total = 0.0
        self.least = math.inf
        self.greatest = 0.0

    def record(self, seconds: float) -> int:
        """Count one duration; returns its bucket."""
        bucket = bucket_of(seconds)
        self._counts[bucket] += 1
        self.count += 1
        self.total += seconds
        if seconds < self.least:
            self.least = seconds
        if seconds > self.greatest:
            self.greatest = seconds
        return bucket

    def merge(self, other: Histogram) -> None:
        """Count what `other` counted as well."""
        self._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]
        self.count += other.count
        self.total += other.total
        self.least = min(self.least, other.least)
        self.greatest = max(self.greatest, other.greatest)

    @property
    def mean(self) -> float:
        """Seconds; 0 of nothing."""
        return self.total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """The least edge in seconds that so many percent of the durations do not exceed; 0 of nothing."""
        if not self.count:
            return 0.0
        counted = ((bucket, count) for bucket, count in enumerate(self._counts) if count)
        return min(percentile_of(counted, self.count, percent), self.greatest)


def percentile_of(counted: Iterable[tuple[int, int]], count: int, percent: float) -> float:
    """The same of `(bucket, count)` in ascending order, `count` durations in all."""
    rank = max(1, math.ceil(percent * count / 100 - 1e-9))
    for bucket, here in counted:
        rank -= here
        if rank <= 0:
            return upper_edge(bucket)
    return 0.0
