"""Bytes of a client connection to requests: incremental, strict, one message at a time.

A head is collected to its empty line, then read in one piece: httptools checks its grammar, the rest is checked
here (what llhttp lets pass: versions, several Hosts, transfer codings in HTTP/1.0, sizes and counts). Bodies are
framed here too, since a proxy must know to the byte where a message ends. Whatever could be read in two ways
raises `Refused`, after which the connection can only be closed.

The reader holds what was received and not yet consumed; where the bytes were split on their way changes nothing.
"""

from __future__ import annotations

import re

import httptools

from upwell.runtime.http.chunks import ChunkedReader, MalformedChunks
from upwell.runtime.http.messages import (
    BodyFraming,
    Headers,
    RequestHead,
    connection_options,
    list_members,
    listed_fields,
    upgrade_protocols,
)
from upwell.runtime.http.settings import HttpSettings

_KNOWN_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"})
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")
_AUTHORITY = re.compile(rb"(?P<host>[A-Za-z0-9_.~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{0,5}))?")
_ABSOLUTE = re.compile(rb"https?://(?P<authority>[^/?#]*)(?P<rest>[^#]*)", re.IGNORECASE)
_ONCE = (b"host", b"content-length", b"transfer-encoding", b"expect")
_LENGTH = re.compile(rb"[0-9]{1,18}")
# What nearly every client says, and what HTTP/1.1 does without being told.
_KEEP_ALIVE = (b"keep-alive", b"Keep-Alive")
_MAX_BLANK_LINES = 4
# Room for method and version in the request line.
_LINE_BESIDE_TARGET = 128
_LINE_BREAKS = (b"\r", b"\n")
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class Refused(Exception):
    """A message that is not taken: `status` to answer with, `reason` for the client and the log.

    Stays within this package: the server answers it and closes the connection.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class RequestReader:
    """Reads the requests of one connection.

    Call `receive` with what arrived, `head` until it gives a head, then `body` until `body_ended`; then `head`
    again. `buffered` says whether bytes are left over. `trailers` belong to the last chunked body.
    """

    __slots__ = (
        "_authority",
        "_blank_lines",
        "_chunks",
        "_decoded",
        "_fields",
        "_host",
        "_parser",
        "_remaining",
        "_rest",
        "_scanned",
        "_settings",
        "body_ended",
        "trailers",
    )

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._rest = b""
        self._scanned = 0
        self._blank_lines = 0
        self._decoded = 0
        self._remaining = 0
        self._chunks: ChunkedReader | None = None
        self._fields: Headers = []
        self._parser = httptools.HttpRequestParser(self)
        # The last Host value and what it came to: one connection rarely asks for another.
        self._authority: bytes | None = None
        self._host = b""
        self.body_ended = True
        self.trailers: Headers = []

    @property
    def buffered(self) -> bool:
        return bool(self._rest)

    @property
    def full(self) -> bool:
        """As much of later requests is here as one head may take: reading on would only hoard."""
        return len(self._rest) > self._settings.max_header_bytes

    @property
    def remaining(self) -> int | None:
        """Bytes of the body still to come; None when a chunked body does not say."""
        return None if self._chunks is not None else self._remaining

    def take_rest(self) -> bytes:
        """What is left over, which is no message any more: the connection has changed its protocol."""
        rest, self._rest = self._rest, b""
        return rest

    def receive(self, data: bytes) -> None:
        self._rest = self._rest + data if self._rest else data

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._fields.append((name.lower(), value.rstrip(b" \t")))

    def head(self) -> RequestHead | None:
        """The next request's head, or None while it is incomplete. Raises Refused."""
        data = self._rest
        if data[:1] in _LINE_BREAKS:
            return self._skip_blank_lines(data)
        end = data.find(b"\r\n\r\n", self._scanned)
        if end < 0:
            self._check_incomplete(data)
            self._scanned = max(0, len(data) - 3)
            return None
        self._scanned = self._blank_lines = 0
        end += 4
        if end == len(data):
            self._rest = b""
        else:
            self._rest = data[end:]
            data = data[:end]
        return self._parse(data)

    def body(self) -> bytes:
        """Decoded bytes of the body that are there by now; sets `body_ended` with its last. Raises Refused."""
        data = self._rest
        if self._chunks is not None:
            return b"".join(self._chunked_body(self._chunks, data))
        if len(data) <= self._remaining:
            self._rest = b""
        else:
            self._rest = data[self._remaining :]
            data = data[: self._remaining]
        self._remaining -= len(data)
        self.body_ended = self._remaining == 0
        return data

    def body_parts(self) -> list[bytes]:
        """The same as `body`, in pieces; none is empty."""
        if self._chunks is not None:
            return self._chunked_body(self._chunks, self._rest)
        data = self.body()
        return [data] if data else []

    def _chunked_body(self, chunks: ChunkedReader, data: bytes) -> list[bytes]:
        try:
            decoded, self._rest = chunks.decode_parts(data)
        except MalformedChunks as error:
            raise Refused(400, str(error)) from None
        if self._settings.max_body_bytes:
            self._decoded += sum(map(len, decoded))
            if self._decoded > self._settings.max_body_bytes:
                raise Refused(413, "the request's body is too large")
        if chunks.ended:
            self._chunks = None
            self.body_ended = True
            self.trailers = chunks.trailers
        return decoded

    def _skip_blank_lines(self, data: bytes) -> RequestHead | None:
        """RFC 9112 2.2: a server ignores an empty line or so before the request line."""
        while data.startswith(b"\r\n"):
            data = data[2:]
            self._blank_lines += 1
            if self._blank_lines > _MAX_BLANK_LINES:
                raise Refused(400, "too many empty lines before the request line")
        self._rest = data
        if not data or data == b"\r":
            return None
        if data[:1] in _LINE_BREAKS:
            raise Refused(400, "a stray line break before the request line")
        return self.head()

    def _check_incomplete(self, data: bytes) -> None:
        settings = self._settings
        line_end = data.find(b"\n")
        if (line_end if line_end >= 0 else len(data)) > settings.max_target_bytes + _LINE_BESIDE_TARGET:
            raise Refused(414, "request target too long")
        if len(data) > settings.max_header_bytes:
            raise Refused(431, "request head too large")
        if line_end == 0 or (line_end > 0 and data[line_end - 1] != 13):
            raise Refused(400, "a line that ends without a carriage return")
        # A head that ends in bare line feeds would otherwise be waited for until its deadline.
        if b"\n\n" in data or b"\n\r\n" in data:
            raise Refused(400, "a line that ends without a carriage return")

    def _parse(self, data: bytes) -> RequestHead:
        try:
            method, target, version = data[: data.index(b"\r\n")].split(b" ")
        except ValueError:
            raise Refused(400, "malformed request line") from None
        settings = self._settings
        if len(target) > settings.max_target_bytes:
            raise Refused(414, "request target too long")
        if len(data) > settings.max_header_bytes:
            raise Refused(431, "request head too large")
        if version != b"HTTP/1.1" and version != b"HTTP/1.0":
            status = 505 if _VERSION.fullmatch(version) is not None else 400
            raise Refused(status, "HTTP version not supported")
        headers = self._parse_fields(method, data)
        if len(headers) > settings.max_headers:
            raise Refused(431, "too many header fields")
        index = dict(headers)
        if len(index) != len(headers):
            index = _first_of_each(headers)
        head = RequestHead(method, target, version[5:], headers, index)
        self._settle_target(head, index)
        connection = index.get(b"connection")
        if (
            (connection is not None and connection not in _KEEP_ALIVE)
            or head.version == b"1.0"
            or len(index) != len(headers)
            or b"expect" in index
        ):
            self._settle_connection(head, index)
        if b"content-length" in index or b"transfer-encoding" in index:
            self._settle_framing(head, index)
        return head

    def _parse_fields(self, method: bytes, data: bytes) -> Headers:
        if method not in _KNOWN_METHODS:
            if method == b"CONNECT":
                raise Refused(501, "CONNECT is not supported")
            if _TOKEN.fullmatch(method) is None:
                raise Refused(400, "malformed method")
            # llhttp knows a fixed list of methods, some with a grammar of their own; any other token is as good.
            data = b"POST" + data[len(method) :]
        headers: Headers = []
        self._fields = headers
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._parser = httptools.HttpRequestParser(self)
        except httptools.HttpParserError as error:
            raise Refused(400, f"malformed request: {error}") from None
        return headers

    def _settle_target(self, head: RequestHead, index: dict[bytes, bytes]) -> None:
        authority = index.get(b"host")
        target = head.target
        if authority is None:
            if head.version == b"1.1":
                raise Refused(400, "no Host field")
        elif authority != self._authority:
            self._host = _host_of(authority)
            self._authority = authority
        head.host = self._host if authority is not None else b""
        if not target.startswith(b"/"):
            self._settle_absolute(head, index)
            target = head.origin_target
        if b"#" in target:
            raise Refused(400, "a fragment in the request target")
        if b"?" in target:
            head.path = target[: target.index(b"?")]
        if b"%" in target and _BROKEN_ESCAPE.search(head.path) is not None:
            raise Refused(400, "a percent sign in the path that escapes nothing")

    def _settle_absolute(self, head: RequestHead, index: dict[bytes, bytes]) -> None:
        if head.target == b"*" and head.method == b"OPTIONS":
            head.server_wide = True
            return
        match = _ABSOLUTE.fullmatch(head.target)
        if match is None:
            raise Refused(400, "malformed request target")
        # RFC 9112 3.2.2: the target's authority counts and replaces what Host says.
        authority = match["authority"]
        head.host = _host_of(authority)
        head.headers = [(b"host", authority), *(field for field in head.headers if field[0] != b"host")]
        index[b"host"] = authority
        rest = match["rest"]
        # RFC 9112 3.2.4: without a path it is the server that is asked.
        head.server_wide = not rest and head.method == b"OPTIONS"
        head.origin_target = rest if rest.startswith(b"/") else b"/" + rest
        head.path = head.origin_target

    def _settle_connection(self, head: RequestHead, index: dict[bytes, bytes]) -> None:
        if b"connection" in index:
            options = connection_options(head.headers)
            head.keep_alive = b"close" not in options and (head.version == b"1.1" or b"keep-alive" in options)
            if b"upgrade" in options and head.version == b"1.1":
                head.upgrade = upgrade_protocols(head.headers)
            head.listed = listed_fields(options)
        elif head.version == b"1.0":
            head.keep_alive = False
        expectation = index.get(b"expect")
        if expectation:
            if b"100-continue" not in list_members(expectation):
                raise Refused(417, "unknown expectation")
            head.expects_continue = head.version == b"1.1"

    def _settle_framing(self, head: RequestHead, index: dict[bytes, bytes]) -> None:
        length = index.get(b"content-length")
        if b"transfer-encoding" in index:
            if length is not None:
                raise Refused(400, "both Content-Length and Transfer-Encoding")
            if head.version != b"1.1":
                raise Refused(400, "Transfer-Encoding in HTTP/1.0")
            if index[b"transfer-encoding"].lower() != b"chunked":
                raise Refused(400, "a transfer coding other than chunked")
            head.framing = BodyFraming.CHUNKED
            self._chunks = ChunkedReader(self._settings.max_header_bytes, self._settings.max_headers)
            self._decoded = 0
        elif length is not None:
            if _LENGTH.fullmatch(length) is None:
                raise Refused(400, "malformed Content-Length")
            if 0 < self._settings.max_body_bytes < int(length):
                raise Refused(413, "the request's body is too large")
            head.framing = BodyFraming.LENGTH
            head.content_length = self._remaining = int(length)
        # The parser saw the head only and now waits for a body that is read here.
        self._parser = httptools.HttpRequestParser(self)
        self.trailers = []
        self.body_ended = self._remaining == 0 and self._chunks is None


def _host_of(authority: bytes) -> bytes:
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise Refused(400, "malformed Host")
    return match["host"].lower()


def _first_of_each(headers: Headers) -> dict[bytes, bytes]:
    """Names to their first values. Raises Refused where a second value would be a second meaning."""
    names = [name for name, _ in headers]
    for name in _ONCE:
        if names.count(name) > 1:
            raise Refused(400, f"more than one {name.decode()} field")
    return dict(reversed(headers))
