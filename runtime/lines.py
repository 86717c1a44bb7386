"""Lines to a file descriptor without ever waiting for who reads it.

A terminal that is paused or a pipe that is full must not hold requests: lines are gathered into blocks, and a
thread writes them. A block waits at most a tenth of a second; what an unwilling reader leaves beyond a bound is
dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from typing import Final, Protocol

FLUSH_SECONDS: Final = 0.1
BLOCK_BYTES: Final = 32 * 1024
PENDING_BLOCKS: Final = 32
CLOSE_SECONDS: Final = 1.0


class Lines(Protocol):
    """Takes lines."""

    def write(self, line: str) -> None:
        """Have a line, its end included, written soon."""
        ...

    def flush(self) -> None:
        """Hand over what was gathered."""
        ...


class NoLines:
    """Keeps nothing."""

    def write(self, line: str) -> None:
        """Drop it."""

    def flush(self) -> None:
        """There is nothing."""


class LineWriter:
    """Writes lines to one descriptor, in order. Used from one event loop, until `close`."""

    def __init__(self, descriptor: int) -> None:
        self.dropped = 0
        """Lines that could not be written."""
        self._descriptor = descriptor
        self._lines: list[str] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._blocks: queue.Queue[bytes | None] = queue.Queue(maxsize=PENDING_BLOCKS)
        self._thread = threading.Thread(target=self._write_blocks, name="lines", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Have a line, its end included, written soon."""
        self._lines.append(line)
        self._size += len(line)
        if self._size >= BLOCK_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Hand over what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._lines:
            return
        try:
            self._blocks.put_nowait("".join(self._lines).encode())
        except queue.Full:
            self.dropped += len(self._lines)
        self._lines.clear()
        self._size = 0

    def close(self) -> None:
        """Write what is pending, for a bounded time."""
        self.flush()
        with contextlib.suppress(queue.Full):
            self._blocks.put(None, timeout=CLOSE_SECONDS)
            self._thread.join(CLOSE_SECONDS)

    def _write_blocks(self) -> None:
        while (data := self._blocks.get()) is not None:
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                self.dropped += data.count(b"\n")
