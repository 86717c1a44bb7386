"""Running a module's lifecycle hooks in its replica: before the first request, and after the last."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable

from upwell.functions.sdk import LifecycleHooks
from upwell.functions.threads import ThreadPool

START_SECONDS = 600.0
"""For all that runs before the first request: Knative's progress deadline."""
STOP_SECONDS = 10.0
"""For each that runs after the last request."""

_log = logging.getLogger("upwell.function")


class Hooks:
    """Async ones run on the loop, sync ones in the handler's threads, one after the other."""

    __slots__ = ("_hooks", "_pool")

    def __init__(self, hooks: LifecycleHooks, pool: ThreadPool) -> None:
        self._hooks = hooks
        self._pool = pool

    @property
    def has_start(self) -> bool:
        """Whether there is anything to run before the first request."""
        return bool(self._hooks.start)

    async def start(self) -> None:
        """Run those before the first request. Raises what one of them raises, or TimeoutError."""
        async with asyncio.timeout(START_SECONDS):
            for hook in self._hooks.start:
                await self._run(hook)

    async def stop(self) -> None:
        """Run those after the last request; what one raises is logged, and the next runs."""
        for hook in self._hooks.stop:
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._run(hook)
            except Exception:
                _log.exception("a function that runs at the replica's end failed")

    async def _run(self, hook: Callable[[], object]) -> None:
        if inspect.iscoroutinefunction(hook):
            await hook()
            return
        result = await self._pool.run(hook)
        if inspect.isawaitable(result):
            await result
