"""Clients that end their side and wait, clients that leave, and answers that come before the request is whole."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from support.http import GET, OK, Peer, answering, eventually, proxying, run, serving, settle, silent, status_of
from upwell.runtime.clock import SystemClock
from upwell.runtime.http.exchange import Exchange
from upwell.runtime.http.forward import OutcomeKind
from upwell.runtime.http.server import HttpServer
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.loop import run_fake

HOST = b"Host: a.example.com\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        GET,
        POST + b"Content-Length: 3\r\n\r\nabc",
        POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ],
    ids=["no body", "length", "chunked"],
)
def test_a_client_that_ends_its_side_gets_its_answer_and_the_connection_closes(request_: bytes, loop: str) -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            client = await proxy.client(request_)
            client.transport.write_eof()
            await eventually(lambda: request_.endswith(proxy.backend.seen[-5:]) and proxy.backend.seen != b"")
            await settle(50)
            proxy.backend.peers[0].send(OK)
            answer = await client.to_the_end()
            assert answer == OK.replace(b"length: 2\r\n", b"length: 2\r\nconnection: close\r\n")
            assert proxy.kinds == [OutcomeKind.COMPLETE]
            assert not proxy.served.server.connections

    run(main(), loop)


def test_all_that_it_sent_ahead_is_answered_in_order(loop: str) -> None:
    requests = b"".join(b"GET /%d HTTP/1.1\r\n%b\r\n" % (number, HOST) for number in range(200))

    async def main() -> None:
        async with serving(lambda exchange: exchange.respond(200, [], exchange.request.target)) as served:
            client = await served.client(requests)
            client.transport.write_eof()
            answer = await client.to_the_end()
            assert answer.count(b"HTTP/1.1 200 OK") == 200
            assert answer.endswith(b"/199")

    run(main(), loop)


def test_requests_sent_ahead_go_to_the_back_end_one_after_another(loop: str) -> None:
    async def main() -> None:
        async with proxying(answering()) as proxy:
            client = await proxy.client(GET * 5)
            client.transport.write_eof()
            answer = await client.to_the_end()
            assert answer.count(b"\r\n\r\nok") == 5
            assert answer.count(b"connection: close") == 1
            assert proxy.kinds == [OutcomeKind.COMPLETE] * 5

    run(main(), loop)


@pytest.mark.parametrize(
    "rest",
    [b"GET / HT", POST + b"Content-Length: 9\r\n\r\nabc", b"nonsense\r\n\r\n"],
    ids=["head", "body", "junk"],
)
def test_what_it_left_unfinished_ends_with_what_was_whole(rest: bytes) -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            client = await proxy.client(GET + rest)
            client.transport.write_eof()
            await eventually(lambda: b"GET / " in proxy.backend.seen)
            await settle(50)
            proxy.backend.peers[0].send(OK)
            answer = await client.to_the_end()
            assert b"\r\n\r\nok" in answer
            assert proxy.backend.seen.count(b"HTTP/1.1") == 1
            await eventually(lambda: not proxy.served.server.connections)

    run(main())


def test_a_body_that_will_never_be_whole_is_the_end_of_its_request(loop: str) -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            client = await proxy.client(POST + b"Content-Length: 9\r\n\r\nabc")
            await eventually(lambda: proxy.backend.seen.endswith(b"abc"))
            client.transport.write_eof()
            await client.to_the_end()
            await proxy.ended()
            assert proxy.kinds == [OutcomeKind.CLIENT_GONE]

    run(main(), loop)


def test_a_waiting_client_that_left_is_noticed_and_one_that_only_ended_its_side_is_not_lost(loop: str) -> None:
    async def main() -> None:
        settings = HttpSettings(half_closed_probe=0.1)
        async with proxying(silent, settings) as proxy:
            gone, waits = await proxy.client(GET), await proxy.client(GET)
            await eventually(lambda: len(proxy.backend.peers) == 2)
            waits.transport.write_eof()
            gone.close()
            await proxy.ended()
            assert proxy.kinds == [OutcomeKind.CLIENT_GONE]
            for peer in proxy.backend.peers:
                if not peer.closed and not peer.transport.is_closing():
                    peer.send(OK)
            answer = await waits.to_the_end()
            assert answer.startswith(CONTINUE)
            assert answer.replace(CONTINUE, b"").startswith(b"HTTP/1.1 200 OK\r\n")

    run(main(), loop)


def test_how_often_a_client_is_asked_grows_slower() -> None:
    async def main() -> None:
        clock = FakeClock(loop=asyncio.get_running_loop())
        async with proxying(silent, clock=clock) as proxy:
            client = await proxy.client(GET)
            client.transport.write_eof()
            await asyncio.sleep(300)
            assert 5 <= client.received.count(CONTINUE) <= 12
            assert proxy.outcomes == []

    run_fake(main())


def test_a_client_of_http_1_0_which_cannot_be_asked_is_waited_for_a_little() -> None:
    async def main() -> None:
        clock = FakeClock(loop=asyncio.get_running_loop())
        async with proxying(silent, clock=clock) as proxy:
            old = b"GET / HTTP/1.0\r\n\r\n"
            waits, late = await proxy.client(old), await proxy.client(old)
            await eventually(lambda: len(proxy.backend.peers) == 2)
            waits.transport.write_eof()
            late.transport.write_eof()
            await asyncio.sleep(4)
            assert proxy.outcomes == []
            proxy.backend.peers[0].send(OK)
            await eventually(lambda: len(proxy.outcomes) == 1)
            await asyncio.sleep(2)
            assert proxy.kinds == [OutcomeKind.COMPLETE, OutcomeKind.CLIENT_GONE]
            assert sorted([(await waits.to_the_end())[-2:], (await late.to_the_end())[-2:]]) == [b"", b"ok"]

    run_fake(main())


def test_a_client_that_left_holds_its_place_for_a_moment_only() -> None:
    async def main() -> None:
        clock = FakeClock(loop=asyncio.get_running_loop())
        async with proxying(silent, clock=clock) as proxy:
            clients = [await proxy.client(GET) for _ in range(20)]
            await eventually(lambda: len(proxy.backend.peers) == 20)
            for client in clients:
                client.close()
            await asyncio.sleep(0.35)
            assert proxy.kinds == [OutcomeKind.CLIENT_GONE] * 20

    run_fake(main())


def test_an_answer_that_flows_is_finished_and_one_that_stands_still_is_given_up() -> None:
    async def main() -> None:
        clock = FakeClock(loop=asyncio.get_running_loop())
        async with proxying(silent, clock=clock) as proxy:
            client = await proxy.client(GET)
            await eventually(lambda: bool(proxy.backend.peers))
            server = proxy.backend.peers[0]
            server.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            await client.answer(b"\r\n\r\n")
            client.transport.write_eof()
            for _ in range(20):
                await asyncio.sleep(4)
                server.send(b"x")
            await client.until(lambda: client.received.count(b"x") == 20)
            await client.to_the_end()
            assert proxy.kinds == [OutcomeKind.CLIENT_GONE]

    run_fake(main())


def test_on_a_unix_socket_leaving_and_ending_ones_side_are_told_apart_at_once(tmp_path: Path, loop: str) -> None:
    path = str(tmp_path / "s")
    exchanges: list[Exchange] = []

    async def main() -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        server = HttpServer(exchanges.append, HttpSettings(half_closed_probe=60.0), SystemClock())
        await server.start([listener])
        running = asyncio.get_running_loop()
        _, gone = await running.create_unix_connection(Peer, path)
        gone.send(GET)
        await eventually(lambda: len(exchanges) == 1)
        gone.close()
        await eventually(lambda: exchanges[0].finished)
        _, waits = await running.create_unix_connection(Peer, path)
        waits.send(GET)
        waits.transport.write_eof()
        await eventually(lambda: len(exchanges) == 2)
        await settle(50)
        exchanges[1].respond(200, [], b"ok")
        assert (await waits.to_the_end()).endswith(b"ok")
        await server.drain(SystemClock().monotonic())

    exchanges.clear()
    run(main(), loop)


@pytest.mark.parametrize("size", [2, 200_000])
def test_an_answer_before_the_body_and_closed_at_once_is_not_lost(size: int, loop: str) -> None:
    def refuse(peer: Peer) -> None:
        if not peer.handled:
            peer.handled = 1
            peer.transport.pause_reading()
            peer.send(b"HTTP/1.1 413 Large\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
            peer.close()

    async def main() -> None:
        for _ in range(20):
            async with proxying(refuse) as proxy:
                client = await proxy.client(POST + b"Content-Length: 8000000\r\n\r\n" + b"y" * 8_000_000)
                await client.until(lambda: client.received.count(b"x") >= size)  # noqa: B023
                assert status_of(bytes(client.received)) == 413
                assert proxy.kinds == [OutcomeKind.COMPLETE]

    run(main(), loop)


def test_after_an_early_answer_the_connection_waits_for_its_reader_and_reads_no_flood() -> None:
    async def main() -> None:
        clock = FakeClock(loop=asyncio.get_running_loop())
        settings = HttpSettings(discard_bytes=100_000)
        async with serving(lambda exchange: exchange.respond(413, [], b"no"), settings, clock) as served:
            client = await served.client(POST + b"Content-Length: 80000000\r\n\r\n")
            client.send(b"y" * 80_000_000)
            answer = await client.answer(b"no")
            assert b"connection: close" in answer
            await settle(200)
            assert client.transport.get_write_buffer_size() > 60_000_000
            started = clock.monotonic()
            await client.until(lambda: client.closed)
            assert clock.monotonic() - started <= 2.5

    run_fake(main())
