"""In a real replica: hooks around its life, callers who leave, streams, and bodies that come slowly."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.host import Running, hosting, reached, read_answer, run


@contextlib.asynccontextmanager
async def connected(running: Running, request: bytes) -> AsyncIterator[asyncio.StreamReader]:
    """A request that is sent, on a connection that is closed in the end."""
    reader, writer = await asyncio.open_unix_connection(running.path)
    try:
        writer.write(request)
        yield reader
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


GET = b"GET / HTTP/1.1\r\nhost: f\r\n\r\n"


def test_hooks_run_in_each_replica_before_its_first_request_and_after_its_last(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    text = f"""
        import os, pathlib
        from upwell.functions.sdk import on_start, on_stop

        started = []

        @on_start
        def first():
            started.append(("first", os.getpid()))

        @on_start
        async def second():
            started.append(("second", os.getpid()))

        @on_stop
        async def last():
            pathlib.Path({str(ended)!r}).write_text(str(os.getpid()))

        async def main():
            return {{"started": started, "pid": os.getpid()}}
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(text)
            body = (await running.get()).body.decode()
            assert body == (
                f'{{"started":[["first",{running.pid}],["second",{running.pid}]],"pid":{running.pid}}}'
            )
            assert running.recorder.phases is not None
            assert "on_start" in running.recorder.phases
            running.process.drain()
            assert (await running.recorder.exit()).code == 0
            assert ended.read_text() == str(running.pid)

    run(main())


def test_start_hook_that_fails_fails_the_start_with_the_users_own_traceback(tmp_path: Path) -> None:
    text = """
        from upwell.functions.sdk import on_start

        @on_start
        def connect():
            raise LookupError("no database")

        def main(): return ""
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = host.start(host.load(text))
            status = await running.recorder.exit()
            assert not running.recorder.is_ready
            assert status.code == 3
            assert "connect, which runs at the start, failed: LookupError: no database" in status.reason
            failure = running.process.failure
            assert failure is not None
            assert failure.where.endswith(".py:4")
            assert 'raise LookupError("no database")' in failure.traceback
            assert "upwell" not in failure.traceback.replace(str(tmp_path), "")

    run(main())


def test_async_function_is_cancelled_when_its_caller_leaves(tmp_path: Path) -> None:
    log = tmp_path / "log"
    text = f"""
        import asyncio, pathlib
        log = pathlib.Path({str(log)!r})
        async def main(ctx):
            log.write_text("waiting")
            try:
                await asyncio.sleep(1000)
            finally:
                log.write_text(f"ended {{ctx.cancelled.is_set()}}")
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(text)
            async with connected(running, GET):
                await reached(lambda: log.exists() and log.read_text() == "waiting")
            await reached(lambda: log.read_text() == "ended True")
            assert running.recorder.stuck_count == 0

    run(main())


def test_sync_function_sees_that_its_caller_left(tmp_path: Path) -> None:
    log = tmp_path / "log"
    text = f"""
        import pathlib
        log = pathlib.Path({str(log)!r})
        def main(ctx):
            log.write_text("waiting")
            log.write_text(f"told {{ctx.cancelled.wait_blocking(20)}}")
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(text)
            async with connected(running, GET):
                await reached(lambda: log.exists() and log.read_text() == "waiting")
            await reached(lambda: log.read_text() == "told True")

    run(main())


def test_sync_function_that_heeds_its_deadline_is_not_stuck(tmp_path: Path) -> None:
    text = """
        def main(ctx):
            ctx.cancelled.wait_blocking(20)
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(text, timeout_seconds=0.2)
            assert (await running.get()).status == 504
            running.process.drain()
            assert (await running.recorder.exit()).code == 0
            assert running.recorder.stuck_count == 0

    run(main())


