"""When a request that waits will be served: so that one which cannot make its deadline is told so at once.

Two sorts of waiting: for a first replica, which lasts as long as starts have lasted lately, and for a slot of the
replicas that there are, which lasts as long as the requests before it take. An answer is refused early only where
even the quickest start seen, or half of the usual service, would be too late; the time to come again rests on the
usual ones.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

STARTS_KEPT: Final = 8
SMOOTHING: Final = 0.1
"""Of a new service time in the mean; about the last twenty count."""
DOUBT: Final = 0.5
"""Of the usual service time, that a request may get by with when everything goes well."""


class Forecast(NamedTuple):
    """Seconds until a waiting request would be sent to a replica."""

    earliest: float
    likely: float


class Pace:
    """How long a revision's starts and requests have taken lately."""

    __slots__ = ("_starts", "service_seconds")

    def __init__(self) -> None:
        self._starts: deque[float] = deque(maxlen=STARTS_KEPT)
        self.service_seconds = 0.0
        """From sending a request to a replica until its answer's end, smoothed; 0 until one has ended."""

    def started(self, seconds: float) -> None:
        """A replica became ready this long after it was asked for."""
        self._starts.append(max(0.0, seconds))

    def served(self, seconds: float) -> None:
        """A request held its slot this long."""
        known = self.service_seconds
        self.service_seconds = seconds if known == 0.0 else known + SMOOTHING * (seconds - known)

    def until_start(self, since: float) -> Forecast | None:
        """For a revision without a ready replica, `since` seconds after one was asked for; None before any start
        has been seen."""
        if not self._starts:
            return None
        usual = sorted(self._starts)[len(self._starts) // 2]
        return Forecast(max(0.0, min(self._starts) - since), max(0.0, usual - since))

    def until_slot(self, ahead: int, slots: int) -> Forecast | None:
        """For a request with `ahead` others before it and all of `slots` taken; None before any has ended."""
        if self.service_seconds == 0.0 or slots == 0:
            return None
        likely = self.service_seconds * (ahead + 1) / slots
        # Those under way may end at any moment: the first turn counts for nothing.
        return Forecast(DOUBT * self.service_seconds * (ahead // slots), likely)
