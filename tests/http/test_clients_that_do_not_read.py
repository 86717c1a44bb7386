"""A client that does not read costs a bounded amount of memory and time, and one that reads slowly gets all."""

from __future__ import annotations

import asyncio
import socket

import pytest

from support.http import GET, Peer, eventually, proxying, serving, settle, silent
from upwell.runtime.http.exchange import Exchange
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.loop import run_fake

BIG = b"x" * 1_000_000
BIG_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(BIG) + BIG


def test_pipelined_requests_wait_until_the_client_reads_their_answers() -> None:
    async def main() -> None:
        clock = FakeClock(loop=asyncio.get_running_loop())

        def answer(exchange: Exchange) -> None:
            exchange.respond(200, [], BIG)

        settings = HttpSettings(write_timeout=5.0)
        async with serving(answer, settings, clock) as served:
            client = await served.client()
            client.transport.pause_reading()
            client.send(GET * 300)
            await asyncio.sleep(1)
            (connection,) = served.server.connections
            unsent = connection._transport.get_write_buffer_size()
            assert unsent < 5 * len(BIG), "no more than the answers that were begun before it was full"
            begun = served.server.statistics().exchanges_total
            assert begun < 10
            await asyncio.sleep(10)
            assert served.server.statistics().connections == 0, "closed after the write timeout"
            assert served.server.statistics().exchanges_total == begun

    run_fake(main())


def test_a_client_that_reads_in_the_end_gets_every_pipelined_answer() -> None:
    async def main() -> None:
        clock = FakeClock(loop=asyncio.get_running_loop())

        def answer(exchange: Exchange) -> None:
            exchange.respond(200, [], BIG)

        async with serving(answer, None, clock) as served:
            client = await served.client()
            client.transport.pause_reading()
            client.send(GET * 20)
            await asyncio.sleep(1)
            client.transport.resume_reading()
            await client.until(lambda: client.received.count(b"HTTP/1.1 200 OK") == 20)
            await client.until(lambda: len(client.received) > 20 * len(BIG))
            assert len(served.finished) == 20

    run_fake(main())


def test_a_forwarded_answer_is_not_read_ahead_of_its_client() -> None:
    async def main() -> None:
        clock = FakeClock(loop=asyncio.get_running_loop())

        def answer(peer: Peer) -> None:
            while (end := peer.received.find(b"\r\n\r\n", peer.handled)) >= 0:
                peer.handled = end + 4
                peer.send(BIG_ANSWER)

        async with proxying(answer, HttpSettings(write_timeout=5.0), clock=clock) as proxy:
            client = await proxy.client()
            client.transport.pause_reading()
            client.send(GET * 50)
            await asyncio.sleep(1)
            assert proxy.backend.seen.count(b"GET ") <= 6
            await asyncio.sleep(10)
            assert proxy.served.server.statistics().connections == 0
            assert proxy.pool.statistics().active == 0

    run_fake(main())


def test_the_answer_to_an_unfinished_upload_reaches_a_slow_reader_whole() -> None:
    async def main() -> int:
        clock = FakeClock(loop=asyncio.get_running_loop())

        def refuse(exchange: Exchange) -> None:
            exchange.respond(413, [], BIG)

        async with serving(refuse, HttpSettings(linger=2.0), clock) as served:
            loop = asyncio.get_running_loop()
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
                client.setblocking(False)
                await loop.sock_connect(client, ("127.0.0.1", served.port))
                await loop.sock_sendall(
                    client, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\nabc"
                )
                received = 0
                while data := await loop.sock_recv(client, 65_536):
                    received += len(data)
                    await asyncio.sleep(0.5)
                return received

    assert run_fake(main()) > len(BIG)


@pytest.mark.parametrize("extra", [b"", b"GET /next HTTP/1.1\r\n"], ids=["nothing more", "pipelined bytes"])
def test_a_client_that_leaves_is_noticed_whatever_it_sent_after_its_request(extra: bytes) -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            client = await proxy.client(GET)
            await eventually(lambda: b"GET " in proxy.backend.seen)
            client.send(extra)
            await settle()
            client.transport.abort()
            await proxy.ended()
            assert proxy.served.server.statistics().active == 0

    run_fake(main())


def test_a_head_that_is_begun_behind_an_unread_answer_has_its_own_deadline() -> None:
    async def main() -> float:
        clock = FakeClock(loop=asyncio.get_running_loop())

        def answer(exchange: Exchange) -> None:
            exchange.respond(200, [], BIG)

        settings = HttpSettings(head_timeout=3.0, keep_alive=60.0, write_timeout=30.0)
        async with serving(answer, settings, clock) as served:
            client = await served.client()
            client.transport.pause_reading()
            client.send(GET + b"GET /slow HTTP/1.1\r\n")
            await asyncio.sleep(1)
            client.transport.resume_reading()
            started = clock.monotonic()
            await client.to_the_end()
            assert b"408" in client.received
            return clock.monotonic() - started

    assert run_fake(main()) < 10
