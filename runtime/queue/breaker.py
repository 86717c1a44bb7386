"""The breaker: how many requests run in one replica at once, and how many may wait for that.

Hard `containerConcurrency` with a queue of ten times as many, as Knative's queue-proxy has it; what exceeds both
is refused. Waiting requests are admitted in the order in which they came. They wait in a task (`enter`), or with a
callback where there is none (`wait`, `forget`). One that is cancelled while it waits leaves the queue; one that is
cancelled just as it is admitted passes its slot on. One breaker belongs to one event loop and is used from its
thread only.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

QUEUE_FACTOR = 10
"""Knative's queue depth for each request that may run."""


class QueueFull(Exception):
    """As many requests wait as may wait."""


@dataclass(frozen=True, slots=True)
class BreakerStatistics:
    """Requests running and waiting now, and how many of either there may be."""

    running: int
    waiting: int
    concurrency: int
    queue_depth: int


class Breaker:
    """Admits up to `concurrency` requests at once. Raises ValueError for fewer than one."""

    __slots__ = ("_concurrency", "_queue_depth", "_running", "_waiting")

    def __init__(self, concurrency: int, queue_depth: int | None = None) -> None:
        if concurrency < 1:
            raise ValueError(f"a breaker admits at least one request, not {concurrency}")
        self._concurrency = concurrency
        self._queue_depth = QUEUE_FACTOR * concurrency if queue_depth is None else queue_depth
        self._running = 0
        self._waiting: OrderedDict[object, Callable[[], bool]] = OrderedDict()

    def __repr__(self) -> str:
        return (
            f"<Breaker [{self._running}/{self._concurrency} running, "
            f"{len(self._waiting)}/{self._queue_depth} waiting]>"
        )

    def statistics(self) -> BreakerStatistics:
        """The counts of this moment."""
        return BreakerStatistics(self._running, len(self._waiting), self._concurrency, self._queue_depth)

    def try_enter(self) -> bool:
        """Take a slot if one is free. Slots are free only while nobody waits."""
        if self._running < self._concurrency:
            self._running += 1
            return True
        return False

    async def enter(self) -> None:
        """Take a slot, waiting for it in the queue. Raises QueueFull when the queue is full."""
        if self.try_enter():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def admitted() -> bool:
            if turn.cancelled():
                return False
            turn.set_result(None)
            return True

        self.wait(turn, admitted)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.leave()
            else:
                self.forget(turn)
            raise

    def wait(self, who: object, admitted: Callable[[], bool]) -> None:
        """Queue `who`; `admitted` is called once it holds a slot, and says whether it still wants it.

        Raises QueueFull when the queue is full.
        """
        if len(self._waiting) >= self._queue_depth:
            raise QueueFull
        self._waiting[who] = admitted

    def forget(self, who: object) -> None:
        """Let `who` wait no longer. Does nothing when it does not wait."""
        self._waiting.pop(who, None)

    def leave(self) -> None:
        """Give a slot back; the request that has waited longest takes it over."""
        while self._waiting:
            _, admitted = self._waiting.popitem(last=False)
            if admitted():
                return
        self._running -= 1
