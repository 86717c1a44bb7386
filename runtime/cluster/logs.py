"""Keeps the log files of revisions from growing without bound.

A process that runs goes on writing to the file it has opened, for appending. So a file that is too large is copied
to another of the same name with `.1` behind, in the place of what was there, and emptied. What is written between
the copy and the emptying is lost; that is no more than a moment's output. Of one that has grown by far too large
before it was looked at only the end is copied, and while that goes on it is looked at more often.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 10 << 20
LOOK_SECONDS: Final = 5.0
FLOOD_LOOK_SECONDS: Final = 0.25
COPIED_FACTOR: Final = 2
"""So many times the bound are copied at most, so that readers find all that an ordinary writer wrote."""
PIECE_BYTES: Final = 1 << 20

_log = logging.getLogger("upwell.cluster")


class LogKeeper:
    """The log files below `folder`, in `NAMESPACE/SERVICE/REVISION.log`."""

    def __init__(self, folder: Path, *, most_bytes: int = MOST_BYTES, seconds: float = LOOK_SECONDS) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._seconds = seconds

    def __repr__(self) -> str:
        return f"<LogKeeper {self._folder}>"

    async def run(self) -> None:
        """Look every few seconds, until cancelled."""
        while True:
            moved = await asyncio.to_thread(self.look)
            await asyncio.sleep(min(FLOOD_LOOK_SECONDS, self._seconds) if moved else self._seconds)

    def look(self) -> list[Path]:
        """Move on what has grown too large; which files those were."""
        moved = []
        for path in self._folder.glob("*/*/*.log"):
            try:
                if path.stat().st_size > self._most_bytes:
                    _move_on(path, COPIED_FACTOR * self._most_bytes)
                    moved.append(path)
            except OSError as error:
                _log.warning("a log cannot be moved on", extra={"path": str(path), "error": error.strerror})
        return moved


def _move_on(path: Path, most_bytes: int) -> None:
    fresh = path.with_name(f"{path.name}.new")
    try:
        with path.open("rb") as file, fresh.open("wb") as copy:
            fresh.chmod(0o600)
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - most_bytes))
            left = min(size, most_bytes)  # a fast writer's file has no end to be reached
            while left > 0 and (piece := file.read(min(left, PIECE_BYTES))):
                copy.write(piece)
                left -= len(piece)
        fresh.replace(path.with_name(f"{path.name}.1"))
    finally:  # a disk that is full has no room for the copy, and needs the emptying most
        fresh.unlink(missing_ok=True)
        os.truncate(path, 0)
