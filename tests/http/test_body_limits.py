"""A body beyond the limit is refused with 413: unread where its length says so, else where it exceeds."""

import asyncio

import pytest

from support.http import run, serving
from upwell.runtime.http.exchange import Exchange
from upwell.runtime.http.settings import HttpSettings

LIMITED = HttpSettings(max_body_bytes=100)
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


async def echo_length(exchange: Exchange) -> None:
    body = await exchange.read_body(10_000)
    exchange.respond(200, [], b"%d bytes" % len(body))


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (HEAD + b"Content-Length: 100\r\n\r\n" + b"x" * 100, b"200"),
        (HEAD + b"Content-Length: 101\r\n\r\n", b"413"),
        (HEAD + b"Content-Length: 999999999\r\n\r\n", b"413"),
        (CHUNKED + b"64\r\n" + b"x" * 100 + b"\r\n0\r\n\r\n", b"200"),
        (CHUNKED + b"65\r\n" + b"x" * 101 + b"\r\n0\r\n\r\n", b"413"),
        (CHUNKED + b"33\r\n" + b"x" * 51 + b"\r\n33\r\n" + b"x" * 51 + b"\r\n", b"413"),
    ],
)
def test_a_body_is_taken_up_to_the_limit(sent: bytes, status: bytes) -> None:
    async def scenario() -> bytes:
        async with serving(answer, LIMITED) as served:
            client = await served.client(sent)
            await client.until(lambda: b"\r\n\r\n" in client.received)
            return bytes(client.received)

    tasks = []

    def answer(exchange: Exchange) -> None:
        tasks.append(asyncio.ensure_future(echo_length(exchange)))

    assert run(scenario()).split(b" ", 2)[1] == status


def test_each_request_of_a_connection_has_the_limit_for_itself() -> None:
    one = CHUNKED + b"3c\r\n" + b"x" * 60 + b"\r\n0\r\n\r\n"

    async def scenario() -> bytes:
        async with serving(lambda exchange: exchange.respond(200, [], b"ok"), LIMITED) as served:
            client = await served.client(one * 3)
            await client.until(lambda: client.received.count(b"200 OK") == 3)
            return bytes(client.received)

    assert b"413" not in run(scenario())
