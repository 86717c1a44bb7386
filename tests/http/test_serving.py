"""The server side: answers, keep-alive, pipelining, limits of time, drain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from support.http import GET, Peer, bound_socket, eventually, run, serving, settle, status_of
from upwell.functions.errors import AddressInUse, InvalidInput, InvalidSettings
from upwell.runtime.clock import SystemClock
from upwell.runtime.http.exchange import BodyIncomplete, BodyTooLarge, Exchange
from upwell.runtime.http.listen import bind
from upwell.runtime.http.messages import Headers
from upwell.runtime.http.server import ServerStatistics
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.loop import run_fake

HOST = b"Host: a.example.com\r\n"


def hello(exchange: Exchange) -> None:
    exchange.respond(200, [(b"content-type", b"text/plain")], b"ok")


def echo_target(exchange: Exchange) -> None:
    exchange.respond(200, [], exchange.request.target + b"\n")


class Keeper:
    """A handler that keeps its exchanges for the test to answer."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.gone: list[Exchange] = []

    def __call__(self, exchange: Exchange) -> None:
        exchange.on_gone = lambda: self.gone.append(exchange)
        self.exchanges.append(exchange)

    async def next(self, count: int) -> Exchange:
        await eventually(lambda: len(self.exchanges) >= count)
        return self.exchanges[count - 1]


class Collector:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.trailers: Headers | None = None
        self.calls: list[str] = []

    def data(self, data: bytes) -> None:
        self.received += data

    def end(self, trailers: Headers) -> None:
        self.trailers = trailers
        self.calls.append("end")

    def gone(self) -> None:
        self.calls.append("gone")

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")


def test_an_answer_has_its_length_and_date_and_the_connection_stays(loop: str) -> None:
    async def main() -> None:
        async with serving(hello) as served:
            client = await served.client(GET)
            answer = await client.answer(b"ok")
            assert answer.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ndate: ")
            assert answer.endswith(b" GMT\r\ncontent-length: 2\r\n\r\nok")
            client.received.clear()
            client.send(GET)
            assert status_of(await client.answer(b"ok")) == 200
            assert served.server.statistics() == ServerStatistics(
                connections=1,
                active=0,
                connections_total=1,
                exchanges_total=2,
                refused_total=0,
                gone_total=0,
            )
            assert repr(served.server) == "<HttpServer [listening, connections 1, active 0]>"

    run(main(), loop)


def test_the_request_is_read_as_it_was_sent() -> None:
    async def main() -> Exchange:
        async with serving(hello) as served:
            await served.ask(
                b"GET /a%20b/c?x=1&y HTTP/1.1\r\nHost: Hello.Example.COM:8080\r\nX-Two: 1\r\nx-two: 2\r\n\r\n"
            )
            return served.finished[0]

    exchange = run(main())
    head = exchange.request
    assert (head.method, head.target, head.path) == (b"GET", b"/a%20b/c?x=1&y", b"/a%20b/c")
    assert (head.host, head.version, head.keep_alive) == (b"hello.example.com", b"1.1", True)
    assert head.headers == [(b"host", b"Hello.Example.COM:8080"), (b"x-two", b"1"), (b"x-two", b"2")]
    assert head.header(b"x-two") == b"1"
    assert head.header(b"x-three") is None
    assert (exchange.client, exchange.scheme) == ("127.0.0.1", "http")


@pytest.mark.parametrize(
    ("target", "host", "path", "origin"),
    [
        (b"http://B.example.com:81/p?q", b"b.example.com", b"/p", b"/p?q"),
        (b"HTTP://b", b"b", b"/", b"/"),
        (b"http://b?q=1", b"b", b"/", b"/?q=1"),
        (b"https://[::1]:8/p", b"[::1]", b"/p", b"/p"),
    ],
)
def test_an_absolute_target_counts_more_than_the_host_field(
    target: bytes, host: bytes, path: bytes, origin: bytes
) -> None:
    async def main() -> Exchange:
        async with serving(hello) as served:
            await served.ask(b"GET " + target + b" HTTP/1.1\r\nHost: other\r\n\r\n")
            return served.finished[0]

    head = run(main()).request
    assert (head.target, head.host, head.path, head.origin_target) == (target, host, path, origin)
    assert [value for name, value in head.headers if name == b"host"] == [head.header(b"host")]
    assert head.header(b"host") != b"other"


