"""An event loop whose time jumps ahead when nothing is ready: hours of deadlines in milliseconds.

Sockets are real and polled first, so code under test keeps its transports; what waits for time does not wait.
While a job runs in an executor the loop waits for it in real time, since its end could come before any timer's.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Real seconds in which something outside the loop must happen when no timer is set; then the test has hung.
STUCK_AFTER = 10.0


class _JumpingSelector(selectors.BaseSelector):
    """Polls the real selector; when nothing is ready it moves the loop's time instead of sleeping."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.time = 0.0
        self.jobs = 0
        self.jumps = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self.jobs:
            return self._real.select(0.001)
        if timeout is None:
            ready = self._real.select(STUCK_AFTER)
            if not ready:
                raise RuntimeError("every task waits, no timer is set and no socket became ready: a deadlock")
            return ready
        self.time += timeout
        self.jumps += 1
        return ready

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """`loop.time()` starts at `start` and moves only by jumps to the next timer.

    `jumps` counts them. When nothing is ready, no timer is set and no executor job runs, the loop raises
    RuntimeError after ten real seconds instead of hanging.
    """

    def __init__(self, start: float = 1_000.0) -> None:
        self._jumping = _JumpingSelector()
        self._jumping.time = start
        # asyncio's own list of timers, which its type stubs leave out.
        self._scheduled: list[asyncio.TimerHandle]
        super().__init__(self._jumping)
        self._clock_resolution = 1e-9

    @property
    def jumps(self) -> int:
        return self._jumping.jumps

    @property
    def timers(self) -> int:
        """How many timers are set and not cancelled."""
        return sum(not handle.cancelled() for handle in self._scheduled)

    def time(self) -> float:
        return self._jumping.time

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = super().run_in_executor(executor, func, *args)
        self._jumping.jobs += 1
        future.add_done_callback(self._job_done)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """As of any loop but without a timeout: threads end in real time, and this loop's is over at once."""
        await super().shutdown_default_executor()

    def _job_done(self, _: asyncio.Future[Any]) -> None:
        self._jumping.jobs -= 1


def run_fake(main: Coroutine[Any, Any, T], *, start: float = 1_000.0) -> T:
    """Run `main` to its end on a `FakeTimeLoop`, as `asyncio.run` would on an ordinary loop."""
    with asyncio.Runner(loop_factory=lambda: FakeTimeLoop(start)) as runner:
        return runner.run(main)
