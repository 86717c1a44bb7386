"""A user's container: the HTTP/1.1 server that stood behind Knative's queue-proxy when it was recorded.

It reads the whole of each request before it answers, keeps connections, and notes what it saw as it came. What it
answers is named by the path; see `tests/golden/README.md`, and below for two paths more.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n"
HOP = (
    b"HTTP/1.1 200 OK\r\nConnection: X-Priv\r\nX-Priv: 1\r\nX-Pub: 1\r\nKeep-Alive: timeout=5\r\n"
    b"Server: be\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nK-Network-Hash: h\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n"
)


@dataclass
class Seen:
    """One request as it came; the body undecoded, so that its framing shows."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]

    def values(self, name: str) -> list[str]:
        return [value for field_name, value in self.headers if field_name.lower() == name.lower()]


@dataclass
class Container:
    """The server; `seen` in the order in which requests were whole."""

    server: asyncio.Server
    port: int
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0

    def refuse(self) -> None:
        """Close the listener and leave the connections that are open."""
        self.server.close()


@contextlib.asynccontextmanager
async def container(port: int = 0) -> AsyncIterator[Container]:
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        running.connections += 1
        try:
            await _serve(running, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", port)
    running = Container(server, server.sockets[0].getsockname()[1])
    try:
        yield running
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(list(tasks))
        await asyncio.sleep(0)


async def _serve(running: Container, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        seen = await _read(reader)
        running.seen.append(seen)
        if not await _answer(seen, reader, writer):
            return


async def _read(reader: asyncio.StreamReader) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *lines = head.rstrip("\r\n").split("\r\n")
    fields = [each.partition(":") for each in lines]
    seen = Seen(line, [(name, value.strip()) for name, _, value in fields], b"")
    if seen.values("transfer-encoding"):
        while not re.search(rb"(?:^|\r\n)0\r\n(?:[^\r\n]+\r\n)*\r\n$", seen.body):
            seen.body += await reader.readuntil(b"\r\n")
    elif length := seen.values("content-length"):
        seen.body = await reader.readexactly(int(length[0]))
    return seen


async def _answer(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answer one request; False when the connection is over."""
    bodiless = seen.line.startswith("HEAD ")
    _, what, argument = f"{seen.path.partition('?')[0]}//".split("/")[:3]
    if upgrade := seen.values("upgrade"):
        await _echo(upgrade[0].encode(), reader, writer)
        return False
    if what == "reset":
        writer.transport.abort()
        return False
    if what == "half":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.transport.abort() if not writer.transport.get_write_buffer_size() else writer.close()
        return False
    if what == "drip":
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"" if bodiless else b"5\r\nfirst\r\n")
        await asyncio.sleep(float(argument))
        writer.write(b"" if bodiless else b"3\r\nend\r\n0\r\n\r\n")
    elif what == "piece":  # of ours: a body of 30 bytes in two pieces
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\nfirst")
        await asyncio.sleep(float(argument))
        writer.write(b"x" * 25)
    elif what == "large":  # of ours: that many bytes
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % int(argument))
        writer.write(bytes(int(argument)))
        await writer.drain()
    elif what == "status":
        length = b"" if argument == "204" else b"Content-Length: 1\r\n"
        body = b"" if bodiless or argument == "204" else b"x"
        writer.write(b"HTTP/1.1 %d Xyz\r\n%b\r\n%b" % (int(argument), length, body))
    else:
        if what == "sleep":
            await asyncio.sleep(float(argument))
        writer.write((HOP if what == "hop" else OK) + (b"" if bodiless else b"ok"))
    return True


async def _echo(protocol: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % protocol)
    while piece := await reader.read(65_536):
        writer.write(b"echo:" + piece)
