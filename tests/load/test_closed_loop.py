"""A closed loop: so many connections, each of which sends when its answer is there."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import pytest

from support.load import OK, Answer, Scripted, answer, loaded, outlined, plain, scripted
from upwell.functions.errors import Unavailable
from upwell.runtime.load.generator import generate
from upwell.runtime.load.report import LoadReport
from upwell.runtime.load.requests import Outline
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.loop import run_fake


def test_as_many_are_under_way_as_there_are_connections() -> None:
    async def main() -> tuple[LoadReport, Scripted]:
        async with scripted(lambda number, request: Answer(delay=0.1)) as server:
            return await loaded(replace(plain(server.port), seconds=1.0)), server

    report, server = run_fake(main())
    assert (server.connections, server.most_open) == (4, 4)
    assert report.total.requests == pytest.approx(40, abs=4)
    assert report.seconds == pytest.approx(1.0, abs=0.15)
    assert (report.total.unsent, report.total.late) == (0, 0)


@pytest.mark.parametrize("count", [1, 3, 4, 61])
def test_a_count_is_kept_exactly(count: int) -> None:
    async def main() -> tuple[LoadReport, Scripted]:
        async with scripted(lambda number, request: Answer(answer(429) if number > 60 else OK)) as server:
            return await loaded(replace(plain(server.port), count=count)), server

    report, server = run_fake(main())
    assert len(server.requests) == report.total.requests == count
    assert report.total.outcomes["limited"] == max(0, count - 60)


def test_durations_leave_out_the_other_requests() -> None:
    async def main() -> LoadReport:
        async with scripted(lambda number, request: Answer(delay=0.2)) as server:
            return await loaded(replace(plain(server.port), count=20))

    spread = run_fake(main()).total.durations["succeeded"]
    assert (spread.least, spread.greatest) == pytest.approx((200, 200), rel=0.01)


def test_without_keep_alive_each_request_has_its_connection() -> None:
    async def main() -> Scripted:
        async with scripted(lambda number, request: Answer()) as server:
            load = replace(plain(server.port), count=10, keep_alive=False)
            await loaded(outlined(load, Outline("GET", "/", "test", keep_alive=False)))
            return server

    server = run_fake(main())
    assert server.connections == 10
    assert all(b"Connection: close" in request for request in server.requests)


def test_a_server_that_ends_connections_is_dialled_again() -> None:
    async def main() -> tuple[LoadReport, Scripted]:
        script = Answer(answer(200, "connection: close"), closes=True)
        async with scripted(lambda number, request: script) as server:
            return await loaded(replace(plain(server.port), count=10)), server

    report, server = run_fake(main())
    assert (report.total.outcomes["succeeded"], server.connections) == (10, 10)


def test_answers_that_do_not_come_are_given_up() -> None:
    async def main() -> LoadReport:
        async with scripted(lambda number, request: Answer(delay=3600.0 if number == 2 else 0.0)) as server:
            return await loaded(replace(plain(server.port), count=6, connections=1, timeout=5.0))

    report = run_fake(main())
    assert report.total.errors == {"timeout of the answer": 1}
    assert report.total.outcomes == {"succeeded": 5, "limited": 0, "broken": 0, "failed": 1}
    assert report.total.durations["failed"].greatest == pytest.approx(5000, abs=60)


def test_a_server_that_goes_away_fails_the_rest_without_a_rush() -> None:
    async def main() -> LoadReport:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        asyncio.get_running_loop().call_later(0.01, server.close)
        return await loaded(replace(plain(port), seconds=2.0, connections=1))

    report = run_fake(main())
    assert report.total.requests == pytest.approx(40, abs=5)
    assert report.total.errors["connection refused"] >= 30
    assert report.total.outcomes["failed"] == report.total.requests


def test_where_nothing_listens_there_is_no_run() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    async def main() -> None:
        clock = FakeClock(loop=asyncio.get_running_loop())
        with pytest.raises(Unavailable, match="nothing takes a connection: connection refused"):
            await generate(plain(port), clock, asyncio.Event())

    run_fake(main())


def test_names_below_localhost_are_this_machine() -> None:
    async def main() -> LoadReport:
        async with scripted(lambda number, request: Answer()) as server:
            return await loaded(replace(plain(server.port, host="httpbin.default.localhost"), count=2))

    assert run_fake(main()).total.outcomes["succeeded"] == 2


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_ipv6_addresses_are_dialled() -> None:
    async def main() -> LoadReport:
        async with scripted(lambda number, request: Answer(), host="::1") as server:
            return await loaded(replace(plain(server.port, host="::1"), count=2))

    assert run_fake(main()).total.outcomes["succeeded"] == 2
