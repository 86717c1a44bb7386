"""Serve an ASGI application with uvicorn's protocol on a loop and a socket that are ours.

uvicorn's own server captures signals, polls ten times a second and, when told to stop, closes idle connections at
once: a request that the peer has written by then, and that nothing has read yet, would be lost. Here draining
loses nothing that was accepted:

- connections that wait in the backlog are accepted, and answered with ``connection: close``;
- an idle connection is left to its peer for `ServeSettings.drain_idle_seconds`. After that its receiving side is
  shut first, which on a Unix socket makes further writes of the peer fail at once; what had arrived before is
  served, and only a connection with nothing to read is closed;
- the listener refuses new connections before the last ones in it are taken.

- a WebSocket stays open for the grace; then it is closed with 1012, which tells its client to come again.

A response's head is held until the first message of its body, as ASGI asks, and leaves in one write with it. What
fails between the two is answered with 500, since nothing has been sent.

uvicorn takes the methods that its parser knows. Any other that is a token is put before the parser as POST and is
itself again in the scope. An upgrade that is no WebSocket is an ordinary request, also to what follows it.

Lifecycle, in order: `start`, `drain`, `stop`. One server belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Literal, cast

import httptools
from uvicorn.config import Config
from uvicorn.lifespan.off import LifespanOff
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from upwell.functions.asgi import GONE, Scope
from upwell.runtime.clock import Clock
from upwell.runtime.http.messages import encode_fields

DRAIN_POLL_SECONDS = 0.02
"""uvicorn's WebSocket connections and tasks tell nobody when they end, so draining looks again this often."""

WEBSOCKET_CLOSE_SECONDS = 1.0
"""Of a drain's grace the end, at most its half, in which WebSockets that are still open hear that it is over."""

UNREAD_RETRY_SECONDS = 0.01
"""The loop reads what has arrived on its next turn; an idle connection with unread bytes is looked at then."""


COPIED_BYTES = 16384
"""A body up to this size is copied behind its head, which costs less than handing over two buffers."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
NOT_MODIFIED = b"HTTP/1.1 304 "
INVALID = "Invalid HTTP request received."

_FRAMING = (b"content-length", b"transfer-encoding")
_METHOD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}) (?:[/*]|https?://)")

FAILED_BODY = b"Internal Server Error"
FAILED_HEAD = (
    b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n" % len(FAILED_BODY)
)


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How connections are kept."""

    keep_alive_seconds: int = 75
    """Longer than the 30 s for which the gateway keeps an idle connection, so that the gateway closes first."""
    drain_idle_seconds: float = 2.0
    """A peer that sends within this time of its last response is not cut off; gateways close at once."""
    drain_accept_seconds: float = 2.0
    """New connections are taken this long after a drain began, or until all is quiet: who opens them may not have
    heard yet. After that they are refused, which a sender can tell from a loss."""
    backlog: int = 4096
    """A full Unix backlog fails at once, and a thousand held requests may arrive on a replica together."""
    date_header: bool = True
    startup_seconds: float = 600.0
    """For an application's own startup: Knative's progress deadline."""
    shutdown_seconds: float = 10.0
    """For an application's own shutdown, of which nobody waits for the outcome."""


class StartupFailed(Exception):
    """The application refused to start; it has logged why."""


class _State(ServerState):
    """What the connections of one server share."""

    def __init__(self) -> None:
        super().__init__()
        self.draining = False
        self.drain_idle_seconds = 0.0


class _ResponseWriter:
    """What one response sees of its transport: the head is kept until the first piece of the body is written.

    uvicorn writes each body message, if it is empty too, except in answers to HEAD: their head leaves at once.
    It also waits for as much body as a 304 declares, which is the length of what was not sent.
    """

    __slots__ = ("_begun", "_bodiless", "_cycle", "_head", "_transport")

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle, *, bodiless: bool) -> None:
        self._transport = transport
        self._cycle: RequestResponseCycle | None = cycle
        self._bodiless = bodiless
        self._head: bytes | None = None
        self._begun = False

    def write(self, data: bytes) -> None:
        if self._begun:
            self._transport.write(data)
        elif self._head is not None:
            head, self._head, self._begun = self._head, None, True
            if len(data) <= COPIED_BYTES:
                self._transport.write(head + data)
            else:
                self._transport.writelines((head, data))
        elif data == CONTINUE:
            self._transport.write(data)
        else:
            self._take_head(data)

    def _take_head(self, head: bytes) -> None:
        cycle, self._cycle = self._cycle, None
        if cycle is not None and head.startswith(NOT_MODIFIED):
            cycle.expected_content_length = 0
        if self._bodiless:
            self._begun = True
            self._transport.write(head)
        else:
            self._head = head

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        """Close the connection, which uvicorn does when the application has failed: 500 if nothing was sent."""
        if not self._begun:
            self._head, self._begun = None, True
            self._transport.write(FAILED_HEAD if self._bodiless else FAILED_HEAD + FAILED_BODY)
        self._transport.close()


