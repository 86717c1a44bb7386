"""What stands between client and back end while a stream is measured: the engine as a proxy, or a bare relay.

Run as a process of its own (``python -m tests.bench.streaming_server WAY PORT``), on uvloop as in production: the
back end's port is given, its own is printed. The relay only copies, with back-pressure; the engine reads and
writes HTTP as the gateway's and the sidecar's do.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final, cast

import uvloop

from upwell.runtime.clock import SystemClock
from upwell.runtime.http.connect import Endpoint
from upwell.runtime.http.exchange import Exchange
from upwell.runtime.http.forward import Outcome, OutcomeKind, forward
from upwell.runtime.http.listen import bind
from upwell.runtime.http.messages import Headers
from upwell.runtime.http.server import HttpServer
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.http.upstream import UpstreamPool
from upwell.runtime.timers import TimerWheel

MODULE: Final = "tests.bench.streaming_server"


class RelayEnd(asyncio.Protocol):
    """One side of a relayed connection."""

    def __init__(self, other: RelayEnd | None, port: int) -> None:
        self.other = other
        self.transport: asyncio.Transport
        self._port = port
        self._early = b""
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=HttpSettings().write_high_water)
        if self.other is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, self.other = await loop.create_connection(lambda: RelayEnd(self, self._port), "127.0.0.1", self._port)
        self.other.transport.write(self._early)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early += data
        else:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        assert self.other is not None
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        assert self.other is not None
        self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


class Passing:
    """Forwards each request; a failure is answered with 502."""

    def __init__(self, pool: UpstreamPool, exchange: Exchange) -> None:
        self._exchange = exchange
        forward(exchange, pool, add=[], drop=frozenset(), observer=self)

    def response_head(self, status: int, headers: Headers) -> None:
        """Nothing is changed."""

    def completed(self, outcome: Outcome) -> None:
        """Answer where no answer came."""
        if outcome.kind is not OutcomeKind.COMPLETE and not self._exchange.responded:
            self._exchange.respond(502, [], b"")


async def relay(port: int) -> None:
    """Relay every connection to `port`, until the process is ended."""
    server = await asyncio.get_running_loop().create_server(lambda: RelayEnd(None, port), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def proxy(port: int) -> None:
    """Forward every request to `port`, until the process is ended."""
    settings, clock = HttpSettings(), SystemClock()
    pool = UpstreamPool(
        Endpoint(host="127.0.0.1", port=port), settings, clock, TimerWheel(asyncio.get_running_loop())
    )
    server = HttpServer(lambda exchange: cast(None, Passing(pool, exchange)), settings, clock)
    listeners = bind(("127.0.0.1",), 0, "--port")
    await server.start(listeners)
    print(listeners[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run({"relay": relay, "proxy": proxy}[sys.argv[1]](int(sys.argv[2])))
