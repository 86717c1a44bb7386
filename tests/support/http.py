"""Raw peers for tests of the data plane: bytes in, bytes out, nothing mended on the way."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import uvloop

from upwell.runtime.clock import Clock, SystemClock
from upwell.runtime.http.connect import Endpoint
from upwell.runtime.http.exchange import Exchange
from upwell.runtime.http.forward import Forwarding, Outcome, OutcomeKind, forward
from upwell.runtime.http.listen import bind
from upwell.runtime.http.messages import Headers
from upwell.runtime.http.server import Handler, HttpServer
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.http.upstream import UpstreamPool
from upwell.runtime.timers import TimerWheel

T = TypeVar("T")

GET = b"GET / HTTP/1.1\r\nHost: hello.default.example.com\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

# Far above what any wait takes; on the fake loop it is fake time, longer than every limit of the engine.
PATIENCE = 1_000.0
REAL_PATIENCE = 10.0


def run(main: Coroutine[Any, Any, T], loop: str = "asyncio") -> T:
    """Run `main` on the named kind of loop: "asyncio" or "uvloop"."""
    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


class Peer(asyncio.Protocol):
    """One end of a raw connection: what it received, whether the other side closed, and waiting for either."""

    def __init__(self, script: Callable[[Peer], None] | None = None) -> None:
        self.received = bytearray()
        self.handled = 0
        self.closed = False
        self.reset = False
        self.ended = False
        self.transport: asyncio.Transport
        self._script = script
        self._changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._changed.set()
        if self._script is not None:
            self._script(self)

    def eof_received(self) -> bool:
        self.ended = True
        self._changed.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.reset = exc is not None
        self._changed.set()

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def close(self) -> None:
        self.transport.close()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds, looking whenever something happens on this connection."""
        await eventually(condition, self._changed)

    async def answer(self, ending: bytes) -> bytes:
        """All that was received, once it ends so."""
        await self.until(lambda: self.received.endswith(ending) or self.closed)
        return bytes(self.received)

    async def to_the_end(self) -> bytes:
        """All that was received by the time the other side closed."""
        await self.until(lambda: self.closed)
        return bytes(self.received)


async def eventually(condition: Callable[[], bool], changed: asyncio.Event | None = None) -> None:
    """Wait until the condition holds; fails after a long time."""
    loop = asyncio.get_running_loop()
    fake = isinstance(loop, asyncio.SelectorEventLoop) and type(loop).__name__ == "FakeTimeLoop"
    async with asyncio.timeout(PATIENCE if fake else REAL_PATIENCE):
        while not condition():
            if changed is None:
                await asyncio.sleep(0.001)
            else:
                changed.clear()
                if not condition():
                    await changed.wait()


async def settle(turns: int = 20) -> None:
    """Let everything that is ready run, several turns of the loop over."""
    for _ in range(turns):
        await asyncio.sleep(0)


Script = Callable[[Peer], None]


def answering(answer: bytes = OK) -> Script:
    """Answers each head with the same bytes; for requests without a body."""

    def script(peer: Peer) -> None:
        while (end := peer.received.find(b"\r\n\r\n", peer.handled)) >= 0:
            peer.handled = end + 4
            peer.send(answer)

    return script


def silent(peer: Peer) -> None:
    """Takes everything and says nothing."""


@dataclass
class Backend:
    """A listening raw peer; `seen` is what all its connections received, in order of connecting."""

    endpoint: Endpoint
    peers: list[Peer]
    server: asyncio.Server

    @property
    def seen(self) -> bytes:
        return b"".join(bytes(peer.received) for peer in self.peers)


@asynccontextmanager
async def backend(script: Script) -> AsyncIterator[Backend]:
    folder = tempfile.mkdtemp(prefix="upwell-http-")
    path = str(Path(folder) / "s")
    peers: list[Peer] = []

    def accept() -> Peer:
        peer = Peer(script)
        peers.append(peer)
        return peer

    server = await asyncio.get_running_loop().create_unix_server(accept, path)
    try:
        yield Backend(Endpoint(path=path), peers, server)
    finally:
        server.close()
        for peer in peers:
            if not peer.closed:
                peer.transport.abort()
        await settle()
        shutil.rmtree(folder)