class DrainingProtocol(HttpToolsProtocol):
    """uvicorn's connection, closed with care."""

    server_state: _State
    _receiving_shut = False
    _method: str | None = None
    """Of the request being read, where the parser has another."""
    _body_follows = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection that arrives while the server drains is served once."""
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn narrows the argument
        if self.server_state.draining:
            self.begin_drain()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell a request whose response is not complete that nobody waits for it."""
        super().connection_lost(exc)
        cycle = self._current()
        if cycle is None or cycle.response_complete:
            return
        gone: Callable[[], None] | None = cast(Scope, cycle.scope).get(GONE)
        if gone is not None:
            gone()

    def data_received(self, data: bytes) -> None:
        """Parse; what uvicorn's own parsing turns away or loses is seen to in `_upgrade` and `_parse_as_post`."""
        self._unset_keepalive_if_required()
        cycle, headers = self._current(), self.headers
        begins = cycle is None or not cycle.more_body
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            if not (begins and self.headers is not headers and self._parse_as_post(data)):
                self.logger.warning(INVALID)
                self.send_400_response(INVALID)

    def _parse_as_post(self, data: bytes) -> bool:
        """Read a request with a method that the parser does not know; False when that is not what it fails for."""
        begin = _METHOD.match(data)
        if self._method is not None or self.headers or begin is None:
            return False
        self._method = begin[1].decode("ascii")
        self._renew_parser()
        self.data_received(b"POST" + data[begin.end(1) :])
        return True

    def _upgrade(self, rest: bytes) -> None:
        """Hand the connection over to a WebSocket, or go on with what follows a request that asked for another."""
        if self._should_upgrade():
            self.handle_websocket_upgrade()
            if rest:
                self.transport.get_protocol().data_received(rest)  # type: ignore[attr-defined]  # ours
            return
        self._renew_parser()
        framing = [field for field in self.headers if field[0] in _FRAMING]
        cycle = self._current()
        if framing and cycle is not None:
            # The parser passed over the body that follows: it gets a head for it, of which nothing else is taken.
            cycle.more_body = self._body_follows = True
            rest = b"POST / HTTP/1.1\r\n%b\r\n%b" % (encode_fields(framing), rest)
        if rest:
            self.data_received(rest)

    def _should_upgrade(self) -> bool:
        return self.parser.get_method() == b"GET" and super()._should_upgrade()

    def _renew_parser(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def begin_drain(self) -> None:
        """Answer what is under way, then end: by the peer's hand or after a short idle time."""
        self.timeout_keep_alive = self.server_state.drain_idle_seconds  # type: ignore[assignment]
        cycle = self._current()
        if cycle is None or cycle.response_complete:
            self._unset_keepalive_if_required()
            self._look_again(self.timeout_keep_alive)
        elif not cycle.response_started:
            cycle.keep_alive = False

    def on_headers_complete(self) -> None:
        """Responses leave in one write, and the last one of a draining connection tells that it is the last."""
        if self._body_follows:
            self._body_follows = False
            return
        before = self.cycle
        super().on_headers_complete()
        cycle = self.cycle
        if cycle is before:
            return  # an upgrade
        if self._method is not None:
            self.scope["method"], self._method = self._method, None
        bodiless = self.scope["method"] == "HEAD"
        writer = _ResponseWriter(self.transport, cycle, bodiless=bodiless)
        cycle.transport = writer  # type: ignore[assignment]  # all it uses
        if self.server_state.draining or self._receiving_shut:
            cycle.keep_alive = False

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, unless a request has arrived that the loop has not read yet."""
        if self.transport.is_closing():
            return
        with _duplicate(self.transport) as connection:
            if _has_unread(connection):
                self._look_again(UNREAD_RETRY_SECONDS)
                return
            if connection.family == socket.AF_UNIX:
                self._receiving_shut = True
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
                if _has_unread(connection):
                    return
        self.transport.close()

    def eof_received(self) -> bool | None:  # type: ignore[override]  # uvicorn never keeps a half-closed one
        """Stay open for the answer when the end was of our own making."""
        cycle = self._current()
        return self._receiving_shut and cycle is not None and not cycle.response_complete

    def _current(self) -> RequestResponseCycle | None:
        return self.cycle  # none before the first request, which uvicorn's annotation does not say

    def _look_again(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)


class GoneTellingWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket connection; one that waits for its turn is told when its client has left."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The same, then what the scope says is to be called."""
        super().connection_lost(exc)
        if self.handshake_initiated and self.response.status_code == 101:
            gone: Callable[[], None] | None = cast(Scope, self.scope).get(GONE)
            if gone is not None:
                gone()


def _duplicate(transport: asyncio.BaseTransport) -> socket.socket:
    # uvloop hands out a stand-in for the socket that can neither peek nor shut down.
    return socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))


