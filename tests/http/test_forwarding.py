"""Forwarding: framing both ways, back-pressure, and how each failure is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from support.http import (
    GET,
    OK,
    Attempt,
    Peer,
    Proxy,
    answering,
    eventually,
    proxying,
    run,
    settle,
    silent,
    status_of,
)
from upwell.runtime.http.exchange import Exchange
from upwell.runtime.http.forward import Outcome, OutcomeKind
from upwell.runtime.http.messages import Headers

HOST = b"Host: a.example.com\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST


def once(answer: bytes, *, close: bool = False) -> Callable[[Peer], None]:
    """Answers what comes first, and closes if told to."""

    def script(peer: Peer) -> None:
        if not peer.handled:
            peer.handled = 1
            peer.send(answer)
            if close:
                peer.close()

    return script


def test_an_answer_passes_with_its_fields_and_the_connections_are_used_again(loop: str) -> None:
    answer = (
        b"HTTP/1.1 201 Made\r\nContent-Type: a/b\r\nSet-Cookie: a\r\nset-cookie: b\r\nContent-Length: 2\r\n\r\nok"
    )

    async def main() -> None:
        async with proxying(answering(answer)) as proxy:
            client = await proxy.client(GET)
            await client.answer(b"ok")
            client.send(GET)
            await client.until(lambda: client.received.count(b"\r\n\r\nok") == 2)
            expected = (
                b"HTTP/1.1 201 Created\r\ncontent-type: a/b\r\nset-cookie: a\r\nset-cookie: b\r\n"
                b"content-length: 2\r\n\r\nok"
            )
            assert client.received == expected * 2
            assert proxy.outcomes == [
                Outcome(OutcomeKind.COMPLETE, 201, False, True, ""),
                Outcome(OutcomeKind.COMPLETE, 201, True, True, ""),
            ]
            assert len(proxy.backend.peers) == 1
            assert repr(proxy.pool).endswith("[idle 1, active 0, connecting 0, waiting 0]>")

    run(main(), loop)


def test_the_back_end_sees_the_request_without_hop_by_hop_fields_and_with_what_was_added() -> None:
    request = (
        b"GET /a?b HTTP/1.1\r\n" + HOST + b"Connection: keep-alive, X-Private, Host\r\nX-Private: 1\r\n"
        b"Keep-Alive: 5\r\nProxy-Connection: x\r\nProxy-Authorization: y\r\nTE: gzip\r\nTrailer: z\r\n"
        b"Upgrade: websocket\r\nX-Forwarded-For: forged\r\nAccept: */*\r\n\r\n"
    )

    async def main() -> None:
        async with proxying(
            answering(), add=[(b"x-forwarded-for", b"127.0.0.1")], drop=frozenset({b"x-forwarded-for"})
        ) as proxy:
            assert status_of(await proxy.ask(request)) == 200
            assert proxy.backend.seen == (
                b"GET /a?b HTTP/1.1\r\nhost: a.example.com\r\naccept: */*\r\nx-forwarded-for: 127.0.0.1\r\n\r\n"
            )

    run(main())


def test_an_absolute_target_reaches_the_back_end_in_origin_form_with_its_own_host() -> None:
    async def main() -> None:
        async with proxying(answering()) as proxy:
            await proxy.ask(b"GET http://b.example.com/p?q HTTP/1.1\r\nHost: a\r\n\r\n")
            assert proxy.backend.seen == b"GET /p?q HTTP/1.1\r\nhost: b.example.com\r\n\r\n"

    run(main())


def test_hop_by_hop_fields_of_the_answer_stay_behind_and_the_observer_may_edit_the_rest() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nConnection: X-Private, keep-alive\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Proxy-Authenticate: x\r\nUpgrade: h2c\r\nServer: s\r\nContent-Length: 2\r\n\r\nok"
    )

    class Editor(Attempt):
        def response_head(self, status: int, headers: Headers) -> None:
            headers.append((b"server-timing", b"a"))

    async def main() -> None:
        async with proxying(answering(answer)) as proxy:
            proxy.served.server.handler = lambda exchange: proxy.attempts.append(Editor(proxy, exchange).start())
            assert await proxy.ask(GET) == (
                b"HTTP/1.1 200 OK\r\nserver: s\r\nserver-timing: a\r\ncontent-length: 2\r\n\r\nok"
            )

    run(main())


def test_a_body_in_the_same_packet_goes_on_in_one_piece() -> None:
    async def main() -> None:
        async with proxying(once(OK)) as proxy:
            await proxy.ask(POST + b"Content-Length: 3\r\n\r\nabc")
            assert proxy.backend.seen == b"POST / HTTP/1.1\r\nhost: a.example.com\r\ncontent-length: 3\r\n\r\nabc"

    run(main())


def test_a_chunked_body_is_written_anew_without_extensions_and_trailers(loop: str) -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            client = await proxy.client(POST + b"Transfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n")
            await eventually(lambda: proxy.backend.seen.endswith(b"abc\r\n"))
            client.send(b"00000a\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n")
            await eventually(lambda: proxy.backend.seen.endswith(b"0\r\n\r\n"))
            assert proxy.backend.seen == (
                b"POST / HTTP/1.1\r\nhost: a.example.com\r\ntransfer-encoding: chunked\r\n\r\n"
                b"3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n"
            )
            proxy.backend.peers[0].send(OK)
            await client.answer(b"ok")
            assert proxy.pool.statistics().idle == 1

    run(main(), loop)


def test_a_chunked_answer_is_streamed_piece_by_piece(loop: str) -> None:
    async def main() -> None:
        async with proxying(once(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")) as proxy:
            client = await proxy.client(GET)
            await client.answer(b"one\r\n")
            proxy.backend.peers[0].send(b"3\r\ntwo\r\n3\r\nthr\r\n")
            await client.answer(b"6\r\ntwothr\r\n")
            proxy.backend.peers[0].send(b"0\r\nX-Sum: 1\r\n\r\n")
            answer = await client.answer(b"0\r\n\r\n")
            assert answer.partition(b"\r\n\r\n")[2] == b"3\r\none\r\n6\r\ntwothr\r\n0\r\n\r\n"
            assert proxy.pool.statistics().idle == 1

    run(main(), loop)


def test_trailers_of_an_answer_reach_only_a_client_that_asks_for_them() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nHost: forged\r\nX-Sum: 1\r\n\r\n"
    )

    async def main() -> None:
        async with proxying(answering(answer)) as proxy:
            asked = await proxy.ask(b"GET / HTTP/1.1\r\n" + HOST + b"TE: trailers\r\n\r\n", b"1\r\n\r\n")
            assert asked.endswith(b"2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n")
            assert b"\r\nte: trailers\r\n\r\n" in proxy.backend.seen
            assert (await proxy.ask(GET, b"0\r\n\r\n")).endswith(b"2\r\nok\r\n0\r\n\r\n")

    run(main())


def test_a_client_of_http_1_0_gets_the_chunks_without_their_coding() -> None:
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"

    async def main() -> None:
        async with proxying(answering(answer)) as proxy:
            client = await proxy.client(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
            assert await client.to_the_end() == b"HTTP/1.1 200 OK\r\n\r\nonetwo"
            assert proxy.backend.seen.startswith(b"GET / HTTP/1.1\r\n")

    run(main())


def test_an_answer_that_ends_with_its_connection_is_chunked_for_the_client(loop: str) -> None:
    async def main() -> None:
        async with proxying(once(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", close=True)) as proxy:
            answer = await proxy.ask(GET, b"0\r\n\r\n")
            assert answer == (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nd\r\nuntil the end\r\n0\r\n\r\n"
            )
            assert proxy.kinds == [OutcomeKind.COMPLETE]
            assert proxy.pool.statistics().idle == 0

    run(main(), loop)


@pytest.mark.parametrize(
    ("request_", "answer", "expected"),
    [
        (
            b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n",
        ),
        (
            b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
        ),
        (GET, b"HTTP/1.1 204 No\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (
            GET,
            b"HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n",
        ),
        (GET, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        (GET, b"HTTP/1.1 799 \r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 799 \r\ncontent-length: 0\r\n\r\n"),
    ],
    ids=["HEAD with a length", "HEAD of a chunked answer", "204", "304 with a length", "empty", "unknown status"],
)
def test_an_answer_without_a_body_is_complete_with_its_head(
    request_: bytes, answer: bytes, expected: bytes
) -> None:
    async def main() -> None:
        async with proxying(answering(answer)) as proxy:
            client = await proxy.client(request_)
            for count in (1, 2):
                await client.until(lambda: client.received == expected * count)  # noqa: B023
                if count == 1:
                    client.send(request_)
            assert proxy.kinds == [OutcomeKind.COMPLETE] * 2
            assert len(proxy.backend.peers) == 1

    run(main())


def test_early_hints_pass_and_continue_passes_to_who_waits_for_it(loop: str) -> None:
    def script(peer: Peer) -> None:
        if peer.received.endswith(b"\r\n\r\n"):
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n")
        if peer.received.endswith(b"abc"):
            peer.send(OK)

    async def main() -> None:
        async with proxying(script) as proxy:
            client = await proxy.client(POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n"
            assert await client.answer(b"a\r\n\r\n") == hints
            assert b"expect: 100-continue" in proxy.backend.seen
            client.send(b"abc")
            assert await client.answer(b"ok") == hints + OK
            assert proxy.pool.statistics().idle == 1
            old = await proxy.ask(b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
            assert status_of(old) == 200
            assert old.count(b"HTTP/1.1") == 1

    run(main(), loop)


def test_an_answer_before_the_end_of_the_body_is_passed_and_both_connections_close(loop: str) -> None:
    async def main() -> None:
        async with proxying(once(b"HTTP/1.1 413 Large\r\ncontent-length: 2\r\n\r\nok")) as proxy:
            client = await proxy.client(POST + b"Content-Length: 100000000\r\n\r\nabc")
            answer = await client.answer(b"ok")
            assert status_of(answer) == 413
            await client.until(lambda: client.ended or client.closed)
            await proxy.backend.peers[0].to_the_end()
            assert proxy.kinds == [OutcomeKind.COMPLETE]

    run(main(), loop)


def test_request_and_answer_stream_at_the_same_time() -> None:
    def script(peer: Peer) -> None:
        if not peer.handled:
            peer.handled = peer.received.index(b"\r\n\r\n") + 4
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n")
        peer.send(bytes(peer.received[peer.handled :]))
        peer.handled = len(peer.received)

    async def main() -> None:
        async with proxying(script) as proxy:
            client = await proxy.client(POST + b"Content-Length: 6\r\n\r\nabc")
            await client.answer(b"abc")
            client.send(b"def")
            await client.answer(b"def")
            assert not client.closed
            assert proxy.pool.statistics().idle == 1

    run(main())


@pytest.mark.parametrize("length", [b"Content-Length: 16000000", b"Transfer-Encoding: chunked"])
def test_a_slow_back_end_slows_the_client_down(length: bytes, loop: str) -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            client = await proxy.client(POST + length + b"\r\n\r\n")
            await eventually(lambda: bool(proxy.backend.peers) and bool(proxy.backend.peers[0].received))
            proxy.backend.peers[0].transport.pause_reading()
            body = b"x" * 16_000_000
            client.send(body if b"Content" in length else b"f42400\r\n" + body + b"\r\n0\r\n\r\n")
            await asyncio.sleep(0.1)
            exchange = proxy.attempts[0].exchange
            assert exchange.bytes_received < 4_000_000
            proxy.backend.peers[0].transport.resume_reading()
            await eventually(lambda: exchange.body_complete)
            await eventually(lambda: proxy.backend.peers[0].received.count(b"x") >= 16_000_000)
            proxy.backend.peers[0].send(OK)
            assert status_of(await client.answer(b"ok")) == 200

    run(main(), loop)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_slow_client_slows_the_back_end_down(framing: str, loop: str) -> None:
    body = b"x" * 16_000_000
    head = b"content-length: 16000000" if framing == "length" else b"transfer-encoding: chunked"
    coded = body if framing == "length" else b"f42400\r\n" + body + b"\r\n0\r\n\r\n"

    async def main() -> None:
        async with proxying(once(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + coded)) as proxy:
            client = await proxy.client()
            client.transport.pause_reading()
            client.send(GET)
            await eventually(lambda: bool(proxy.attempts) and proxy.attempts[0].exchange.bytes_sent > 0)
            await asyncio.sleep(0.1)
            assert proxy.attempts[0].exchange.bytes_sent < 8_000_000
            client.transport.resume_reading()
            await proxy.ended()
            assert proxy.attempts[0].exchange.bytes_sent == len(body)
            await client.until(lambda: client.received.count(b"x") >= len(body))

    run(main(), loop)


BROKEN_ANSWERS = {
    "no HTTP": b"SSH-2.0-OpenSSH\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "length and chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "another coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
    "chunked twice": b"HTTP/1.1 200 OK\r\n" + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "an upgrade": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "a bare upgrade": b"HTTP/1.1 101 Switching\r\n\r\n",
    "a folded field": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "another version": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "an endless head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 60_000,
}


@pytest.mark.parametrize("name", BROKEN_ANSWERS)
def test_what_is_no_clear_answer_is_told_and_nothing_of_it_passes(name: str, loop: str) -> None:
    async def main() -> None:
        async with proxying(once(BROKEN_ANSWERS[name])) as proxy:
            assert await proxy.ask(GET, b"bad") != b""
            assert proxy.kinds == [OutcomeKind.BAD_RESPONSE]
            assert proxy.outcomes[0].cause.startswith(("malformed answer", "an upgrade"))
            assert [exchange.status for exchange in proxy.served.finished] == [502]
            await proxy.backend.peers[0].to_the_end()

    run(main(), loop)


@pytest.mark.parametrize("surplus", [b"H", OK.replace(b"ok", b"no"), b"\0", b"ok" * 50])
def test_bytes_after_an_answer_never_reach_the_next_request(surplus: bytes) -> None:
    async def main() -> None:
        async with proxying(answering(OK + surplus)) as proxy:
            for _ in range(3):
                assert await proxy.ask(GET) == OK
            assert proxy.kinds == [OutcomeKind.COMPLETE] * 3
            assert [outcome.reused for outcome in proxy.outcomes] == [False] * 3

    run(main())


def test_a_body_after_the_answer_to_head_never_reaches_the_next_request() -> None:
    async def main() -> None:
        async with proxying(answering(OK)) as proxy:
            for _ in range(3):
                answer = await proxy.ask(b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n", b"\r\n\r\n")
                assert answer == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
            assert len(proxy.backend.peers) == 3

    run(main())


def test_an_answer_that_asks_to_close_is_passed_and_its_connection_not_used_again() -> None:
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"

    async def main() -> None:
        async with proxying(answering(answer)) as proxy:
            client = await proxy.client(GET)
            assert await client.answer(b"ok") == OK
            client.send(GET)
            await proxy.ended(2)
            assert not client.closed
            assert len(proxy.backend.peers) == 2

    run(main())


def test_a_back_end_that_is_not_there_is_told_and_nothing_was_sent(loop: str) -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            proxy.backend.server.close()
            await settle()
            answer = await proxy.ask(GET, b"bad")
            assert status_of(answer) == 502
            outcome = proxy.outcomes[0]
            assert (outcome.kind, outcome.request_sent) == (OutcomeKind.CONNECT_FAILED, False)
            assert outcome.cause in ("No such file or directory", "Connection refused")

    run(main(), loop)


def test_a_back_end_that_closes_before_any_byte_leaves_the_decision_to_the_owner(loop: str) -> None:
    async def main() -> None:
        async with proxying(lambda peer: peer.close()) as proxy:
            assert status_of(await proxy.ask(GET, b"bad")) == 502
            outcome = proxy.outcomes[0]
            assert (outcome.kind, outcome.request_sent, outcome.reused, outcome.status) == (
                OutcomeKind.LOST_BEFORE_RESPONSE,
                True,
                False,
                0,
            )

    run(main(), loop)


class Retrying(Attempt):
    """Forwards a second time where the first attempt was lost before any byte of an answer."""

    def completed(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.proxy.outcomes.append(outcome)
        if outcome.kind is OutcomeKind.LOST_BEFORE_RESPONSE and self.exchange.body_replayable:
            self.start()


def retrying(proxy: Proxy) -> Callable[[Exchange], None]:
    return lambda exchange: proxy.attempts.append(Retrying(proxy, exchange).start())


@pytest.mark.parametrize(
    "request_",
    [
        GET,
        POST + b"Content-Length: 6\r\n\r\nabcdef",
        POST + b"Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n0\r\n\r\n",
    ],
    ids=["without a body", "with a length", "chunked"],
)
def test_a_request_lost_on_a_reused_connection_can_be_sent_again_whole(request_: bytes, loop: str) -> None:
    def script(peer: Peer) -> None:
        if peer.handled and peer.received.count(b"HTTP/1.1") == 2:
            peer.close()
            return
        peer.handled = 1
        peer.send(OK)

    async def main() -> None:
        async with proxying(script) as proxy:
            proxy.served.server.handler = retrying(proxy)
            assert await proxy.ask(GET) == OK
            assert await proxy.ask(request_) == OK
            assert [(outcome.kind, outcome.reused) for outcome in proxy.outcomes] == [
                (OutcomeKind.COMPLETE, False),
                (OutcomeKind.LOST_BEFORE_RESPONSE, True),
                (OutcomeKind.COMPLETE, False),
            ]
            again = bytes(proxy.backend.peers[1].received)
            assert again == bytes(proxy.backend.peers[0].received)[-len(again) :]

    run(main(), loop)


def test_a_body_still_being_sent_continues_on_the_second_attempt() -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            proxy.served.server.handler = retrying(proxy)
            client = await proxy.client(POST + b"Content-Length: 6\r\n\r\nabc")
            await eventually(lambda: proxy.backend.seen.endswith(b"abc"))
            proxy.backend.peers[0].close()
            await eventually(lambda: len(proxy.backend.peers) == 2 and b"abc" in proxy.backend.peers[1].received)
            client.send(b"def")
            await eventually(lambda: proxy.backend.peers[1].received.endswith(b"abcdef"))
            proxy.backend.peers[1].send(OK)
            assert await client.answer(b"ok") == OK

    run(main())


@pytest.mark.parametrize(
    "cut",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nonly",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nonly\r\n",
    ],
    ids=["length", "chunked"],
)
def test_an_answer_cut_in_the_middle_never_looks_whole_to_the_client(cut: bytes, loop: str) -> None:
    async def main() -> None:
        async with proxying(once(cut)) as proxy:
            client = await proxy.client(GET)
            await client.until(lambda: b"only" in client.received)
            proxy.backend.peers[0].close()
            answer = await client.to_the_end()
            assert not answer.endswith(b"0\r\n\r\n")
            assert proxy.kinds == [OutcomeKind.LOST_DURING_RESPONSE]
            assert [exchange.status for exchange in proxy.served.finished] == [200]
            assert proxy.served.server.statistics().gone_total == 1

    run(main(), loop)


def test_bad_chunks_in_the_middle_of_an_answer_abort_the_client() -> None:
    async def main() -> None:
        async with proxying(once(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n")) as proxy:
            client = await proxy.client(GET)
            await client.until(lambda: b"ok" in client.received)
            proxy.backend.peers[0].send(b"nonsense\r\n")
            assert not (await client.to_the_end()).endswith(b"0\r\n\r\n")
            assert proxy.kinds == [OutcomeKind.BAD_RESPONSE]

    run(main())


def test_a_client_that_leaves_closes_the_connection_to_the_back_end(loop: str) -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            client = await proxy.client(GET)
            await eventually(lambda: bool(proxy.backend.seen))
            client.close()
            await proxy.backend.peers[0].to_the_end()
            assert proxy.kinds == [OutcomeKind.CLIENT_GONE]
            assert proxy.pool.statistics().active == 0

    run(main(), loop)


def test_cancel_before_the_answer_leaves_the_client_to_the_owner_and_after_it_aborts() -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            client = await proxy.client(GET)
            await eventually(lambda: bool(proxy.backend.seen))
            forwarding = proxy.attempts[0].forwarding
            assert forwarding is not None
            assert repr(forwarding).endswith("[sent, status 0]>")
            forwarding.cancel()
            assert proxy.kinds == [OutcomeKind.CANCELLED]
            assert status_of(await client.answer(b"bad")) == 502
            forwarding.cancel()
            client.send(GET)
            await eventually(lambda: len(proxy.backend.peers) == 2)
            proxy.backend.peers[1].send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
            await client.answer(b"9\r\n\r\n")
            second = proxy.attempts[1].forwarding
            assert second is not None
            second.cancel()
            await client.to_the_end()
            assert proxy.kinds == [OutcomeKind.CANCELLED] * 2
            assert proxy.outcomes[1].status == 200

    run(main())


def test_two_attempts_at_once_are_refused() -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            await proxy.client(GET)
            await eventually(lambda: bool(proxy.attempts))
            with pytest.raises(RuntimeError, match="taken"):
                proxy.attempts[0].start()

    run(main())


def test_the_attempt_is_completed_before_the_exchange_is_finished() -> None:
    order: list[str] = []

    class Noting(Attempt):
        def completed(self, outcome: Outcome) -> None:
            super().completed(outcome)
            order.append(f"completed {outcome.kind.name}, finished {self.exchange.finished}")

    async def main() -> None:
        async with proxying(answering()) as proxy:

            def handle(exchange: Exchange) -> None:
                exchange.on_finished = lambda ended: order.append(f"finished {ended.status}")
                Noting(proxy, exchange).start()

            proxy.served.server.handler = handle
            client = await proxy.client(GET + GET)
            await client.until(lambda: client.received.count(b"ok") == 2)

    run(main())
    assert order == ["completed COMPLETE, finished False", "finished 200"] * 2


def test_a_request_of_http_1_0_without_a_host_gets_an_empty_one() -> None:
    async def main() -> None:
        async with proxying(answering()) as proxy:
            await proxy.ask(b"GET / HTTP/1.0\r\n\r\n")
            assert proxy.backend.seen == b"GET / HTTP/1.1\r\nhost: \r\n\r\n"

    run(main())


@pytest.mark.parametrize("how", ["respond", "abort", "raise"])
def test_an_exchange_that_its_owner_ends_takes_the_attempt_with_it(how: str, loop: str) -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:

            def handle(exchange: Exchange) -> None:
                proxy.handle(exchange)
                if how == "raise":
                    raise LookupError("broken")

            proxy.served.server.handler = handle
            client = await proxy.client(GET)
            await proxy_sees_or_ends(proxy)
            exchange = proxy.attempts[0].exchange
            if how == "respond":
                exchange.respond(504, [], b"slow")
                assert status_of(await client.answer(b"slow")) == 504
            elif how == "abort":
                exchange.abort()
            await eventually(lambda: proxy.kinds == [OutcomeKind.CLIENT_GONE])
            await eventually(lambda: proxy.pool.statistics().active == proxy.pool.statistics().connecting == 0)
            assert exchange.finished

    run(main(), loop)


async def proxy_sees_or_ends(proxy: Proxy) -> None:
    await eventually(lambda: bool(proxy.backend.seen) or bool(proxy.outcomes))


def test_a_field_of_the_observer_that_would_break_out_never_reaches_the_client() -> None:
    class Careless(Attempt):
        def response_head(self, status: int, headers: Headers) -> None:
            headers.append((b"x-a", b"1\r\nx-b: 2"))

    async def main() -> None:
        async with proxying(answering()) as proxy:
            errors: list[str] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["message"]))
            proxy.served.server.handler = lambda exchange: proxy.attempts.append(Careless(proxy, exchange).start())
            answer = await proxy.ask(GET, b"bad")
            assert status_of(answer) == 502
            assert b"x-b" not in answer
            assert len(errors) == 1

    run(main())


def test_fields_listed_by_a_second_connection_field_stay_behind_too() -> None:
    request = (
        b"GET / HTTP/1.1\r\n" + HOST + b"Connection: x-a\r\nConnection: keep-alive\r\nX-A: 1\r\nX-B: 2\r\n\r\n"
    )

    async def main() -> None:
        async with proxying(answering()) as proxy:
            await proxy.ask(request)
            assert proxy.backend.seen == b"GET / HTTP/1.1\r\nhost: a.example.com\r\nx-b: 2\r\n\r\n"

    run(main())
