"""What a replica's server takes: any method, upgrades, answers without a body, and WebSockets to their end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.http import Peer, eventually, run
from upwell.functions.asgi import GONE, Message, Receive, Scope, Send
from upwell.runtime.clock import SystemClock
from upwell.runtime.http.asgi import AsgiServer, ServeSettings, configure

QUICK = ServeSettings(drain_idle_seconds=0.05, drain_accept_seconds=0.05)
HOST = b"Host: function.test\r\n"
SWITCH = (
    b"GET /ws HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class App:
    """Answers with the method, or as the path says; echoes on a WebSocket. Keeps what it saw."""

    def __init__(self) -> None:
        self.methods: list[str] = []
        self.bodies: list[bytes] = []
        self.ends: list[Message] = []
        self.gone = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        self.methods.append(scope["method"])
        body = b""
        more = True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        status, length, answer = 200, len(scope["method"]), scope["method"].encode()
        if scope["path"] == "/304":
            status, length, answer = 304, 1234, b""
        headers = [(b"content-length", b"%d" % length)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/waiting":
            left = asyncio.Event()
            scope[GONE] = left.set
            await left.wait()
            self.gone += 1
            return
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"].upper()})
        self.ends.append(message)


@contextlib.asynccontextmanager
async def serving(path: Path) -> AsyncIterator[tuple[AsgiServer, App]]:
    app = App()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    listener.setblocking(False)
    server = AsgiServer(configure(app, QUICK, "off"), QUICK, SystemClock())
    await server.start(listener)
    try:
        yield server, app
    finally:
        await server.stop()
        await asyncio.sleep(0)


async def connected(path: Path, data: bytes = b"") -> Peer:
    _, peer = await asyncio.get_running_loop().create_unix_connection(Peer, str(path))
    peer.send(data)
    return peer


def websocket(path: Path) -> contextlib.AbstractAsyncContextManager[ClientConnection]:
    return unix_connect(str(path), "ws://function.test/ws")


METHODS = (b"BREW", b"get", b"GETX", b"PLAY", b"A", b"X" * 64, b"PROPFIND", b"!#$%&'*+-.^_`|~1")


def test_any_method_that_is_a_token_reaches_the_application_and_the_connection_stays(
    loop: str, tmp_path: Path
) -> None:
    path = tmp_path / "s"

    async def main() -> None:
        async with serving(path) as (_, app):
            peer = await connected(path)
            for method in METHODS:
                peer.received.clear()
                peer.send(method + b" /a HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\nbody")
                answer = await peer.answer(b"\r\n\r\n" + method)
                assert answer.startswith(b"HTTP/1.1 200 ")
                peer.received.clear()
                peer.send(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n")
                await peer.answer(b"\r\n\r\nGET")
            assert app.methods == [each for method in METHODS for each in (method.decode(), "GET")]
            assert app.bodies == [b"body", b""] * len(METHODS)
            peer.close()

    run(main(), loop)


@pytest.mark.parametrize(
    "data",
    [
        b"B(R / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"BREW / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"BREW a HTTP/1.1\r\n" + HOST + b"\r\n",
        b"X" * 65 + b" / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"BREW / HTTQ/1.1\r\n" + HOST + b"\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nBREW / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_malformed_beyond_its_method_stays_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def main() -> None:
        async with serving(path) as (_, app):
            peer = await connected(path, data)
            assert (await peer.to_the_end()).startswith(b"HTTP/1.1 400 ")
            assert "BREW" not in app.methods

    run(main())


def test_a_304_may_declare_the_length_of_what_it_does_not_send(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def main() -> None:
        async with serving(path) as (_, app):
            peer = await connected(path, b"GET /304 HTTP/1.1\r\n" + HOST + b"\r\n")
            head = await peer.answer(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 304 ")
            assert b"content-length: 1234\r\n" in head
            peer.send(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n")
            await peer.answer(b"\r\n\r\nGET")
            assert app.methods == ["GET", "GET"]
            peer.close()

    run(main(), loop)


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_an_upgrade_to_something_else_is_an_ordinary_request_and_the_connection_stays(
    method: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    upgrade = b"websocket" if method == b"POST" else b"other"
    body = b"Content-Length: 4\r\n\r\nbody" if method == b"POST" else b"\r\n"

    async def main() -> None:
        async with serving(path) as (_, app):
            request = method + b" /a HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: " + upgrade
            peer = await connected(path, request + b"\r\n" + body)
            assert (await peer.answer(b"\r\n\r\n" + method)).startswith(b"HTTP/1.1 200 ")
            peer.send(b"PUT /b HTTP/1.1\r\n" + HOST + b"\r\n")
            await peer.answer(b"\r\n\r\nPUT")
            assert app.methods == [method.decode(), "PUT"]
            assert app.bodies == [b"body" if method == b"POST" else b"", b""]
            peer.close()

    run(main())


def test_a_frame_that_comes_with_the_handshake_is_not_lost(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    frame = b"\x81\x82\x00\x00\x00\x00hi"

    async def main() -> None:
        async with serving(path):
            peer = await connected(path, SWITCH + frame)
            assert b"101 Switching Protocols" in await peer.answer(b"\x81\x02HI")
            peer.close()

    run(main(), loop)


def test_websockets_talk_and_their_end_is_told(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def main() -> None:
        async with serving(path) as (_, app):
            async with websocket(path) as client:
                await client.send("hello")
                assert await client.recv() == "HELLO"
                await client.send("x" * 200_000)
                assert await client.recv() == "X" * 200_000
            await eventually(lambda: len(app.ends) == 1)
            assert app.ends[0]["code"] == 1000

    run(main(), loop)


async def told_code(client: ClientConnection) -> int | None:
    try:
        while True:
            await client.recv()
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd is not None else None


def test_a_drain_leaves_a_websocket_its_grace_and_then_closes_it_with_1012(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def main() -> None:
        async with serving(path) as (server, app), websocket(path) as client:
            draining = asyncio.ensure_future(server.drain(1.0))
            await asyncio.sleep(0.2)
            await client.send("still here")
            assert await client.recv() == "STILL HERE"
            assert await told_code(client) == 1012
            assert await draining
            assert app.ends == [{"type": "websocket.disconnect", "code": 1012}]
            assert server.connections == 0

    run(main(), loop)


def test_a_drain_ends_when_the_last_websocket_has(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def main() -> None:
        async with serving(path) as (server, _):
            async with websocket(path) as client:
                draining = asyncio.ensure_future(server.drain(60.0))
                await client.send("bye")
                assert await client.recv() == "BYE"
            assert await asyncio.wait_for(draining, 10)

    run(main())


def test_a_client_that_leaves_while_its_websocket_waits_is_told_of(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def main() -> None:
        async with serving(path) as (server, app):
            peer = await connected(path, SWITCH.replace(b"/ws", b"/waiting"))
            await eventually(lambda: server.connections == 1)
            await eventually(lambda: len(server._state.tasks) == 1)
            peer.close()
            await eventually(lambda: app.gone == 1)

    run(main(), loop)


def test_an_application_may_refuse_a_websocket(tmp_path: Path) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close"})

    path = tmp_path / "s"

    async def main() -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)
        server = AsgiServer(configure(refuse, QUICK, "off"), QUICK, SystemClock())
        await server.start(listener)
        with pytest.raises(InvalidStatus) as refused:
            async with websocket(path):
                pass
        assert refused.value.response.status_code == 403
        await server.stop()

    run(main())
