"""What must never reach a back end, sent over raw sockets."""

from __future__ import annotations

import pytest

from support.http import GET, eventually, proxying, run, settle, silent, status_of
from upwell.runtime.http.settings import HttpSettings

HEAD = b"POST / HTTP/1.1\r\nHost: a.example.com\r\n"
SMUGGLED = b"GET /admin HTTP/1.1\r\nHost: a.example.com\r\n\r\n"

AMBIGUOUS_FRAMING = {
    "length and chunked": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two lengths": HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "the same length twice": HEAD + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "a list of lengths": HEAD + b"Content-Length: 4, 4\r\n\r\nabcd",
    "a signed length": HEAD + b"Content-Length: +4\r\n\r\nabcd",
    "a negative length": HEAD + b"Content-Length: -4\r\n\r\nabcd",
    "a hexadecimal length": HEAD + b"Content-Length: 0x4\r\n\r\nabcd",
    "an underscored length": HEAD + b"Content-Length: 1_0\r\n\r\nabcdefghij",
    "an empty length": HEAD + b"Content-Length:\r\n\r\nabcd",
    "a length beyond 64 bits": HEAD + b"Content-Length: 18446744073709551620\r\n\r\nabcd",
    "identity then chunked": HEAD + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "chunked then identity": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "gzip then chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "an empty list member": HEAD + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
    "a trailing comma": HEAD + b"Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n",
    "xchunked": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked in quotes": HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "chunked with a parameter": HEAD + b"Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n",
    "chunked behind a vertical tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "identity alone": HEAD + b"Transfer-Encoding: identity\r\n\r\n",
    "an empty coding": HEAD + b"Transfer-Encoding:\r\n\r\n",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a folded coding": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a tab before the colon": HEAD + b"Content-Length\t: 4\r\n\r\nabcd",
    "a space before the name": HEAD + b" Content-Length: 4\r\n\r\nabcd",
}

BAD_CHUNKS = {
    "no size": b"\r\nabc\r\n0\r\n\r\n",
    "a size that is no number": b"xyz\r\nabc\r\n0\r\n\r\n",
    "a negative size": b"-3\r\nabc\r\n0\r\n\r\n",
    "a signed size": b"+3\r\nabc\r\n0\r\n\r\n",
    "a prefixed size": b"0x3\r\nabc\r\n0\r\n\r\n",
    "a size with a space before it": b" 3\r\nabc\r\n0\r\n\r\n",
    "a size with a space behind it": b"3 \r\nabc\r\n0\r\n\r\n",
    "an overflowing size": b"ffffffffffffffff3\r\nabc\r\n0\r\n\r\n",
    "a size line without CR": b"3\nabc\r\n0\r\n\r\n",
    "a size line with a bare CR": b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    "data longer than its size": b"3\r\nabcd\r\n0\r\n\r\n",
    "data that ends without CR": b"3\r\nabc\n0\r\n\r\n",
    "an endless extension": b"3;" + b"a" * 5_000 + b"\r\nabc\r\n0\r\n\r\n",
    "a control character in an extension": b"3;a\0b\r\nabc\r\n0\r\n\r\n",
    "a trailer without a name": b"0\r\n: a\r\n\r\n",
    "a trailer with a space before the colon": b"0\r\nA : a\r\n\r\n",
    "a folded trailer": b"0\r\nA: a\r\n b\r\n\r\n",
}

MALFORMED = {
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "the same Host twice": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "an empty Host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "a Host with a path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a Host with a user": b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
    "a Host with a space": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a Host with a comma and a space": b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "a Host with a port that is no number": b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
    "a Host with a query": b"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n",
    "an absolute target with a user": b"GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "an absolute target without a host": b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target of another scheme": b"GET ftp://a/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a relative target": b"GET x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target with a fragment": b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    "an escape in the path that is none": b"GET /a%zz HTTP/1.1\r\nHost: a\r\n\r\n",
    "an escape in the path that breaks off": b"GET /a%2?b HTTP/1.1\r\nHost: a\r\n\r\n",
    "an escape in an absolute path that is none": b"GET http://a/% HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target with a space": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target with a control character": b"GET /a\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target with a NUL": b"GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces after the method": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tab after the method": b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method that is no token": b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space behind the version": b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "no version": b"GET /\r\nHost: a\r\n\r\n",
    "another protocol": b"GET / RTSP/1.0\r\nHost: a\r\n\r\n",
    "a lower-case protocol": b"GET / http/1.1\r\nHost: a\r\n\r\n",
    "a NUL in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "a NUL in a name": b"GET / HTTP/1.1\r\nHost: a\r\nX\0Y: a\r\n\r\n",
    "a control character in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n",
    "a bare CR in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    "a bare LF between fields": b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "a head in bare LFs": b"GET / HTTP/1.1\nHost: a\n\n",
    "a head that ends in a bare LF": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "a field without a colon": b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
    "a field without a name": b"GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n",
    "a folded field": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    "a field before any name": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "five empty lines first": b"\r\n" * 5 + GET,
    "a line feed first": b"\n" + GET,
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "the start of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n",
}


def refusal_of(data: bytes, settings: HttpSettings | None = None) -> tuple[bytes, bytes]:
    """What a client receives for `data` until the connection is closed, and what the back end saw."""

    async def main() -> tuple[bytes, bytes]:
        async with proxying(silent, settings) as proxy:
            client = await proxy.client(data)
            answer = await client.to_the_end()
            await settle()
            assert proxy.served.server.statistics().refused_total == 1
            return answer, proxy.backend.seen

    return run(main())


