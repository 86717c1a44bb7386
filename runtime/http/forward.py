"""Sends an exchange to a back end and streams the answer back.

One `Forwarding` is one attempt. Before the head of an answer has come it writes nothing to the client, so when it
fails its owner still decides: forward the same exchange again while `exchange.body_replayable`, or respond. After
the head a failure aborts the client's connection, so that a cut answer never looks like a whole one.

A request to change the protocol is passed on, and when the back end agrees (101) the two connections are spliced:
bytes pass as they are, in both directions and at the pace of the slower side, and each side's end is passed on,
until both have ended or one connection is gone. What the client sends before the 101 waits; if another answer
comes, it is read as further requests, so that nobody tunnels through a back end that did not agree.

There is no deadline here but the ones on connecting and on 100 Continue: the owner has one for the whole request,
spliced or not, and calls `cancel`.
`Observer.completed` is called exactly once, after which the attempt touches nothing any more; when the answer is
complete it is called before the exchange's `on_finished`.
"""

from __future__ import annotations

import asyncio
import enum
from typing import NamedTuple, Protocol, Self

from upwell.functions.errors import InvalidInput
from upwell.runtime.http.chunks import LARGE, chunk_lines, encode_chunk
from upwell.runtime.http.exchange import Exchange
from upwell.runtime.http.messages import (
    HOP_BY_HOP,
    BodyFraming,
    Headers,
    RequestHead,
    end_to_end,
    join_lines,
    switches_to,
)
from upwell.runtime.http.upstream import UpstreamPool
from upwell.runtime.http.upstream_connection import UpstreamConnection
from upwell.runtime.timers import Timer


class OutcomeKind(enum.Enum):
    """How an attempt ended."""

    COMPLETE = "complete"
    CONNECT_FAILED = "connect failed"
    LOST_BEFORE_RESPONSE = "lost before response"
    LOST_DURING_RESPONSE = "lost during response"
    BAD_RESPONSE = "bad response"
    CLIENT_GONE = "client gone"
    CANCELLED = "cancelled"


class Outcome(NamedTuple):
    """The end of an attempt.

    `status` is the answer's, 0 when none came. `reused` says whether the connection had served before,
    `request_sent` whether any byte of the request was written to it; `cause` is for logs.
    """

    kind: OutcomeKind
    status: int
    reused: bool
    request_sent: bool
    cause: str


class Observer(Protocol):
    """Follows one attempt."""

    def response_head(self, status: int, headers: Headers) -> None:
        """The answer's head, before it is written; `headers` may be changed in place."""
        ...

    def completed(self, outcome: Outcome) -> None:
        """The attempt is over. Called exactly once, never from within `forward` itself."""
        ...


def forward(
    exchange: Exchange,
    pool: UpstreamPool,
    *,
    add: Headers,
    drop: frozenset[bytes],
    observer: Observer,
    target: bytes | None = None,
    host: bytes | None = None,
) -> Forwarding:
    """Send `exchange` through `pool`, without the fields named in `drop` and with those of `add`.

    `target` and `host` take the place of the request's own. Raises RuntimeError when the body is not replayable
    any more, or another attempt is still under way.
    """
    return Forwarding(exchange, pool, Changes(add, drop, target, host), observer).start()


class Changes(NamedTuple):
    """What is different in the request that the back end gets."""

    add: Headers
    drop: frozenset[bytes]
    """Names of fields that are left out; `add` may bring them back."""
    target: bytes | None = None
    """In origin form."""
    host: bytes | None = None


def encode_request(request: RequestHead, changes: Changes) -> bytes:
    """The head of the request as a back end gets it. Raises InvalidInput for what would break out of its line."""
    add, drop, target, host = changes
    lines = []
    if target is not None and len(target.split()) != 1:
        raise InvalidInput("a request target holds a space or a line break", hint="Encode it before it is set.")
    if host is not None:
        drop = drop | _HOST
        lines.append(b"host: " + host + b"\r\n")
    if request.listed:
        drop = drop | request.listed
    lines += [
        name + b": " + value + b"\r\n"
        for name, value in request.headers
        if name not in HOP_BY_HOP and name not in drop
    ]
    lines += [name + b": " + value + b"\r\n" for name, value in add]
    if request.upgrade is not None:
        lines += (b"connection: Upgrade\r\n", b"upgrade: %b\r\n" % request.upgrade)
    if request.framing is BodyFraming.CHUNKED:
        lines.append(b"transfer-encoding: chunked\r\n")
    if host is None and not request.host and b"host" not in dict(add):
        # RFC 9112 3.2: HTTP/1.1 needs the field, if only an empty one; the client spoke HTTP/1.0 without it.
        lines.append(b"host: \r\n")
    if request.accepts_trailers:
        lines.append(b"te: trailers\r\n")
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (request.method, target or request.origin_target, join_lines(lines))


