"""A corpus of requests that were made to be read in two ways, through a whole gateway to a replica that reads them
with another parser: what it sees is what was meant, and nothing else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from support.gateway import HOST, stage
from support.http import settle
from support.torture import Echo, Message, requests_in, statuses_in
from upwell.runtime.testing.loop import run_fake

H = b"Host: " + HOST + b"\r\n"
EVIL = b"GET /evil HTTP/1.1\r\n" + H + b"\r\n"
NEXT = b"GET /next HTTP/1.1\r\n" + H + b"\r\n"


@dataclass(frozen=True)
class Case:
    """What is sent on one connection, the statuses that come back, and what is seen: method, target, body."""

    sent: bytes
    statuses: tuple[int, ...]
    seen: tuple[tuple[bytes, bytes, bytes], ...] = ()


def post(fields: bytes, body: bytes = b"", target: bytes = b"/a") -> bytes:
    return b"POST " + target + b" HTTP/1.1\r\n" + H + fields + b"\r\n" + body


def get(fields: bytes = b"", target: bytes = b"/a", version: bytes = b"1.1") -> bytes:
    return b"GET " + target + b" HTTP/" + version + b"\r\n" + H + fields + b"\r\n"


CHUNKED = b"Transfer-Encoding: chunked\r\n"
A = (b"GET", b"/a", b"")
NEXT_SEEN = (b"GET", b"/next", b"")

REFUSED_FRAMING = {
    name: Case(post(fields, body), (400,))
    for name, fields, body in [
        ("CL.TE", b"Content-Length: 6\r\n" + CHUNKED, b"0\r\n\r\n" + EVIL),
        ("TE.CL", CHUNKED + b"Content-Length: 4\r\n", b"5c\r\n" + EVIL + b"0\r\n\r\n"),
        ("CL.CL", b"Content-Length: 0\r\nContent-Length: 44\r\n", EVIL),
        ("CL in a list", b"Content-Length: 0, 44\r\n", EVIL),
        ("TE with a space before the colon", b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
        ("TE folded", b"Transfer-Encoding:\r\n\tchunked\r\n", b"0\r\n\r\n"),
        ("TE behind a folded field", b"X: a\r\n Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        ("TE with another coding", b"Transfer-Encoding: cow\r\n", b"0\r\n\r\n"),
        ("TE with another coding first", b"Transfer-Encoding: cow, chunked\r\n", b"0\r\n\r\n"),
        ("TE in two fields", CHUNKED + b"Transfer-Encoding: cow\r\n", b"0\r\n\r\n"),
        ("TE in capitals beside CL", b"TRANSFER-ENCODING: CHUNKED\r\nContent-Length: 4\r\n", b"0\r\n\r\n"),
        ("TE with a bare CR", b"X: a\rTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        ("TE with a bare LF", b"X: a\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        ("TE with a NUL", b"Transfer-Encoding: chunked\0\r\n", b"0\r\n\r\n"),
        ("TE with a form feed", b"Transfer-Encoding: \x0cchunked\r\n", b"0\r\n\r\n"),
        ("TE with a high byte", b"Transfer-Encoding: \xa0chunked\r\n", b"0\r\n\r\n"),
        ("TE with a quote", b"Transfer-Encoding: 'chunked'\r\n", b"0\r\n\r\n"),
        ("CL with a plus", b"Content-Length: +5\r\n", b"hello"),
        ("CL with a point", b"Content-Length: 5.0\r\n", b"hello"),
        ("CL with an exponent", b"Content-Length: 5e0\r\n", b"hello"),
        ("CL with digits of another script", b"Content-Length: \xd9\xa5\r\n", b"hello"),
        ("CL with a space within", b"Content-Length: 1 0\r\n", b"helloworld"),
        ("CL with a semicolon", b"Content-Length: 5;a=b\r\n", b"hello"),
    ]
}

REFUSED_CHUNKS = {
    f"chunks: {name}": Case(post(CHUNKED, body), (400,))
    for name, body in [
        ("a size of 17 digits", b"00000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("an underscored size", b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n"),
        ("a size behind a tab", b"\t5\r\nhello\r\n0\r\n\r\n"),
        ("no CRLF behind the data", b"5\r\nhello0\r\n\r\n" + EVIL),
        ("LF alone behind the size", b"5\nhello\r\n0\r\n\r\n"),
        ("CR alone behind the size", b"5\rhello\r\n0\r\n\r\n"),
        ("an LF in an extension", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ("a size and nothing else", b";a=b\r\nhello\r\n0\r\n\r\n"),
        ("a trailer that is a request", b"0\r\n" + EVIL),
        ("a trailer with a bare LF", b"0\r\nX: a\nContent-Length: 4\r\n\r\n"),
        ("a negative size", b"-1\r\nhello\r\n0\r\n\r\n"),
    ]
}

REFUSED_HEADS = {
    name: Case(sent, (status,))
    for name, sent, status in [
        ("HTTP/0.9", b"GET /a\r\n\r\n", 400),
        ("a version without a point", b"GET /a HTTP/11\r\n" + H + b"\r\n", 400),
        ("a version of three digits", b"GET /a HTTP/1.10\r\n" + H + b"\r\n", 400),
        ("no Host", b"GET /a HTTP/1.1\r\n\r\n", 400),
        ("two Hosts", get(b"Host: other.default.example.com\r\n"), 400),
        ("a Host behind a user", b"GET /a HTTP/1.1\r\nHost: x@" + HOST + b"\r\n\r\n", 400),
        ("a Host with a slash", b"GET /a HTTP/1.1\r\nHost: " + HOST + b"/x\r\n\r\n", 400),
        ("a Host with a backslash", b"GET /a HTTP/1.1\r\nHost: " + HOST + b"\\x\r\n\r\n", 400),
        ("a Host with a NUL", b"GET /a HTTP/1.1\r\nHost: " + HOST + b"\0\r\n\r\n", 400),
        ("a Host with a huge port", b"GET /a HTTP/1.1\r\nHost: " + HOST + b":123456\r\n\r\n", 400),
        ("a name with a space", get(b"X Y: a\r\n"), 400),
        ("a name with a bracket", get(b"X(Y): a\r\n"), 400),
        ("a name with a high byte", get(b"X\xff: a\r\n"), 400),
        ("a name of control characters", get(b"\x01: a\r\n"), 400),
        ("a value with an escape", get(b"X: \x1b[2J\r\n"), 400),
        ("a value with a delete", get(b"X: \x7f\r\n"), 400),
        ("a target with a space", get(target=b"/a b"), 400),
        ("a target with a tab", get(target=b"/a\tb"), 400),
        ("a target that is a name", get(target=b"a"), 400),
        ("a target that is a star", get(target=b"*"), 400),
        ("a target with a carriage return", get(target=b"/a\rb"), 400),
        ("a target with high bytes", get(target=b"/\xc3\xa4"), 400),
        ("CONNECT", b"CONNECT hello:443 HTTP/1.1\r\n" + H + b"\r\n", 501),
        ("a method with a NUL", b"G\0T /a HTTP/1.1\r\n" + H + b"\r\n", 400),
        ("an empty method", b" /a HTTP/1.1\r\n" + H + b"\r\n", 400),
        ("101 fields", get(b"x: y\r\n" * 100), 431),
        ("a name of 70,000", get(b"x" * 70_000 + b": y\r\n"), 431),
        ("a target of 20,000", get(target=b"/" + b"a" * 20_000), 414),
        ("an unknown expectation", get(b"Expect: a-miracle\r\n"), 417),
    ]
}

PASSED = {
    "two that are sent at once": Case(get() + NEXT, (200, 200), (A, NEXT_SEEN)),
    "empty lines between": Case(get() + b"\r\n\r\n" + NEXT, (200, 200), (A, NEXT_SEEN)),
    "a body that looks like a request": Case(
        post(b"Content-Length: %d\r\n" % len(EVIL), EVIL) + NEXT,
        (200, 200),
        ((b"POST", b"/a", EVIL), NEXT_SEEN),
    ),
    "a chunk that looks like a request": Case(
        post(CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (len(EVIL), EVIL)) + NEXT,
        (200, 200),
        ((b"POST", b"/a", EVIL), NEXT_SEEN),
    ),
    "a chunk that looks like an end": Case(
        post(CHUNKED, b"5\r\n0\r\n\r\n\r\n0\r\n\r\n") + NEXT,
        (200, 200),
        ((b"POST", b"/a", b"0\r\n\r\n"), NEXT_SEEN),
    ),
    "leading zeros": Case(post(CHUNKED, b"0005\r\nhello\r\n00\r\n\r\n"), (200,), ((b"POST", b"/a", b"hello"),)),
    "a length with leading zeros": Case(
        post(b"Content-Length: 005\r\n", b"hello"), (200,), ((b"POST", b"/a", b"hello"),)
    ),
    "an extension": Case(post(CHUNKED, b'5;a="b"\r\nhello\r\n0;c\r\n\r\n'), (200,), ((b"POST", b"/a", b"hello"),)),
    "trailers that would frame": Case(
        post(CHUNKED, b"5\r\nhello\r\n0\r\nContent-Length: 44\r\nHost: evil\r\n\r\n") + NEXT,
        (200, 200),
        ((b"POST", b"/a", b"hello"), NEXT_SEEN),
    ),
    "a length that Connection lists": Case(
        post(b"Content-Length: 5\r\nConnection: content-length\r\n", b"hello") + NEXT,
        (200, 200),
        ((b"POST", b"/a", b"hello"), NEXT_SEEN),
    ),
    "a Host that Connection lists": Case(get(b"Connection: host\r\n"), (200,), (A,)),
    "a length with an underscore": Case(get(b"Content_Length: 44\r\n") + NEXT, (200, 200), (A, NEXT_SEEN)),
    "a coding with an underscore": Case(get(b"Transfer_Encoding: chunked\r\n") + NEXT, (200, 200), (A, NEXT_SEEN)),
    "GET with a body": Case(get(b"Content-Length: 5\r\n") + b"hello", (200,), ((b"GET", b"/a", b"hello"),)),
    "nothing after close": Case(get(b"Connection: close\r\n") + NEXT, (200,), (A,)),
    "an absolute target": Case(b"GET http://" + HOST + b"/a HTTP/1.1\r\nHost: evil\r\n\r\n", (200,), (A,)),
    "a Host in capitals with a port and a dot": Case(
        b"GET /a HTTP/1.1\r\nHost: " + HOST.upper() + b".:8080\r\n\r\n", (200,), (A,)
    ),
    "HTTP/1.0": Case(get(version=b"1.0") + NEXT, (200,), (A,)),
    "HTTP/1.0 that stays": Case(
        get(b"Connection: keep-alive\r\n", version=b"1.0") + NEXT, (200, 200), (A, NEXT_SEEN)
    ),
    "an upgrade to h2c": Case(
        get(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n") + NEXT,
        (200, 200),
        (A, NEXT_SEEN),
    ),
    "an upgrade that is not agreed to": Case(
        get(b"Connection: Upgrade\r\nUpgrade: websocket\r\n") + NEXT, (200, 200), (A, NEXT_SEEN)
    ),
    "odd but right characters": Case(
        get(b"X: \xe4\xf6 \t tab\r\n!#$%&'*+-.^_`|~: y\r\n", target=b'/a;b=c/%2e%2E/{d}|e"?f=%zz&g'),
        (200,),
        ((b"GET", b'/a;b=c/%2e%2E/{d}|e"?f=%zz&g', b""),),
    ),
}

UNROUTED = {
    "a host with an escape": Case(
        b"GET /a HTTP/1.1\r\nHost: %68" + HOST[1:] + b"\r\n\r\n" + NEXT, (404, 200), (NEXT_SEEN,)
    ),
    "a host beneath": Case(b"GET /a HTTP/1.1\r\nHost: x." + HOST + b"\r\n\r\n", (404,)),
    "two dots at the end": Case(b"GET /a HTTP/1.1\r\nHost: " + HOST + b"..\r\n\r\n", (404,)),
    "HTTP/1.0 without a host": Case(b"GET /a HTTP/1.0\r\n\r\n", (404,)),
    "an absolute target of another": Case(b"GET http://evil/a HTTP/1.1\r\n" + H + b"\r\n", (404,)),
    "a body for nobody": Case(
        b"POST /a HTTP/1.1\r\nHost: evil\r\nContent-Length: %d\r\n\r\n" % len(EVIL) + EVIL + NEXT,
        (404, 200),
        (NEXT_SEEN,),
    ),
}

CORPUS = REFUSED_FRAMING | REFUSED_CHUNKS | REFUSED_HEADS | PASSED | UNROUTED


def outcome(pieces: list[bytes]) -> tuple[bytes, list[Message]]:
    """What the client received by the time nothing more can come, and what a replica saw."""

    async def scenario() -> tuple[bytes, list[Message]]:
        async with stage() as on:
            echo = Echo()
            _, behind = await on.replica(echo.script)
            client = await on.client(b"")
            for piece in pieces:
                if client.closed:
                    break
                client.send(piece)
                await settle(4)
            await asyncio.sleep(200)
            assert client.closed, "an idle connection is closed in the end"
            assert on.entry.stats.in_flight == 0
            assert on.served.server.statistics().active == 0
            for peer in behind.peers:
                requests_in(bytes(peer.received))
            return bytes(client.received), echo.seen

    return run_fake(scenario())


def check(case: Case, pieces: list[bytes]) -> None:
    received, seen = outcome(pieces)
    methods = [method for method, _, _ in case.seen] if len(case.seen) == len(case.statuses) else []
    assert statuses_in(received, methods) == list(case.statuses)
    assert [(each.method, each.target, each.body) for each in seen] == list(case.seen)
    for message in seen:
        assert message.values(b"host")[0].lower().startswith(HOST)
        assert message.values(b"x-forwarded-for") == [b"127.0.0.1"]
        assert message.values(b"upgrade") in ([], [b"websocket"])


@pytest.mark.parametrize("name", CORPUS)
def test_a_replica_sees_what_was_meant_and_nothing_else(name: str) -> None:
    case = CORPUS[name]
    check(case, [case.sent])


@pytest.mark.parametrize("name", [*REFUSED_FRAMING, *REFUSED_CHUNKS, *PASSED])
@pytest.mark.parametrize("size", [1, 7])
def test_however_it_is_split_on_its_way(name: str, size: int) -> None:
    sent = CORPUS[name].sent
    check(CORPUS[name], [sent[at : at + size] for at in range(0, len(sent), size)])
