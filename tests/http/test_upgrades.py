"""Upgrades: two connections spliced into one, and nothing tunnelled that the back end did not agree to."""

from __future__ import annotations

import asyncio

import pytest

from support.http import GET, OK, Peer, Proxy, answering, eventually, proxying, run, settle, silent, status_of
from upwell.runtime.http.forward import Outcome, OutcomeKind
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.loop import run_fake

HOST = b"Host: a.example.com\r\n"
UPGRADE = b"GET /ws HTTP/1.1\r\n" + HOST + b"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nX-A: 1\r\n\r\n"
ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nx-a: 1\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"


class HalfOpen(Peer):
    """A peer that stays open when the other side ends."""

    def eof_received(self) -> bool:
        super().eof_received()
        return True


def agreeing(peer: Peer) -> None:
    """Switches at the head's end, then sends each piece back in capitals."""
    end = peer.received.find(b"\r\n\r\n")
    if not peer.handled and end >= 0:
        peer.handled = end + 4
        peer.send(SWITCHING)
    if peer.handled and len(peer.received) > peer.handled:
        peer.send(bytes(peer.received[peer.handled :]).upper())
        peer.handled = len(peer.received)


async def half_open(proxy: Proxy, data: bytes) -> HalfOpen:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(HalfOpen, "127.0.0.1", proxy.served.port)
    proxy.served.clients.append(client)
    client.send(data)
    return client


async def spliced(proxy: Proxy) -> tuple[HalfOpen, Peer]:
    """A client and its back end behind a switch that the test's back end is asked for by hand."""
    client = await half_open(proxy, UPGRADE)
    await eventually(lambda: proxy.backend.seen.endswith(b"\r\n\r\n"))
    server = proxy.backend.peers[-1]
    server.send(SWITCHING)
    await client.answer(ANSWER)
    client.received.clear()
    server.received.clear()
    return client, server


def test_bytes_pass_both_ways_until_both_sides_have_ended(loop: str) -> None:
    async def main() -> None:
        async with proxying(agreeing) as proxy:
            client = await proxy.client(UPGRADE)
            assert await client.answer(b"\r\n\r\n") == ANSWER
            assert proxy.backend.seen == (
                b"GET /ws HTTP/1.1\r\nhost: a.example.com\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\r\n"
            )
            assert [status for status, _ in proxy.attempts[0].heads] == [101]
            client.send(b"one")
            await client.answer(b"ONE")
            client.send(b"two")
            await client.answer(b"ONETWO")
            assert proxy.outcomes == []
            assert proxy.served.server.statistics().active == 1
            proxy.backend.peers[0].close()
            await client.to_the_end()
            assert not client.reset
            assert await proxy.ended() == [Outcome(OutcomeKind.COMPLETE, 101, False, True, "")]
            (exchange,) = proxy.served.finished
            assert (exchange.status, exchange.bytes_received, exchange.bytes_sent) == (101, 6, 6)
            await eventually(lambda: proxy.pool.statistics().active == 0)

    run(main(), loop)


def test_bytes_that_follow_either_head_at_once_are_passed_on_in_order(loop: str) -> None:
    def script(peer: Peer) -> None:
        if not peer.handled and b"\r\n\r\n" in peer.received:
            peer.handled = 1
            peer.send(SWITCHING + b"hello ")

    async def main() -> None:
        async with proxying(script) as proxy:
            client = await proxy.client(UPGRADE + b"early ")
            assert await client.answer(b"hello ") == ANSWER + b"hello "
            await eventually(lambda: proxy.backend.seen.endswith(b"\r\n\r\nearly "))
            client.send(b"later")
            proxy.backend.peers[0].send(b"again")
            await eventually(lambda: proxy.backend.seen.endswith(b"\r\n\r\nearly later"))
            assert await client.answer(b"again") == ANSWER + b"hello again"

    run(main(), loop)


