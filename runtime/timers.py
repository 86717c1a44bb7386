"""Deadlines for hot paths: many timers, one timer of the event loop.

A request needs a deadline that almost never fires. The event loop's own `call_later` pays a push on a heap for
each and keeps cancelled ones until they are due. Here timers are put into buckets as wide as the resolution
(a hashed wheel, after Varghese and Lauck 1987, with a dictionary instead of a fixed ring): setting and
cancelling one are O(1), and a cancelled timer is let go at once. Only the first timer of a bucket touches the
heap of bucket numbers.

The wheel belongs to one event loop and is used from its thread only. It holds at most one loop timer, for the
earliest bucket or an earlier one: after the last timer is cancelled the loop's is left to fire once on nothing, as
under light load a request's deadline is set and cancelled before the next one comes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush


@dataclass(frozen=True, slots=True)
class WheelStatistics:
    """What a wheel holds: timers not yet fired, buckets they lie in, and timers fired so far."""

    pending: int
    buckets: int
    fired: int


class Timer:
    """A scheduled callback; made by `TimerWheel.schedule`."""

    __slots__ = ("_bucket", "_callback", "_wheel")

    def __init__(self, wheel: TimerWheel, bucket: int, callback: Callable[[], object]) -> None:
        self._wheel = wheel
        self._bucket = bucket
        self._callback: Callable[[], object] | None = callback

    @property
    def pending(self) -> bool:
        """Whether the callback is still to be called."""
        return self._callback is not None

    def cancel(self) -> None:
        """Let the callback go uncalled. Does nothing once it was called or cancelled."""
        if self._callback is not None:
            self._callback = None
            self._wheel._forget(self)

    def __repr__(self) -> str:
        return f"<Timer {'pending' if self.pending else 'done'}>"


class TimerWheel:
    """Timers of one event loop, each fired never early and at most `resolution` seconds late.

    Lateness of the loop itself (a callback that blocks it) comes on top.
    """

    __slots__ = ("_buckets", "_fired", "_handle", "_handle_bucket", "_loop", "_order", "_pending", "_resolution")

    def __init__(self, loop: asyncio.AbstractEventLoop, resolution: float = 0.05) -> None:
        self._loop = loop
        self._resolution = resolution
        self._buckets: dict[int, dict[Timer, None]] = {}
        self._order: list[int] = []
        self._handle: asyncio.TimerHandle | None = None
        self._handle_bucket = 0
        self._pending = 0
        self._fired = 0

    def schedule(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call `callback()` once, `delay` seconds from now. An exception it raises goes to the loop's handler."""
        resolution = self._resolution
        due = self._loop.time() + delay
        number = math.ceil(due / resolution)
        if number * resolution < due:
            number += 1
        timer = Timer(self, number, callback)
        bucket = self._buckets.get(number)
        if bucket is None:
            self._buckets[number] = {timer: None}
            heappush(self._order, number)
            if self._handle is None or number < self._handle_bucket:
                self._arm(number)
        else:
            bucket[timer] = None
        self._pending += 1
        return timer

    def statistics(self) -> WheelStatistics:
        return WheelStatistics(self._pending, len(self._buckets), self._fired)

    def __repr__(self) -> str:
        return f"<TimerWheel [pending {self._pending}, buckets {len(self._buckets)}]>"

    def _arm(self, number: int) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle_bucket = number
        self._handle = self._loop.call_at(number * self._resolution, self._turn)

    def _forget(self, timer: Timer) -> None:
        bucket = self._buckets.get(timer._bucket)
        if bucket is None or timer not in bucket:
            return  # lies in the bucket that is being fired just now, which skips it
        del bucket[timer]
        self._pending -= 1
        if not bucket:
            del self._buckets[timer._bucket]
            if not self._buckets:
                self._order.clear()
            elif len(self._order) > 2 * len(self._buckets) + 64:
                self._order = sorted(self._buckets)

    def _turn(self) -> None:
        self._handle = None
        now = self._loop.time()
        order = self._order
        while order:
            number = order[0]
            if number in self._buckets and number * self._resolution > now:
                break
            heappop(order)
            self._fire(self._buckets.pop(number, {}))
            order = self._order
        # A callback that set a timer may have armed for a later bucket.
        if order:
            self._arm(order[0])

    def _fire(self, bucket: dict[Timer, None]) -> None:
        self._pending -= len(bucket)
        for timer in bucket:
            callback = timer._callback
            if callback is None:
                continue
            timer._callback = None
            self._fired += 1
            try:
                callback()
            except Exception as error:
                self._loop.call_exception_handler({"message": "a timer's callback failed", "exception": error})
