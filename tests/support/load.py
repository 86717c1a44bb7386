"""A server whose answers a test writes, and runs of load against it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

from upwell.runtime.load.dial import Place
from upwell.runtime.load.generator import generate
from upwell.runtime.load.plan import Load, LoadClass
from upwell.runtime.load.report import LoadReport
from upwell.runtime.load.requests import Outline
from upwell.runtime.testing.clock import FakeClock

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def answer(status: int, *fields: str, body: bytes = b"") -> bytes:
    """An answer with a length."""
    lines = [f"HTTP/1.1 {status} Some", *fields, f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


@dataclass
class Answer:
    """What is written, after how long, and whether the connection ends then."""

    data: bytes = OK
    delay: float = 0.0
    closes: bool = False


Script = Callable[[int, bytes], Answer]


@dataclass
class Scripted:
    """What the server saw: requests with the loop's time, and how many connections were made."""

    script: Script
    port: int = 0
    connections: int = 0
    open: int = 0
    most_open: int = 0
    requests: list[bytes] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                length = sum(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
                body = await reader.readexactly(length)
                self.requests.append(head + body)
                self.times.append(asyncio.get_running_loop().time())
                given = self.script(len(self.requests), head + body)
                await asyncio.sleep(given.delay)
                writer.write(given.data)
                if given.closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


@contextlib.asynccontextmanager
async def scripted(
    script: Script, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Scripted]:
    """Such a server on a free port."""
    served = Scripted(script)
    server = await asyncio.start_server(served.serve, host, 0, ssl=tls)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()


def plain(port: int, *, host: str = "127.0.0.1") -> Load:
    """Four connections in a closed loop; a test replaces what it is about."""
    one = LoadClass("all", Outline("GET", "/", "test"))
    return Load(Place(host, port), "http://test/", (one,), connections=4)


def outlined(load: Load, outline: Outline) -> Load:
    """The same load of other requests."""
    return replace(load, classes=(LoadClass("all", outline),))


async def loaded(load: Load, stop: asyncio.Event | None = None) -> LoadReport:
    """The report of a run by the loop's own time."""
    clock = FakeClock(loop=asyncio.get_running_loop())
    return await generate(load, clock, stop or asyncio.Event())
