"""One keep-alive connection to a back end, and the reading of its answers.

A connection is idle in its pool or serves one user. It goes back to the pool only when the request was sent whole
and the answer read whole, keep-alive was agreed, and not one byte too much came; in every other case it is closed,
since what is left on it could be taken for the next answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from upwell.runtime.http.chunks import ChunkedReader, MalformedChunks
from upwell.runtime.http.messages import (
    HOP_BY_HOP,
    Headers,
    announced_trailers,
    connection_options,
    end_to_end,
    end_to_end_trailers,
    listed_fields,
)

if TYPE_CHECKING:
    from upwell.runtime.http.upstream import UpstreamPool

_NO_OPTIONS: frozenset[bytes] = frozenset()
_VERSIONS = ("1.1", "1.0")
_RESCUED_BYTES = 65_536
_RESCUED_READS = 64
_FRAMING = HOP_BY_HOP | {b"content-length"}


class User(Protocol):
    """Waits for a connection, then sends a request on it and takes the answer."""

    @property
    def waiting(self) -> bool:
        """False once it no longer wants a connection."""
        ...

    def connected(self, connection: UpstreamConnection) -> None: ...

    def connect_failed(self, cause: str) -> None: ...

    def informed(self, status: int, headers: Headers) -> None:
        """An informational answer (1xx) before the real one."""
        ...

    def answer(self, status: int, headers: Headers, length: int | None, data: bytes, ended: bool) -> None:
        """The head of the answer with its end-to-end fields, and what of the body came with it.

        `length` is the declared Content-Length, which is not among `headers`.
        """
        ...

    def answer_data(self, data: bytes, ended: bool) -> None:
        """More of the body, or its end; after a switch the end of the connection."""
        ...

    def switched(self, headers: Headers, data: bytes) -> None:
        """The back end changes the protocol, with these fields; `data` and all that comes later is in it."""
        ...

    def side_ended(self) -> None:
        """After a switch: the back end sends nothing more, but may go on taking."""
        ...

    def lost(self, cause: str, malformed: bool) -> None:
        """The connection broke or, `malformed`, what came was not one clear answer. It is closed."""
        ...

    def pause_sending(self) -> None:
        """The back end does not keep up with the request."""
        ...

    def resume_sending(self) -> None: ...


class UpstreamConnection(asyncio.Protocol):
    """Made by an `UpstreamPool`; its user calls `begin`, `write`, then `done`."""

    __slots__ = (
        "_bodiless",
        "_chunk_rest",
        "_chunks",
        "_complete",
        "_fields",
        "_head",
        "_head_bytes",
        "_interim",
        "_keep_alive",
        "_left",
        "_open_ended",
        "_parser",
        "_parser_behind",
        "_parts",
        "_pool",
        "_status",
        "_surplus",
        "_switched",
        "_transport",
        "_user",
        "announced",
        "closed",
        "idle_since",
        "opened_at",
        "reading_paused",
        "served",
        "write",
        "write_lines",
    )

    def __init__(self, pool: UpstreamPool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport
        self._user: User | None = None
        self._bodiless = False
        self.reading_paused = False
        self.write: Callable[[bytes], None]
        self.write_lines: Callable[[Iterable[bytes]], None]
        self.closed = False
        self.idle_since = 0.0
        self.opened_at = pool.clock.monotonic()
        self.served = 0
        self._fields: Headers = []
        self._parts: list[bytes] = []
        self._switched = False
        self._renew()

    def _renew(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        # Whether part of the last answer's body went past the parser, which then waits for it in vain.
        self._parser_behind = False
        self._reset()

    def _reset(self) -> None:
        self._fields = []
        self._head: Headers | None = None
        self._head_bytes = 0
        self._status = 0
        self._interim = False
        self._complete = False
        self._surplus = False
        self._keep_alive = False
        self._open_ended = False
        # Bytes that need no parsing: what is to come of a body with a length, or all when only its end can end it.
        self._left: float = 0
        # What reads the chunks of an answer of several packets, and the start of a line of them.
        self._chunks: ChunkedReader | None = None
        self._chunk_rest = b""
        self.announced = b""

    # What its user calls.

    def begin(self, user: User, bodiless: bool) -> None:
        """Serve `user` from now on; `bodiless` when the answer has no body whatever it says, as for HEAD."""
        self._user = user
        self._bodiless = bodiless

    @property
    def trailers(self) -> Headers:
        """Trailer fields of the answer that just ended."""
        return end_to_end_trailers(self._fields) if self._fields else []

    def done(self, *, request_complete: bool) -> None:
        """The answer is complete: the connection goes back to the pool, or is closed."""
        self._user = None
        self.served += 1
        if not (request_complete and self._complete and self._keep_alive) or self._surplus or self.closed:
            self.close()
            return
        if self._bodiless or self._parser_behind:
            self._renew()
        else:
            self._reset()
        if self.reading_paused:
            self.resume_reading()
        self._pool.release(self)

    def pause_reading(self) -> None:
        if not self.reading_paused and not self.closed:
            self.reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self.reading_paused and not self.closed:
            self.reading_paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        """Close at once; what the back end had still to say is not wanted.

        After a switch, what it is still to be told is sent, for a bounded time.
        """
        self._user = None
        if self.closed:
            return
        self.closed = True
        if self._switched and self._transport.get_write_buffer_size():
            self._pool.wheel.schedule(self._pool.settings.linger, self._transport.abort)
            self._transport.close()
        else:
            self._transport.abort()

    def end_side(self) -> None:
        """After a switch: the client sends nothing more."""
        if not self.closed:
            self._transport.write_eof()

    def cut_off(self, cause: str) -> None:
        """Close at once and tell whoever uses it."""
        user = self._user
        self.close()
        if user is not None:
            user.lost(cause, False)

    # The transport's calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write
        self.write_lines = self._transport.writelines
        self._transport.set_write_buffer_limits(high=self._pool.settings.write_high_water)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        clean = exc is None or (self._user is not None and self._read_to_the_end())
        user, self._user = self._user, None
        self._pool.gone(self)
        if user is None:
            return
        if (self._open_ended or self._switched) and clean:
            self._complete = True
            user.answer_data(b"", True)
        else:
            user.lost(str(exc) if exc is not None else "the connection was closed", False)

    def _read_to_the_end(self) -> bool:
        """Read what came before the loss, and say whether the back end had ended properly.

        One that answers early and closes makes writing fail, which ends a transport with its answer unread.
        """
        descriptor = self._transport.get_extra_info("socket").fileno()
        with contextlib.suppress(OSError):
            for _ in range(_RESCUED_READS):
                if descriptor < 0 or self._user is None:
                    break
                data = os.read(descriptor, _RESCUED_BYTES)
                if not data:
                    return True
                self.data_received(data)
        return False

    def eof_received(self) -> bool:
        if self._switched and self._user is not None:
            self._user.side_ended()
            return self._user is not None
        if self._user is None:
            # Out of the pool now: the transport reports the loss only in a later turn.
            self._pool.drop(self)
        return False

    def pause_writing(self) -> None:
        if self._user is not None:
            self._user.pause_sending()

    def resume_writing(self) -> None:
        if self._user is not None:
            self._user.resume_sending()

    def data_received(self, data: bytes) -> None:
        user = self._user
        if user is None:
            self._pool.drop(self)
            self.close()
            return
        if self._left:
            self._pass_on(user, data)
            return
        if self._chunks is not None:
            self._pass_chunks(user, self._chunks, data)
            return
        had_head = self._head is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._switch(user, data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            if not self._complete:
                self._break(f"malformed answer: {error}")
                return
            self._surplus = True
        if self._head is None:
            self._head_bytes += len(data)
            if self._head_bytes > self._pool.settings.max_answer_head_bytes:
                self._break("malformed answer: its head is too large")
            return
        parts = self._parts
        if not parts:
            body = b""
        else:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
        if not had_head:
            self._deliver_head(user, body, data)
        elif body or self._complete:
            user.answer_data(body, self._complete)

    def _pass_on(self, user: User, data: bytes) -> None:
        """More of a body whose framing is known: to its end it is not looked at."""
        self._left -= len(data)
        if self._left > 0:
            user.answer_data(data, False)
            return
        if self._left:
            self._surplus = True
            data = data[: int(self._left)]
            self._left = 0
        self._complete = True
        user.answer_data(data, True)

    def _switch(self, user: User, data: bytes) -> None:
        self._left = math.inf
        self._switched = True
        user.switched(self._fields, data)

    def _pass_chunks(self, user: User, chunks: ChunkedReader, data: bytes) -> None:
        if self._chunk_rest:
            data = self._chunk_rest + data
        try:
            parts, self._chunk_rest = chunks.decode_parts(data)
        except MalformedChunks as error:
            self._break(f"malformed answer: {error}")
            return
        if not chunks.ended:
            for part in parts:
                if self._user is user:
                    user.answer_data(part, False)
            return
        self._complete = True
        self._surplus = self._chunk_rest != b""
        self._fields = chunks.trailers
        user.answer_data(b"".join(parts), True)

    def _read_chunks(self, data: bytes) -> None:
        """Read the chunks without the parser from now on, which copies less, if they surely begin in `data`."""
        if self._head_bytes == 0 and data[9:12] == b"%d" % self._status:
            settings = self._pool.settings
            chunks = ChunkedReader(settings.max_header_bytes, settings.max_headers)
            with contextlib.suppress(MalformedChunks):  # the parser will find the same
                _, self._chunk_rest = chunks.decode_parts(data[data.index(b"\r\n\r\n") + 4 :])
                self._chunks = chunks
                self._parser_behind = True

    def _deliver_head(self, user: User, body: bytes, data: bytes) -> None:
        headers: Headers = []
        length: int | None = None
        coding: bytes | None = None
        options: frozenset[bytes] = _NO_OPTIONS
        assert self._head is not None
        for field in self._head:
            name = field[0]
            if name not in _FRAMING:
                headers.append(field)
            elif name == b"content-length":
                length = int(field[1])
            elif name == b"transfer-encoding":
                coding = field[1].lower() if coding is None else b"several"
            elif name == b"connection":
                options = options | connection_options([field])
            elif name == b"trailer":
                names = announced_trailers(field[1])
                self.announced = b", ".join((self.announced, names)) if self.announced else names
        if coding is not None and coding != b"chunked":
            self._break("malformed answer: a transfer coding other than chunked")
            return
        if self.served == 0 and self._parser.get_http_version() not in _VERSIONS:
            self._break("malformed answer: another version of HTTP")
            return
        if options:
            listed = listed_fields(options)
            headers = [field for field in headers if field[0] not in listed]
        if self._bodiless or self._status == 204 or self._status == 304:
            self._surplus = self._surplus or body != b""
            self._complete = True
            body = b""
        else:
            self._open_ended = length is None and coding is None
            if not self._complete and coding is None:
                self._left = math.inf if length is None else length - len(body)
                self._parser_behind = True
            elif not self._complete:
                self._read_chunks(data)
        user.answer(self._status, headers, length, body, self._complete)

    def _break(self, cause: str) -> None:
        user = self._user
        self.close()
        if user is not None:
            user.lost(cause, True)

    # The parser's calls.

    def on_message_begin(self) -> None:
        if self._complete:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        status = self._parser.get_status_code()
        if status == 101:
            self._interim = True
            return
        fields, self._fields = self._fields, []
        if status < 200:
            self._interim = True
            if self._user is not None:
                passed = [field for field in end_to_end(fields) if field[0] != b"content-length"]
                self._user.informed(status, passed)
            return
        self._status = status
        self._head = fields
        self._keep_alive = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        else:
            self._complete = True
