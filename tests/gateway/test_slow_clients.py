"""Clients that take their time: each is let go by a limit, and meanwhile the others are served."""

from __future__ import annotations

import asyncio

import pytest

from support.gateway import Stage, request, stage
from support.http import Peer
from support.torture import Echo
from upwell.runtime.gateway.activator import RevisionLimits
from upwell.runtime.gateway.settings import GatewaySettings
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.testing.loop import run_fake

SETTINGS = HttpSettings(head_timeout=10.0, body_timeout=60.0, keep_alive=75.0)


async def trickle(client: Peer, data: bytes, pause: float) -> float:
    """Send byte by byte until the other side closes; how long that took."""
    began = asyncio.get_running_loop().time()
    for position in range(len(data)):
        if client.closed:
            break
        client.send(data[position : position + 1])
        await asyncio.sleep(pause)
    await client.until(lambda: client.closed)
    return asyncio.get_running_loop().time() - began


async def answered_at_once(on: Stage) -> None:
    began = asyncio.get_running_loop().time()
    assert b" 200 " in await on.ask(ending=b"GET / ")
    assert asyncio.get_running_loop().time() - began < 0.1


@pytest.mark.parametrize(
    ("data", "pause", "seconds", "status"),
    [
        (request(fields=b"x: y\r\n" * 50), 0.5, 10, 408),
        (request(fields=b"x: y\r\n" * 50), 9.9, 10, 408),
        (b"\r\n\r\n\r\n", 4.0, 10, 408),
        (b"", 1.0, 10, 0),
        (request(b"POST", fields=b"Content-Length: 500\r\n"), 0.01, 60, 408),
    ],
    ids=["head by bytes", "head by slow bytes", "empty lines", "nothing", "no body"],
)
def test_a_slow_one_is_let_go_and_others_are_served_meanwhile(
    data: bytes, pause: float, seconds: float, status: int
) -> None:
    async def scenario() -> None:
        async with stage(RevisionLimits(timeout_seconds=1000), GatewaySettings(), SETTINGS) as on:
            await on.replica(Echo().script)
            clients = [await on.client(b"") for _ in range(50)]
            slow = [asyncio.create_task(trickle(client, data, pause)) for client in clients]
            for _ in range(5):
                await asyncio.sleep(1)
                await answered_at_once(on)
            took = await asyncio.gather(*slow)
            assert all(seconds - 1 <= each <= seconds + 10 for each in took)
            for client in clients:
                assert client.received.startswith(b"HTTP/1.1 %d " % status if status else b"")
                assert bool(client.received) == bool(status)
            await asyncio.sleep(100)
            assert on.entry.stats.in_flight == 0
            assert on.served.server.statistics().connections == 0

    run_fake(scenario())


def test_a_body_that_never_stops_coming_is_ended_by_the_time_that_the_whole_request_has() -> None:
    head = request(b"POST", fields=b"Content-Length: 5000\r\n")

    async def scenario() -> None:
        async with stage(RevisionLimits(timeout_seconds=30), GatewaySettings(), SETTINGS) as on:
            echo = Echo()
            await on.replica(echo.script)
            client = await on.client(head)
            took = await trickle(client, b"x" * 4000, 1.0)
            assert 30 <= took <= 40
            assert client.received.startswith(b"HTTP/1.1 504 ")
            assert echo.seen == [], "a body that was not whole is no request"
            await answered_at_once(on)

    run_fake(scenario())


def test_an_idle_one_is_let_go_after_its_time() -> None:
    async def scenario() -> None:
        async with stage(None, GatewaySettings(), SETTINGS) as on:
            await on.replica(Echo().script)
            client = await on.client()
            await client.answer(b"GET / ")
            began = asyncio.get_running_loop().time()
            await client.until(lambda: client.closed)
            assert 75 <= asyncio.get_running_loop().time() - began <= 80

    run_fake(scenario())


def test_one_that_does_not_read_its_answer_is_cut_off_and_its_replica_let_go() -> None:
    size = 5_000_000

    def script(peer: Peer) -> None:
        if not peer.handled:
            peer.handled = 1
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)

    async def scenario() -> None:
        limits = RevisionLimits(container_concurrency=1, timeout_seconds=1000)
        async with stage(limits, GatewaySettings(), HttpSettings(write_timeout=20.0)) as on:
            await on.replica(script)
            client = await on.client(b"")
            client.transport.pause_reading()
            client.send(request())
            await asyncio.sleep(10)
            assert on.entry.stats.in_flight == 1
            await asyncio.sleep(30)
            assert on.entry.stats.in_flight == 0
            assert on.activator.statistics().in_flight == 0

    run_fake(scenario())
