"""TLS in front of the engine: what passes through it, and certificates that change while it runs."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.http import Peer, Served, backend, eventually, run
from upwell.functions.errors import InvalidSettings
from upwell.runtime.clock import SystemClock
from upwell.runtime.http.exchange import Exchange
from upwell.runtime.http.forward import Outcome, forward
from upwell.runtime.http.listen import bind
from upwell.runtime.http.messages import Headers
from upwell.runtime.http.server import Handler, HttpServer
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.http.tls import Certificate
from upwell.runtime.http.upstream import UpstreamPool
from upwell.runtime.timers import TimerWheel

HERE = Path(__file__).parent / "certificates"
FIRST = HERE / "first.pem"
SECOND = HERE / "second.pem"
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Observer:
    def response_head(self, status: int, headers: Headers) -> None: ...

    def completed(self, outcome: Outcome) -> None: ...


def telling(exchange: Exchange) -> None:
    exchange.respond(200, [], exchange.scheme.encode())


@asynccontextmanager
async def serving(certificate: Certificate, handler: Handler = telling) -> AsyncIterator[Served]:
    clock = SystemClock()
    server = HttpServer(handler, HttpSettings(head_timeout=0.5), clock)
    (listener,) = bind(("127.0.0.1",), 0, "--tls-port")
    served = Served(server, listener.getsockname()[1])
    await server.start([listener], certificate.context)
    try:
        yield served
    finally:
        await server.drain(clock.monotonic())


def trusting(*certificates: Path, protocols: tuple[str, ...] = ("h2", "http/1.1")) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for certificate in certificates:
        context.load_verify_locations(certificate)
    context.set_alpn_protocols(list(protocols))
    return context


async def connected(served: Served, context: ssl.SSLContext, name: str = "localhost") -> Peer:
    loop = asyncio.get_running_loop()
    _, peer = await loop.create_connection(Peer, "127.0.0.1", served.port, ssl=context, server_hostname=name)
    return peer


async def subject(served: Served) -> str:
    """The name in the certificate that a new connection is shown."""
    peer = await connected(served, trusting(FIRST, SECOND))
    shown = peer.transport.get_extra_info("peercert")["subject"]
    peer.close()
    return str(shown[0][0][1])


def test_requests_pass_one_after_another_and_the_protocol_is_agreed_on(loop: str) -> None:
    async def main() -> None:
        async with serving(Certificate(FIRST)) as served:
            peer = await connected(served, trusting(FIRST), "hello.default.example.com")
            assert peer.transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            for _ in range(3):
                peer.received.clear()
                peer.send(GET)
                assert b" 200 " in await peer.answer(b"https")
            peer.send(b"nonsense\r\n\r\n")
            assert b" 400 " in await peer.to_the_end()

    run(main(), loop)


def test_a_large_answer_and_a_large_body_pass_whole(loop: str) -> None:
    size = 3_000_000

    def echo(exchange: Exchange) -> None:
        async def answer() -> None:
            exchange.respond(200, [], await exchange.read_body(size))

        tasks.append(asyncio.get_running_loop().create_task(answer()))

    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        async with serving(Certificate(FIRST), echo) as served:
            peer = await connected(served, trusting(FIRST))
            body = os.urandom(size)
            peer.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size + body)
            await peer.until(lambda: len(peer.received) > size)
            assert (await peer.answer(body[-100:])).endswith(body)
            await asyncio.gather(*tasks)

    run(main(), loop)


def test_an_upgraded_connection_passes_both_ways_until_it_ends(loop: str) -> None:
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

    def script(peer: Peer) -> None:
        if not peer.handled:
            peer.handled = len(peer.received)
            peer.send(switching)
        else:
            peer.send(bytes(peer.received[peer.handled :]).upper())
            peer.handled = len(peer.received)

    async def main() -> None:
        clock = SystemClock()
        async with backend(script) as behind:
            pool = UpstreamPool(behind.endpoint, HttpSettings(), clock, TimerWheel(asyncio.get_running_loop()))

            def handle(exchange: Exchange) -> None:
                forward(exchange, pool, add=[], drop=frozenset(), observer=Observer())

            async with serving(Certificate(FIRST), handle) as served:
                peer = await connected(served, trusting(FIRST))
                peer.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                await peer.answer(b"\r\n\r\n")
                for words in (b"hello", b"again"):
                    peer.send(words)
                    await peer.answer(words.upper())
                peer.close()
                await eventually(lambda: behind.peers[0].closed and not served.server.connections)
            await pool.aclose()

    run(main(), loop)


def test_a_changed_certificate_is_shown_to_new_connections_and_open_ones_stay(loop: str, tmp_path: Path) -> None:
    files = tmp_path / "tls.pem"
    files.write_bytes(FIRST.read_bytes())

    async def main() -> None:
        certificate = Certificate(files)
        async with serving(certificate) as served:
            assert await subject(served) == "first"
            old = await connected(served, trusting(FIRST))
            assert not certificate.reload(), "nothing changed"
            replace(files, SECOND.read_bytes())
            assert certificate.reload()
            assert await subject(served) == "second"
            old.send(GET)
            assert b" 200 " in await old.answer(b"https")

    run(main(), loop)


def test_it_is_looked_for_while_the_server_runs(tmp_path: Path) -> None:
    files = tmp_path / "tls.pem"
    files.write_bytes(FIRST.read_bytes())

    async def main() -> None:
        certificate = Certificate(files)
        looking = asyncio.create_task(certificate.run())
        async with serving(certificate) as served:
            replace(files, SECOND.read_bytes())
            async with asyncio.timeout(10):
                while await subject(served) != "second":
                    await asyncio.sleep(0.05)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)

    run(main())


BROKEN = {
    "a key of another": FIRST.read_bytes().partition(b"-----BEGIN PRIVATE")[0]
    + b"-----BEGIN PRIVATE"
    + SECOND.read_bytes().partition(b"-----BEGIN PRIVATE")[2],
    "half a file": SECOND.read_bytes()[:300],
    "nothing": b"",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_new_one_that_cannot_be_used_leaves_the_one_before(content: bytes, tmp_path: Path) -> None:
    files = tmp_path / "tls.pem"
    files.write_bytes(FIRST.read_bytes())

    async def main() -> None:
        certificate = Certificate(files)
        async with serving(certificate) as served:
            replace(files, content)
            assert not certificate.reload()
            assert await subject(served) == "first"
            files.unlink()
            assert not certificate.reload()
            assert await subject(served) == "first"
            replace(files, SECOND.read_bytes())
            assert certificate.reload()
            assert await subject(served) == "second"

    run(main())


@pytest.mark.parametrize("content", [*BROKEN.values(), None])
def test_one_that_cannot_be_used_from_the_start_is_refused_with_its_flag(
    content: bytes | None, tmp_path: Path
) -> None:
    files = tmp_path / "tls.pem"
    if content is not None:
        files.write_bytes(content)
    with pytest.raises(InvalidSettings) as raised:
        Certificate(files)
    assert raised.value.where == f"--tls-certificate {files}"
    assert content is not None or raised.value.what == f"no usable certificate: there is no file {files}"


def test_one_who_speaks_no_tls_or_nothing_at_all_is_let_go_and_others_are_served(loop: str) -> None:
    async def main() -> None:
        async with serving(Certificate(FIRST)) as served:
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
            plain = await served.client(GET)
            quiet = await served.client(b"")
            other = await connected(served, trusting(FIRST))
            other.send(GET)
            assert b" 200 " in await other.answer(b"https")
            assert b"HTTP/1.1 200" not in await plain.to_the_end()
            await quiet.until(lambda: quiet.closed)

    run(main(), loop)


def replace(path: Path, content: bytes) -> None:
    """As a renewal does it: another file takes the name."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)
