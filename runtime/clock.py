"""The one place that reads the time.

Everything that decides takes `now` as an argument; what runs holds a `Clock`. Waiting goes through the event
loop, so a test that runs on the fake loop (`upwell.runtime.testing`) moves both together.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Reads the time; holds no state that a caller can see."""

    def now(self) -> float:
        """Unix time in seconds. May jump when the machine's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
