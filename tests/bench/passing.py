"""What stands on either side of a sidecar, and what would stand in its place: processes of their own.

``backend`` answers every request with two bytes, and ``/stream/N`` with N bytes as fast as they are taken.
``relay PORT`` passes bytes between its callers and that port, with back-pressure and without looking at them: the
least that a proxy can do in Python. Each says its own port.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

import uvloop

from .processes import server, wait_for_line

MODULE: Final = "tests.bench.passing"
PIECE: Final = bytes(65_536)
OK: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"
_STREAM: Final = re.compile(rb"GET /stream/(\d+) ")


class Backend(asyncio.Protocol):
    """One connection. Requests have no body and come one at a time, as from a proxy."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not data.endswith(b"\r\n\r\n"):
            raise ConnectionError("a request in pieces")
        found = _STREAM.match(data)
        if found is None:
            self._transport.write(OK)
            return
        self._left = int(found[1])
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % self._left)
        self._paused = False
        self.resume_writing()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        while self._left and not self._paused:
            piece = PIECE if self._left >= len(PIECE) else PIECE[: self._left]
            self._left -= len(piece)
            self._transport.write(piece)


class Side(asyncio.Protocol):
    """One end of a relayed connection; what comes is written to `other`, which stops it while it is full."""

    def __init__(self, other: Side | None = None) -> None:
        self.other = other
        self.transport: asyncio.Transport
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def join(self, other: Side) -> None:
        """Pass on to `other` from now on, what has come already first."""
        self.other = other
        other.transport.writelines(self._early)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        else:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


class Caller(Side):
    """The end that connects the other one."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self._joining: asyncio.Task[None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._joining = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        _, side = await asyncio.get_running_loop().create_connection(lambda: Side(self), "127.0.0.1", self._port)
        self.join(side)


@contextlib.contextmanager
def running(log: Path, *arguments: str) -> Iterator[tuple[int, int]]:
    """A process with these arguments: its pid and its port."""
    with server([sys.executable, "-m", MODULE, *arguments], log) as process:
        yield process.pid, int(wait_for_line(process, log, r"port (\d+)\n")[1])


async def _main(what: str, *arguments: str) -> None:
    loop = asyncio.get_running_loop()
    make = Backend if what == "backend" else lambda: Caller(int(arguments[0]))
    listener = await loop.create_server(make, "127.0.0.1", 0)
    sys.stdout.write(f"port {listener.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await listener.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