def test_the_answer_to_head_declares_its_length_and_has_no_body() -> None:
    async def main() -> None:
        async with serving(hello) as served:
            client = await served.client(b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n" + GET)
            answer = await client.answer(b"ok")
            assert answer.count(b"content-length: 2\r\n") == 2
            assert answer.count(b"ok") == 1
            assert served.finished[0].bytes_sent == 0

    run(main())


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_gets_none(status: int) -> None:
    async def main() -> None:
        async with serving(lambda exchange: exchange.respond(status, [], b"never")) as served:
            client = await served.client(GET)
            answer = await client.answer(b"\r\n\r\n")
            assert status_of(answer) == status
            assert b"never" not in answer
            assert (b"content-length" in answer) == (status == 304)

    run(main())


def test_a_client_of_http_1_0_is_left_after_its_answer_unless_it_asks_otherwise() -> None:
    async def main() -> None:
        async with serving(hello) as served:
            client = await served.client(b"GET / HTTP/1.0\r\n\r\n")
            assert b"connection:" not in await client.to_the_end()
            client = await served.client(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
            assert b"connection: keep-alive\r\n" in await client.answer(b"ok")
            assert not client.closed

    run(main())


def test_connection_close_is_honoured_and_told() -> None:
    async def main() -> None:
        async with serving(hello) as served:
            client = await served.client(b"GET / HTTP/1.1\r\n" + HOST + b"Connection: x, Close\r\n\r\n")
            answer = await client.to_the_end()
            assert b"connection: close\r\n" in answer
            assert answer.endswith(b"ok")

    run(main())


def test_a_streamed_answer_is_chunked_for_http_1_1_and_ends_with_the_connection_for_1_0(loop: str) -> None:
    def stream(exchange: Exchange) -> None:
        exchange.start(200, [], None)
        exchange.write(b"one")
        exchange.write(b"")
        exchange.write(b"two")
        exchange.finish([(b"x-sum", b"6")])

    async def main() -> None:
        async with serving(stream) as served:
            answer = await served.ask(GET, b"0\r\n\r\n")
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b"transfer-encoding: chunked" in head
            assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
            answer = await served.ask(b"GET / HTTP/1.1\r\n" + HOST + b"TE: trailers\r\n\r\n", b"6\r\n\r\n")
            assert answer.endswith(b"0\r\nx-sum: 6\r\n\r\n")
            client = await served.client(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            answer = await client.to_the_end()
            assert b"transfer-encoding" not in answer
            assert answer.endswith(b"\r\n\r\nonetwo")
            assert b"connection" not in answer
            assert [exchange.bytes_sent for exchange in served.finished] == [6, 6, 6]

    run(main(), loop)


def test_an_answer_shorter_than_its_length_never_looks_complete() -> None:
    def short(exchange: Exchange) -> None:
        exchange.start(200, [], 10)
        exchange.write(b"12345")
        exchange.finish()

    async def main() -> None:
        async with serving(short) as served:
            client = await served.client(GET)
            await client.to_the_end()
            assert served.server.statistics().gone_total == 1

    run(main())


def test_a_header_that_would_break_out_is_refused_before_anything_is_written() -> None:
    errors: list[InvalidInput] = []

    def inject(exchange: Exchange) -> None:
        try:
            exchange.respond(200, [(b"x-a", b"1\r\nx-b: 2")], b"")
        except InvalidInput as error:
            errors.append(error)
            exchange.respond(500, [], b"ok")

    async def main() -> None:
        async with serving(inject) as served:
            answer = await served.ask(GET)
            assert status_of(answer) == 500
            assert b"x-b" not in answer

    run(main())
    assert len(errors) == 1


def test_a_handler_that_raises_gives_500_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    def broken(exchange: Exchange) -> None:
        raise LookupError("a secret")

    async def main() -> None:
        async with serving(broken) as served:
            answer = await served.ask(GET, b"Error\n")
            assert status_of(answer) == 500
            assert b"secret" not in answer

    run(main())
    assert "a secret" in caplog.text


def test_pipelined_requests_are_handled_one_at_a_time_and_answered_in_order(loop: str) -> None:
    async def main() -> None:
        keeper = Keeper()
        async with serving(keeper) as served:
            bodies = b"".join(
                b"POST /%d HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n1\r\n%d\r\n0\r\n\r\n" % (n, HOST, n)
                for n in range(5)
            )
            client = await served.client(bodies)
            for number in range(5):
                exchange = await keeper.next(number + 1)
                await settle()
                assert len(keeper.exchanges) == number + 1
                assert exchange.request.target == b"/%d" % number
                assert exchange.body == b"%d" % number
                exchange.respond(200, [], exchange.request.target)
            answer = await client.answer(b"/4")
            assert [part[-2:] for part in answer.split(b"HTTP/1.1 200 OK")[1:]] == [
                b"/%d" % number for number in range(5)
            ]

    run(main(), loop)


def test_a_flood_of_pipelined_requests_is_answered_in_full_and_in_order() -> None:
    async def main() -> None:
        async with serving(echo_target) as served:
            requests = [b"GET /%d HTTP/1.1\r\n%b\r\n" % (number, HOST) for number in range(5_000)]
            client = await served.client(b"".join(requests))
            answer = await client.answer(b"\r\n\r\n/4999\n")
            assert [int(line[1:]) for line in answer.split(b"\n") if line.startswith(b"/")] == list(range(5_000))

    run(main())


def test_while_a_request_is_under_way_what_a_client_sends_ahead_stays_unread() -> None:
    async def main() -> None:
        keeper = Keeper()
        async with serving(keeper) as served:
            client = await served.client(GET)
            exchange = await keeper.next(1)
            client.send(GET * 200_000)
            await asyncio.sleep(0.05)
            assert client.transport.get_write_buffer_size() > 1_000_000
            assert len(keeper.exchanges) == 1
            client.transport.abort()
            exchange.abort()

    run(main())


def test_a_client_that_leaves_is_noticed_while_its_request_is_under_way(loop: str) -> None:
    async def main() -> None:
        keeper = Keeper()
        async with serving(keeper) as served:
            client = await served.client(GET)
            exchange = await keeper.next(1)
            client.close()
            await eventually(lambda: exchange.finished)
            assert keeper.gone == [exchange]
            assert served.finished == [exchange]
            exchange.respond(200, [], b"too late")
            assert exchange.status == 0
            assert served.server.statistics().gone_total == 1
            assert served.server.statistics().active == 0

    run(main(), loop)


def test_a_body_is_held_to_its_limit_and_then_waits_in_the_network() -> None:
    async def main() -> None:
        keeper = Keeper()
        async with serving(keeper, HttpSettings(hold_bytes=10_000)) as served:
            size = 8_000_000
            client = await served.client(b"POST / HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (HOST, size))
            exchange = await keeper.next(1)
            client.send(b"x" * size)
            await eventually(lambda: exchange.bytes_received > 10_000)
            await asyncio.sleep(0.05)
            assert exchange.bytes_received < 1_000_000
            replayable = [exchange.body_replayable]
            sink = Collector()
            exchange.attach(sink)
            await eventually(lambda: sink.calls == ["end"])
            assert len(sink.received) == size
            replayable.append(exchange.body_replayable)
            assert replayable == [True, False]
            with pytest.raises(RuntimeError, match="taken"):
                exchange.attach(Collector())
            exchange.respond(200, [], b"ok")
            assert status_of(await client.answer(b"ok")) == 200

    run(main())


def test_a_small_body_can_be_taken_again_and_again() -> None:
    async def main() -> None:
        keeper = Keeper()
        async with serving(keeper) as served:
            client = await served.client(b"POST / HTTP/1.1\r\n%bContent-Length: 6\r\n\r\nabc" % HOST)
            exchange = await keeper.next(1)
            bodies = [exchange.body]
            for _ in range(3):
                sink = Collector()
                exchange.attach(sink)
                assert sink.received == b"abc"
                exchange.detach(sink)
            exchange.attach(sink)
            client.send(b"def")
            await eventually(lambda: sink.calls == ["end"])
            bodies.append(exchange.body)
            assert bodies == [None, b"abcdef"]
            exchange.respond(200, [], b"ok")

    run(main())


def test_trailers_of_a_request_reach_its_sink() -> None:
    async def main() -> None:
        keeper = Keeper()
        async with serving(keeper) as served:
            await served.client(
                b"POST / HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n3;x=1\r\nabc\r\n0\r\nX-Sum: 3 \r\n\r\n"
                % HOST
            )
            sink = Collector()
            (await keeper.next(1)).attach(sink)
            assert (bytes(sink.received), sink.trailers) == (b"abc", [(b"x-sum", b"3")])

    run(main())


def reading(limit: int, results: list[object]) -> tuple[Callable[[Exchange], None], list[asyncio.Task[None]]]:
    tasks: list[asyncio.Task[None]] = []

    async def read(exchange: Exchange) -> None:
        try:
            results.append(await exchange.read_body(limit))
            exchange.respond(200, [], b"ok")
        except InvalidInput as error:
            results.append(type(error))
            exchange.respond(error.status, [], b"no")

    return lambda exchange: tasks.append(asyncio.ensure_future(read(exchange))), tasks


def test_read_body_gives_the_whole_body_and_tells_a_waiting_client_to_go_on(loop: str) -> None:
    async def main() -> None:
        results: list[object] = []
        handler, tasks = reading(100, results)
        async with serving(handler) as served:
            client = await served.client(
                b"POST / HTTP/1.1\r\n%bExpect: 100-continue\r\nContent-Length: 6\r\n\r\n" % HOST
            )
            assert await client.answer(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b"abc")
            await settle()
            client.send(b"def")
            assert b"HTTP/1.1 200 OK" in await client.answer(b"ok")
            assert results == [b"abcdef"]
            await asyncio.gather(*tasks)

    run(main(), loop)


def test_read_body_refuses_a_body_beyond_its_limit_declared_or_not() -> None:
    async def main() -> None:
        results: list[object] = []
        handler, tasks = reading(5, results)
        async with serving(handler) as served:
            answer = await served.ask(b"POST / HTTP/1.1\r\n%bContent-Length: 6\r\n\r\nabcdef" % HOST, b"no")
            assert status_of(answer) == 413
            client = await served.client(
                b"POST / HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n" % HOST
            )
            answer = await client.to_the_end()
            assert status_of(answer) == 413
            assert b"connection: close" in answer
            assert results == [BodyTooLarge, BodyTooLarge]
            await asyncio.gather(*tasks)

    run(main())


def test_read_body_fails_when_the_client_leaves() -> None:
    async def main() -> None:
        results: list[object] = []
        handler, tasks = reading(100, results)
        async with serving(handler) as served:
            client = await served.client(b"POST / HTTP/1.1\r\n%bContent-Length: 6\r\n\r\nabc" % HOST)
            await eventually(lambda: bool(tasks))
            client.close()
            await eventually(lambda: results == [BodyIncomplete])
            await asyncio.gather(*tasks)

    run(main())


def test_the_small_rest_of_an_unwanted_body_is_read_away_and_the_connection_kept() -> None:
    async def main() -> None:
        async with serving(hello) as served:
            client = await served.client(b"POST / HTTP/1.1\r\n%bContent-Length: 100000\r\n\r\n" % HOST)
            assert b"connection: close" not in await client.answer(b"ok")
            client.send(b"x" * 100_000 + b"GET /next HTTP/1.1\r\n%b\r\n" % HOST)
            await eventually(lambda: len(served.finished) == 2)
            assert served.finished[1].request.target == b"/next"
            assert served.server.statistics().connections_total == 1

    run(main())


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 10000000", b"Transfer-Encoding: chunked", b"Expect: 100-continue\r\nContent-Length: 9"],
)
def test_after_an_answer_to_an_unread_body_the_connection_closes_but_the_answer_arrives(
    framing: bytes, loop: str
) -> None:
    async def main() -> None:
        async with serving(hello) as served:
            client = await served.client(b"POST / HTTP/1.1\r\n%b%b\r\n\r\n" % (HOST, framing))
            answer = await client.answer(b"ok")
            assert b"connection: close\r\n" in answer
            client.send(b"8\r\n12345678\r\n")
            await client.to_the_end()
            assert client.received == answer
            assert len(served.finished) == 1

    run(main(), loop)


def test_a_listening_port_that_is_taken_is_an_error_that_says_so() -> None:
    with bound_socket() as taken:
        taken.listen()
        with pytest.raises(AddressInUse, match=r"is used by another process\n  Choose another with --port"):
            bind(("127.0.0.1",), taken.getsockname()[1], "--port")


def test_an_address_that_is_not_this_machines_is_an_error_that_says_so() -> None:
    with pytest.raises(InvalidSettings, match=r"--host 192\.0\.2\.1: cannot listen there"):
        bind(("192.0.2.1",), 0, "--port")


def test_hosts_share_one_port() -> None:
    listeners = bind(("127.0.0.1", "127.0.0.2"), 0, "--port")
    assert len({listener.getsockname()[1] for listener in listeners}) == 1
    for listener in listeners:
        listener.close()


def test_connections_beyond_the_limit_are_answered_and_closed_while_all_are_in_use() -> None:
    async def main() -> None:
        keeper = Keeper()
        async with serving(keeper, HttpSettings(max_connections=2)) as served:
            clients = [await served.client(GET) for _ in range(2)]
            await eventually(lambda: served.server.statistics().active == 2)
            answer = await (await served.client(GET)).to_the_end()
            assert status_of(answer) == 503
            assert not any(client.closed for client in clients)
            clients[0].transport.abort()
            await eventually(lambda: served.server.statistics().connections == 1)
            await served.client(GET)
            await eventually(lambda: served.server.statistics().active == 2)

    run(main())


def test_a_connection_that_nobody_uses_gives_way_to_another_the_longest_open_first() -> None:
    async def main() -> None:
        async with serving(hello, HttpSettings(max_connections=3)) as served:
            half = await served.client(GET[:10])
            await eventually(lambda: any(each._partial for each in served.server.connections))
            old = await served.client(GET)
            await old.answer(b"ok")
            fresh = await served.client(b"")
            await eventually(lambda: served.server.statistics().connections == 3)
            new = await served.client(GET)
            assert status_of(await new.answer(b"ok")) == 200
            await old.until(lambda: old.closed)
            assert not half.closed
            newer = await served.client(GET)
            assert status_of(await newer.answer(b"ok")) == 200
            await fresh.until(lambda: fresh.closed)
            assert not new.closed
            half.send(GET[10:])
            assert status_of(await half.answer(b"ok")) == 200

    run(main())


def test_drain_closes_idle_connections_at_once_and_finishes_what_is_under_way(loop: str) -> None:
    async def main() -> None:
        keeper = Keeper()
        async with serving(keeper) as served:
            idle = await served.client()
            busy = await served.client(GET)
            exchange = await keeper.next(1)
            await eventually(lambda: served.server.statistics().connections == 2)
            draining = asyncio.ensure_future(served.server.drain(SystemClock().monotonic() + 60))
            await idle.to_the_end()
            assert not draining.done()
            assert repr(served.server) == "<HttpServer [draining, connections 1, active 1]>"
            exchange.respond(200, [], b"ok")
            answer = await busy.to_the_end()
            assert b"connection: close\r\n" in answer
            assert answer.endswith(b"ok")
            await draining
            with pytest.raises(OSError, match=r"refused|Connect call failed"):
                await served.client()

    run(main(), loop)


def test_drain_cuts_off_what_is_left_at_its_deadline() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        keeper = Keeper()
        async with serving(keeper, clock=FakeClock(loop=loop)) as served:
            client = await served.client(GET)
            exchange = await keeper.next(1)
            started = loop.time()
            await served.server.drain(started + 30)
            assert 30 <= loop.time() - started < 30.1
            assert exchange.finished
            await client.to_the_end()
            assert served.server.statistics().connections == 0

    run_fake(main())


async def closed_after(client: Peer) -> float:
    """Seconds until the server closes the connection."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    await client.until(lambda: client.ended or client.closed)
    return loop.time() - started


def test_limits_of_time_close_slow_and_idle_connections() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        keeper = Keeper()
        async with serving(keeper, clock=FakeClock(loop=loop)) as served:
            never_spoke = await served.client()
            assert 10 <= await closed_after(never_spoke) < 10.2
            assert never_spoke.received == b""

            slow_head = await served.client(b"GET / HTTP/1.1\r\n")
            for _ in range(9):
                await asyncio.sleep(1)
                slow_head.send(b"X: y\r\n")
            assert 1 <= await closed_after(slow_head) < 1.2
            assert status_of(bytes(slow_head.received)) == 408

            slow_body = await served.client(b"POST / HTTP/1.1\r\n%bContent-Length: 9\r\n\r\n" % HOST)
            exchange = await keeper.next(1)
            for _ in range(3):
                await asyncio.sleep(50)
                slow_body.send(b"x")
            assert 60 <= await closed_after(slow_body) < 60.2
            assert status_of(bytes(slow_body.received)) == 408
            assert keeper.gone == [exchange]
            assert exchange.status == 408

            idle = await served.client(GET)
            (await keeper.next(2)).respond(200, [], b"ok")
            await idle.answer(b"ok")
            assert 75 <= await closed_after(idle) < 75.2

    run_fake(main())


def test_a_request_under_way_has_no_limit_of_the_engine_and_keep_alive_starts_after_it() -> None:
    async def main() -> None:
        keeper = Keeper()
        async with serving(keeper, clock=FakeClock(loop=asyncio.get_running_loop())) as served:
            client = await served.client(GET)
            exchange = await keeper.next(1)
            await asyncio.sleep(3_600)
            assert not client.closed
            exchange.respond(200, [], b"ok")
            await client.answer(b"ok")
            assert 75 <= await closed_after(client) < 75.2

    run_fake(main())


def test_a_client_that_does_not_read_pauses_the_source_and_is_cut_off_in_the_end() -> None:
    async def main() -> None:
        keeper = Keeper()
        async with serving(keeper, clock=FakeClock(loop=asyncio.get_running_loop())) as served:
            client = await served.client(GET)
            exchange = await keeper.next(1)
            sink = Collector()
            exchange.attach(sink)
            client.transport.pause_reading()
            exchange.start(200, [], None)
            while "pause" not in sink.calls:
                exchange.write(b"x" * 65_536)
            started = asyncio.get_running_loop().time()
            await eventually(lambda: exchange.finished)
            assert 60 <= asyncio.get_running_loop().time() - started < 60.5
            assert sink.calls == ["end", "pause", "gone"]
            client.transport.abort()

    run_fake(main())


def test_exchanges_and_heads_say_what_they_are() -> None:
    async def main() -> None:
        keeper = Keeper()
        async with serving(keeper) as served:
            client = await served.client(b"POST /a HTTP/1.1\r\n%bContent-Length: 3\r\n\r\nabc" % HOST)
            exchange = await keeper.next(1)
            assert repr(exchange) == "<Exchange POST /a waiting, status 0, received 3, sent 0>"
            assert repr(exchange.request) == "<RequestHead b'POST' b'/a' host b'a.example.com', 2 headers>"
            exchange.start(200, [], 4)
            exchange.write(b"ab")
            assert repr(exchange) == "<Exchange POST /a responded, status 200, received 3, sent 2>"
            with pytest.raises(RuntimeError, match="already begun"):
                exchange.respond(500, [])
            exchange.write(b"cd")
            exchange.finish()
            assert repr(exchange) == "<Exchange POST /a finished, status 200, received 3, sent 4>"
            await client.answer(b"abcd")

    run(main())
