"""One request with its answer, as the server's handler sees it.

Lifetime: made by the server connection once the head is complete, finished exactly once, by the end of the answer
or by its abortion; after that every call does nothing. It belongs to the loop's thread. Order of the calls it
makes when the client leaves: the sink's `gone`, then `on_gone`, then `on_finished`.

What has come of the body is held until it exceeds `HttpSettings.hold_bytes`. While nobody takes the body, reading
pauses there; once a sink takes it, the held part is let go instead and the exchange can no longer be replayed.

An exchange may end in another protocol (`switch`): then what the client sends after the request goes to the sink
as it is, `write` sends as it is, and each side is ended for itself, the client's by `Sink.end`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from upwell.functions.errors import InvalidInput
from upwell.runtime.http.chunks import LARGE, chunk_lines, encode_chunk
from upwell.runtime.http.messages import (
    STATUS_LINES,
    BodyFraming,
    Headers,
    RequestHead,
    encode_fields,
    encode_trailers,
    list_members,
)

if TYPE_CHECKING:
    from upwell.runtime.http.server_connection import ServerConnection


_BODILESS = frozenset({204, 304})


class BodyTooLarge(InvalidInput):
    """A request body beyond what its reader takes."""

    status = 413


class BodyIncomplete(InvalidInput):
    """The client left or broke off before the end of its body."""


class Sink(Protocol):
    """Takes a request body and follows the client's connection while the answer is made."""

    def data(self, data: bytes) -> None:
        """The next bytes of the body, decoded; never empty. A large piece may be a view of bytes."""
        ...

    def end(self, trailers: Headers) -> None:
        """The body is complete; called once more when a client that has switched the protocol ends its side."""
        ...

    def gone(self) -> None:
        """The exchange is over though the sink is still attached; the last call.

        The client left, its body broke off, or someone ended the answer without the sink.
        """
        ...

    def pause_writing(self) -> None:
        """The client does not keep up with the answer: write no more until `resume_writing`."""
        ...

    def resume_writing(self) -> None: ...


