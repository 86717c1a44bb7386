"""A body that is read before anyone decides where it goes: whole, within a bound, and still there afterwards."""

from __future__ import annotations

import asyncio
import weakref

import pytest

from support.http import OK, answering, backend, eventually, run, serving, settle
from upwell.runtime.clock import SystemClock
from upwell.runtime.http.exchange import Exchange
from upwell.runtime.http.forward import Outcome, OutcomeKind, forward
from upwell.runtime.http.messages import Headers
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.http.upstream import UpstreamPool
from upwell.runtime.timers import TimerWheel

POST = b"POST /a HTTP/1.1\r\nHost: a.example.com\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


class Recorder:
    """Takes the outcome of an attempt."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def response_head(self, status: int, headers: Headers) -> None: ...

    def completed(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


class Reader:
    """A handler that reads each body whole and answers with its size, or with 413."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.exchanges: list[Exchange] = []
        self.bodies: list[bytes | None] = []
        self.left = 0

    def handle(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

        def done(body: bytes | None) -> None:
            self.bodies.append(body)
            exchange.respond(413 if body is None else 200, [], b"")

        def gone() -> None:
            self.left += 1

        exchange.on_gone = gone
        exchange.read_whole(self.limit, done)


@pytest.mark.parametrize("size", [0, 1, 1000, 70_000])
@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_within_the_bound_is_given_whole_however_it_comes(
    size: int, pieces: int, chunked: bool, loop: str
) -> None:
    body = bytes(n % 251 for n in range(size))
    framed = b"%x\r\n%b\r\n0\r\n\r\n" % (size, body) if size else b"0\r\n\r\n"
    whole = CHUNKED + framed if chunked else POST + b"Content-Length: %d\r\n\r\n%b" % (size, body)

    async def main() -> None:
        reader = Reader(limit=70_000)
        async with serving(reader.handle) as served:
            client = await served.client(b"")
            step = len(whole) // pieces + 1
            for at in range(0, len(whole), step):
                client.send(whole[at : at + step])
                await settle(3)
            assert b" 200 " in await client.answer(b"\r\n\r\n")
        assert reader.bodies == [body]
        assert reader.exchanges[0].body_replayable

    run(main(), loop)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("limit", [10, 100_000])
def test_a_larger_one_is_told_of_once_and_at_once(declared: bool, limit: int) -> None:
    head = POST + b"Content-Length: %d\r\n\r\n" % (limit + 1) if declared else CHUNKED + b"%x\r\n" % (limit + 1)

    async def main() -> None:
        reader = Reader(limit)
        async with serving(reader.handle) as served:
            client = await served.client(head)
            if not declared:
                client.send(b"x" * (limit + 1))
            assert b" 413 " in await client.answer(b"\r\n\r\n")
        assert reader.bodies == [None]
        assert reader.left == 0

    run(main())


def test_a_client_that_leaves_before_the_end_is_heard_of_as_gone_alone() -> None:
    async def main() -> None:
        reader = Reader(100)
        async with serving(reader.handle) as served:
            client = await served.client(POST + b"Content-Length: 5\r\n\r\nab")
            await eventually(lambda: bool(reader.exchanges))
            client.transport.abort()
            await eventually(lambda: reader.left == 1)
        assert reader.bodies == []

    run(main())


def test_one_that_waits_for_100_is_told_unless_its_body_is_declared_too_large() -> None:
    async def main() -> None:
        reader = Reader(100)
        async with serving(reader.handle) as served:
            client = await served.client(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            await client.answer(b"100 Continue\r\n\r\n")
            client.send(b"hello")
            await client.until(lambda: b" 200 " in client.received)
            assert b" 200 " in await client.answer(b"\r\n\r\n")
            other = await served.client(POST + b"Expect: 100-continue\r\nContent-Length: 101\r\n\r\n")
            answer = await other.answer(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 413 ")
        assert reader.bodies == [b"hello", None]

    run(main())


@pytest.mark.parametrize(("expects", "size"), [(b"", 5), (b"", 200_000), (b"Expect: 100-continue\r\n", 5)])
def test_it_is_sent_on_afterwards_with_target_and_host_in_the_place_of_its_own(expects: bytes, size: int) -> None:
    body = b"x" * size

    async def main() -> tuple[bytes, Recorder]:
        recorder = Recorder()
        clock = SystemClock()
        wheel = TimerWheel(asyncio.get_running_loop())
        async with backend(answering(OK)) as behind:
            pool = UpstreamPool(behind.endpoint, HttpSettings(), clock, wheel)

            def handle(exchange: Exchange) -> None:
                def done(body: bytes | None) -> None:
                    forward(
                        exchange,
                        pool,
                        add=[(b"x-added", b"yes")],
                        drop=frozenset(),
                        observer=recorder,
                        target=b"/b?c=d",
                        host=b"other.example.com",
                    )

                exchange.read_whole(1000, done)

            async with serving(handle) as served:
                client = await served.client(POST + expects + b"Content-Length: %d\r\n\r\n" % size)
                if expects:
                    await client.answer(b"100 Continue\r\n\r\n")
                client.send(body)
                await client.answer(b"\r\n\r\nok")
                await pool.aclose()
            return behind.seen, recorder

    seen, recorder = run(main())
    assert seen.startswith(b"POST /b?c=d HTTP/1.1\r\nhost: other.example.com\r\n")
    assert b"a.example.com" not in seen
    assert b"x-added: yes\r\n" in seen
    assert seen.endswith(b"\r\n\r\n" + body)
    assert [outcome.kind for outcome in recorder.outcomes] == [OutcomeKind.COMPLETE]


def test_the_connection_can_be_told_from_others_and_is_not_kept_alive_by_a_reference() -> None:
    async def main() -> None:
        reader = Reader(100)
        async with serving(reader.handle) as served:
            one = await served.client(POST + b"\r\n")
            await one.answer(b"\r\n\r\n")
            one.send(POST + b"\r\n")
            await eventually(lambda: len(reader.exchanges) == 2)
            other = await served.client(POST + b"\r\n")
            await other.answer(b"\r\n\r\n")
            first, second, third = (exchange.connection for exchange in reader.exchanges)
            assert first is second
            assert first is not third
            assert len({first, second, third}) == 2
            assert weakref.ref(first)() is first

    run(main())