@dataclass
class Served:
    """A running server under test and what finished on it."""

    server: HttpServer
    port: int
    finished: list[Exchange] = field(default_factory=list)
    clients: list[Peer] = field(default_factory=list)

    async def client(self, data: bytes = b"") -> Peer:
        """A connected raw client that has sent `data`."""
        _, peer = await asyncio.get_running_loop().create_connection(Peer, "127.0.0.1", self.port)
        self.clients.append(peer)
        if data:
            peer.send(data)
        return peer

    async def ask(self, data: bytes, ending: bytes = b"ok") -> bytes:
        """What a new client receives for `data`, up to `ending` or to the connection's end."""
        client = await self.client(data)
        received = await client.answer(ending)
        client.close()
        return received


@asynccontextmanager
async def serving(
    handler: Handler, settings: HttpSettings | None = None, clock: Clock | None = None
) -> AsyncIterator[Served]:
    def watched(exchange: Exchange) -> None:
        exchange.on_finished = served.finished.append
        handler(exchange)

    clock = clock or SystemClock()
    server = HttpServer(watched, settings or HttpSettings(), clock)
    (listener,) = bind(("127.0.0.1",), 0, "--port")
    served = Served(server, listener.getsockname()[1])
    await server.start([listener])
    try:
        yield served
    finally:
        for client in served.clients:
            if not client.closed:
                client.transport.abort()
        await server.drain(clock.monotonic())
        await settle()


class Attempt:
    """An observer that records, and answers 502 where the forwarder left the decision to it."""

    def __init__(self, proxy: Proxy, exchange: Exchange) -> None:
        self.proxy = proxy
        self.exchange = exchange
        self.heads: list[tuple[int, Headers]] = []
        self.outcomes: list[Outcome] = []
        self.forwarding: Forwarding | None = None

    def start(self) -> Self:
        self.forwarding = forward(
            self.exchange, self.proxy.pool, add=self.proxy.add, drop=self.proxy.drop, observer=self
        )
        return self

    def response_head(self, status: int, headers: Headers) -> None:
        self.heads.append((status, list(headers)))

    def completed(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.proxy.outcomes.append(outcome)
        if outcome.kind is not OutcomeKind.COMPLETE and not self.exchange.responded:
            self.exchange.respond(502, [], b"bad")


@dataclass
class Proxy:
    """Server, forwarder and back end in one place."""

    pool: UpstreamPool
    add: Headers
    drop: frozenset[bytes]
    attempts: list[Attempt] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    served: Served = field(init=False)
    backend: Backend = field(init=False)

    def handle(self, exchange: Exchange) -> None:
        self.attempts.append(Attempt(self, exchange).start())

    async def client(self, data: bytes = b"") -> Peer:
        return await self.served.client(data)

    async def ask(self, data: bytes, ending: bytes = b"ok") -> bytes:
        return await self.served.ask(data, ending)

    async def ended(self, count: int = 1) -> list[Outcome]:
        """The outcomes, once there are `count` of them."""
        await eventually(lambda: len(self.outcomes) >= count)
        return self.outcomes

    @property
    def kinds(self) -> list[OutcomeKind]:
        return [outcome.kind for outcome in self.outcomes]


@asynccontextmanager
async def proxying(
    script: Script,
    settings: HttpSettings | None = None,
    *,
    add: Headers | None = None,
    drop: frozenset[bytes] = frozenset(),
    clock: Clock | None = None,
) -> AsyncIterator[Proxy]:
    settings = settings or HttpSettings()
    clock = clock or SystemClock()
    async with backend(script) as back:
        wheel = TimerWheel(asyncio.get_running_loop())
        pool = UpstreamPool(back.endpoint, settings, clock, wheel)
        proxy = Proxy(pool, add or [], drop)
        proxy.backend = back
        async with serving(proxy.handle, settings, clock) as served:
            proxy.served = served
            try:
                yield proxy
            finally:
                await pool.aclose()


def open_files() -> int:
    """How many descriptors this process holds."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else len(os.listdir("/dev/fd"))


def bound_socket() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def status_of(answer: bytes) -> int:
    """The status of the first answer in the bytes; 0 when there is none."""
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
