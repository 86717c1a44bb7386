"""What a replica tells of its load: once a second, and at once when the first request after silence arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

from upwell.autoscaler.stats import Reporter
from upwell.runtime.clock import Clock
from upwell.runtime.queue.metrics import QueueMetrics

REPORT_SECONDS: Final = 1.0


class Queue(Protocol):
    """What is reported on: a queue layer, or a sidecar's."""

    metrics: QueueMetrics
    silent: bool


class LoadReports:
    """The reports of one replica. `stats` is what its queue counts in; `follow` begins."""

    def __init__(
        self,
        revision: str,
        name: str,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        send: Callable[[dict[str, Any]], object],
    ) -> None:
        self._reporter = Reporter(revision, name, clock.now())
        self.stats = self._reporter.stats
        self._clock = clock
        self._loop = loop
        self._send = send
        self._queue: Queue | None = None
        self._told = (-1, 0)

    def follow(self, queue: Queue) -> None:
        """Report on `queue` from now on."""
        self._queue = queue
        self._loop.call_later(REPORT_SECONDS, self._tick)

    def woke(self) -> None:
        """A request has arrived after silence."""
        # Told at once, but after the request that is at hand.
        self._loop.call_soon(self.report)

    def report(self) -> None:
        """Tell the load of the time since the last report."""
        report = self._reporter.report(self._clock.now())
        message: dict[str, Any] = {"report": report.encode().decode()}
        depth = self.stats.in_flight
        queue = self._queue
        if queue is not None:
            totals = (queue.metrics.total, depth)
            if totals != self._told:
                self._told = totals
                message["metrics"] = queue.metrics.snapshot(depth)
            queue.silent = report.request_count == 0 and depth == 0
        self._send(message)

    def _tick(self) -> None:
        self._loop.call_later(REPORT_SECONDS, self._tick)
        self.report()
