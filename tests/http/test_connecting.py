"""Opening connections and keeping them: full backlogs, caps, bounds, idle limits, retirement."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.http import GET, OK, Peer, answering, backend, eventually, proxying, run, settle, silent, status_of
from upwell.runtime.clock import SystemClock
from upwell.runtime.http.connect import ConnectFailed, Endpoint, connect
from upwell.runtime.http.forward import OutcomeKind
from upwell.runtime.http.messages import Headers
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.http.upstream import PoolStatistics, UpstreamPool
from upwell.runtime.http.upstream_connection import UpstreamConnection
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.loop import run_fake
from upwell.runtime.timers import TimerWheel


@pytest.fixture
def path() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="upwell-http-")
    yield str(Path(folder) / "s")
    shutil.rmtree(folder)


class Waiter:
    """A user of a pool that keeps what it is told."""

    def __init__(self) -> None:
        self.waiting = True
        self.connection: UpstreamConnection | None = None
        self.failure = ""

    def connected(self, connection: UpstreamConnection) -> None:
        self.waiting = False
        self.connection = connection
        connection.begin(self, False)

    def connect_failed(self, cause: str) -> None:
        self.waiting = False
        self.failure = cause

    def informed(self, status: int, headers: Headers) -> None: ...

    def answer(self, status: int, headers: Headers, length: int | None, data: bytes, ended: bool) -> None: ...

    def answer_data(self, data: bytes, ended: bool) -> None: ...

    def switched(self, headers: Headers, data: bytes) -> None:
        raise NotImplementedError

    def side_ended(self) -> None:
        raise NotImplementedError

    def lost(self, cause: str, malformed: bool) -> None: ...

    def pause_sending(self) -> None: ...

    def resume_sending(self) -> None: ...


def pool_to(endpoint: Endpoint, settings: HttpSettings | None = None) -> UpstreamPool:
    loop = asyncio.get_running_loop()
    return UpstreamPool(endpoint, settings or HttpSettings(), FakeClock(loop=loop), TimerWheel(loop))


def full_listener(path: str) -> tuple[socket.socket, list[socket.socket]]:
    """A Unix listener that nobody accepts from, with its backlog full."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    queued: list[socket.socket] = []
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        try:
            client.connect(path)
        except BlockingIOError:
            client.close()
            return listener, queued
        queued.append(client)


def test_a_full_unix_backlog_is_waited_for_until_there_is_room(path: str, loop: str) -> None:
    async def main() -> None:
        listener, queued = full_listener(path)
        connecting = asyncio.ensure_future(connect(Endpoint(path=path), Peer, 5.0))
        await asyncio.sleep(0.02)
        assert not connecting.done()
        for _ in range(len(queued)):
            listener.accept()[0].close()
        peer = await connecting
        accepted, _ = listener.accept()
        accepted.sendall(b"made")
        assert await peer.answer(b"made") == b"made"
        peer.close()
        accepted.close()
        for client in [*queued, listener]:
            client.close()
        await settle()

    run(main(), loop)


def test_a_backlog_that_stays_full_fails_at_the_deadline_and_says_so(path: str) -> None:
    async def main() -> float:
        listener, queued = full_listener(path)
        started = asyncio.get_running_loop().time()
        with pytest.raises(ConnectFailed, match="no connection within 5 s") as failure:
            await connect(Endpoint(path=path), Peer, 5.0)
        assert not failure.value.definite
        for client in [*queued, listener]:
            client.close()
        return asyncio.get_running_loop().time() - started

    assert 5.0 <= run_fake(main()) < 5.1


def test_a_thousand_connections_at_once_over_a_small_backlog_all_reach_the_server(path: str, loop: str) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_unix_server(lambda: Peer(answering()), path, backlog=4)
        peers = await asyncio.gather(*(connect(Endpoint(path=path), Peer, 10.0) for _ in range(300)))
        for peer in peers:
            peer.send(GET)
        for peer in peers:
            assert await peer.answer(b"ok") == OK
            peer.close()
        server.close()
        await eventually(lambda: all(peer.closed for peer in peers))

    run(main(), loop)


def test_what_cannot_be_connected_says_why(path: str, loop: str) -> None:
    async def main() -> None:
        with pytest.raises(ConnectFailed, match="No such file") as missing:
            await connect(Endpoint(path=path), Peer, 5.0)
        assert missing.value.definite
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
            with pytest.raises(ConnectFailed, match="refused") as refused:
                await connect(Endpoint(host="127.0.0.1", port=port), Peer, 5.0)
        assert str(refused.value) == f"127.0.0.1:{port}: Connection refused"
        with pytest.raises(ConnectFailed):
            await connect(Endpoint(host="does-not-exist.invalid", port=80), Peer, 5.0)

    run(main(), loop)


