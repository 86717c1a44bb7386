"""The server side: listening sockets, the connections accepted on them, and their end.

The handler is a plain function, called with an exchange as soon as its request's head is complete (with what came
of the body in the same packet already held). `OPTIONS *` concerns no handler's resource and is answered here.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.utils import formatdate
from itertools import islice
from typing import Any, Final

from upwell.runtime.clock import Clock
from upwell.runtime.http.exchange import Exchange
from upwell.runtime.http.listen import BACKLOG
from upwell.runtime.http.server_connection import ServerConnection
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.timers import TimerWheel

ROOM_LOOKS: Final = 64
"""Connections that are asked to give way to a new one, when there are as many as may be."""

Handler = Callable[[Exchange], None]


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """Connections and exchanges now, and totals since the start.

    `refused` counts requests the engine answered itself (malformed, too large, too slow), `gone` exchanges whose
    client left or was cut off before the answer was complete.
    """

    connections: int
    active: int
    connections_total: int
    exchanges_total: int
    refused_total: int
    gone_total: int


class HttpServer:
    """Accepts connections and calls `handler(exchange)` for each request.

    An exception out of the handler is logged and answered with 500. Use: `start`, then `drain`.
    """

    def __init__(
        self,
        handler: Handler,
        settings: HttpSettings,
        clock: Clock,
        *,
        refused: Callable[[str, int, str], None] = lambda client, status, reason: None,
    ) -> None:
        self.handler = handler
        self.refused = refused
        self.settings = settings
        self.clock = clock
        self.draining = False
        self.connections: dict[ServerConnection, None] = {}
        self.active = 0
        self.connections_total = 0
        self.exchanges_total = 0
        self.refused_total = 0
        self.gone_total = 0
        self._servers: list[asyncio.Server] = []
        self._wheel: TimerWheel | None = None
        self._empty: asyncio.Future[None] | None = None
        self._date = b""
        self._date_second = 0

    @property
    def wheel(self) -> TimerWheel:
        """The timers of its connections, on the loop it was started on."""
        if self._wheel is None:
            self._wheel = TimerWheel(asyncio.get_running_loop())
        return self._wheel

    async def start(self, sockets: Iterable[socket.socket], tls: ssl.SSLContext | None = None) -> None:
        """Accept, in TLS with `tls`, on sockets that are bound (TCP or Unix), which are ours from now on."""
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {"backlog": BACKLOG}
        if tls is not None:
            options["ssl"] = tls
            options["ssl_handshake_timeout"] = self.settings.head_timeout
            options["ssl_shutdown_timeout"] = self.settings.linger
        for sock in sockets:
            sock.setblocking(False)
            if sock.family == socket.AF_UNIX:
                server = await loop.create_unix_server(self._connection, sock=sock, **options)
            else:
                server = await loop.create_server(self._connection, sock=sock, **options)
            self._servers.append(server)

    def close(self) -> None:
        """Stop accepting. Connections that are open stay."""
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def drain(self, deadline: float) -> None:
        """Finish what is under way, with `Connection: close`, then close; after `deadline` cut off what is left.

        `deadline` is a time of the clock's `monotonic`. Connections without an exchange are closed at once.
        """
        self.close()
        self.draining = True
        for connection in list(self.connections):
            connection.drain()
        if not self.connections:
            return
        if self._empty is None:
            self._empty = asyncio.get_running_loop().create_future()
        timer = self.wheel.schedule(max(0.0, deadline - self.clock.monotonic()), self._cut_off)
        try:
            await asyncio.shield(self._empty)
        finally:
            timer.cancel()

    def statistics(self) -> ServerStatistics:
        return ServerStatistics(
            connections=len(self.connections),
            active=self.active,
            connections_total=self.connections_total,
            exchanges_total=self.exchanges_total,
            refused_total=self.refused_total,
            gone_total=self.gone_total,
        )

    def __repr__(self) -> str:
        state = "draining" if self.draining else "listening" if self._servers else "closed"
        return f"<HttpServer [{state}, connections {len(self.connections)}, active {self.active}]>"

    def date(self) -> bytes:
        """The value of a Date field, formed once a second."""
        second = int(self.clock.now())
        if second != self._date_second:
            self._date_second = second
            self._date = formatdate(second, usegmt=True).encode("ascii")
        return self._date

    def make_room(self) -> bool:
        """Close a connection that nobody uses, so that another can be; whether there was one.

        A few are looked at, and those in use are looked at last the next time.
        """
        for connection in list(islice(self.connections, ROOM_LOOKS)):
            if connection.give_way():
                return True
            self.connections[connection] = self.connections.pop(connection)
        return False

    def left(self, connection: ServerConnection) -> None:
        """Called by a connection that is closed."""
        self.connections.pop(connection, None)
        if not self.connections and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def _connection(self) -> ServerConnection:
        return ServerConnection(self)

    def _cut_off(self) -> None:
        for connection in list(self.connections):
            connection.cut_off()
