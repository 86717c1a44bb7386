"""Bodies of many packets arrive whole however they are cut, and their connections can be used again."""

from __future__ import annotations

import asyncio
import random

import pytest

from support.http import GET, OK, Peer, eventually, proxying, run, settle, silent
from upwell.runtime.http.chunks import ChunkedReader
from upwell.runtime.http.forward import OutcomeKind

BODY = random.Random(7).randbytes(200_000)
HEAD = b"HTTP/1.1 200 OK\r\n"
ENDINGS = {"length": BODY[-20:], "chunked": b"0\r\nx-sum: 1\r\n\r\n"}


def chunks(body: bytes, sizes: random.Random) -> bytes:
    coded = b""
    while body:
        size = sizes.choice((1, 7, 300, 20_000, 70_000))
        part, body = body[:size], body[size:]
        coded += b"%x\r\n%b\r\n" % (len(part), part)
    return coded + b"0\r\nX-Sum: 1\r\n\r\n"


def answer(framing: str, sizes: random.Random) -> bytes:
    if framing == "length":
        return HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
    return HEAD + b"trailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n" + chunks(BODY, sizes)


async def send_cut(peer: Peer, data: bytes, sizes: random.Random) -> None:
    """Send in pieces that are read one by one, small ones at the start."""
    piece = 20
    while data:
        peer.send(data[:piece])
        data = data[piece:]
        await settle(4)
        piece = sizes.choice((1, 100, 5_000, 60_000))


def decoded(received: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    body = received.partition(b"\r\n\r\n")[2]
    if b"content-length" in received.partition(b"\r\n\r\n")[0]:
        return body, []
    reader = ChunkedReader(1_000, 10)
    whole, rest = reader.decode(body)
    assert (reader.ended, rest) == (True, b"")
    return whole, reader.trailers


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_answer_in_pieces_arrives_whole_and_its_connection_serves_again(
    framing: str, seed: int, loop: str
) -> None:
    async def main() -> None:
        sizes = random.Random(seed)
        async with proxying(silent) as proxy:
            client = await proxy.client()
            for count in (1, 2):
                client.received.clear()
                client.send(GET)
                await eventually(lambda: proxy.backend.seen.count(b"\r\n\r\n") == count)  # noqa: B023
                await send_cut(proxy.backend.peers[0], answer(framing, sizes), sizes)
                await proxy.ended(count)
                await client.answer(ENDINGS[framing])
                trailers = [(b"x-sum", b"1")] if framing == "chunked" else []
                assert decoded(bytes(client.received)) == (BODY, trailers)
                assert proxy.served.finished[-1].bytes_sent == len(BODY)
            assert len(proxy.backend.peers) == 1
            assert proxy.pool.statistics().idle == 1

    run(main(), loop)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_request_body_in_pieces_arrives_whole_and_its_connection_serves_again(framing: str, loop: str) -> None:
    field = b"Content-Length: %d" % len(BODY) if framing == "length" else b"Transfer-Encoding: chunked"

    async def main() -> None:
        sizes = random.Random(1)
        async with proxying(silent) as proxy:
            client = await proxy.client(b"POST / HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n\r\n")
            body = BODY if framing == "length" else chunks(BODY, sizes)
            await send_cut(client, body, sizes)
            await eventually(lambda: bool(proxy.attempts) and proxy.attempts[0].exchange.body_complete)
            ending = BODY[-20:] if framing == "length" else b"\r\n0\r\n\r\n"
            await eventually(lambda: proxy.backend.seen.endswith(ending))
            sent = proxy.backend.seen.partition(b"\r\n\r\n")[2]
            if framing == "chunked":
                sent, rest = ChunkedReader(1_000, 10).decode(sent)
                assert rest == b""
            assert sent == BODY
            proxy.backend.peers[0].send(OK)
            assert await client.answer(b"ok") == OK
            assert proxy.pool.statistics().idle == 1

    run(main(), loop)


@pytest.mark.parametrize("surplus", [b"x", OK])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_what_follows_an_answer_of_many_packets_is_never_the_next_ones(framing: str, surplus: bytes) -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            client = await proxy.client(GET)
            await eventually(lambda: bool(proxy.backend.seen))
            whole = answer(framing, random.Random(2))
            proxy.backend.peers[0].send(whole[:100_000])
            await asyncio.sleep(0.05)
            proxy.backend.peers[0].send(whole[100_000:] + surplus)
            await proxy.ended()
            assert proxy.kinds == [OutcomeKind.COMPLETE]
            await client.answer(ENDINGS[framing])
            assert decoded(bytes(client.received))[0] == BODY
            assert proxy.pool.statistics().idle == 0

    run(main())