_HOST = frozenset({b"host"})


class Forwarding:
    """One attempt under way: the sink of its exchange and the user of an upstream connection."""

    __slots__ = (
        "_changes",
        "_chunked",
        "_client_ended",
        "_connection",
        "_continuing",
        "_done",
        "_exchange",
        "_observer",
        "_pool",
        "_request_complete",
        "_reused",
        "_sending_paused",
        "_server_ended",
        "_status",
        "_switched",
    )

    def __init__(self, exchange: Exchange, pool: UpstreamPool, changes: Changes, observer: Observer) -> None:
        self._exchange = exchange
        self._pool = pool
        self._changes = changes
        self._observer = observer
        self._connection: UpstreamConnection | None = None
        self._chunked = exchange.request.framing is BodyFraming.CHUNKED
        self._request_complete = False
        self._reused = False
        self._sending_paused = False
        # The wait for 100 Continue, with the body held back.
        self._continuing: Timer | None = None
        self._switched = False
        self._client_ended = False
        self._server_ended = False
        self._status = 0
        self._done = False

    def __repr__(self) -> str:
        state = "done" if self._done else "waiting" if self._connection is None else "sent"
        return f"<Forwarding to {self._pool.endpoint} [{state}, status {self._status}]>"

    def start(self) -> Self:
        """Take a connection or wait for one; called once. Raises as `forward` does."""
        exchange, pool = self._exchange, self._pool
        exchange.watch(self)
        if exchange.finished:
            asyncio.get_running_loop().call_soon(self.gone)
            return self
        connection = pool.take()
        if connection is not None:
            self.connected(connection)
            return self
        refusal = pool.wait(self)
        if refusal:
            asyncio.get_running_loop().call_soon(self.connect_failed, refusal)
        return self

    def encode_head(self) -> bytes:
        """The head that goes to the back end."""
        return encode_request(self._exchange.request, self._changes)

    def cancel(self) -> None:
        """Give up: the upstream connection is closed and the outcome is CANCELLED, told before this returns.

        The client's connection is aborted if it has the answer's head (spliced: closed after what is under way),
        else left to the owner.
        """
        if self._done:
            return
        started = self._status != 0
        self._end(OutcomeKind.CANCELLED, "cancelled")
        if started:
            self._break_off()

    @property
    def held_up(self) -> bool:
        """Whether the client does not keep up with the answer, so that nothing more is read of it."""
        return self._connection is not None and self._connection.reading_paused

    # As the user of an upstream connection.

    @property
    def waiting(self) -> bool:
        return not self._done and self._connection is None

    def connected(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        self._reused = connection.served > 0
        exchange = self._exchange
        request = exchange.request
        head = self.encode_head()
        connection.begin(self, request.method == b"HEAD")
        if request.framing is BodyFraming.NONE:
            self._request_complete = True
            exchange.take_body()
            connection.write(head)
        elif request.expects_continue and request.content_length != 0 and not exchange.continued:
            connection.write(head)
            pool = self._pool
            self._continuing = pool.wheel.schedule(pool.settings.expect_timeout, self._continue)
        else:
            connection.write(head + self._body_so_far())

    def _body_so_far(self) -> bytes:
        """Take the body: what is there of it, encoded."""
        exchange = self._exchange
        body = exchange.take_body()
        self._request_complete = exchange.body_complete
        if self._chunked:
            body = encode_chunk(body) if body else b""
            if self._request_complete:
                self._chunked = False
                body += b"0\r\n\r\n"
        return body

    def _continue(self) -> None:
        """Tell the client to send its body, and send it on. The client is told once, whoever gave the cause."""
        timer, self._continuing = self._continuing, None
        if timer is None or self._connection is None:
            return
        timer.cancel()
        self._exchange.inform(100, [])
        body = self._body_so_far()
        if body:
            self._connection.write(body)

    def connect_failed(self, cause: str) -> None:
        self._end(OutcomeKind.CONNECT_FAILED, cause)

    def informed(self, status: int, headers: Headers) -> None:
        if status == 100:
            self._continue()
        else:
            self._exchange.inform(status, headers)

    def answer(self, status: int, headers: Headers, length: int | None, data: bytes, ended: bool) -> None:
        exchange = self._exchange
        self._observer.response_head(status, headers)
        if self._done:
            return
        assert self._connection is not None
        exchange.announced = self._connection.announced
        if not ended:
            exchange.begin_answer(status, headers, length, data, ended=False)
            self._status = status
            return
        exchange.begin_answer(status, headers, length, data, ended=True, trailers=self._connection.trailers)
        self._status = status
        self._complete()

    def answer_data(self, data: bytes, ended: bool) -> None:
        if not ended:
            self._exchange.write(data)
            return
        assert self._connection is not None
        if self._switched:
            self._splice_over()
            return
        self._exchange.write_last(data, self._connection.trailers)
        self._complete()

    def switched(self, headers: Headers, data: bytes) -> None:
        protocols = switches_to(headers, self._exchange.request.upgrade)
        if protocols is None:
            self._end(OutcomeKind.BAD_RESPONSE, "an upgrade that was not asked for")
            return
        passed = [field for field in end_to_end(headers) if field[0] != b"content-length"]
        self._observer.response_head(101, passed)
        if self._done:
            return
        passed += ((b"connection", b"Upgrade"), (b"upgrade", protocols))
        self._continue()
        self._switched = True
        self._status = 101
        self._exchange.switch(passed, data)
        if not self._sending_paused:
            self._exchange.resume_reading()

    def side_ended(self) -> None:
        self._server_ended = True
        if self._client_ended:
            self._splice_over()
        else:
            self._exchange.end_side()

    def lost(self, cause: str, malformed: bool) -> None:
        started = self._status != 0
        if malformed:
            kind = OutcomeKind.BAD_RESPONSE
        else:
            kind = OutcomeKind.LOST_DURING_RESPONSE if started else OutcomeKind.LOST_BEFORE_RESPONSE
        self._end(kind, cause)
        if started:
            self._break_off()

    def pause_sending(self) -> None:
        self._sending_paused = True
        self._exchange.pause_reading()

    def resume_sending(self) -> None:
        self._sending_paused = False
        self._exchange.resume_reading()

    # As the sink of the exchange.

    def data(self, data: bytes) -> None:
        if self._connection is not None:
            if not self._chunked:
                self._connection.write(data)
            elif len(data) >= LARGE:
                self._connection.write_lines(chunk_lines(data))
            else:
                self._connection.write(encode_chunk(data))

    def end(self, trailers: Headers) -> None:
        """Trailer fields of a request end here: nothing says that the back end would take them."""
        if self._switched and self._request_complete:
            self._end_client_side()
            return
        self._request_complete = True
        if self._chunked and self._connection is not None:
            self._chunked = False
            self._connection.write(b"0\r\n\r\n")

    def _end_client_side(self) -> None:
        self._client_ended = True
        if self._server_ended:
            self._splice_over()
        elif self._connection is not None:
            self._connection.end_side()

    def gone(self) -> None:
        self._end(OutcomeKind.CLIENT_GONE, "the client left")

    def pause_writing(self) -> None:
        if self._connection is not None:
            self._connection.pause_reading()

    def resume_writing(self) -> None:
        if self._connection is not None:
            self._connection.resume_reading()

    # Ends.

    def _complete(self) -> None:
        self._done = True
        if self._continuing is not None:
            self._continuing.cancel()
        connection, self._connection = self._connection, None
        exchange = self._exchange
        exchange.detach(self)
        assert connection is not None
        connection.done(request_complete=self._request_complete)
        self._observer.completed(Outcome(OutcomeKind.COMPLETE, self._status, self._reused, True, ""))
        exchange.close_answer()

    def _splice_over(self) -> None:
        self._end(OutcomeKind.COMPLETE, "")
        self._exchange.close_answer()

    def _break_off(self) -> None:
        """End what the client has begun to get, so that it never looks whole; a protocol of its own can tell."""
        if self._switched:
            self._exchange.close_answer()
        else:
            self._exchange.abort()

    def _end(self, kind: OutcomeKind, cause: str) -> None:
        if self._done:
            return
        self._done = True
        if self._continuing is not None:
            self._continuing.cancel()
        connection, self._connection = self._connection, None
        self._exchange.detach(self)
        if connection is not None:
            connection.close()
        self._observer.completed(Outcome(kind, self._status, self._reused, connection is not None, cause))
