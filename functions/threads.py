"""A bounded pool of threads that runs sync functions for one event loop.

Leaner than `loop.run_in_executor`: one queue, one wake-up of the loop for each call, no second future and no
semaphore. A pool lives in one replica and is used from its loop's thread only; no thread exists before the first
call, so that the process may be forked until then. A call whose waiter was cancelled before it began never runs;
one that had begun goes on, abandoned: its outcome is dropped, and it holds its thread until it returns. Threads
are daemons: one that never returns does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Generator
from queue import SimpleQueue
from typing import Any, NamedTuple

from upwell.functions.errors import Unavailable

# As deep as Knative's activator queues for a revision: what is beyond could not be served before it times out.
WAITING_LIMIT = 10_000


class _Outcome(NamedTuple):
    result: Any
    error: BaseException | None


class Call:
    """One call on its way through a pool. Awaited once, by who submitted it."""

    __slots__ = (
        "_abandoned",
        "_arguments",
        "_begun",
        "_context",
        "_finished",
        "_function",
        "_loop",
        "_pool",
        "_waiter",
    )

    def __init__(self, pool: ThreadPool, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._pool = pool
        self._function = function
        self._arguments = arguments
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[_Outcome] = self._loop.create_future()
        self._begun = False
        self._abandoned = False
        self._finished = False

    def __await__(self) -> Generator[Any, None, Any]:
        """What the function returns or raises. Cancelled, it leaves a call that has begun to itself."""
        try:
            result, error = yield from self._waiter.__await__()
        except asyncio.CancelledError:
            self.abandon()
            raise
        if error is None:
            return result
        try:
            raise error
        finally:
            del error  # else the traceback holds this frame, and this frame the traceback

    def drop(self) -> None:
        """Cancel it unless a thread has taken it up."""
        if not self._begun:
            self._waiter.cancel()

    def abandon(self) -> None:
        """Wait for it no longer: one that has begun goes on and is counted, another never runs. Idempotent."""
        self._waiter.cancel()
        if self._begun and self._waiter.cancelled() and not self._abandoned and not self._finished:
            self._abandoned = True
            self._pool.abandoned += 1

    def perform(self) -> None:
        """Run it in the pool's thread, and hand over its outcome."""
        self._begun = True
        if self._waiter.cancelled():
            outcome = _Outcome(None, None)
        else:
            try:
                outcome = _Outcome(self._context.run(self._function, *self._arguments), None)
            except BaseException as error:
                outcome = _Outcome(None, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._finish, outcome)

    def _finish(self, outcome: _Outcome) -> None:
        self._finished = True
        self._pool.finished(abandoned=self._abandoned)
        if not self._waiter.done():
            self._waiter.set_result(outcome)


class ThreadPool:
    """Runs up to `limit` sync calls at once and lets at most `WAITING_LIMIT` more wait.

    `abandoned` is the number of calls that run while nobody waits for their outcome any more.
    """

    __slots__ = ("_calls", "_closed", "_started", "_unfinished", "abandoned", "limit")

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"a pool needs at least one thread, not {limit}")
        self.limit = limit
        self.abandoned = 0
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
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

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Call:
        """Have a thread call `function(*arguments)`, in a copy of the caller's context; to be awaited.

        Raises Unavailable when the pool is closed or `WAITING_LIMIT` calls wait already.
        """
        if self._closed:
            raise Unavailable("the function's threads have ended", hint="This replica is shutting down.")
        if self._unfinished >= self.limit + WAITING_LIMIT:
            raise Unavailable(f"{WAITING_LIMIT} calls wait for a thread already", hint="Try again later.")
        call = Call(self, function, arguments)
        self._unfinished += 1
        self._calls.put(call)
        if self._started < min(self._unfinished, self.limit):
            self._start()
        return call

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What `function(*arguments)` returns or raises, from a thread. Raises Unavailable as `submit` does."""
        return await self.submit(function, *arguments)

    def finished(self, *, abandoned: bool) -> None:
        """A call has ended; told by itself, on the loop."""
        self._unfinished -= 1
        self.abandoned -= abandoned

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
            call.perform()
            del call  # hold nothing of the last call while waiting for the next
