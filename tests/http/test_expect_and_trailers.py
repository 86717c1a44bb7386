"""Expect, informational answers, trailers and `OPTIONS *`, as Go's server and reverse proxy have them."""

from __future__ import annotations

import asyncio

import pytest

from support.http import OK, Peer, answering, eventually, proxying, run, settle, silent, status_of
from upwell.runtime.http.forward import OutcomeKind
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.loop import run_fake

HOST = b"Host: a.example.com\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPECTING = b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
CHUNKED = EXPECTING.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked")


def after(body: bytes, answer: bytes = OK) -> object:
    def script(peer: Peer) -> None:
        if peer.received.endswith(body):
            peer.send(answer)

    return script


@pytest.mark.parametrize("sent", ["at once", "when told"])
@pytest.mark.parametrize(
    ("request_", "body"), [(EXPECTING, b"hello"), (CHUNKED, b"5\r\nhello\r\n0\r\n\r\n")], ids=["length", "chunked"]
)
def test_a_silent_back_end_gets_the_body_after_a_second(request_: bytes, body: bytes, sent: str) -> None:
    async def main() -> None:
        clock = FakeClock(loop=asyncio.get_running_loop())
        async with proxying(after(body), clock=clock) as proxy:  # type: ignore[arg-type]
            started = clock.monotonic()
            client = await proxy.client(request_ + (body if sent == "at once" else b""))
            await eventually(lambda: proxy.backend.seen.endswith(b"\r\n\r\n"))
            assert await client.answer(CONTINUE) == CONTINUE
            assert 1.0 <= clock.monotonic() - started < 1.2
            if sent == "when told":
                client.send(body)
            assert await client.answer(b"ok") == CONTINUE + OK
            assert b"expect: 100-continue\r\n" in proxy.backend.seen
            assert proxy.pool.statistics().idle == 1
            assert proxy.pool.wheel.statistics().pending == 1, "the idle connection's alone"

    run_fake(main())


def test_a_back_end_that_asks_gets_the_body_at_once_and_the_client_is_told_once(loop: str) -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            client = await proxy.client(EXPECTING)
            await eventually(lambda: proxy.backend.seen.endswith(b"\r\n\r\n"))
            assert client.received == b""
            proxy.backend.peers[0].send(CONTINUE)
            await client.answer(CONTINUE)
            proxy.backend.peers[0].send(CONTINUE)
            client.send(b"hello")
            await eventually(lambda: proxy.backend.seen.endswith(b"\r\n\r\nhello"))
            proxy.backend.peers[0].send(OK)
            assert await client.answer(b"ok") == CONTINUE + OK

    run(main(), loop)


@pytest.mark.parametrize("sent", [b"", b"hello"])
def test_a_final_answer_instead_of_100_passes_and_the_state_of_both_connections_is_clear(
    sent: bytes, loop: str
) -> None:
    refusal = b"HTTP/1.1 413 Large\r\ncontent-length: 2\r\n\r\nno"

    async def main() -> None:
        async with proxying(answering(refusal)) as proxy:
            client = await proxy.client(EXPECTING + sent)
            answer = await client.answer(b"no")
            assert status_of(answer) == 413
            assert CONTINUE not in answer
            # Without the body nobody can know whether it will still come, and be taken for a request.
            assert (b"connection: close\r\n" in answer) == (sent == b"")
            assert b"hello" not in proxy.backend.seen
            await proxy.backend.peers[0].to_the_end()
            assert proxy.kinds == [OutcomeKind.COMPLETE]
            assert proxy.pool.wheel.statistics().pending == 0

    run(main(), loop)


def test_an_answer_that_begins_without_100_still_gets_the_body_after_a_second() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"

    async def main() -> None:
        clock = FakeClock(loop=asyncio.get_running_loop())
        async with proxying(answering(head), clock=clock) as proxy:
            client = await proxy.client(EXPECTING + b"hello")
            await client.answer(head)
            await eventually(lambda: proxy.backend.seen.endswith(b"\r\n\r\nhello"))
            proxy.backend.peers[0].send(b"HELLO")
            assert await client.answer(b"HELLO") == head + b"HELLO"

    run_fake(main())


def test_a_client_of_http_1_0_expects_nothing() -> None:
    async def main() -> None:
        async with proxying(after(b"hello")) as proxy:  # type: ignore[arg-type]
            old = EXPECTING.replace(b"HTTP/1.1", b"HTTP/1.0")
            assert (await proxy.ask(old + b"hello")).count(b"HTTP/1.1 ") == 1

    run(main())


