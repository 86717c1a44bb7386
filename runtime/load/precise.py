"""An event loop that wakes when a timer is due and not up to a millisecond later.

asyncio sleeps in epoll, and libuv's loops count time, in whole milliseconds; at a thousand requests a second that
is the distance between two of them, and would be told as latency. A selector can be waited for by select(2), whose
timeouts are in microseconds. Where selectors have no descriptor the loop is asyncio's own.
"""

from __future__ import annotations

import asyncio
import select
import selectors
from typing import Final

COARSE_SECONDS: Final = 0.002
"""What a selector may wait by itself, since it is a millisecond late at most."""


class PreciseSelector(selectors.DefaultSelector):
    """The platform's best, with timeouts that end in time."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As of any selector."""
        if timeout is None or timeout <= 0 or not hasattr(self, "fileno"):
            return super().select(timeout)
        if timeout > COARSE_SECONDS:
            # The rest is waited for when the loop, finding no timer due, comes again.
            return super().select(timeout - COARSE_SECONDS)
        if not select.select([self.fileno()], [], [], timeout)[0]:
            return []
        return super().select(0)


def precise_loop() -> asyncio.AbstractEventLoop:
    """A new loop over such a selector."""
    return asyncio.SelectorEventLoop(PreciseSelector())
