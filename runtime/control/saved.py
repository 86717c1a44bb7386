"""The file in which the autoscaler's state outlives a platform, however that ends.

It is written every few seconds and at the end, beside the old one, which it then replaces: a reader finds the one
or the other whole. It is not forced onto the disk, since what a machine forgets when it loses its power is older
than any stable window when it is back; such a file may be damaged, and a damaged one counts as none. A platform
at rest, which has nothing to save, writes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from upwell.autoscaler.saved import SavedRevision

FORMAT: Final = 1
SAVE_SECONDS: Final = 5.0
END_SECONDS: Final = 2.0
"""For the last write; a disk that takes longer is given up."""
MOST_BYTES: Final = 64 << 20
AT_ONCE: Final = 256
"""Revisions that are gathered without a pause."""

_log = logging.getLogger("upwell.autoscaler")


def read_saved(path: Path) -> dict[str, SavedRevision]:
    """What a platform wrote to `path`, by revision, however long ago. Empty when there is no such file; what is
    not as it was written counts for nothing."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        return _nothing(path, str(error.strerror))
    if len(data) > MOST_BYTES:
        return _nothing(path, "it is too large")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return _nothing(path, "it is damaged")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return _nothing(path, "its format is not known")
    revisions = content.get("revisions")
    if not isinstance(revisions, dict):
        return _nothing(path, "it is damaged")
    read = {revision: SavedRevision.from_json(each) for revision, each in revisions.items()}
    return {revision: saved for revision, saved in read.items() if saved is not None}


def _nothing(path: Path, reason: str) -> dict[str, SavedRevision]:
    _log.warning("the autoscaler's state is not resumed", extra={"file": str(path), "reason": reason})
    return {}


def write_saved(path: Path, revisions: Mapping[str, Any]) -> None:
    """Replace the file by one that says this: `SavedRevision.to_json` by revision. Raises OSError, and has changed
    nothing then."""
    data = json.dumps({"format": FORMAT, "revisions": revisions}, separators=(",", ":")).encode()
    partial = path.with_name(f"{path.name}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(partial, flags, 0o600), "wb") as file:
        file.write(data)
    partial.replace(path)


class StateKeeper:
    """Writes what `save` gives, revisions and what `write_saved` takes of each, to `path` until it is cancelled,
    and then once more. Between some revisions and the next there is room for requests."""

    def __init__(self, path: Path, save: Callable[[], Iterable[tuple[str, Any]]]) -> None:
        self._path = path
        self._save = save
        self._writing: asyncio.Future[None] | None = None
        self._is_empty = False
        """The file says that there is nothing."""
        self._is_failing = False

    async def run(self) -> None:
        """Keep it."""
        try:
            while True:
                await asyncio.sleep(SAVE_SECONDS)
                await self._write()
        finally:
            # A write goes on in its thread although this was cancelled, and two at a time would mix.
            if self._writing is None or await self._has_ended(self._writing):
                await self._has_ended(asyncio.ensure_future(self._write()))

    @staticmethod
    async def _has_ended(writing: asyncio.Future[None]) -> bool:
        await asyncio.wait([writing], timeout=END_SECONDS)
        with contextlib.suppress(OSError):  # it was one disk's trouble, and the next write may tell of it
            if writing.done():
                writing.result()
        return writing.done()

    async def _gathered(self) -> dict[str, Any]:
        revisions: dict[str, Any] = {}
        for number, (revision, saved) in enumerate(self._save()):
            revisions[revision] = saved
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
        return revisions

    async def _write(self) -> None:
        revisions = await self._gathered()
        if self._is_empty and not revisions:
            return
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(None, write_saved, self._path, revisions)
        try:
            await asyncio.shield(self._writing)
        except OSError as error:
            if not self._is_failing:
                details = {"file": str(self._path), "reason": str(error.strerror)}
                _log.warning("the autoscaler's state cannot be saved", extra=details)
            self._is_failing = True
        else:
            self._is_failing = False
            self._is_empty = not revisions
