"""A bucket of tokens that may be drawn ahead of time, as FluxNinja Aperture's global token bucket works.

Pure: times are the clock's monotonic seconds and are given with each call, never smaller than before. The bucket
starts full. It is filled continuously, or in steps of the whole `fill_amount` every `interval` since it was made.
`draw` takes more than there is and says from when on it will have been filled; until then the balance is negative.
"""

from __future__ import annotations

import math
from typing import Final

TOLERANCE: Final = 1e-6
"""Tokens that rounding may have taken from a bucket; what is missing stays missing, so nothing adds up."""


class QuotaBucket:
    """Tokens of one quota."""

    __slots__ = (
        "_continuous",
        "_delays_filling",
        "_filled_at",
        "_starts_at",
        "available",
        "capacity",
        "fill",
        "interval",
    )

    def __init__(
        self,
        capacity: float,
        fill: float,
        interval: float,
        now: float,
        *,
        continuous: bool = True,
        delays_filling: bool = False,
    ) -> None:
        """`fill` tokens come every `interval` seconds. With `delays_filling` the first of them, after the bucket
        was full, comes only when the time has passed in which the whole bucket would have been filled."""
        self.capacity = capacity
        self.fill = fill
        self.interval = interval
        self.available = capacity
        """Tokens there are as of the last call; negative while some are drawn ahead."""
        self._continuous = continuous
        self._delays_filling = delays_filling
        self._filled_at = now
        self._starts_at = -math.inf

    def __repr__(self) -> str:
        return f"<QuotaBucket {self.available:.3f} of {self.capacity:g}, {self.fill:g} every {self.interval:g} s>"

    def take(self, tokens: float, now: float) -> bool:
        """Take tokens if there are so many; otherwise nothing changes."""
        self._refill(now)
        if self.available + TOLERANCE < tokens:
            return False
        self._take(tokens, now)
        return True

    def draw(self, tokens: float, now: float, deadline: float) -> float | None:
        """Take tokens, ahead of time if need be: from when on they count. None, and nothing is taken, when that
        is later than `deadline` or never."""
        self._refill(now)
        missing = tokens - self.available
        ready_at = now if missing <= TOLERANCE else self._filled(missing, now)
        if ready_at > deadline and missing > TOLERANCE:
            return None
        self._take(tokens, now)
        return ready_at

    def give_back(self, tokens: float, now: float) -> None:
        """Return tokens that were taken or drawn and are not used."""
        self._refill(now)
        self.available = min(self.capacity, self.available + tokens)

    def is_full(self, now: float) -> bool:
        """Whether it is as good as a new one."""
        self._refill(now)
        return self.available >= self.capacity

    def _take(self, tokens: float, now: float) -> None:
        if self._delays_filling and self.available == self.capacity:
            self._starts_at = now + self._time_to_fill(self.capacity)
            self._filled_at = self._starts_at if self._continuous else self._starts_at - self.interval
        self.available -= tokens

    def _refill(self, now: float) -> None:
        if now <= self._starts_at:
            return
        passed = now - self._filled_at
        if self._continuous:
            self._filled_at = now
            added = self.fill * passed / self.interval
        elif passed < self.interval:
            return
        else:
            steps = math.floor(passed / self.interval)
            self._filled_at += steps * self.interval
            added = self.fill * steps
        self.available = min(self.capacity, self.available + added)

    def _filled(self, tokens: float, now: float) -> float:
        """When so many tokens more than there are now will have come."""
        if self.fill == 0:
            return math.inf
        if now < self._starts_at:
            return self._starts_at + self._time_to_fill(tokens)
        since = 0.0 if self._continuous else now - self._filled_at
        return now + self._time_to_fill(tokens) - since

    def _time_to_fill(self, tokens: float) -> float:
        if self.fill == 0:
            return 0.0
        needed = tokens / self.fill
        return (needed if self._continuous else math.ceil(needed - TOLERANCE)) * self.interval
