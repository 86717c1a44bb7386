"""A bounded pool of threads that runs sync functions for one event loop.

Leaner than `loop.run_in_executor`: one queue, one wake-up of the loop for each call, no second future and no
semaphore. A pool lives in one replica and is used from its loop's thread only; no thread exists before the first
call, so that the process may be forked until then. A call whose waiter was cancelled before it began never runs;
one that had begun goes on, its outcome is dropped, and it holds its thread until it returns. Threads are daemons:
one that never returns does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple

from upwell.functions.errors import Unavailable

# As deep as Knative's activator queues for a revision: what is beyond could not be served before it times out.
WAITING_LIMIT = 10_000


class _Outcome(NamedTuple):
    result: Any
    error: BaseException | None


class _Call(NamedTuple):
    context: contextvars.Context
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    loop: asyncio.AbstractEventLoop
    waiter: asyncio.Future[_Outcome]


class ThreadPool:
    """Runs up to `limit` sync calls at once and lets at most `WAITING_LIMIT` more wait."""

    __slots__ = ("_calls", "_closed", "_started", "_unfinished", "limit")

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"a pool needs at least one thread, not {limit}")
        self.limit = limit
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._started = 0
        self._unfinished = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"<ThreadPool busy={self.busy} waiting={self.waiting} limit={self.limit}>"

    @property
    def busy(self) -> int:
        """Threads that run a call, whether or not anyone still waits for its outcome."""
        return min(self._unfinished, self.limit)

    @property
    def waiting(self) -> int:
        """Calls that no thread has taken up yet."""
        return self._unfinished - self.busy

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What `function(*arguments)` returns or raises, from a thread, in a copy of the caller's context.

        Raises Unavailable when the pool is closed or `WAITING_LIMIT` calls wait already.
        """
        if self._closed:
            raise Unavailable("the function's threads have ended", hint="This replica is shutting down.")
        if self._unfinished >= self.limit + WAITING_LIMIT:
            raise Unavailable(f"{WAITING_LIMIT} calls wait for a thread already", hint="Try again later.")
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[_Outcome] = loop.create_future()
        self._unfinished += 1
        self._calls.put(_Call(contextvars.copy_context(), function, arguments, loop, waiter))
        if self._started < min(self._unfinished, self.limit):
            self._start()
        result, error = await waiter
        if error is None:
            return result
        try:
            raise error
        finally:
            del error  # else the traceback holds this frame, and this frame the traceback

    def close(self) -> None:
        """End each thread after the calls that are queued now; waits for none of them. Idempotent."""
        if not self._closed:
            self._closed = True
            for _ in range(self._started):
                self._calls.put(None)

    def _start(self) -> None:
        name = f"upwell-function-{self._started}"
        threading.Thread(target=self._work, name=name, daemon=True).start()
        self._started += 1

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            self._perform(call)
            del call  # hold nothing of the last call while waiting for the next

    def _perform(self, call: _Call) -> None:
        if call.waiter.cancelled():
            outcome = _Outcome(None, None)
        else:
            try:
                outcome = _Outcome(call.context.run(call.function, *call.arguments), None)
            except BaseException as error:
                outcome = _Outcome(None, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            call.loop.call_soon_threadsafe(self._finish, call.waiter, outcome)

    def _finish(self, waiter: asyncio.Future[_Outcome], outcome: _Outcome) -> None:
        self._unfinished -= 1
        if not waiter.done():
            waiter.set_result(outcome)
