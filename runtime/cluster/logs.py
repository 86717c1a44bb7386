"""Keeps the log files of revisions from growing without bound.

A process that runs goes on writing to the file it has opened, for appending. So a file that is too large is copied
to another of the same name with `.1` behind, in the place of what was there, and emptied. What is written between
the copy and the emptying is lost; that is no more than a moment's output.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 10 << 20
LOOK_SECONDS: Final = 5.0

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
            await asyncio.to_thread(self.look)
            await asyncio.sleep(self._seconds)

    def look(self) -> list[Path]:
        """Move on what has grown too large; which files those were."""
        moved = []
        for path in self._folder.glob("*/*/*.log"):
            try:
                if path.stat().st_size > self._most_bytes:
                    _move_on(path)
                    moved.append(path)
            except OSError as error:
                _log.warning("a log cannot be moved on", extra={"path": str(path), "error": error.strerror})
        return moved


def _move_on(path: Path) -> None:
    fresh = path.with_name(f"{path.name}.new")
    try:
        shutil.copyfile(path, fresh)
        fresh.chmod(0o600)
        fresh.replace(path.with_name(f"{path.name}.1"))
    finally:  # a disk that is full has no room for the copy, and needs the emptying most
        fresh.unlink(missing_ok=True)
        os.truncate(path, 0)
