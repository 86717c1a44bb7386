"""Message heads as values, and the rules that say which header fields travel.

Pure: nothing here does I/O or keeps state. Names are RFC 9110's and RFC 9112's.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from http import HTTPStatus

from upwell.functions.errors import InvalidInput

Headers = list[tuple[bytes, bytes]]
"""Fields in the order sent, names in lower case."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields that concern one connection only and are never passed on as they came."""

# A client may name any field in Connection; these it may not take away from the next hop.
_NEVER_LISTED = frozenset({b"host", b"content-length", b"cache-control", b"expect"})

_PROTOCOL = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:/[!#$%&'*+\-.^_`|~0-9A-Za-z]+)?")

_NONE_LISTED: frozenset[bytes] = frozenset()

# Fields that would change the framing or the routing of a message if they came in its trailers.
_NEVER_IN_TRAILERS = HOP_BY_HOP | {b"host", b"content-length", b"content-encoding", b"content-type", b"expect"}


class BodyFraming(enum.Enum):
    """How the end of a request's body is found."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"


class RequestHead:
    """The start line and header fields of one request, validated; not changed after it was read.

    `target` is as sent; `path` is its path without the query, still percent-encoded; `origin_target` is what goes
    to a back end (the target in origin form). `host` is in lower case and without a port: of an absolute target,
    else of the Host field, else empty (HTTP/1.0). `content_length` is set exactly when `framing` is LENGTH.
    `listed` are the fields that Connection names and that end here. `upgrade` holds the protocols asked for, if
    any, without HTTP/2, which is not switched to in mid-connection. `server_wide` marks `OPTIONS *`.
    """

    __slots__ = (
        "_index",
        "content_length",
        "expects_continue",
        "framing",
        "headers",
        "host",
        "keep_alive",
        "listed",
        "method",
        "origin_target",
        "path",
        "server_wide",
        "target",
        "upgrade",
        "version",
    )

    def __init__(
        self, method: bytes, target: bytes, version: bytes, headers: Headers, index: dict[bytes, bytes]
    ) -> None:
        self.method = method
        self.target = target
        self.origin_target = target
        self.path = target
        self.version = version
        self.headers = headers
        self._index = index
        self.host = b""
        self.keep_alive = True
        self.framing = BodyFraming.NONE
        self.content_length: int | None = None
        self.expects_continue = False
        self.upgrade: bytes | None = None
        self.server_wide = False
        self.listed: frozenset[bytes] = _NONE_LISTED

    def header(self, name: bytes) -> bytes | None:
        """The first value of the field `name` (given in lower case), or None."""
        return self._index.get(name)

    def plain(self, names: frozenset[bytes]) -> bool:
        """Whether it has no field of these names, and none twice."""
        return len(self._index) == len(self.headers) and names.isdisjoint(self._index)

    @property
    def names(self) -> Iterable[bytes]:
        """Names of its fields, each once."""
        return self._index

    def lacks(self, names: Iterable[bytes]) -> bool:
        """Whether it has no field of these names."""
        return self._index.keys().isdisjoint(names)

    @property
    def accepts_trailers(self) -> bool:
        """Whether the client asked for trailer fields (`TE: trailers`)."""
        return b"te" in self._index and b"trailers" in list_members(self._index[b"te"])

    def __repr__(self) -> str:
        return f"<RequestHead {self.method!r} {self.target!r} host {self.host!r}, {len(self.headers)} headers>"


def list_members(value: bytes) -> list[bytes]:
    """Members of a comma-separated field value, in lower case; empty ones left out."""
    return [member for part in value.lower().split(b",") if (member := part.strip(b" \t"))]


def connection_options(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Every option of every Connection field, in lower case."""
    return frozenset(member for name, value in headers if name == b"connection" for member in list_members(value))


def listed_fields(options: frozenset[bytes]) -> frozenset[bytes]:
    """Fields that a Connection field names and that therefore end at this hop."""
    return options - _NEVER_LISTED


def upgrade_protocols(headers: Headers) -> bytes | None:
    """What the Upgrade fields ask for, in the order given; None when nothing that can be passed on.

    `h2c` is left out as Envoy does: RFC 9113 withdrew that upgrade, and it has carried requests past proxies.
    """
    asked = b",".join(value for name, value in headers if name == b"upgrade")
    members = [member for part in asked.split(b",") if (member := part.strip(b" \t"))]
    if not all(_PROTOCOL.fullmatch(member) for member in members):
        return None
    return b", ".join(member for member in members if member.lower() != b"h2c") or None


def switches_to(headers: Headers, asked: bytes | None) -> bytes | None:
    """The protocols that an answer with status 101 switches to; None unless each was `asked` for."""
    switched = upgrade_protocols(headers)
    if asked is None or switched is None or b"upgrade" not in connection_options(headers):
        return None
    return switched if set(list_members(switched)) <= set(list_members(asked)) else None


def end_to_end(headers: Headers) -> Headers:
    """The fields that travel on: without the hop-by-hop ones and those that Connection lists."""
    gone = HOP_BY_HOP | listed_fields(connection_options(headers))
    return [field for field in headers if field[0] not in gone]


def end_to_end_trailers(trailers: Headers) -> Headers:
    """Trailer fields that may travel on: none that frames, routes or interprets the message."""
    return [field for field in trailers if field[0] not in _NEVER_IN_TRAILERS]


def announced_trailers(value: bytes) -> bytes:
    """The value of a Trailer field without the names that may not travel."""
    return b", ".join(name for name in list_members(value) if name not in _NEVER_IN_TRAILERS)


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return b"HTTP/1.1 %d %s\r\n" % (status, phrase.encode("ascii"))


STATUS_LINES = {status: _status_line(status) for status in range(100, 1000)}


def encode_fields(headers: Headers) -> bytes:
    """Fields as they stand on the wire. Raises InvalidInput for a line break in one."""
    return join_lines([name + b": " + value + b"\r\n" for name, value in headers])


def join_lines(lines: list[bytes]) -> bytes:
    """Field lines, each with its line end, as one block. Raises InvalidInput for one that would break out."""
    block = b"".join(lines)
    count = len(lines)
    if block.count(b"\n") != count or block.count(b"\r") != count:
        raise InvalidInput("a header field holds a line break", hint="Encode the value before it is set.")
    return block


def encode_trailers(trailers: Headers) -> bytes:
    """The last chunk with its trailer fields."""
    return b"0\r\n" + encode_fields(trailers) + b"\r\n" if trailers else b"0\r\n\r\n"