def test_a_host_name_is_resolved_and_each_of_its_addresses_tried(loop: str) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Peer(answering()), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        peer = await connect(Endpoint(host="localhost", port=port), Peer, 5.0)
        peer.send(GET)
        assert await peer.answer(b"ok") == OK
        peer.close()
        server.close()
        await peer.to_the_end()

    run(main(), loop)


def test_an_endpoint_is_a_path_or_a_host_and_reads_as_either() -> None:
    assert str(Endpoint(path="/a/b")) == "unix:/a/b"
    assert str(Endpoint(host="10.0.0.1", port=80)) == "10.0.0.1:80"
    assert str(Endpoint(host="::1", port=80)) == "[::1]:80"
    assert len({Endpoint(path="/a"), Endpoint(path="/a"), Endpoint(path="/b")}) == 2
    with pytest.raises(ValueError, match="either"):
        Endpoint()
    with pytest.raises(ValueError, match="either"):
        Endpoint(path="/a", host="b", port=1)


def test_only_so_many_connections_are_opened_at_once_and_the_rest_wait_in_a_bounded_queue(path: str) -> None:
    async def main() -> None:
        listener, queued = full_listener(path)
        pool = pool_to(Endpoint(path=path), HttpSettings(max_connecting=3, max_waiting=10))
        waiters = [Waiter() for _ in range(10)]
        assert [pool.wait(waiter) for waiter in waiters] == [""] * 10
        assert pool.wait(Waiter()) == "too many requests wait for a connection"
        assert repr(pool) == f"<UpstreamPool unix:{path} [idle 0, active 0, connecting 3, waiting 10]>"
        waiters[0].waiting = False
        assert pool.wait(Waiter()) == ""
        await asyncio.sleep(6)
        assert [waiter.failure for waiter in waiters[1:]] == ["no connection within 5 s"] * 9
        assert waiters[0].failure == ""
        await pool.aclose()
        assert pool.statistics().connecting == pool.statistics().waiting == 0
        for client in [*queued, listener]:
            client.close()

    run_fake(main())


def test_many_who_come_together_all_get_connections_though_nobody_lets_one_go(loop: str) -> None:
    async def main() -> None:
        async with backend(silent) as back:
            pool = pool_to(back.endpoint, HttpSettings(max_connecting=3))
            waiters = [Waiter() for _ in range(50)]
            for waiter in waiters:
                pool.wait(waiter)
            await eventually(lambda: all(waiter.connection is not None for waiter in waiters))
            assert len({id(waiter.connection) for waiter in waiters}) == 50
            await pool.aclose()

    run(main(), loop)


def test_a_definite_failure_is_told_to_all_who_wait(path: str) -> None:
    async def main() -> None:
        pool = pool_to(Endpoint(path=path), HttpSettings(max_connecting=2))
        waiters = [Waiter() for _ in range(50)]
        for waiter in waiters:
            pool.wait(waiter)
        await settle()
        assert {waiter.failure for waiter in waiters} == {"No such file or directory"}
        assert pool.statistics().connecting == 0
        assert pool.statistics().failed_total <= 4
        await pool.aclose()

    run(main())


def test_a_connection_that_is_let_go_serves_who_waits_longest() -> None:
    async def main() -> None:
        async with backend(answering()) as back:
            pool = pool_to(back.endpoint, HttpSettings(max_connecting=1))
            first, second, third = Waiter(), Waiter(), Waiter()
            pool.wait(first)
            await eventually(lambda: first.connection is not None)
            connection = first.connection
            assert connection is not None
            connection.write(GET)
            await eventually(lambda: bool(back.seen))
            await settle()
            pool.wait(second)
            pool.wait(third)
            connection.done(request_complete=True)
            assert second.connection is connection
            assert third.connection is None
            await pool.aclose()

    run(main())