class Exchange:
    """A request (`request`), who sent it (`client` address, `scheme`), and the means to answer it.

    `received_at` is the clock's monotonic time at which the head was complete. `status` is 0 until an answer was
    begun; `continued` says whether the client was told 100 Continue; `bytes_sent` and `bytes_received` count
    decoded body bytes, and all that passed after a switch. `tag` is the owner's to use.
    """

    __slots__ = (
        "_answer_left",
        "_chunked",
        "_connection",
        "_held",
        "_held_bytes",
        "_hold_limit",
        "_silent",
        "_taking",
        "_whole",
        "announced",
        "body_complete",
        "body_replayable",
        "bytes_received",
        "bytes_sent",
        "client",
        "continued",
        "finished",
        "keep_alive",
        "on_finished",
        "on_gone",
        "received_at",
        "request",
        "responded",
        "scheme",
        "sink",
        "status",
        "switched",
        "tag",
        "trailers",
    )

    def __init__(
        self, connection: ServerConnection, request: RequestHead, client: str, scheme: str, received_at: float
    ) -> None:
        self._connection = connection
        self.request = request
        self.client = client
        self.scheme = scheme
        self.received_at = received_at
        self.keep_alive = request.keep_alive
        self.responded = False
        self.finished = False
        self.switched = False
        self.continued = False
        self.status = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self.body_complete = request.framing is BodyFraming.NONE
        self.body_replayable = True
        self.tag: object | None = None
        self.on_gone: Callable[[], None] | None = None
        self.on_finished: Callable[[Exchange], None] | None = None
        self.trailers: Headers | None = None
        self.announced = b""
        self._held: list[bytes] | None = None
        self._held_bytes = 0
        self._hold_limit = connection.settings.hold_bytes
        self._whole: tuple[int, Callable[[bytes | None], None]] | None = None
        self.sink: Sink | None = None
        self._taking = False
        self._chunked = False
        self._silent = False
        self._answer_left: int | None = None

    def __repr__(self) -> str:
        state = "finished" if self.finished else "responded" if self.responded else "waiting"
        return (
            f"<Exchange {self.request.method.decode('latin-1')} {self.request.target.decode('latin-1')} {state}, "
            f"status {self.status}, received {self.bytes_received}, sent {self.bytes_sent}>"
        )

    @property
    def connection(self) -> object:
        """Stands for the client's connection, for as long as it lasts: hashable, and may be referred to weakly."""
        return self._connection

    # The answer.

    def date(self) -> bytes:
        """The value of a Date field, now."""
        return self._connection.date()

    def respond(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """The complete answer in one write; Content-Length, Date and Connection are set here.

        Does nothing when the client is gone. Raises RuntimeError when an answer was begun before.
        """
        if self.finished:
            return
        self.begin_answer(status, [*headers, (b"date", self._connection.date())], len(body), body, ended=True)
        self.close_answer()

    def start(self, status: int, headers: Headers, length: int | None = None) -> None:
        """The head of an answer whose body follows through `write`; `length` None means unknown."""
        if not self.finished:
            self.begin_answer(status, headers, length, b"", ended=False)

    def begin_answer(
        self,
        status: int,
        headers: Headers,
        length: int | None,
        data: bytes,
        *,
        ended: bool,
        trailers: Headers | None = None,
    ) -> None:
        """Head and first `data` in one write, with `ended` also the end; then `close_answer` is to be called.

        `headers` hold no framing fields (Content-Length, Transfer-Encoding, Connection).
        """
        if self.responded:
            raise RuntimeError("an answer was already begun")
        request = self.request
        connection = self._connection
        fields = encode_fields(headers)
        self.responded = True
        self.status = status
        if request.method == b"HEAD" or status in _BODILESS or status < 200:
            self._silent = True
            data = b""
            framing = b"" if length is None or status == 204 else b"content-length: %d\r\n" % length
        elif length is not None:
            self._answer_left = length
            framing = b"content-length: %d\r\n" % length
        elif request.version == b"1.1":
            self._chunked = True
            framing = b"transfer-encoding: chunked\r\n"
            if self.announced:
                framing += b"trailer: %b\r\n" % self.announced
        else:
            self.keep_alive = False
            framing = b""
        if not self.keep_alive or not connection.stays_open(self, ended):
            self.keep_alive = False
            # To a client of HTTP/1.0 it goes without saying.
            framing += b"connection: close\r\n" if request.version == b"1.1" else b""
        elif request.version != b"1.1":
            framing += b"connection: keep-alive\r\n"
        head = STATUS_LINES[status] + fields + framing + b"\r\n"
        if data:
            head += self._encode(data)
        if ended and self._chunked:
            head += self._encode_end(trailers)
        connection.write(head)

    def write(self, data: bytes) -> None:
        """The next bytes of the body. Never blocks: a sink is told to pause when the client does not keep up."""
        if not self.finished and data:
            if self._chunked and len(data) >= LARGE:
                self.bytes_sent += len(data)
                self._connection.write_lines(chunk_lines(data))
                return
            encoded = self._encode(data)
            if encoded:
                self._connection.write(encoded)

    def finish(self, trailers: Headers | None = None) -> None:
        """End the answer; trailer fields are sent when the client asked for them or a Trailer field announced
        them (`announced`), and the framing allows.

        An answer shorter than its declared length aborts the connection instead, so that the client can tell.
        """
        if not self.finished:
            self.write_last(b"", trailers)
            self.close_answer()

    def write_last(self, data: bytes, trailers: Headers | None) -> None:
        """The last bytes and the end in one write; then `close_answer` is to be called."""
        if not self.finished:
            encoded = self._encode(data) + self._encode_end(trailers)
            if encoded:
                self._connection.write(encoded)

    def close_answer(self) -> None:
        """The answer was written to its end: the connection goes on to the next request."""
        if self.finished:
            return
        if self._answer_left:
            self.abort()
        else:
            self._connection.answer_ended(self)

    def cut_short(self) -> None:
        """Send what was written and close: the answer stays without its end, and the client can tell."""
        if not self.finished:
            self.keep_alive = False
            self._connection.answer_ended(self)

    @property
    def lacks(self) -> int | None:
        """Bytes still to come of an answer with a declared length; None when none was declared."""
        return self._answer_left

    def inform(self, status: int, headers: Headers) -> None:
        """An informational answer (100 to 199, not 101) before the real one; HTTP/1.0 clients get none."""
        if not self.responded and not self.finished and self.request.version == b"1.1":
            if status == 100:
                self._connection.expecting = False
                self.continued = True
            self._connection.write(STATUS_LINES[status] + encode_fields(headers) + b"\r\n")

    def switch(self, headers: Headers, data: bytes) -> None:
        """Answer 101 with `headers`, which name the protocol, and go on with `data` in it; see `write`.

        End it with `close_answer`, which sends what is under way, or `abort`. Raises RuntimeError when an answer
        was begun before.
        """
        if self.responded:
            raise RuntimeError("an answer was already begun")
        head = STATUS_LINES[101] + encode_fields(headers) + b"\r\n"
        self.responded = self.switched = True
        self.keep_alive = False
        self.status = 101
        self.bytes_sent += len(data)
        self._connection.write(head + data)
        self._connection.switched(self)

    def end_side(self) -> None:
        """After a switch: the client gets nothing more, but may go on sending."""
        if not self.finished:
            self._connection.end_side()

    def abort(self) -> None:
        """Close the client's connection at once, whatever was sent: never a clean end."""
        if not self.finished:
            self._connection.abort_exchange(self)

    def _encode(self, data: bytes) -> bytes:
        if self._silent or not data:
            return b""
        self.bytes_sent += len(data)
        if self._chunked:
            return encode_chunk(data)
        if self._answer_left is not None:
            self._answer_left -= len(data)
            if self._answer_left < 0:
                self.bytes_sent += self._answer_left
                data = data[: self._answer_left]
                self._answer_left = 0
        return data

    def _encode_end(self, trailers: Headers | None) -> bytes:
        if not self._chunked:
            return b""
        if trailers and not self.request.accepts_trailers:
            announced = list_members(self.announced)
            trailers = [field for field in trailers if field[0] in announced]
        return encode_trailers(trailers or [])

    # The request's body.

    @property
    def body(self) -> bytes | None:
        """The whole body when all of it is here and held, else None."""
        if not self.body_complete or not self.body_replayable:
            return None
        held = self._held
        if held is None:
            return b""
        if len(held) > 1:
            held[:] = [b"".join(held)]
        return held[0]

    def attach(self, sink: Sink) -> None:
        """Give the body to `sink`, what is held first; a client that waits for 100 Continue is told so.

        Raises RuntimeError when part of the body was already thrown away, or another sink is attached.
        """
        self.watch(sink)
        if self.finished:
            return
        if self._connection.expecting:
            self.inform(100, [])
        held = self.take_body()
        if held:
            sink.data(held)
        if self.body_complete and self.sink is sink:
            sink.end(self.trailers or [])

    def watch(self, sink: Sink) -> None:
        """Tell `sink` when the client goes or cannot keep up, and nothing of the body yet; see `take_body`."""
        if self.sink is not None or not self.body_replayable:
            raise RuntimeError("the body is taken already")
        self.sink = sink
        self._taking = False

    def take_body(self) -> bytes:
        """What is held of the body; what comes later goes to the sink that watches."""
        self._taking = True
        if not self.body_complete:
            self._connection.resume_body()
        return b"".join(self._held) if self._held else b""

    def detach(self, sink: Sink) -> None:
        """Take the body back from `sink`; what comes is held again up to the limit."""
        if self.sink is sink:
            self.sink = None
            self._taking = False
            if not self.finished and not self.body_complete:
                self._connection.resume_body()

    def pause_reading(self) -> None:
        """The sink cannot take more of the body."""
        self._connection.pause_body()

    def resume_reading(self) -> None:
        if not self.finished:
            self._connection.resume_body()

    def read_whole(self, limit: int, done: Callable[[bytes | None], None]) -> None:
        """Hold a body of up to `limit` bytes and call `done` with all of it: now if it is here, else when it is.

        With None as soon as it is known to be larger. The body stays: it may be sent on afterwards, and again
        while it was not larger. `done` is not called when the client leaves first; another call takes its place. A
        client that waits for 100 Continue is told so, if its body may be small enough. Raises RuntimeError when
        the body was given to a sink.
        """
        if self.sink is not None or not self.body_replayable:
            raise RuntimeError("the body is taken already")
        self._whole = None
        declared = self.request.content_length
        if self.finished:
            return
        if self._held_bytes > limit or (declared is not None and declared > limit):
            done(None)
        elif self.body_complete:
            done(self.body)
        else:
            self._hold_limit = max(limit, self._hold_limit)
            self._whole = limit, done
            if self._connection.expecting:
                self.inform(100, [])
            self._connection.resume_body()

    async def read_body(self, limit: int) -> bytes:
        """The whole body, at most `limit` bytes.

        Raises BodyTooLarge (413) beyond the limit and BodyIncomplete when the client leaves before the end. The
        wait is bounded by `HttpSettings.body_timeout` without a byte.
        """
        declared = self.request.content_length
        if declared is not None and declared > limit:
            raise BodyTooLarge(f"a body of {declared} bytes", hint=f"Send at most {limit} bytes.")
        collector = _BodyCollector(self, limit)
        self.attach(collector)
        try:
            return await collector.done
        finally:
            self.detach(collector)

    def body_arrived(self, data: bytes) -> None:
        """Called by the connection."""
        self.bytes_received += len(data)
        sink = self.sink
        if self.body_replayable:
            data = bytes(data)
            limit = self._hold_limit
            self._held_bytes += len(data)
            if self._taking and self._held_bytes > limit:
                self._held = None
                self.body_replayable = False
            elif self._held is None:
                self._held = [data]
            else:
                self._held.append(data)
            if not self._taking and self._held_bytes > limit:
                self._connection.pause_body()
            if self._whole is not None and self._held_bytes > self._whole[0]:
                self._tell_whole()
                return
        elif not self._taking:
            self._connection.pause_body()
        if self._taking and sink is not None:
            sink.data(data)

    def passed(self, data: bytes) -> None:
        """Called by the connection with what the client sent after the switch."""
        self.bytes_received += len(data)
        if self.sink is not None:
            self.sink.data(data)

    def side_ended(self) -> None:
        """Called by the connection: after the switch the client has ended its side."""
        if self.sink is not None:
            self.sink.end([])

    def body_arrived_whole(self, trailers: Headers) -> None:
        """Called by the connection."""
        self.body_complete = True
        self.trailers = trailers
        if self._whole is not None:
            self._tell_whole()
        elif self._taking and self.sink is not None:
            self.sink.end(trailers)

    def _tell_whole(self) -> None:
        """The body is complete, or larger than its reader wants it."""
        assert self._whole is not None
        limit, done = self._whole
        self._whole = None
        done(self.body if self._held_bytes <= limit else None)

    def client_gone(self) -> None:
        """Called by the connection, which calls `on_finished` afterwards."""
        self._whole = None
        self.let_go_of_sink()
        if self.on_gone is not None:
            self.on_gone()

    def let_go_of_sink(self) -> None:
        """Called by the connection."""
        sink, self.sink = self.sink, None
        if sink is not None:
            sink.gone()


class _BodyCollector:
    """The sink of `read_body`."""

    __slots__ = ("_exchange", "_limit", "_parts", "_size", "done")

    def __init__(self, exchange: Exchange, limit: int) -> None:
        self._exchange = exchange
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self.done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if exchange.finished:
            self.gone()

    def data(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._limit:
            self._parts.append(data)
        elif not self.done.done():
            self._parts.clear()
            self._exchange.pause_reading()
            error = BodyTooLarge("the body is too large", hint=f"Send at most {self._limit} bytes.")
            self.done.set_exception(error)

    def end(self, trailers: Headers) -> None:
        if not self.done.done():
            self.done.set_result(b"".join(self._parts))

    def gone(self) -> None:
        if not self.done.done():
            self.done.set_exception(BodyIncomplete("the client left before the end of its body"))

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...
