"""What one response is on the wire: head and first piece in one write, and nothing of one that failed before."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from support.host import listening, reached
from upwell.functions.asgi import Message, Receive, Scope, Send
from upwell.runtime.clock import SystemClock
from upwell.runtime.http.asgi import AsgiServer, DrainingProtocol, ServeSettings, configure

Runner = Callable[[Coroutine[Any, Any, None]], None]

SETTINGS = ServeSettings(date_header=False, drain_idle_seconds=0.05, drain_accept_seconds=0.05)
LARGE = b"x" * 300_000


def start(status: int = 200, length: int | None = None) -> Message:
    headers = [] if length is None else [(b"content-length", b"%d" % length)]
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(content: bytes = b"", more: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


class WebSocket(asyncio.Protocol):
    """What takes a connection over after an upgrade; it answers with what it was told."""

    def __init__(self, **settings: Any) -> None:
        self.transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Recording)
        self.transport = transport._transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    match scope["type"], scope.get("path"):
        case "http", "/whole":
            await send(start(length=2))
            await send(body(b"ok"))
        case "http", "/large":
            await send(start(length=len(LARGE)))
            await send(body(LARGE))
        case "http", "/empty":
            await send(start(length=0))
            await send(body())
        case "http", "/204":
            await send(start(204))
            await send(body())
        case "http", "/304":
            await send(start(304))
            await send(body())
        case "http", "/stream":
            await send(start())
            await send(body(more=True))
            await receive()
            await receive()
        case "http", "/read":
            read = await receive()
            await send(start(length=len(read["body"])))
            await send(body(read["body"]))
        case "http", "/fail":
            await send(start(length=2))
            raise ValueError("between head and body")
        case "http", "/too-long":
            await send(start(length=2))
            await send(body(b"three"))
        case "http", "/no-body":
            await send(start(length=2))
        case _:
            raise NotImplementedError


class Recording:
    """A transport that notes what is written to it."""

    def __init__(self, transport: asyncio.Transport, written: list[bytes]) -> None:
        self._transport = transport
        self._written = written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._written.append(bytes(data))
        self._transport.write(data)

    def writelines(self, pieces: tuple[bytes, ...]) -> None:
        self._written.append(b"".join(pieces))
        self._transport.writelines(pieces)


class Client:
    """A connection, and what the server wrote to it, write by write."""

    def __init__(self, server: AsgiServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server, self.reader, self.writer = server, reader, writer
        self.written: list[bytes] = []

    def ask(self, path: str, method: str = "GET", *fields: str, content: bytes = b"") -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: function.test", *fields, "", ""]
        self.writer.write("\r\n".join(lines).encode() + content)

    async def answered(self, count: int = 1) -> list[bytes]:
        await reached(lambda: len(self.written) >= count, f"{count} writes, not {self.written}")
        return self.written


@contextlib.asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Client]:
    path = str(folder / "socket")
    config = configure(app, SETTINGS)
    config.ws_protocol_class = WebSocket
    server = AsgiServer(config, SETTINGS, SystemClock())
    await server.start(listening(path))
    reader, writer = await asyncio.open_unix_connection(path)
    client = Client(server, reader, writer)
    await reached(lambda: server.connections == 1)
    (connection,) = server._state.connections
    assert isinstance(connection, DrainingProtocol)
    connection.transport = Recording(connection.transport, client.written)  # type: ignore[assignment]
    try:
        yield client
    finally:
        writer.close()
        await server.stop()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    """Runs a test on either loop; it fails rather than hangs."""

    def runner(coroutine: Coroutine[Any, Any, None]) -> None:
        factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as owner:
            owner.run(asyncio.wait_for(coroutine, 30))

    return runner


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("/whole", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", id="with a body"),
        pytest.param("/large", b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n" + LARGE, id="large"),
        pytest.param("/empty", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", id="empty"),
        pytest.param("/204", b"HTTP/1.1 204 No Content\r\n\r\n", id="204"),
        pytest.param("/304", b"HTTP/1.1 304 Not Modified\r\n\r\n", id="304"),
    ],
)
def test_a_response_is_one_write(run: Runner, tmp_path: Path, path: str, expected: bytes) -> None:
    async def main() -> None:
        async with serving(tmp_path) as client:
            client.ask(path)
            assert await client.answered() == [expected]
            assert await client.reader.readexactly(len(expected)) == expected
            client.ask("/whole")
            assert (await client.answered(2))[1].endswith(b"\r\n\r\nok")

    run(main())


@pytest.mark.parametrize("path", ["/whole", "/large", "/204", "/stream"])
def test_the_answer_to_head_is_its_head_at_once(run: Runner, tmp_path: Path, path: str) -> None:
    async def main() -> None:
        async with serving(tmp_path) as client:
            client.ask(path, "HEAD")
            (written,) = await client.answered()
            assert written.endswith(b"\r\n\r\n")
            assert written.count(b"\r\n\r\n") == 1

    run(main())


def test_a_stream_that_begins_with_nothing_sends_its_head_at_once(run: Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as client:
            client.ask("/stream")
            assert await client.answered() == [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"]

    run(main())


def test_a_client_that_waits_for_leave_to_send_its_body_gets_it(run: Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as client:
            client.ask("/read", "POST", "Content-Length: 4", "Expect: 100-continue")
            assert await client.answered() == [b"HTTP/1.1 100 Continue\r\n\r\n"]
            client.writer.write(b"body")
            assert (await client.answered(2))[1] == b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody"

    run(main())


@pytest.mark.parametrize("path", ["/fail", "/too-long", "/no-body"])
def test_what_fails_between_head_and_body_is_answered_with_500_and_the_connection_ends(
    run: Runner, tmp_path: Path, path: str
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as client:
            client.ask(path)
            (written,) = await client.answered()
            assert written.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
            assert b"\r\nconnection: close\r\n" in written
            assert await client.reader.read() == written

    run(main())


def test_requests_that_come_together_are_answered_in_order_each_in_one_write(run: Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as client:
            for path, method in (("/whole", "GET"), ("/whole", "HEAD"), ("/empty", "GET"), ("/whole", "GET")):
                client.ask(path, method)
            written = await client.answered(4)
            assert [each.partition(b"\r\n\r\n")[2] for each in written] == [b"ok", b"", b"", b"ok"]

    run(main())


def test_a_drained_connection_is_closed_behind_its_whole_response(run: Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as client:
            client.ask("/read", "POST", "Content-Length: 4", content=b"")
            await reached(lambda: len(client.server._state.tasks) == 1)
            drain = asyncio.create_task(client.server.drain(10.0))
            await reached(lambda: client.server.draining)
            client.writer.write(b"body")
            expected = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody"
            assert await client.answered() == [expected]
            assert await client.reader.read() == expected
            assert await drain

    run(main())


def test_a_websocket_after_a_plain_request_is_untouched(run: Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as client:
            client.ask("/whole")
            await client.answered()
            client.ask("/", "GET", "Connection: Upgrade", "Upgrade: websocket")
            await client.reader.readuntil(b"\r\n\r\nok")
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert b"upgrade: websocket\r\n" in head
            client.writer.write(b"word")
            assert await client.reader.readexactly(4) == b"word"

    run(main())


def test_a_response_leaves_nothing_that_only_the_collector_of_cycles_would_free(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as client:
            for count in range(1, 4):
                client.ask("/whole")
                await client.answered(count)
            gc.collect()
            kept = len([each for each in gc.get_objects() if type(each).__name__ == "_ResponseWriter"])
            gc.disable()
            try:
                for count in range(4, 12):
                    client.ask("/whole")
                    await client.answered(count)
                left = [each for each in gc.get_objects() if type(each).__name__ == "_ResponseWriter"]
            finally:
                gc.enable()
            assert len(left) <= kept + 1

    asyncio.run(asyncio.wait_for(main(), 30))