@pytest.mark.parametrize("name", AMBIGUOUS_FRAMING)
def test_a_request_that_could_end_in_two_places_is_refused_and_the_connection_closed(name: str) -> None:
    answer, seen = refusal_of(AMBIGUOUS_FRAMING[name])
    assert status_of(answer) == 400
    assert answer.count(b"HTTP/1.1") == 1
    assert b"connection: close" in answer
    assert seen == b""


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_a_broken_chunk_is_refused_before_the_back_end_sees_anything(name: str) -> None:
    answer, seen = refusal_of(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + BAD_CHUNKS[name])
    assert status_of(answer) == 400
    assert seen == b""


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_head_is_refused_and_the_connection_closed(name: str) -> None:
    answer, seen = refusal_of(MALFORMED[name])
    assert status_of(answer) == (505 if name == "the preface of HTTP/2" else 400)
    assert answer.count(b"HTTP/1.1") == 1
    assert seen == b""


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/1.2", b"HTTP/0.9", b"HTTP/3.0"])
def test_another_version_of_http_is_answered_with_505(version: bytes) -> None:
    answer, seen = refusal_of(b"GET / " + version + b"\r\nHost: a\r\n\r\n")
    assert status_of(answer) == 505
    assert seen == b""


def test_connect_is_no_method_of_a_gateway() -> None:
    answer, seen = refusal_of(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
    assert status_of(answer) == 501
    assert seen == b""


@pytest.mark.parametrize("head", [HEAD, HEAD.replace(b"1.1", b"1.0")])
def test_an_unknown_expectation_is_answered_with_417_and_no_more(head: bytes) -> None:
    answer, seen = refusal_of(head + b"Expect: miracles\r\nContent-Length: 0\r\n\r\n")
    assert status_of(answer) == 417
    assert b"content-length: 0\r\n" in answer
    assert b"content-type" not in answer
    assert seen == b""


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /" + b"a" * 200_000, 414),
        (b"G" * 200_000, 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 200_000, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20_000, 431),
    ],
    ids=[
        "long target",
        "endless target",
        "endless method",
        "large value",
        "endless value",
        "many fields",
        "endless fields",
    ],
)
def test_a_head_beyond_its_limits_is_refused_with_the_status_that_names_the_limit(
    data: bytes, status: int
) -> None:
    answer, seen = refusal_of(data)
    assert status_of(answer) == status
    assert seen == b""


def test_a_head_within_all_limits_passes() -> None:
    async def main() -> bytes:
        async with proxying(lambda peer: peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")) as proxy:
            target = b"/" + b"a" * 16_000
            fields = b"".join(b"x-%d: %s\r\n" % (number, b"v" * 400) for number in range(98))
            client = await proxy.client(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
            answer = await client.answer(b"\r\n\r\n")
            assert proxy.backend.seen.startswith(b"GET " + target + b" HTTP/1.1\r\nhost: a\r\nx-0: vvv")
            return answer

    assert status_of(run(main())) == 204


def test_what_follows_a_refused_request_is_never_read_as_a_request() -> None:
    answer, seen = refusal_of(AMBIGUOUS_FRAMING["length and chunked"] + SMUGGLED * 50)
    assert answer.count(b"HTTP/1.1") == 1
    assert seen == b""


def test_a_request_cut_at_any_byte_reaches_no_back_end_as_a_whole_one() -> None:
    request = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"

    async def main() -> None:
        async with proxying(silent) as proxy:
            for end in range(len(request)):
                client = await proxy.client(request[:end])
                client.transport.write_eof()
                await client.to_the_end()
            await settle()
            assert b"0\r\n\r\n" not in proxy.backend.seen
            assert all(peer.received.count(b"POST") <= 1 for peer in proxy.backend.peers)
            assert proxy.served.server.statistics().active == 0

    run(main())


@pytest.mark.parametrize("end", range(0, len(GET), 3))
def test_a_request_split_at_any_byte_is_served(end: int) -> None:
    async def main() -> None:
        async with proxying(lambda peer: peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")) as proxy:
            client = await proxy.client(GET[:end])
            await settle()
            client.send(GET[end:])
            assert status_of(await client.answer(b"ok")) == 200

    run(main())


@pytest.mark.parametrize("method", [b"QUERY", b"PURGE", b"get", b"M-SEARCH", b"SOURCE", b"FOO", b"X" * 64])
def test_a_method_that_is_any_token_passes_as_it_is(method: bytes) -> None:
    async def main() -> None:
        async with proxying(lambda peer: peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")) as proxy:
            answer = await proxy.ask(
                method + b" /a HTTP/1.1\r\nHost: a.example.com\r\nContent-Length: 3\r\n\r\nabc"
            )
            assert status_of(answer) == 200
            assert proxy.backend.seen.startswith(method + b" /a HTTP/1.1\r\n")
            assert proxy.backend.seen.endswith(b"\r\n\r\nabc")

    run(main())


def test_a_bad_chunk_in_the_middle_of_a_body_closes_both_connections() -> None:
    async def main() -> None:
        async with proxying(silent) as proxy:
            client = await proxy.client(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            await eventually(lambda: b"abc\r\n" in proxy.backend.seen)
            client.send(b"nonsense\r\n")
            assert status_of(await client.to_the_end()) == 400
            await proxy.backend.peers[0].to_the_end()
            assert b"0\r\n\r\n" not in proxy.backend.seen
            assert [exchange.status for exchange in proxy.served.finished] == [400]

    run(main())