def test_call_that_only_waits_for_a_thread_is_not_stuck(tmp_path: Path) -> None:
    go = tmp_path / "go"
    text = f"""
        import pathlib, time
        def main(ctx):
            while not pathlib.Path({str(go)!r}).exists() and not ctx.cancelled.is_set():
                time.sleep(0.01)
            return "done"
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(text, timeout_seconds=0.3, container_concurrency=1)
            answers = await asyncio.gather(running.get(), running.get())
            assert sorted(answer.status for answer in answers) == [504, 504]
            go.touch()
            assert (await running.get()).body == b"done"
            assert running.recorder.stuck_count == 0

    run(main())


@pytest.mark.parametrize("definition", ["async def", "def"])
def test_generator_is_closed_when_its_caller_leaves(definition: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pause = "await asyncio.sleep(0.01)" if definition == "async def" else "time.sleep(0.01)"
    text = f"""
        import asyncio, pathlib, time
        {definition} main():
            try:
                while True:
                    yield "tick\\n"
                    {pause}
            finally:
                pathlib.Path({str(log)!r}).write_text("closed")
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(text)
            async with connected(running, GET) as reader:
                head = await reader.readuntil(b"\r\n\r\n")
                assert b"transfer-encoding: chunked" in head
                assert await reader.readuntil(b"tick\n\r\n") == b"5\r\ntick\n\r\n"
                assert not log.exists()
            await reached(lambda: log.exists() and log.read_text() == "closed")

    run(main())


@pytest.mark.parametrize("definition", ["async def", "def"])
def test_stream_goes_no_faster_than_it_is_read(definition: str, tmp_path: Path) -> None:
    count = tmp_path / "count"
    text = f"""
        import pathlib
        {definition} main():
            for number in range(1000):
                pathlib.Path({str(count)!r}).write_text(str(number))
                yield b"x" * 100_000
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(text)
            async with connected(running, GET) as reader:
                await reader.readuntil(b"\r\n\r\n")
                await reached(lambda: int(count.read_text() or 0) > 3)
                settled = await _settled(count)
                assert settled < 200  # 20 MB: what sockets and buffers hold, and not the hundred of the stream
                assert await _rest(reader) > 99_000_000

    run(main())


async def _settled(count: Path) -> int:
    """The number in the file once it has stayed the same for a while."""
    seen = -1
    while (now := int(count.read_text() or 0)) != seen:
        seen = now
        await asyncio.sleep(0.1)
    return seen


async def _rest(reader: asyncio.StreamReader) -> int:
    size = 0
    tail = b""
    while not tail.endswith(b"\r\n0\r\n\r\n"):
        piece = await reader.read(1 << 20)
        size += len(piece)
        tail = (tail + piece)[-7:]
    return size


def test_body_that_comes_too_slowly_is_cut_off_by_the_timeout(tmp_path: Path) -> None:
    text = "def main(body: dict): return body"
    head = b"POST / HTTP/1.1\r\nhost: f\r\ncontent-length: 10\r\ncontent-type: application/json\r\n\r\n{"

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(text, timeout_seconds=0.2)
            async with connected(running, head) as reader:
                answer = await read_answer(reader)
                assert (answer.status, answer.body) == (504, b"request timeout")
            assert running.recorder.stuck_count == 0

    run(main())


def test_body_that_does_not_fit_is_answered_with_its_field_and_no_traceback(tmp_path: Path) -> None:
    text = """
        from __future__ import annotations
        from dataclasses import dataclass

        @dataclass
        class Order:
            items: list[Item]

        @dataclass
        class Item:
            price: float

        def main(order: Order):
            return order
    """
    body = b'{"items":[{"price":"1"}]}'
    head = b"POST / HTTP/1.1\r\nhost: f\r\ncontent-length: %d\r\ncontent-type: application/json\r\n\r\n" % len(
        body
    )

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(text, show_errors=True)
            async with connected(running, head + body) as reader:
                answer = await read_answer(reader)
                assert answer.status == 400
                assert b'"path": "items[0].price"' in answer.body
                assert b"Traceback" not in answer.body

    run(main())
