"""A clock that a test moves, by hand or by the fake event loop."""

from __future__ import annotations

import asyncio


class FakeClock:
    """Reads a time that moves only when told to; fits `upwell.runtime.clock.Clock`.

    Standalone it starts at `unix` and moves with `advance`. Bound to a loop (`FakeClock(loop=loop)`) it moves with
    `loop.time()`, so that deadlines and what the clock reads agree; on `FakeTimeLoop` both jump together.
    """

    __slots__ = ("_ahead", "_loop", "_origin", "_unix")

    def __init__(self, unix: float = 1_700_000_000.0, *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._unix = unix
        self._loop = loop
        self._origin = loop.time() if loop is not None else 0.0
        self._ahead = 0.0

    def now(self) -> float:
        """Unix time in seconds."""
        return self._unix + self._ahead + (self._loop.time() - self._origin if self._loop is not None else 0.0)

    def monotonic(self) -> float:
        """Seconds; the loop's own time when bound to one."""
        return self._ahead + (self._loop.time() if self._loop is not None else 0.0)

    def advance(self, seconds: float) -> None:
        """Move ahead by `seconds`, which may not be negative. A bound clock is then ahead of its loop."""
        if seconds < 0:
            raise ValueError("a monotonic clock never goes back")
        self._ahead += seconds

    def set_unix(self, unix: float) -> None:
        """Set the wall clock, as an administrator would: `now` jumps and `monotonic` does not notice."""
        self._unix += unix - self.now()

    def __repr__(self) -> str:
        return f"<FakeClock now {self.now():.3f}, monotonic {self.monotonic():.3f}>"
