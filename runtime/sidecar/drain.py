"""Leaving with care: requests still come for a while after the platform has decided to send none.

From `begin` on probes are answered with 503, requests are served as before, and the drain is over once none has
come for a quiet time. Kubernetes asks twice: the container's preStop hook through the admin port, and SIGTERM to
us. A hook without a SIGTERM means that the container alone is restarted, so the drain is called off again.
"""

from __future__ import annotations

from collections.abc import Callable

from upwell.runtime.clock import Clock
from upwell.runtime.sidecar.proxy import QueueProxy
from upwell.runtime.timers import Timer, TimerWheel


class Drain:
    """The drain of one proxy. Not begun, under way, over; `call_off` leads back to not begun."""

    def __init__(self, proxy: QueueProxy, timers: TimerWheel, clock: Clock, quiet_seconds: float) -> None:
        self._proxy = proxy
        self._timers = timers
        self._clock = clock
        self._quiet = quiet_seconds
        self._began = 0.0
        self._timer: Timer | None = None
        self._waiting: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        state = "not begun" if not self._proxy.draining else "under way" if self._timer is not None else "over"
        return f"<Drain {state}, {len(self._waiting)} waiting>"

    def begin(self, over: Callable[[], None]) -> None:
        """Drain, unless that is under way; `over` is called when it is over or called off, at once if it is."""
        if self._proxy.draining and self._timer is None:
            over()
            return
        self._waiting.append(over)
        if not self._proxy.draining:
            self._proxy.draining = True
            self._began = self._clock.monotonic()
            self._timer = self._timers.schedule(self._quiet, self._look)

    def call_off(self) -> None:
        """Probes are answered as before, and those who wait wait no longer."""
        if self._timer is not None:
            self._timer.cancel()
        self._proxy.draining = False
        self._end()

    def _look(self) -> None:
        left = max(self._began, self._proxy.last_request_at) + self._quiet - self._clock.monotonic()
        if left > 0:
            self._timer = self._timers.schedule(left, self._look)
        else:
            self._end()

    def _end(self) -> None:
        self._timer = None
        waiting, self._waiting = self._waiting, []
        for over in waiting:
            over()
