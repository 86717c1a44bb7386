"""Copies of requests for a second revision (a VirtualService's mirror): sent and forgotten.

A copy never slows or fails the request that it is made of: it is sent once that one is over, if its whole body is
still held, to a replica that has a free slot; otherwise it is dropped and counted. The answer is read and thrown
away. Load of copies counts for the autoscaler, so a revision that is at zero rises for the ones that follow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from upwell.runtime.http.messages import Headers
from upwell.runtime.http.upstream import UpstreamPool
from upwell.runtime.http.upstream_connection import UpstreamConnection
from upwell.runtime.timers import Timer

SHADOW_SECONDS: Final = 30.0
"""For a copy to be answered; nobody waits for it, but it holds a slot."""
MOST_AT_ONCE: Final = 100
"""Copies under way to one revision."""


class Shadow:
    """One copy under way. `over` is called exactly once, with the status or 0, never from within `send`."""

    __slots__ = ("_bodiless", "_connection", "_data", "_over", "_pool", "_status", "_timer")

    def __init__(self, pool: UpstreamPool, data: bytes, *, bodiless: bool, over: Callable[[int], None]) -> None:
        self._pool = pool
        self._data = data
        self._bodiless = bodiless
        self._over: Callable[[int], None] | None = over
        self._connection: UpstreamConnection | None = None
        self._status = 0
        self._timer: Timer = pool.wheel.schedule(SHADOW_SECONDS, self._expire)

    def send(self) -> None:
        """Send it on a connection of the pool."""
        connection = self._pool.take()
        if connection is not None:
            self.connected(connection)
        elif self._pool.wait(self):
            self._timer.cancel()
            self._timer = self._pool.wheel.schedule(0.0, self._end)

    def _expire(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._end()

    def _end(self) -> None:
        over, self._over = self._over, None
        self._timer.cancel()
        if over is not None:
            over(self._status)

    # As the user of an upstream connection.

    @property
    def waiting(self) -> bool:
        return self._over is not None and self._connection is None

    def connected(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        connection.begin(self, self._bodiless)
        connection.write(self._data)

    def connect_failed(self, cause: str) -> None:
        self._end()

    def informed(self, status: int, headers: Headers) -> None:
        """Nobody is told."""

    def answer(self, status: int, headers: Headers, length: int | None, data: bytes, ended: bool) -> None:
        self._status = status
        if ended:
            self._complete()

    def answer_data(self, data: bytes, ended: bool) -> None:
        if ended:
            self._complete()

    def _complete(self) -> None:
        assert self._connection is not None
        self._connection.done(request_complete=True)
        self._end()

    def switched(self, headers: Headers, data: bytes) -> None:
        assert self._connection is not None
        self._connection.close()
        self._end()

    def side_ended(self) -> None:
        """Only after a switch."""

    def lost(self, cause: str, malformed: bool) -> None:
        self._end()

    def pause_sending(self) -> None:
        """All is written at once."""

    def resume_sending(self) -> None:
        """All is written at once."""
