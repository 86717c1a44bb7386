"""The server inside a loop of the test's own: the admin page's use of it, and the closing of idle connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from support.host import listening, reached, read_answer, request_bytes
from upwell.functions.asgi import Receive, Scope, Send
from upwell.runtime.clock import SystemClock
from upwell.runtime.http.asgi import AsgiServer, ServeSettings, StartupFailed, configure, serve

QUICK = ServeSettings(drain_idle_seconds=0.05, drain_accept_seconds=0.05)

Runner = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    """Runs a test on either loop; it fails rather than hangs."""

    def runner(coroutine: Coroutine[Any, Any, None]) -> None:
        factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as owner:
            owner.run(asyncio.wait_for(coroutine, 30))

    return runner


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["path"] == "/body":
        while (await receive()).get("more_body"):
            pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@contextlib.asynccontextmanager
async def serving(path: Path, settings: ServeSettings = QUICK) -> Any:
    """A server and a connection to it on which one request was answered."""
    server = AsgiServer(configure(app, settings), settings, SystemClock())
    await server.start(listening(str(path)))
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(request_bytes())
    await read_answer(reader)
    try:
        yield server, reader, writer
    finally:
        writer.close()
        await server.stop()


def test_serving_ends_when_it_is_told_to(run: Runner, tmp_path: Path) -> None:
    async def main() -> None:
        stopping = asyncio.Event()
        path = str(tmp_path / "socket")
        listener = listening(path)
        task = asyncio.create_task(serve(app, listener, stopping, settings=QUICK, clock=SystemClock(), grace=5.0))
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(request_bytes())
        answer = await read_answer(reader)
        assert (answer.status, answer.body) == (200, b"ok")
        assert "date" in answer.headers
        stopping.set()
        await task
        assert await reader.read() == b""
        writer.close()
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            await asyncio.open_unix_connection(path)

    run(main())


def test_it_serves_on_tcp_as_well(run: Runner) -> None:
    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        server = AsgiServer(configure(app, QUICK), QUICK, SystemClock())
        await server.start(listener)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_bytes())
        assert (await read_answer(reader)).body == b"ok"
        assert await server.drain(5.0)
        assert await reader.read() == b""
        writer.close()
        await server.stop()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    run(main())


def test_a_request_written_as_its_idle_connection_is_about_to_be_closed_is_served(
    run: Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path / "socket") as (server, reader, writer):
            (connection,) = server._state.connections
            # The bytes are in the socket and the loop has not read them when the idle timer fires.
            raw = socket.socket(fileno=writer.get_extra_info("socket").fileno())
            raw.send(request_bytes())
            raw.detach()
            connection.timeout_keep_alive_handler()
            answer = await read_answer(reader)
            assert (answer.status, answer.body) == (200, b"ok")

    run(main())


def test_a_peer_cannot_write_into_an_idle_connection_that_is_being_closed(run: Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "socket") as (server, reader, writer):
            (connection,) = server._state.connections
            connection.timeout_keep_alive_handler()
            raw = socket.socket(fileno=writer.get_extra_info("socket").fileno())
            # Not a byte is taken, so the sender knows that it may send it elsewhere.
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                raw.send(request_bytes())
            raw.detach()
            assert await reader.read() == b""

    run(main())


def test_a_drain_with_a_body_under_way_waits_for_the_whole_of_it(run: Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "socket") as (server, reader, writer):
            writer.write(b"POST /body HTTP/1.1\r\nHost: function.test\r\nContent-Length: 4\r\n\r\nab")
            await reached(lambda: len(server._state.tasks) == 1)
            drain = asyncio.create_task(server.drain(10.0))
            await asyncio.sleep(3 * QUICK.drain_idle_seconds)
            assert not drain.done()
            writer.write(b"cd")
            answer = await read_answer(reader)
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await drain

    run(main())


def test_a_drain_that_takes_longer_than_its_grace_says_so(run: Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "socket") as (server, _, writer):
            writer.write(b"POST /body HTTP/1.1\r\nHost: function.test\r\nContent-Length: 4\r\n\r\n")
            await reached(lambda: len(server._state.tasks) == 1)
            assert not await server.drain(0.1)

    run(main())


def test_a_startup_that_never_ends_fails_at_its_deadline(run: Runner, tmp_path: Path) -> None:
    async def hang(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        settings = ServeSettings(startup_seconds=0.05, shutdown_seconds=0.05)
        server = AsgiServer(configure(hang, settings), settings, SystemClock())
        with listening(str(tmp_path / "socket")) as listener:
            with pytest.raises(StartupFailed, match=r"longer than 0\.05 s"):
                await server.start(listener)
            await server.stop()

    run(main())
