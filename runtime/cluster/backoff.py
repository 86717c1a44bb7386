"""When replicas of a revision that do not start are tried again: a value, changed by making the next one.

An attempt is whatever was started since the last failure, be it one replica or fifteen; it fails once, with the
first of them that ends before it is ready. Stragglers of an attempt that has failed already say nothing new.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LONGEST_RETRY_SECONDS: Final = 60.0


def start_delay(failures: int) -> float:
    """Seconds before the next attempt after this many failures in a row: at once, then 1, 2, 4 … 60."""
    return 0.0 if failures <= 1 else min(LONGEST_RETRY_SECONDS, 2.0 ** min(failures - 2, 6))


@dataclass(frozen=True, slots=True)
class StartBackoff:
    """Where a revision's starts stand. Times are those of the `now` that is given."""

    attempt: int = 0
    """Number of the attempt that starts next, or whose replicas start now."""
    failures: int = 0
    """Attempts in a row that failed."""
    next_try: float = 0.0

    def failed(self, attempt: int, now: float, *, certain: bool = False) -> StartBackoff:
        """A replica of `attempt` did not start. `certain` when the next would fail the same way: the second
        attempt, which would be made at once, is counted as failed too. Returns self when that was known."""
        failures = self.failures + 1 if attempt == self.attempt else self.failures
        if certain:
            failures = max(failures, 2)
        if failures == self.failures:
            return self
        return StartBackoff(max(self.attempt, attempt + 1), failures, now + start_delay(failures))

    def succeeded(self) -> StartBackoff:
        """A replica is ready, or none is wanted any more: what failed before does not count."""
        return StartBackoff(self.attempt + 1) if self.failures else self

    def wait(self, now: float) -> float:
        """Seconds until the next attempt may begin; 0 when it may."""
        return max(0.0, self.next_try - now)
