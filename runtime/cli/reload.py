"""`--reload`: what is saved is served, and what cannot be served leaves what was there in place.

The directories that hold what is served are watched, each for itself, so that a lone file in a large directory
costs one watch. A saved file makes the command read and apply everything again; content that did not change is the
same revision and nothing happens. A change that comes while a new revision is still rising takes its place.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from watchfiles import awatch

from upwell.functions.errors import Unavailable, UpwellError
from upwell.runtime.clock import Clock

QUIET_MILLISECONDS: Final = 20
"""Without another change before one is told: an editor writes, renames and touches within a few."""
LONGEST_MILLISECONDS: Final = 200
"""After which changes are told although more keep coming."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What was applied: the directories that it came from, and how to wait until it serves."""

    directories: frozenset[Path]
    changed: bool
    """Whether there is anything to wait for."""
    serving: Callable[[], Awaitable[str]]
    """Names the revisions that serve; raises UpwellError when they cannot."""


class ReloadConsole(Protocol):
    """Who is told."""

    def changed(self, files: Sequence[str]) -> None:
        """These were saved."""
        ...

    def replaced(self, revision: str, seconds: float) -> None:
        """What was saved serves."""
        ...

    def kept_serving(self, error: UpwellError) -> None:
        """What was saved does not serve, and why; what was there before does."""
        ...


class Reloader:
    """Applies again whenever something changes. `run` it until it is cancelled."""

    def __init__(
        self,
        apply: Callable[[], Awaitable[Applied]],
        directories: frozenset[Path],
        console: ReloadConsole,
        clock: Clock,
    ) -> None:
        self._apply = apply
        self._directories = directories
        self._console = console
        self._clock = clock
        self._files: set[str] = set()
        self._changed_event = asyncio.Event()
        self._changed_event.set()  # what was saved since it was applied at first is told by no watch

    async def run(self) -> None:
        """Watch, apply, tell. Raises Unavailable when the directories cannot be watched."""
        while True:
            watched = self._directories
            watching = asyncio.create_task(self._watch(watched), name="reload-watch")
            try:
                while watched == self._directories:
                    await self._change(watching)
                    await self._apply_again()
            finally:
                await _end(watching)
            self._changed_event.set()  # what was saved between two watches was told by neither

    async def _change(self, watching: asyncio.Task[None]) -> None:
        changed = asyncio.ensure_future(self._changed_event.wait())
        try:
            await asyncio.wait((changed, watching), return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
        finally:
            await _end(changed)

    async def _apply_again(self) -> None:
        self._changed_event.clear()
        files, self._files = sorted(self._files), set()
        began = self._clock.monotonic()
        try:
            applied = await self._apply()
            self._directories = applied.directories
            if applied.changed:
                self._console.changed(files)
                await self._serve(applied, began)
        except UpwellError as error:
            self._console.kept_serving(error)

    async def _serve(self, applied: Applied, began: float) -> None:
        """Until it serves, cannot, or is out of date."""
        serving = asyncio.ensure_future(applied.serving())
        changed = asyncio.ensure_future(self._changed_event.wait())
        try:
            await asyncio.wait((serving, changed), return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                self._console.replaced(serving.result(), self._clock.monotonic() - began)
        finally:
            await _end(serving, changed)

    async def _watch(self, directories: frozenset[Path]) -> None:
        there = [path for path in directories if path.is_dir()]
        if not there:
            raise Unavailable("what is served is gone from the disk", where="--reload")
        changes = awatch(*there, recursive=False, step=QUIET_MILLISECONDS, debounce=LONGEST_MILLISECONDS)
        try:
            async with contextlib.aclosing(changes):
                async for found in changes:
                    self._files |= {Path(path).name for _, path in found}
                    self._changed_event.set()
        except OSError as error:
            hint = "The system limits how much may be watched; close other watchers or raise the limit."
            raise Unavailable(f"files cannot be watched: {error}", where="--reload", hint=hint) from error


async def _end(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