def test_what_a_client_sends_before_the_switch_waits_however_much_it_is(loop: str) -> None:
    early = bytes(range(256)) * 4_000

    async def main() -> None:
        async with proxying(silent) as proxy:
            client = await proxy.client(UPGRADE + early)
            await eventually(lambda: proxy.backend.seen.endswith(b"\r\n\r\n"))
            await settle(100)
            assert proxy.backend.seen.endswith(b"\r\n\r\n")
            proxy.backend.peers[0].send(SWITCHING)
            await client.answer(ANSWER)
            await eventually(lambda: len(proxy.backend.seen.partition(b"\r\n\r\n")[2]) == len(early))
            assert proxy.backend.seen.endswith(early)

    run(main(), loop)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_the_body_of_an_upgrade_request_ends_before_the_new_protocol_begins(framing: str, loop: str) -> None:
    field = b"Content-Length: 6\r\n" if framing == "length" else b"Transfer-Encoding: chunked\r\n"
    body = (b"abc", b"def") if framing == "length" else (b"3\r\nabc\r\n", b"3\r\ndef\r\n0\r\n\r\n")
    request = UPGRADE.replace(b"GET", b"POST").replace(HOST, HOST + field)

    async def main() -> None:
        async with proxying(silent) as proxy:
            client = await proxy.client(request + body[0])
            await eventually(lambda: proxy.backend.seen.endswith(body[0]))
            proxy.backend.peers[0].send(SWITCHING)
            await client.answer(ANSWER)
            client.send(body[1] + b"new")
            await eventually(lambda: proxy.backend.seen.endswith(body[1] + b"new"))
            client.send(b"er")
            await eventually(lambda: proxy.backend.seen.endswith(b"newer"))
            proxy.backend.peers[0].send(b"yes")
            await client.answer(b"yes")
            client.send(b"3\r\nabc\r\n")
            await eventually(lambda: proxy.backend.seen.endswith(b"newer3\r\nabc\r\n"))

    run(main(), loop)


def test_a_client_that_ends_its_side_still_gets_what_the_back_end_says(loop: str) -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            made: list[HalfOpen] = []

            def accept() -> HalfOpen:
                made.append(HalfOpen())
                return made[-1]

            path = proxy.pool.endpoint.path + "2"
            other = await asyncio.get_running_loop().create_unix_server(accept, path)
            object.__setattr__(proxy.pool.endpoint, "path", path)
            client = await half_open(proxy, UPGRADE)
            await eventually(lambda: bool(made) and made[0].received.endswith(b"\r\n\r\n"))
            made[0].send(SWITCHING)
            await client.answer(ANSWER)
            client.transport.write_eof()
            await eventually(lambda: made[0].ended)
            made[0].send(b"last words")
            await client.answer(b"last words")
            assert proxy.outcomes == []
            made[0].transport.write_eof()
            await eventually(lambda: client.ended)
            await proxy.ended()
            assert proxy.kinds == [OutcomeKind.COMPLETE]
            made[0].close()
            await eventually(lambda: proxy.served.server.statistics().active == 0)
            other.close()

    run(main(), loop)


def test_a_back_end_that_ends_its_side_still_gets_what_the_client_says(loop: str) -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            client, server = await spliced(proxy)
            server.transport.write_eof()
            await eventually(lambda: client.ended)
            client.send(b"and another thing")
            await eventually(lambda: server.received == b"and another thing")
            assert proxy.outcomes == []
            client.transport.write_eof()
            await proxy.ended()
            assert proxy.kinds == [OutcomeKind.COMPLETE]
            await server.to_the_end()

    run(main(), loop)


def test_a_client_that_leaves_ends_the_back_end_and_loses_nothing_it_sent(loop: str) -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            client, server = await spliced(proxy)
            client.send(b"x" * 3_000_000)
            client.close()
            await server.until(lambda: server.ended or server.closed)
            assert len(server.received) == 3_000_000
            await proxy.ended()
            assert proxy.served.server.statistics().active == 0

    run(main(), loop)