def _has_unread(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return False
    except OSError:
        return False


def configure(app: Any, settings: ServeSettings, lifespan: Literal["auto", "off"] = "auto") -> Config:
    """A loaded uvicorn configuration; what costs time in it can be done before a fork."""
    config = Config(
        app,
        loop="none",
        http=DrainingProtocol,
        ws=GoneTellingWebSocket,
        lifespan=lifespan,
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        backlog=settings.backlog,
    )
    config.load()
    return config


class AsgiServer:
    """Serves one application on one listening socket, which it owns from `start` on."""

    def __init__(self, config: Config, settings: ServeSettings, clock: Clock) -> None:
        self._config = config
        self._settings = settings
        self._clock = clock
        self._state = _State()
        self._state.drain_idle_seconds = settings.drain_idle_seconds
        self._lifespan: LifespanOn | LifespanOff = config.lifespan_class(config)
        self._server: asyncio.Server | None = None
        self._listener: socket.socket | None = None
        self._date_timer: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """Open connections, idle ones included."""
        return len(self._state.connections)

    @property
    def draining(self) -> bool:
        """True from the call of `drain` on."""
        return self._state.draining

    async def start(self, listener: socket.socket) -> None:
        """Run the application's startup, then accept. Raises StartupFailed when the application refuses."""
        try:
            async with asyncio.timeout(self._settings.startup_seconds):
                await self._lifespan.startup()
        except TimeoutError:
            seconds = self._settings.startup_seconds
            raise StartupFailed(f"the application's startup took longer than {seconds:g} s") from None
        if self._lifespan.should_exit:
            raise StartupFailed("the application's startup failed")
        loop = asyncio.get_running_loop()
        self._refresh_date(loop)
        self._listener = listener
        if listener.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(
                self._protocol, sock=listener, backlog=self._settings.backlog
            )
        else:
            self._server = await loop.create_server(self._protocol, sock=listener, backlog=self._settings.backlog)

    async def drain(self, grace: float) -> bool:
        """Serve what was accepted until every connection has ended; False when `grace` seconds were not enough.

        WebSockets that are open shortly before that are closed.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        self._state.draining = True
        for connection in list(self._state.connections):
            if isinstance(connection, DrainingProtocol):
                connection.begin_drain()
        closing = deadline - min(WEBSOCKET_CLOSE_SECONDS, grace / 2)
        await self._wait_until_quiet(min(closing, loop.time() + self._settings.drain_accept_seconds))
        await self._close_listener(loop)
        if await self._wait_until_quiet(closing):
            return True
        for connection in list(self._state.connections):
            if isinstance(connection, GoneTellingWebSocket):
                connection.shutdown()
        return await self._wait_until_quiet(deadline)

    async def stop(self) -> None:
        """Cut off what is left and run the application's shutdown."""
        if self._date_timer is not None:
            self._date_timer.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self._state.connections):
            connection.transport.abort()
        for task in self._state.tasks:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.shutdown_seconds):
                await self._lifespan.shutdown()

    def _protocol(self) -> DrainingProtocol:
        return DrainingProtocol(self._config, self._state, self._lifespan.state)

    def _refresh_date(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._settings.date_header:
            date = formatdate(self._clock.now(), usegmt=True).encode()
            self._state.default_headers = [(b"date", date)]
            self._date_timer = loop.call_later(1.0, self._refresh_date, loop)

    async def _wait_until_quiet(self, deadline: float) -> bool:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)  # accept what the loop has been told of
        while self._state.connections or self._state.tasks:
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(DRAIN_POLL_SECONDS)
        return True

    async def _close_listener(self, loop: asyncio.AbstractEventLoop) -> None:
        """Refuse new connections, then take those that were made before."""
        if self._server is None or self._listener is None:
            return
        with self._listener.dup() as backlog:
            self._server.close()
            backlog.setblocking(False)
            if backlog.family == socket.AF_UNIX:
                with contextlib.suppress(OSError):
                    backlog.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):  # nothing left
                while True:
                    connection, _ = backlog.accept()
                    connection.setblocking(False)
                    await loop.connect_accepted_socket(self._protocol, connection)


async def serve(
    app: Any,
    listener: socket.socket,
    stopping: asyncio.Event,
    *,
    settings: ServeSettings,
    clock: Clock,
    grace: float,
) -> None:
    """Serve `app` on `listener` until `stopping` is set, then drain for `grace` seconds at most and end.

    Raises StartupFailed when the application refuses to start.
    """
    server = AsgiServer(configure(app, settings), settings, clock)
    await server.start(listener)
    try:
        await stopping.wait()
        await server.drain(grace)
    finally:
        await server.stop()