def test_another_expectation_cannot_be_met() -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            client = await proxy.client(EXPECTING.replace(b"100-continue", b"miracles"))
            assert status_of(await client.to_the_end()) == 417
            assert proxy.backend.seen == b""

    run(main())


@pytest.mark.parametrize("expectation", [b"", b"100-Continue", b"miracles, 100-continue"])
def test_an_expectation_that_can_be_met_is_met(expectation: bytes) -> None:
    async def main() -> None:
        async with proxying(after(b"hello")) as proxy:  # type: ignore[arg-type]
            answer = await proxy.ask(EXPECTING.replace(b"100-continue", expectation) + b"hello")
            assert b"HTTP/1.1 200 " in answer

    run(main())


def test_other_informational_answers_pass_to_clients_of_http_1_1_only() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n"

    async def main() -> None:
        async with proxying(answering(b"HTTP/1.1 102 Processing\r\n\r\n" + hints + OK)) as proxy:
            request = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
            assert await proxy.ask(request) == b"HTTP/1.1 102 Processing\r\n\r\n" + hints + OK
            assert await proxy.ask(request.replace(b"/1.1", b"/1.0")) == OK

    run(main())


ANNOUNCED = (
    b"HTTP/1.1 200 OK\r\nTrailer: X-Sum, Host\r\nTrailer: X-Other\r\ntransfer-encoding: chunked\r\n\r\n"
    b"2\r\nok\r\n0\r\nX-Sum: 1\r\nX-Silent: 2\r\nHost: 3\r\n\r\n"
)


def test_announced_trailers_reach_every_client_of_http_1_1_with_their_announcement() -> None:
    async def main() -> None:
        async with proxying(answering(ANNOUNCED)) as proxy:
            request = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
            answer = await proxy.ask(request, b"1\r\n\r\n")
            assert answer == (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, x-other\r\n\r\n"
                b"2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n"
            )
            asking = request.replace(HOST, HOST + b"TE: trailers\r\n")
            assert (await proxy.ask(asking, b"2\r\n\r\n")).endswith(b"0\r\nx-sum: 1\r\nx-silent: 2\r\n\r\n")
            old = await proxy.client(request.replace(b"/1.1", b"/1.0"))
            assert b"x-sum" not in await old.to_the_end()
            head = await proxy.ask(request.replace(b"GET", b"HEAD"), b"\r\n\r\n")
            assert b"trailer" not in head

    run(main())


def test_trailers_of_one_answer_are_not_expected_of_the_next() -> None:
    answers = [ANNOUNCED, ANNOUNCED.replace(b"Trailer: X-Sum, Host\r\nTrailer: X-Other\r\n", b"")]

    def script(peer: Peer) -> None:
        if peer.received.endswith(b"\r\n\r\n"):
            peer.send(answers.pop(0))

    async def main() -> None:
        async with proxying(script) as proxy:
            client = await proxy.client(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
            await client.answer(b"1\r\n\r\n")
            client.received.clear()
            client.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
            assert b"x-sum" not in await client.answer(b"0\r\n\r\n")
            assert len(proxy.backend.peers) == 1

    run(main())


@pytest.mark.parametrize("target", [b"*", b"http://a.example.com"])
@pytest.mark.parametrize("body", [b"", b"hello"])
def test_options_of_the_whole_server_is_answered_without_a_back_end(body: bytes, target: bytes) -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            length = b"Content-Length: %d\r\n" % len(body) if body else b""
            client = await proxy.client(b"OPTIONS " + target + b" HTTP/1.1\r\n" + HOST + length + b"\r\n" + body)
            answer = await client.answer(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"content-length: 0\r\n\r\n")
            client.send(b"OPTIONS /a HTTP/1.1\r\n" + HOST + b"\r\n")
            await eventually(lambda: proxy.backend.seen.startswith(b"OPTIONS /a "))
            await settle()
            assert b"*" not in proxy.backend.seen

    run(main())


def test_a_shorter_wait_for_100_can_be_set() -> None:
    async def main() -> None:
        clock = FakeClock(loop=asyncio.get_running_loop())
        async with proxying(silent, HttpSettings(expect_timeout=0.2), clock=clock) as proxy:
            started = clock.monotonic()
            client = await proxy.client(EXPECTING)
            await client.answer(CONTINUE)
            assert 0.2 <= clock.monotonic() - started < 0.5

    run_fake(main())