@pytest.mark.parametrize("slow", ["client", "back end"])
def test_the_slower_side_sets_the_pace_and_nothing_is_lost(slow: str, loop: str) -> None:
    size = 16_000_000

    async def main() -> None:
        async with proxying(silent) as proxy:
            client, server = await spliced(proxy)
            sender, receiver = (server, client) if slow == "client" else (client, server)
            receiver.transport.pause_reading()
            sender.send(b"x" * size)
            await asyncio.sleep(0.1)
            exchange = proxy.attempts[0].exchange
            assert exchange.bytes_sent + exchange.bytes_received < 8_000_000
            receiver.transport.resume_reading()
            await receiver.until(lambda: len(receiver.received) == size)
            sender.send(b"end")
            await receiver.answer(b"xend")
            receiver.send(b"back")
            await sender.answer(b"back")

    run(main(), loop)


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 426 No\r\nConnection: upgrade\r\nUpgrade: websocket\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: websocket\r\ncontent-length: 2\r\n\r\nok",
    ],
    ids=["200", "426", "200 with the fields of a switch"],
)
def test_another_answer_is_an_ordinary_one_and_what_follows_is_a_request(answer: bytes, loop: str) -> None:
    async def main() -> None:
        async with proxying(answering(answer)) as proxy:
            client = await proxy.client(UPGRADE + b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n")
            await client.until(lambda: client.received.count(b"\r\n\r\nok") == 2)
            assert [exchange.request.path for exchange in proxy.served.finished] == [b"/ws", b"/smuggled"]
            assert b"upgrade" not in client.received.lower().replace(b"426 upgrade required", b"")
            assert proxy.kinds == [OutcomeKind.COMPLETE] * 2
            assert proxy.pool.statistics().idle == 1

    run(main(), loop)


def test_a_back_end_that_did_not_switch_gets_no_bytes_that_are_no_request() -> None:
    async def main() -> None:
        async with proxying(answering(OK)) as proxy:
            client = await proxy.client(UPGRADE + b"\x81\x05hello\r\n\r\n")
            received = await client.to_the_end()
            assert received.startswith(OK + b"HTTP/1.1 400 ")
            assert b"hello" not in proxy.backend.seen

    run(main())


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (GET, SWITCHING),
        (UPGRADE, SWITCHING.replace(b"websocket", b"other")),
        (UPGRADE, SWITCHING.replace(b"websocket", b"websocket, other")),
        (UPGRADE, SWITCHING.replace(b"Upgrade: websocket\r\n", b"")),
        (UPGRADE, SWITCHING.replace(b"Connection: upgrade\r\n", b"")),
        (UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0"), SWITCHING),
        (UPGRADE.replace(b"WebSocket", b"h2c"), SWITCHING.replace(b"websocket", b"h2c")),
    ],
    ids=["unasked", "another", "one too many", "nameless", "no option", "HTTP/1.0", "h2c"],
)
def test_a_switch_to_what_was_not_asked_for_is_a_broken_answer(request_: bytes, answer: bytes, loop: str) -> None:
    def script(peer: Peer) -> None:
        if peer.received.endswith(b"\r\n\r\n") and not peer.handled:
            peer.handled = 1
            peer.send(answer + b"bytes")

    async def main() -> None:
        async with proxying(script) as proxy:
            assert status_of(await proxy.ask(request_, b"bad")) == 502
            assert proxy.kinds == [OutcomeKind.BAD_RESPONSE]
            await proxy.backend.peers[0].to_the_end()

    run(main(), loop)


