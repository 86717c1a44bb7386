"""Token buckets that are exact however long they run: whole numbers, of which nothing is rounded away.

Both begin full, hold `quota` tokens at most and get `quota` more in each interval. `ContinuousBucket` fills all
the time, as Envoy does since 1.31 (its AtomicTokenBucket: tokens = min(most, (now - origin) * rate), one is taken
when there is a whole one, a refusal changes nothing). `SteppedBucket` gets all of an interval's tokens at its
end, as Envoy did before.

`now` is a float of seconds, which falls up to a nanosecond short of the instant that is meant; so a token counts
as whole SLACK early. It is never given twice: the bucket's own account stays exact.
"""

from __future__ import annotations

from math import gcd
from typing import Final, Protocol

SLACK: Final = 2
"""Nanoseconds."""


class TokenBucket(Protocol):
    """A number of tokens that grows with time."""

    def take(self, now: float) -> bool:
        """Take one token if there is one; `now` in monotonic seconds, never less than before."""
        ...


class ContinuousBucket:
    """Fills evenly; `interval` in nanoseconds.

    An instant is counted in parts of which `interval` make a token (reduced by the greatest common divisor). The
    bucket is the instant at which it would have been empty, had nothing else been taken (GCRA, ITU-T I.371).
    """

    __slots__ = ("_capacity", "_cost", "_empty", "_rate", "_wanted")

    def __init__(self, quota: int, interval: int, now: float) -> None:
        common = gcd(quota, interval)
        self._rate = quota // common
        self._cost = interval // common
        self._capacity = quota * self._cost
        self._wanted = max(1, self._cost - SLACK * self._rate)
        self._empty = int(now * 1e9) * self._rate - self._capacity

    def take(self, now: float) -> bool:
        filled = int(now * 1e9) * self._rate
        empty = self._empty
        full = filled - self._capacity
        if empty < full:
            empty = full
        elif filled - empty < self._wanted:
            return False
        self._empty = empty + self._cost
        return True


class SteppedBucket:
    """Is filled up at each whole `interval` (nanoseconds) since `now`, when it was made."""

    __slots__ = ("_interval", "_quota", "_start", "_step", "_tokens")

    def __init__(self, quota: int, interval: int, now: float) -> None:
        self._quota = quota
        self._interval = interval
        self._start = int(now * 1e9) - SLACK
        self._step = 0
        self._tokens = quota

    def take(self, now: float) -> bool:
        step = (int(now * 1e9) - self._start) // self._interval
        if step > self._step:
            self._step = step
            self._tokens = self._quota
        if not self._tokens:
            return False
        self._tokens -= 1
        return True
