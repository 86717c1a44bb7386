"""The reader of requests: nothing crashes it, and how the bytes were split changes nothing."""

from __future__ import annotations

from itertools import pairwise

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from upwell.runtime.http.chunks import ChunkedReader, MalformedChunks, encode_chunk
from upwell.runtime.http.messages import (
    BodyFraming,
    Headers,
    connection_options,
    end_to_end,
    end_to_end_trailers,
    list_members,
)
from upwell.runtime.http.reader import Refused, RequestReader
from upwell.runtime.http.settings import HttpSettings

Read = tuple[bytes, bytes, bytes, Headers, bytes, Headers]

SMALL = HttpSettings(max_header_bytes=400, max_target_bytes=60, max_headers=8)


def read_all(pieces: list[bytes], limits: HttpSettings = SMALL) -> tuple[list[Read], bool, bool]:
    """Every whole request in the pieces; whether the last was refused; whether one is incomplete."""
    reader = RequestReader(limits)
    requests: list[Read] = []
    head = None
    body = b""
    try:
        for piece in pieces:
            reader.receive(piece)
            while True:
                if head is None:
                    head = reader.head()
                    body = b""
                    if head is None:
                        break
                if not reader.body_ended:
                    body += reader.body()
                    if not reader.body_ended:
                        break
                trailers = reader.trailers if head.framing is BodyFraming.CHUNKED else []
                requests.append((head.method, head.origin_target, head.host, head.headers, body, trailers))
                head = None
    except Refused:
        return requests, True, False
    return requests, False, head is not None or reader.buffered


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


PIECES = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"POST /a?b HTTP/1.1\r\n",
        b"QUERY http://B/c HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.0\r\n",
        b"Host: a.example.com\r\n",
        b"Host: b:80\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"transfer-encoding: Chunked \r\n",
        b"Connection: close, upgrade\r\n",
        b"Upgrade: websocket\r\n",
        b"Expect: 100-continue\r\n",
        b"X: y\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b" ",
        b"hello",
        b"5\r\nhello\r\n",
        b"5;a=b\r\nhello\r\n",
        b"0\r\n\r\n",
        b"0\r\nT: u\r\n\r\n",
        b"\0",
        b"x" * 70,
        b"Y: " + b"z" * 300 + b"\r\n",
    ]
)
STREAMS = st.one_of(st.binary(max_size=200), st.lists(PIECES | st.binary(max_size=3), max_size=24).map(b"".join))


@given(STREAMS, st.lists(st.integers(0, 2_000), max_size=12))
@example(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\n", [30, 31])
@settings(max_examples=600, deadline=None)
def test_any_bytes_are_read_or_refused_alike_however_they_are_split(data: bytes, places: list[int]) -> None:
    whole = read_all([data])
    assert read_all(cut(data, places)) == whole
    assert read_all([data[index : index + 1] for index in range(len(data))]) == whole


class Oracle:
    """What httptools alone makes of the bytes."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.complete = 0

    def on_message_begin(self) -> None:
        self.bodies.append(b"")

    def on_body(self, data: bytes) -> None:
        self.bodies[-1] += data

    def on_message_complete(self) -> None:
        self.complete += 1


@given(STREAMS)
@settings(max_examples=600, deadline=None)
def test_what_is_taken_httptools_takes_too_and_finds_the_same_bodies(data: bytes) -> None:
    requests, refused, _ = read_all([data])
    oracle = Oracle()
    parser = httptools.HttpRequestParser(oracle)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    try:
        parser.feed_data(data)
    except (httptools.HttpParserUpgrade, httptools.HttpParserInvalidMethodError):
        return
    except httptools.HttpParserError:
        assert refused or not requests
        return
    assert oracle.bodies[: len(requests)] == [request[4] for request in requests]
    assert oracle.complete >= len(requests)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.lists(st.integers(0, 3_000), max_size=12))
def test_a_chunked_body_is_decoded_to_what_was_encoded(chunks: list[bytes], places: list[int]) -> None:
    data = b"".join(encode_chunk(chunk) for chunk in chunks) + b"0\r\nA: b\r\n\r\nnext"
    reader = ChunkedReader(1_000, 10)
    decoded, rest = b"", b""
    for piece in cut(data, places):
        part, rest = reader.decode(rest + piece) if not reader.ended else (b"", rest + piece)
        decoded += part
    assert (decoded, rest, reader.trailers) == (b"".join(chunks), b"next", [(b"a", b"b")])


@given(st.binary(max_size=100))
def test_any_bytes_are_chunks_or_malformed(data: bytes) -> None:
    reader = ChunkedReader(100, 3)
    try:
        decoded, rest = reader.decode(data)
    except MalformedChunks:
        return
    assert len(decoded) + len(rest) <= len(data)


def test_trailers_are_bound_in_number_and_size() -> None:
    for trailers in (
        b"A: b\r\n" * 4,
        b"A: " + b"b" * 200 + b"\r\n",
        b"A: " + b"b" * 60 + b"\r\nB: " + b"c" * 60 + b"\r\n",
    ):
        with pytest.raises(MalformedChunks):
            ChunkedReader(100, 3).decode(b"0\r\n" + trailers + b"\r\n")


def test_options_are_gathered_over_fields_and_letters() -> None:
    headers = [(b"connection", b" Keep-Alive,,X-A "), (b"connection", b"x-b"), (b"accept", b"close")]
    assert connection_options(headers) == {b"keep-alive", b"x-a", b"x-b"}
    assert list_members(b"a , B;q=1,, ") == [b"a", b"b;q=1"]


def test_fields_that_concern_one_hop_do_not_travel() -> None:
    headers = [
        (b"connection", b"x-a, host, content-length"),
        (b"x-a", b"1"),
        (b"host", b"h"),
        (b"content-length", b"3"),
        (b"te", b"trailers"),
        (b"x-b", b"2"),
    ]
    assert end_to_end(headers) == [(b"host", b"h"), (b"content-length", b"3"), (b"x-b", b"2")]
    trailers = [(b"x-sum", b"1"), (b"transfer-encoding", b"chunked"), (b"host", b"h")]
    assert end_to_end_trailers(trailers) == [(b"x-sum", b"1")]
