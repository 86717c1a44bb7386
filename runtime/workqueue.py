"""A keyed work queue: what drives every reconciler, and whatever else must be written until it is.

A key that is added many times before it is handled is handled once; a key is never handled by two workers at
the same time; one that fails comes back after a delay that doubles with each failure in a row. Lifetime: one
queue a controller, fed by watches, emptied by its workers, both owned by `Controller.run`. Its bound is the number
of objects.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

from upwell.functions.errors import Conflict, NotFound, Unavailable

Key = TypeVar("Key", bound=Hashable)

FIRST_RETRY_SECONDS: Final = 0.005
LONGEST_RETRY_SECONDS: Final = 30.0
"""A failing object must not fill the log, and must recover within half a minute of its cause being mended."""

WORTH_A_WARNING_SECONDS: Final = 1.0
"""The delay from which on a conflict is no longer that of two writers who met."""


def retry_delay(failures: int) -> float:
    """Seconds to wait after this many failures in a row (≥ 1)."""
    return float(min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(failures - 1, 30)))


class WorkQueue(Generic[Key]):
    """Keys to be looked at, each at most once in the queue."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Key, None] = OrderedDict()
        self._active: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._ready = asyncio.Event()

    def __repr__(self) -> str:
        return f"<WorkQueue {len(self._waiting)} waiting, {len(self._active)} active, {len(self._timers)} delayed>"

    def add(self, key: Key) -> None:
        """Have `key` looked at soon; again after the present look if one is under way."""
        if key in self._active:
            self._again.add(key)
            return
        self._waiting[key] = None
        self._ready.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Have `key` looked at after a delay; an earlier delay of the same key is replaced."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._due, key)

    async def take(self) -> Key:
        """The next key, now active; the taker must call `done`."""
        while not self._waiting:
            self._ready.clear()
            await self._ready.wait()
        key, _ = self._waiting.popitem(last=False)
        self._active.add(key)
        return key

    def done(self, key: Key, *, failed: bool) -> float | None:
        """`key` was looked at. Returns the seconds until it is tried again if it failed."""
        self._active.discard(key)
        delay = None
        if failed:
            self._failures[key] = self._failures.get(key, 0) + 1
            delay = retry_delay(self._failures[key])
            self.add_after(key, delay)
        else:
            self._failures.pop(key, None)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        return delay

    def close(self) -> None:
        """Drop all delays; nothing is handed out of its own accord afterwards."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)


class Controller(Generic[Key]):
    """Runs one reconcile function over a queue with a few workers.

    `reconcile` looks at the key's present state and returns the seconds after which to look again, or None. What
    it raises is logged and the key tried again; Conflict and NotFound say that what it looked at was stale, which
    is no more than a reason to look again.
    """

    def __init__(
        self, name: str, reconcile: Callable[[Key], Awaitable[float | None]], *, workers: int = 4
    ) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._name = name
        self._reconcile = reconcile
        self._workers = workers
        self._log = logging.getLogger(f"upwell.work.{name}")

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._workers):
                    group.create_task(self._work(), name=f"{self._name}-{number}")
        finally:
            self.queue.close()

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            failure: Exception | None = None
            try:
                again = await self._reconcile(key)
                if again is not None:
                    self.queue.add_after(key, again)
            except asyncio.CancelledError:
                self.queue.done(key, failed=False)
                raise
            except Exception as error:
                failure = error
            delay = self.queue.done(key, failed=failure is not None)
            if failure is not None:
                self._failed(key, failure, delay or 0.0)

    def _failed(self, key: Key, error: Exception, delay: float) -> None:
        details = {"key": str(key), "after_s": delay}
        if isinstance(error, Unavailable):
            self._log.error("could not reconcile, will retry: %s", error, extra=details)
        elif not isinstance(error, (Conflict, NotFound)):
            self._log.error("could not reconcile, will retry", exc_info=error, extra=details)
        else:
            level = logging.INFO if delay < WORTH_A_WARNING_SECONDS else logging.WARNING
            self._log.log(level, "what was read is stale, will look again: %s", error, extra=details)
