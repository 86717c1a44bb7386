"""The requests of one class: when they are due, the connections that they are sent on, and what came of them.

A request that is due takes an idle connection, or has one opened while the class may have more; otherwise it stays
due until an answer frees one. Its duration counts from when it was due, so answers that come late do not hide the
wait of those behind them (Gil Tene's coordinated omission). In a closed loop requests are always due, and count
from when their turn came.

What is due is read from the arrivals one by one, so that a backlog needs no memory. All is called on one event
loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from upwell.runtime.clock import Clock
from upwell.runtime.load.connection import BUFFER_BYTES, LoadConnection
from upwell.runtime.load.dial import DialFailed
from upwell.runtime.load.outcomes import Outcome
from upwell.runtime.load.record import Record
from upwell.runtime.load.requests import Requests

LATE_SECONDS: Final = 0.01
ROUNDING_SECONDS: Final = 1e-6
RETRY_SECONDS: Final = 0.05
"""For which a closed loop opens no connection behind one that failed, which nothing else would pace."""

Dial = Callable[[Callable[[], LoadConnection]], Awaitable[LoadConnection]]


@dataclass(frozen=True, slots=True)
class Terms:
    """What a lane keeps to."""

    arrivals: Iterator[float]
    is_open_loop: bool
    connections: int
    seconds: float | None
    """After which nothing more is sent; None when the arrivals say when it is enough."""
    timeout: float
    keep_alive: bool


class Lane:
    """Call `start`, then `sweep` now and then, until `finished`; in the end `close`."""

    def __init__(
        self,
        requests: Requests,
        numbers: Iterator[int],
        terms: Terms,
        dial: Dial,
        clock: Clock,
        on_finished: Callable[[], None],
    ) -> None:
        self.record = Record()
        self.finished = False
        self._requests = requests
        self._numbers = numbers
        self._terms = terms
        self._dial = dial
        self._clock = clock
        self._on_finished = on_finished
        self._started_at = 0.0
        self._due: float | None = None
        self._idle: list[LoadConnection] = []
        self._busy: set[LoadConnection] = set()
        self._dials: set[asyncio.Task[None]] = set()
        self._dialling = 0
        # When the requests were due for which a connection is being opened; at most as many as connections.
        self._pending: deque[float] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._held_until = 0.0
        self._buffer = memoryview(bytearray(BUFFER_BYTES))

    def connection(self) -> LoadConnection:
        """A new one for this lane, to be dialled."""
        return LoadConnection(self, self._buffer)

    def start(self, now: float, connection: LoadConnection | None = None) -> None:
        """Begin at `now`, monotonic seconds, with a connection that is there already."""
        self._started_at = now
        if connection is not None and not connection.closed:
            self._idle.append(connection)
        self._due = next(self._terms.arrivals, None)
        self._pump()

    def stop(self) -> None:
        """Send nothing more, and leave what is under way."""
        self.record.cut_off += len(self._busy) + len(self._pending)
        self._leave_the_rest(self._clock.monotonic() - self._started_at)
        self._pending.clear()
        for connection in self._busy:
            connection.close()
        self._busy.clear()
        self._finish()

    async def close(self) -> None:
        """Close all connections."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._dials:
            task.cancel()
        await asyncio.gather(*self._dials, return_exceptions=True)
        for connection in (*self._idle, *self._busy):
            connection.close()

    def sweep(self) -> None:
        """End requests whose answers did not come in time."""
        now = self._clock.monotonic()
        for connection in [each for each in self._busy if each.deadline <= now]:
            connection.fail("timeout of the answer")
        self._pump()

    # What sends.

    def _pump(self) -> None:
        """Send what is due as far as connections allow, and come back when the next is."""
        now = self._clock.monotonic()
        offset = now - self._started_at
        seconds = self._terms.seconds
        # A timer's end, rounded, may lie a little before what it was set for.
        while self._due is not None and self._due <= offset + ROUNDING_SECONDS:
            if seconds is not None and offset >= seconds and offset - self._due > LATE_SECONDS:
                self._leave_the_rest(offset)
                break
            if not self._take(self._due, now):
                self.record.starved = self._terms.is_open_loop
                return
            self._due = next(self._terms.arrivals, None)
        self._rest(offset)

    def _take(self, due: float, now: float) -> bool:
        at = self._started_at + due if self._terms.is_open_loop else now
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                self._send(connection, at, now)
                return True
        if now < self._held_until or len(self._busy) + len(self._pending) >= self._terms.connections:
            return False
        self._pending.append(at)
        self._dial_for_pending()
        return True

    def _send(self, connection: LoadConnection, due: float, now: float) -> None:
        late = now - due
        if late > LATE_SECONDS and self._terms.is_open_loop:
            self.record.late += 1
            self.record.latest = max(self.record.latest, late)
        connection.due = due
        connection.deadline = now + self._terms.timeout
        self._busy.add(connection)
        connection.send(self._requests.encode(next(self._numbers)), self._requests.has_no_answer_body)

    def _rest(self, offset: float) -> None:
        """Until the next is due, unless a timer is set already; without a next one it may be over."""
        if self._due is not None:
            if self._timer is None and self._terms.is_open_loop:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(max(0.0, self._due - offset), self._wake)
        elif not self._busy and not self._pending:
            self._finish()

    def _wake(self) -> None:
        self._timer = None
        self._pump()

    def _leave_the_rest(self, offset: float) -> None:
        """Send nothing more, and count an open loop's requests that were due by now."""
        while self._terms.is_open_loop and self._due is not None and self._due <= offset:
            self.record.unsent += 1
            self._due = next(self._terms.arrivals, None)
        self._due = None

    def _finish(self) -> None:
        if not self.finished:
            self.finished = True
            self._on_finished()

    # What opens connections.

    def _dial_for_pending(self) -> None:
        if self._dialling < len(self._pending):
            self._dialling += 1
            task = asyncio.get_running_loop().create_task(self._open())
            self._dials.add(task)
            task.add_done_callback(self._dials.discard)

    async def _open(self) -> None:
        try:
            connection = await self._dial(self.connection)
        except DialFailed as error:
            self._dialling -= 1
            self._dial_failed(str(error))
            return
        self._dialling -= 1
        if self.finished:
            connection.close()
        elif connection.closed:
            self._dial_failed("closed before the answer")
        else:
            self._free(connection)

    def _dial_failed(self, cause: str) -> None:
        if not self._pending:
            return
        now = self._clock.monotonic()
        self.record.broke(cause, now - self._pending.popleft(), now - self._started_at)
        self._hold(now)
        self._pump()

    def _hold(self, now: float) -> None:
        """Have a closed loop open no connection for a while."""
        if not self._terms.is_open_loop:
            self._held_until = now + RETRY_SECONDS
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._wake)

    def _free(self, connection: LoadConnection) -> None:
        """Of the requests that wait for a connection the oldest takes this one."""
        if self._pending:
            self._send(connection, self._pending.popleft(), self._clock.monotonic())
        else:
            self._idle.append(connection)
        self._pump()

    # What connections say.

    def answered(self, connection: LoadConnection, status: int, outcome: Outcome) -> None:
        now = self._clock.monotonic()
        self._busy.discard(connection)
        self.record.answered(status, outcome, now - connection.due, now - self._started_at)
        if not self._terms.keep_alive:
            connection.close()
        if connection.closed:
            self._pump()
        else:
            self._free(connection)

    def broke(self, connection: LoadConnection, cause: str) -> None:
        now = self._clock.monotonic()
        self._busy.discard(connection)
        self.record.broke(cause, now - connection.due, now - self._started_at)
        self._hold(now)
        self._pump()

    def gone(self, connection: LoadConnection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
