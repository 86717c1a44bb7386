"""When replicas of a revision that do not start are tried again: a value, changed by making the next one.

An attempt is whatever was started since the last failure, be it one replica or fifteen; it fails once, with the
first of them that ends before it is ready. Stragglers of an attempt that has failed already say nothing new.

An attempt is lost rather than failed when something else than the source ended it: the kernel that wants memory, a
person with kill -9. A few that are lost in a row within a moment are made good without anybody being told.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

LONGEST_RETRY_SECONDS: Final = 60.0
TIMER_SECONDS: Final = 1e-6
MOST_LOST: Final = 5
LOST_SECONDS: Final = 2.0
"""From the first of them on: so long a request is held in hope."""


def start_delay(failures: int) -> float:
    """Seconds before the next attempt after this many failures in a row: at once, then 1, 2, 4 … 60."""
    return 0.0 if failures <= 1 else min(LONGEST_RETRY_SECONDS, 2.0 ** min(failures - 2, 6))


def lost_delay(lost: int) -> float:
    """Seconds before the next attempt after this many were lost: at once, then 0.1, 0.2, 0.4, 0.8."""
    return 0.0 if lost <= 1 else 0.1 * 2.0 ** (lost - 2)


@dataclass(frozen=True, slots=True)
class StartBackoff:
    """Where a revision's starts stand. Times are those of the `now` that is given."""

    attempt: int = 0
    """Number of the attempt that starts next, or whose replicas start now."""
    failures: int = 0
    """Attempts in a row that failed."""
    next_try: float = 0.0
    lost: int = 0
    """Attempts in a row that were lost."""
    lost_since: float = 0.0
    """When the first of them was."""

    def failed(self, attempt: int, now: float, *, certain: bool = False) -> StartBackoff:
        """A replica of `attempt` did not start. `certain` when the next would fail the same way: the second
        attempt, which would be made at once, is counted as failed too. Returns self when that was known."""
        failures = self.failures + 1 if attempt == self.attempt else self.failures
        if certain:
            failures = max(failures, 2)
        if failures == self.failures:
            return self
        return StartBackoff(max(self.attempt, attempt + 1), failures, now + start_delay(failures))

    def interrupted(self, attempt: int, now: float) -> StartBackoff:
        """What `attempt` started was ended by something else than itself. Too many such, or one after a failure,
        are a failure of which the next attempt would not be free. Returns self when that was known."""
        if attempt != self.attempt:
            return self
        since = self.lost_since if self.lost else now
        if self.failures or self.lost >= MOST_LOST or now - since > LOST_SECONDS:
            return self.failed(attempt, now, certain=True)
        lost = self.lost + 1
        return replace(self, attempt=attempt + 1, next_try=now + lost_delay(lost), lost=lost, lost_since=since)

    def succeeded(self) -> StartBackoff:
        """A replica is ready, or none is wanted any more: what failed before does not count."""
        return StartBackoff(self.attempt + 1) if self.failures or self.lost else self

    def wait(self, now: float) -> float:
        """Seconds until the next attempt may begin; 0 when it may, and when a timer set for it has rung early."""
        left = self.next_try - now
        return left if left > TIMER_SECONDS else 0.0