def test_connections_are_reused_last_in_first_out_and_closed_when_idle_too_long() -> None:
    async def main() -> None:
        async with proxying(silent, clock=FakeClock(loop=asyncio.get_running_loop())) as proxy:
            clients = [await proxy.client(GET) for _ in range(3)]
            await eventually(lambda: proxy.backend.seen.count(b"GET") == 3)
            for peer in proxy.backend.peers:
                peer.send(OK)
            await eventually(lambda: proxy.pool.statistics().idle == 3)
            await asyncio.sleep(20)
            clients[0].send(GET)
            await eventually(lambda: proxy.backend.seen.count(b"GET") == 4)
            proxy.backend.peers[-1].send(OK)
            await eventually(lambda: proxy.pool.statistics().idle == 3)
            used = [peer for peer in proxy.backend.peers if peer.received.count(b"GET") == 2]
            assert used == [proxy.backend.peers[-1]]
            await asyncio.sleep(10.2)
            assert proxy.pool.statistics().idle == 1
            assert not used[0].closed
            await asyncio.sleep(20)
            assert proxy.pool.statistics().idle == 0
            assert proxy.pool.statistics().dropped_total == 0

    run_fake(main())


@pytest.mark.parametrize("what", ["closed", "spoke"])
def test_an_idle_connection_that_ends_or_speaks_unasked_is_dropped_at_once(what: str, loop: str) -> None:
    async def main() -> None:
        async with proxying(answering()) as proxy:
            await proxy.ask(GET)
            assert proxy.pool.statistics().idle == 1
            if what == "closed":
                proxy.backend.peers[0].close()
            else:
                proxy.backend.peers[0].send(b"HTTP/1.1 408 Too slow\r\n\r\n")
            await eventually(lambda: proxy.pool.statistics().dropped_total == 1)
            assert proxy.pool.statistics() == PoolStatistics(
                idle=0,
                active=0,
                connecting=0,
                waiting=0,
                opened_total=1,
                reused_total=0,
                dropped_total=1,
                failed_total=0,
            )
            assert status_of(await proxy.ask(GET)) == 200

    run(main(), loop)


def test_a_retired_pool_finishes_what_is_under_way_and_takes_nothing_new(loop: str) -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            busy = await proxy.client(GET)
            await eventually(lambda: bool(proxy.backend.seen))
            proxy.pool.retire()
            assert status_of(await proxy.ask(GET, b"bad")) == 502
            assert proxy.kinds == [OutcomeKind.CONNECT_FAILED]
            assert proxy.outcomes[0].cause == "the endpoint is retired"
            proxy.backend.peers[0].send(OK)
            assert await busy.answer(b"ok") == OK
            await proxy.backend.peers[0].to_the_end()
            assert repr(proxy.pool).endswith("[retired, idle 0, active 0, connecting 0, waiting 0]>")

    run(main(), loop)


def test_retiring_fails_those_who_wait_so_that_they_may_go_elsewhere(path: str) -> None:
    async def main() -> None:
        listener, queued = full_listener(path)
        pool = pool_to(Endpoint(path=path))
        waiter = Waiter()
        pool.wait(waiter)
        await asyncio.sleep(0.1)
        pool.retire()
        assert waiter.failure == "the endpoint is retired"
        await pool.aclose()
        assert pool.statistics().connecting == 0
        for client in [*queued, listener]:
            client.close()

    run_fake(main())


def test_closing_idle_connections_leaves_those_in_use() -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            clients = [await proxy.client(GET) for _ in range(2)]
            await eventually(lambda: len(proxy.backend.seen) >= 2 * len(GET))
            proxy.backend.peers[0].send(OK)
            await eventually(lambda: proxy.pool.statistics().idle == 1)
            proxy.pool.close_idle()
            await proxy.backend.peers[0].to_the_end()
            assert proxy.pool.statistics().active == 1
            proxy.backend.peers[1].send(OK)
            await eventually(lambda: len(proxy.outcomes) == 2)
            assert proxy.kinds == [OutcomeKind.COMPLETE] * 2
            assert len(clients) == 2

    run(main())


def test_a_system_clock_serves_a_pool_as_well() -> None:
    async def main() -> None:
        async with proxying(answering(), clock=SystemClock()) as proxy:
            assert await proxy.ask(GET) == OK

    run(main())


def test_closing_a_pool_tells_those_whose_answer_was_under_way() -> None:
    async def main() -> None:
        def half(peer: Peer) -> None:
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")

        async with proxying(half) as proxy:
            client = await proxy.client(GET)
            await client.until(lambda: client.received.endswith(b"half"))
            await proxy.pool.aclose()
            assert [outcome.kind for outcome in await proxy.ended()] == [OutcomeKind.LOST_DURING_RESPONSE]
            await client.until(lambda: client.closed)
            assert proxy.pool.statistics().active == 0

    run_fake(main())