@pytest.mark.parametrize(
    ("fields", "passed"),
    [
        (b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", b""),
        (b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", b""),
        (b"Connection: Upgrade\r\nUpgrade: H2C, foo/1\r\n", b"connection: Upgrade\r\nupgrade: foo/1\r\n"),
        (b"Connection: Upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n", b"connection: Upgrade\r\nupgrade: a, b\r\n"),
        (b"Connection: Upgrade\r\nUpgrade: web socket\r\n", b""),
        (b"Connection: Upgrade\r\nUpgrade: \xff\r\n", b""),
        (b"Connection: Upgrade\r\n", b""),
        (b"Upgrade: websocket\r\n", b""),
        (b"Connection: close, upgrade\r\nUpgrade: a\r\n", b"connection: Upgrade\r\nupgrade: a\r\n"),
    ],
)
def test_only_an_upgrade_that_can_be_meant_is_passed_on(fields: bytes, passed: bytes) -> None:
    async def main() -> None:
        async with proxying(answering()) as proxy:
            assert status_of(await proxy.ask(b"GET / HTTP/1.1\r\n" + HOST + fields + b"\r\n")) == 200
            assert proxy.backend.seen == b"GET / HTTP/1.1\r\nhost: a.example.com\r\n" + passed + b"\r\n"

    run(main())


def test_an_upgrade_of_http_1_0_is_not_passed_on() -> None:
    async def main() -> None:
        async with proxying(answering()) as proxy:
            assert status_of(await proxy.ask(UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0"))) == 200
            assert b"pgrade" not in proxy.backend.seen

    run(main())


def test_a_spliced_connection_has_no_limit_of_the_engine() -> None:
    async def main() -> None:
        clock = FakeClock(loop=asyncio.get_running_loop())
        async with proxying(agreeing, clock=clock) as proxy:
            client = await proxy.client(UPGRADE)
            await client.answer(b"\r\n\r\n")
            await asyncio.sleep(3_600)
            client.send(b"still here")
            await client.answer(b"STILL HERE")

    run_fake(main())


def test_its_owner_may_end_it_and_both_sides_are_closed_cleanly(loop: str) -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            client, server = await spliced(proxy)
            server.send(b"x" * 100_000)
            await client.until(lambda: len(client.received) == 100_000)
            forwarding = proxy.attempts[0].forwarding
            assert forwarding is not None
            forwarding.cancel()
            assert proxy.kinds == [OutcomeKind.CANCELLED]
            await client.until(lambda: client.ended)
            client.close()
            await client.to_the_end()
            assert not client.reset
            await server.to_the_end()
            await eventually(lambda: not proxy.served.server.connections)

    run(main(), loop)


def test_a_retired_back_end_keeps_its_spliced_connections_until_it_is_cut_off(loop: str) -> None:
    async def main() -> None:
        async with proxying(agreeing) as proxy:
            client = await proxy.client(UPGRADE)
            await client.answer(b"\r\n\r\n")
            proxy.pool.retire()
            client.send(b"still")
            await client.answer(b"STILL")
            proxy.pool.abandon("the replica is gone")
            await client.to_the_end()
            assert not client.reset
            assert proxy.kinds == [OutcomeKind.LOST_DURING_RESPONSE]

    run(main(), loop)


def test_a_draining_server_lets_it_be_until_the_deadline() -> None:
    async def main() -> None:
        clock = FakeClock(loop=asyncio.get_running_loop())
        async with proxying(agreeing, HttpSettings(), clock=clock) as proxy:
            client = await proxy.client(UPGRADE)
            await client.answer(b"\r\n\r\n")
            started = clock.monotonic()
            draining = asyncio.ensure_future(proxy.served.server.drain(started + 30))
            await asyncio.sleep(20)
            client.send(b"still")
            await client.answer(b"STILL")
            await draining
            assert 30 <= clock.monotonic() - started < 30.5
            await client.to_the_end()

    run_fake(main())


def test_a_client_told_to_wait_is_told_to_go_on_before_the_switch() -> None:
    request = UPGRADE.replace(HOST, HOST + b"Expect: 100-continue\r\nContent-Length: 3\r\n")

    async def main() -> None:
        async with proxying(silent) as proxy:
            client = await proxy.client(request)
            await eventually(lambda: proxy.backend.seen.endswith(b"\r\n\r\n"))
            proxy.backend.peers[0].send(SWITCHING)
            assert await client.answer(ANSWER) == b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER
            client.send(b"abcnew")
            await eventually(lambda: proxy.backend.seen.endswith(b"\r\n\r\nabcnew"))

    run(main())
