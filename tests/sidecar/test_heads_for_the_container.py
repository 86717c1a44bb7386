"""What of a request's head reaches the container, field by field."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.runtime.http.messages import RequestHead
from upwell.runtime.http.reader import RequestReader
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.sidecar.request import encode_head, forwarded

AUTHORITY = b"127.0.0.1:8080"


def head(lines: str, start: str = "GET / HTTP/1.1", host: str = "h") -> RequestHead:
    reader = RequestReader(HttpSettings())
    fields = f"Host: {host}\r\n" if host else ""
    fields += "".join(f"{line}\r\n" for line in lines.splitlines())
    reader.receive(f"{start}\r\n{fields}\r\n".encode("latin-1"))
    found = reader.head()
    assert found is not None
    return found


def encoded(lines: str, start: str = "GET / HTTP/1.1", host: str = "h", client: str = "9.9.9.9") -> list[str]:
    """The request line, then the fields sorted, without the Host and the caller that every request has."""
    text = encode_head(head(lines, start, host), client, AUTHORITY).decode("latin-1")
    assert text.endswith("\r\n\r\n")
    line, *fields = text.removesuffix("\r\n\r\n").split("\r\n")
    return [line, *sorted(field for field in fields if field not in ("host: h", "x-forwarded-for: 9.9.9.9"))]


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ("X-Forwarded-For: 1.2.3.4", "for=1.2.3.4"),
        ("X-Forwarded-For: 1.2.3.4,5.6.7.8", "for=1.2.3.4, for=5.6.7.8"),
        ("X-Forwarded-For: 2001:db8::1, 1.2.3.4", 'for="[2001:db8::1]", for=1.2.3.4'),
        ("X-Forwarded-For: 1.2.3.4:80", 'for="[1.2.3.4:80]"'),
        ("X-Forwarded-For: 1.2.3.4\nX-Forwarded-For: 5.6.7.8", "for=1.2.3.4"),
        ("X-Forwarded-For: a,,b", "for=a, for=, for=b"),
        ("X-Forwarded-For: ,b", ", for=b"),
        ("X-Forwarded-Host: a\nX-Forwarded-For: 1, 2", "for=1;host=a, for=2"),
        ("X-Forwarded-Proto: https\nX-Forwarded-Host: a", "host=a;proto=https"),
        ("X-Forwarded-For: 1\nForwarded: for=2", ""),
        ("X-Forwarded-For: 1\nForwarded:", "for=1"),
        ("X-Forwarded-By: me", ""),
        ("X-Forwarded-For:", ""),
    ],
)
def test_forwarded_is_made_of_the_fields_that_proxies_wrote(lines: str, wanted: str) -> None:
    assert forwarded(head(lines)) == wanted.encode()


@given(
    hops=st.lists(st.from_regex(r"[0-9a-f.:]{0,8}", fullmatch=True), max_size=4),
    host=st.sampled_from(["", "a.example"]),
    protocol=st.sampled_from(["", "https"]),
)
def test_each_hop_has_one_element_and_host_and_protocol_belong_to_the_first(
    hops: list[str], host: str, protocol: str
) -> None:
    lines = [f"X-Forwarded-For: {', '.join(hops)}"] if hops else []
    lines += [f"X-Forwarded-Host: {host}"] if host else []
    lines += [f"X-Forwarded-Proto: {protocol}"] if protocol else []
    elements = forwarded(head("\n".join(lines))).decode().split(", ")
    assert len(elements) == max(1, len(hops))
    assert ("host=a.example" in elements[0]) == bool(host)
    assert ("proto=https" in elements[0]) == bool(protocol)
    assert all(element.startswith("for=") for element in elements[1:])


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (
            "X-Forwarded-For: 1\nX-Forwarded-For: 2\nForwarded: x",
            ["forwarded: x", "x-forwarded-for: 1, 2, 9.9.9.9"],
        ),
        ("Connection: X-Forwarded-For\nX-Forwarded-For: 1", ["forwarded: for=1"]),
        ("Connection: Forwarded\nX-Forwarded-For: 1", ["x-forwarded-for: 1, 9.9.9.9"]),
        ("Connection: Cache-Control, close\nCache-Control: no-store", []),
        ("Connection: User-Agent\nUser-Agent: a", []),
        ("Connection: keep-alive\nX-A: 1", ["x-a: 1"]),
        ("Connection: a\nConnection: b\nA: 1\nB: 2\nC: 3", ["c: 3"]),
        ("Te: gzip", []),
        ("Te: deflate, trailers", ["te: trailers"]),
        ("Connection: Te\nTe: trailers", ["te: trailers"]),
        ("Upgrade: websocket", []),
        ("Connection: keep-alive, Upgrade\nUpgrade: websocket", ["connection: Upgrade", "upgrade: websocket"]),
        ("Keep-Alive: 5\nProxy-Connection: x\nProxy-Authenticate: y\nProxy-Authorization: z\nTrailer: t", []),
        ("K-Original-Host: o\nX-A: 1", ["host: o", "x-a: 1"]),
        ("K-Original-Host:\nX-A: 1", ["k-original-host: ", "x-a: 1"]),
        ("K-Original-Host:\nConnection: K-Original-Host", []),
        (
            "Knative-Serving-Revision: r\nKnative-Serving-Namespace: n\nKnative-Serving-Tag: t",
            ["knative-serving-tag: t"],
        ),
        ("User-Agent:", []),
        ("User-Agent: a\nUser-Agent: b", ["user-agent: a"]),
        ("Pragma: no-cache", ["cache-control: no-cache", "pragma: no-cache"]),
        ("Pragma: no-cache\nCache-Control: max-age=1", ["cache-control: max-age=1", "pragma: no-cache"]),
        ("Cookie: a=1\nCookie: b=2", ["cookie: a=1", "cookie: b=2"]),
        ("X-Space:   a b  ", ["x-space: a b"]),
    ],
)
def test_fields_travel_or_end_here(lines: str, wanted: list[str]) -> None:
    assert encoded(lines) == ["GET / HTTP/1.1", *wanted]


@pytest.mark.parametrize(
    ("method", "lines", "wanted"),
    [
        ("GET", "", []),
        ("GET", "Content-Length: 0", []),
        ("DELETE", "Content-Length: 0", []),
        ("POST", "", ["content-length: 0"]),
        ("PUT", "Content-Length: 0", ["content-length: 0"]),
        ("PATCH", "X-Forwarded-Proto: a", ["content-length: 0", "forwarded: proto=a", "x-forwarded-proto: a"]),
        ("GET", "Content-Length: 3", ["content-length: 3"]),
        ("POST", "Content-Length: 03", ["content-length: 3"]),
        ("GET", "Transfer-Encoding: chunked", ["transfer-encoding: chunked"]),
        (
            "POST",
            "Transfer-Encoding: chunked\nTrailer: x-b, X-A",
            ["trailer: X-A,X-B", "transfer-encoding: chunked"],
        ),
        ("POST", "Content-Length: 1\nExpect: 100-continue", ["content-length: 1", "expect: 100-continue"]),
    ],
)
def test_a_length_is_declared_where_go_declares_one(method: str, lines: str, wanted: list[str]) -> None:
    assert encoded(lines, f"{method} / HTTP/1.1") == [f"{method} / HTTP/1.1", *wanted]


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("/a/b?x=1", "/a/b?x=1"),
        ("/a%2Fb", "/a%2Fb"),
        ("//a?", "//a?"),
        ("/a|b?c|d", "/a%7Cb?c|d"),
        ("/a|b(c)%2F", "/a%7Cb%28c%29/"),
        ("/(c)!", "/(c)!"),
        ("http://other/x?y", "/x?y"),
        ("http://other", "/"),
    ],
)
def test_a_path_is_spelled_as_go_spells_it(target: str, wanted: str) -> None:
    assert encoded("", f"GET {target} HTTP/1.1")[0] == f"GET {wanted} HTTP/1.1"


def test_a_long_path_that_needs_escaping_is_spelled_in_little_time() -> None:
    began = time.process_time()
    assert encoded("", f"GET /{'a%2f' * 3000}| HTTP/1.1")[0].endswith("/%7C HTTP/1.1")
    assert time.process_time() - began < 1.0


def test_a_request_without_a_host_is_for_the_container_itself() -> None:
    assert encoded("", "GET / HTTP/1.0", host="") == ["GET / HTTP/1.1", "host: 127.0.0.1:8080"]


def test_a_caller_without_an_address_leaves_the_field_as_it_came() -> None:
    lines = encoded("X-Forwarded-For: 1, 2", client="")
    assert "x-forwarded-for: 1, 2" in lines
    assert "x-forwarded-for" not in "".join(encoded("", client=""))


@given(
    names=st.lists(
        st.sampled_from(["X-A", "Accept", "K-Proxy-Request", "Te", "Pragma", "X-Forwarded-For"]), max_size=5
    )
)
def test_no_line_breaks_out_and_no_settled_field_comes_twice(names: list[str]) -> None:
    lines = encoded("\n".join(f"{name}: v{number}" for number, name in enumerate(names)))[1:]
    settled = [
        line.partition(":")[0] for line in lines if line.startswith(("te:", "forwarded:", "x-forwarded-for:"))
    ]
    assert len(settled) == len(set(settled))
    passed = [line for line in lines if line.startswith(("x-a:", "accept:", "k-proxy-request:"))]
    assert len(passed) == sum(name in ("X-A", "Accept", "K-Proxy-Request") for name in names)
