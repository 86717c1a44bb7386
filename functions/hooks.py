"""Running a module's lifecycle hooks in its replica: before the first request, and after the last."""

from __future__ import annotations

import asyncio
import inspect
import logging
import types
from collections.abc import Callable

from upwell.functions.errors import InvalidFunction
from upwell.functions.sdk import LifecycleHooks
from upwell.functions.signature import location
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
        """Run those before the first request. Raises InvalidFunction for the first that fails."""
        for hook in self._hooks.start:
            try:
                async with asyncio.timeout(START_SECONDS):
                    await self._run(hook)
            except (Exception, SystemExit) as error:
                error.__traceback__ = _without_ours(error)
                what = f"{_name(hook)}, which runs at the start, failed: {type(error).__name__}: {error}"
                raise InvalidFunction(what, where=location(hook)) from error

    async def stop(self) -> None:
        """Run those after the last request; what one raises is logged, and the next runs."""
        for hook in self._hooks.stop:
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._run(hook)
            except (Exception, SystemExit):
                _log.exception("%s, which runs at the end, failed", _name(hook))

    async def _run(self, hook: Callable[[], object]) -> None:
        if inspect.iscoroutinefunction(hook):
            await hook()
            return
        result = await self._pool.run(hook)
        if inspect.isawaitable(result):
            await result


def _name(hook: Callable[[], object]) -> str:
    return getattr(hook, "__qualname__", repr(hook))


def _without_ours(error: BaseException) -> types.TracebackType | None:
    """The traceback from the user's first frame on."""
    trace = error.__traceback__
    while trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("upwell."):
        trace = trace.tb_next
    return trace
