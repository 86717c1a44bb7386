"""The head of a request as the user's container gets it: what Knative's queue-proxy makes of it in Go.

Pure. Three layers of it change a head, and each is followed here to the letter since programs rely on it: the
`Forwarded` field made of `X-Forwarded-*`, the host that an activator hid in `K-Original-Host`, and the reverse
proxy, which takes away what concerns one connection only and appends the caller to `X-Forwarded-For`. What remains
is the way Go's client writes a request: when it declares a length, and how it spells a path.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from upwell.runtime.http.messages import (
    BodyFraming,
    Headers,
    RequestHead,
    connection_options,
    list_members,
)

# Fields that are settled one by one instead of passed on.
_SETTLED: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"forwarded",
        b"host",
        b"k-original-host",
        b"keep-alive",
        b"knative-serving-namespace",
        b"knative-serving-revision",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"user-agent",
        b"x-forwarded-for",
    }
)
_UNCOMMON: Final = (_SETTLED - {b"host", b"user-agent"}) | {
    b"pragma",
    b"x-forwarded-host",
    b"x-forwarded-proto",
}
"""Fields that make it uncommon."""
_LENGTH_EXPECTED: Final = frozenset({b"POST", b"PUT", b"PATCH"})
"""Methods whose requests declare a length even when it is nothing."""
_NONE: Final[frozenset[bytes]] = frozenset()
_KEEP_ALIVE: Final = (b"keep-alive", b"Keep-Alive")

_PLAIN: Final = re.compile(rb"(?:[A-Za-z0-9\-_.~!$&'()*+,;=:@/\[\]]++|%[0-9A-Fa-f]{2})*+(?:\?.*)?", re.DOTALL)
_UNESCAPED: Final = "-_.~$&+,/:;=@"


def encode_head(request: RequestHead, client: str, authority: bytes) -> bytes:
    """The request line and fields on the wire.

    `client` is the caller's address, empty when the connection has none; `authority` is the Host of a request that
    names none. No field can break out of its line: each was read from one.
    """
    header = request.header
    if request.plain(_UNCOMMON) and header(b"host") and header(b"user-agent") != b"":
        # Nearly every request: all its fields travel as they are.
        lines = [name + b": " + value + b"\r\n" for name, value in request.headers]
        if client:
            lines.append(b"x-forwarded-for: " + client.encode() + b"\r\n")
        if request.framing is BodyFraming.NONE and request.method in _LENGTH_EXPECTED:
            lines.append(b"content-length: 0\r\n")
        return b"%b %b HTTP/1.1\r\n%b\r\n" % (request.method, _target(request.origin_target), b"".join(lines))
    return _encode_settled(request, client, authority)


def _encode_settled(request: RequestHead, client: str, authority: bytes) -> bytes:
    listed = _listed(request)
    header = request.header
    lines = [
        name + b": " + value + b"\r\n"
        for name, value in request.headers
        if name not in _SETTLED and name not in listed
    ]
    original = header(b"k-original-host")
    host = original or header(b"host") or authority
    lines.append(b"host: " + host + b"\r\n")
    if original == b"" and b"k-original-host" not in listed:
        # It hides no host, so nobody takes it away.
        lines += [b"k-original-host: " + value + b"\r\n" for value in _values(request, b"k-original-host")]
    agent = header(b"user-agent")
    if agent and b"user-agent" not in listed:
        lines.append(b"user-agent: " + agent + b"\r\n")
    _add_forwarded(lines, request, client, listed)
    if request.framing is BodyFraming.NONE:
        if request.method in _LENGTH_EXPECTED:
            lines.append(b"content-length: 0\r\n")
    else:
        _add_framing(lines, request)
    if listed or header(b"te") is not None or header(b"pragma") is not None or header(b"connection") is not None:
        _add_rare(lines, request)
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (request.method, _target(request.origin_target), b"".join(lines))


def _listed(request: RequestHead) -> frozenset[bytes]:
    """Fields that `Connection` names; Go honours it for any, but for those it writes itself."""
    connection = request.header(b"connection")
    if connection is None or connection in _KEEP_ALIVE:
        return _NONE
    return connection_options(request.headers)


def _add_forwarded(lines: list[bytes], request: RequestHead, client: str, listed: frozenset[bytes]) -> None:
    prior = request.header(b"x-forwarded-for")
    if prior is None:
        if client:
            lines.append(b"x-forwarded-for: " + client.encode() + b"\r\n")
        shim = forwarded(request) if _says_forwarded(request) else b""
    else:
        hops = _values(request, b"x-forwarded-for") if b"x-forwarded-for" not in listed else []
        if client:
            hops.append(client.encode())
        if hops:
            lines.append(b"x-forwarded-for: " + b", ".join(hops) + b"\r\n")
        shim = forwarded(request)
    if b"forwarded" in listed:
        return
    if shim:
        lines.append(b"forwarded: " + shim + b"\r\n")
    elif request.header(b"forwarded") is not None:
        lines += [b"forwarded: " + value + b"\r\n" for value in _values(request, b"forwarded")]


def _says_forwarded(request: RequestHead) -> bool:
    header = request.header
    return header(b"x-forwarded-host") is not None or header(b"x-forwarded-proto") is not None


def forwarded(request: RequestHead) -> bytes:
    """A `Forwarded` value made of `X-Forwarded-For`, `-Host` and `-Proto`.

    Empty when the request carries one already, or nothing to make it of. Of several lines of a field the first
    counts; host and protocol belong to the first hop.
    """
    if _stripped(request, b"forwarded"):
        return b""
    first, *further = [_node(part) for part in _stripped(request, b"x-forwarded-for").split(b",")]
    host, protocol = _stripped(request, b"x-forwarded-host"), _stripped(request, b"x-forwarded-proto")
    pairs = ((b"for=", first), (b"host=", host), (b"proto=", protocol))
    element = b";".join(name + value for name, value in pairs if value)
    return b", ".join([element, *(b"for=" + node for node in further)])


def _node(part: bytes) -> bytes:
    """One hop; what holds a colon is taken for an IPv6 address."""
    node = part.strip()
    return b'"[' + node + b']"' if b":" in node else node


def _stripped(request: RequestHead, name: bytes) -> bytes:
    return (request.header(name) or b"").strip()


def _values(request: RequestHead, name: bytes) -> list[bytes]:
    return [value for field, value in request.headers if field == name]


def _add_framing(lines: list[bytes], request: RequestHead) -> None:
    """Chunked stays chunked; a length of nothing is declared only where one is expected."""
    if request.framing is BodyFraming.CHUNKED:
        lines.append(b"transfer-encoding: chunked\r\n")
        names = {name for value in _values(request, b"trailer") for name in list_members(value)}
        if names:
            # Announced on, as Go does, although it does not send them on.
            spelled = sorted(canonical(name) for name in names)
            lines.append(b"trailer: " + b",".join(spelled) + b"\r\n")
    elif request.content_length or request.method in _LENGTH_EXPECTED:
        lines.append(b"content-length: %d\r\n" % (request.content_length or 0))


def _add_rare(lines: list[bytes], request: RequestHead) -> None:
    header = request.header
    if any(b"trailers" in list_members(value) for value in _values(request, b"te")):
        lines.append(b"te: trailers\r\n")
    if request.upgrade:
        lines += [b"connection: Upgrade\r\n", b"upgrade: " + request.upgrade + b"\r\n"]
    if header(b"pragma") == b"no-cache" and header(b"cache-control") is None:
        lines.append(b"cache-control: no-cache\r\n")


def canonical(name: bytes) -> bytes:
    """A field's name as Go spells it: `X-Forwarded-For`."""
    return b"-".join(part.capitalize() for part in name.split(b"-"))


def _target(target: bytes) -> bytes:
    """The target with its path escaped as Go writes paths; nearly every path is so already."""
    if _PLAIN.fullmatch(target) is not None:
        return target
    path, question, query = target.partition(b"?")
    return quote_from_bytes(unquote_to_bytes(path), safe=_UNESCAPED).encode() + question + query


def add_cache_control(headers: Headers) -> None:
    """Go's reading of a lone `Pragma: no-cache`, of answers too."""
    if all(name != b"cache-control" for name, _ in headers):
        headers.append((b"cache-control", b"no-cache"))
