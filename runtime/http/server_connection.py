"""One client connection: requests read one after another, each answered before the next is begun.

What a client sends ahead waits unread, and reading pauses. No timer is set for a request; a connection keeps one,
moved only when it fires before the deadline that then holds.

A client may end its side and still wait for answers (a half-closed connection), which from here looks like one
that has left. So it is answered; and if that takes long it is asked, with a `100 Continue` that any client skips
and to which a socket that is closed answers with a reset. Through an answer that stands still nobody can be asked,
nor a client of HTTP/1.0 at all: these are taken as gone after a while.
"""

from __future__ import annotations

import asyncio
import logging
import math
import select
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from upwell.runtime.http.exchange import Exchange
from upwell.runtime.http.messages import STATUS_LINES, BodyFraming, RequestHead
from upwell.runtime.http.reader import Refused, RequestReader
from upwell.runtime.timers import Timer

if TYPE_CHECKING:
    from upwell.runtime.http.server import HttpServer

logger = logging.getLogger("upwell.http")

_CONTINUE = STATUS_LINES[100] + b"\r\n"

_PROBE_ANSWER = 0.1
"""Seconds for the reset of a socket that is closed, of which a loop does not tell once it reads no more."""


class ServerConnection(asyncio.Protocol):
    """One client connection.

    Idle, or with one exchange, or discarding the rest of a body nobody wanted, or lingering: answered for the last
    time and reading only so that the answer is not lost.
    """

    __slots__ = (
        "__weakref__",
        "_advancing",
        "_client",
        "_deadline",
        "_discarded",
        "_exchange",
        "_half_closed",
        "_lingering",
        "_partial",
        "_probes",
        "_read_paused",
        "_reader",
        "_scheme",
        "_seen_sent",
        "_server",
        "_timer",
        "_timer_at",
        "_transport",
        "_unsent",
        "_unsent_until",
        "_write_deadline",
        "_write_paused",
        "expecting",
        "settings",
    )

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self.settings = server.settings
        self._reader = RequestReader(server.settings)
        self._transport: asyncio.Transport
        self._client = ""
        self._scheme = "http"
        self._exchange: Exchange | None = None
        self._advancing = False
        self._read_paused = False
        self._write_paused = False
        self._lingering = False
        self._partial = False
        self._discarded = 0
        # Whether the client has ended its side, how often it was looked for since, and what it had got by then.
        self._half_closed = False
        self._probes = 0
        self._seen_sent = 0
        self._deadline = math.inf
        # By when the client must have read on, while the transport's buffer is full.
        self._write_deadline = math.inf
        self._unsent = 0
        self._unsent_until = 0.0
        self._timer_at = math.inf
        self._timer: Timer | None = None
        # Whether the client waits for 100 before it sends its body.
        self.expecting = False

    # The transport's calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        server = self._server
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        server.connections_total += 1
        self._transport.set_write_buffer_limits(high=self.settings.write_high_water)
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) and peer else ""
        if transport.get_extra_info("sslcontext") is not None:
            self._scheme = "https"
        self._set_deadline(server.clock.monotonic() + self.settings.head_timeout)
        is_full = len(server.connections) >= self.settings.max_connections and not server.make_room()
        server.connections[self] = None
        if is_full or server.draining:
            self._refuse(Refused(503, "too many connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._lingering = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        exchange = self._exchange
        if exchange is not None:
            self._break_off(exchange)
        self._server.left(self)

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            self._discard(len(data))
            return
        exchange = self._exchange
        reader = self._reader
        if exchange is None:
            reader.receive(data)
            if reader.body_ended:
                self._advance()
            else:
                self._discard_body()
        elif not exchange.body_complete:
            reader.receive(data)
            self._read_body(exchange)
        elif exchange.switched:
            exchange.passed(data)
        else:
            reader.receive(data)
            self._pause_if_full()

    def eof_received(self) -> bool:
        """The client has ended its side: True keeps the connection open for what it may still be waiting for."""
        exchange = self._exchange
        if self._lingering or not self._transport.can_write_eof():
            return False
        if exchange is None:
            self._half_closed = self._reader.body_ended and self._reader.buffered and not self._partial
            return self._half_closed
        if not exchange.body_complete:
            return False
        if exchange.switched:
            self._half_closed = True
            exchange.side_ended()
            return self._exchange is exchange
        if _hung_up(self._transport):
            return False
        if not self._half_closed:
            self._half_closed = True
            self._wait_for_half_closed(exchange)
        return True

    def pause_writing(self) -> None:
        self._write_paused = True
        self._write_deadline = self._server.clock.monotonic() + self.settings.write_timeout
        self._arm_for(self._write_deadline)
        if self._exchange is not None and self._exchange.sink is not None:
            self._exchange.sink.pause_writing()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._write_deadline = math.inf
        exchange = self._exchange
        if exchange is None:
            self._continue()
        elif exchange.sink is not None:
            exchange.sink.resume_writing()

    # Requests.

    def _advance(self) -> None:
        """Handle what is buffered, one request after another, while each is answered at once."""
        if self._advancing:
            return
        self._advancing = True
        try:
            for _ in range(self.settings.pipeline_burst):
                if self._write_paused:
                    # The client does not read what it has been answered: it gets no more to read.
                    self._pause()
                    return
                head = self._reader.head()
                if head is None:
                    self._await_head()
                    return
                self._begin(head)
                if self._exchange is not None or self._lingering or not self._reader.buffered:
                    return
                if not self._reader.body_ended:
                    return
            asyncio.get_running_loop().call_soon(self._continue)
        except Refused as refused:
            self._refuse(refused)
        finally:
            self._advancing = False

    def _continue(self) -> None:
        if self._exchange is None and not self._lingering and self._reader.body_ended:
            self._advance()

    def _await_head(self) -> None:
        if self._half_closed:
            self._close(unread=False)
            return
        self._resume()
        if self._reader.buffered and not self._partial:
            self._partial = True
            self._set_deadline(self._server.clock.monotonic() + self.settings.head_timeout)

    def _begin(self, head: RequestHead) -> None:
        server = self._server
        now = server.clock.monotonic()
        exchange = Exchange(self, head, self._client, self._scheme, now)
        self._partial = False
        self._deadline = math.inf
        self.expecting = head.expects_continue and head.framing is not BodyFraming.NONE
        if head.framing is not BodyFraming.NONE:
            self._collect_body(exchange)
        self._exchange = exchange
        server.active += 1
        server.exchanges_total += 1
        if head.server_wide:
            exchange.respond(200, [])
            return
        try:
            server.handler(exchange)
        except Exception:
            logger.exception("the handler of %r failed", exchange)
            if exchange.responded or exchange.sink is not None:
                exchange.abort()
            else:
                exchange.respond(500, [(b"content-type", b"text/plain")], b"Internal Server Error\n")
        if self._half_closed and self._exchange is exchange:
            self._wait_for_half_closed(exchange)

    def _collect_body(self, exchange: Exchange) -> None:
        """Hold what is there of the body before the handler is called. Raises Refused."""
        reader = self._reader
        data = reader.body() if not reader.body_ended else b""
        if data:
            self.expecting = False
            exchange.body_arrived(data)
        if reader.body_ended:
            self.expecting = False
            exchange.body_arrived_whole(reader.trailers)
        elif self._half_closed:
            raise Refused(400, "the request's body is not whole")
        elif exchange.bytes_received <= self.settings.hold_bytes:
            self._resume()
            self._set_deadline(exchange.received_at + self.settings.body_timeout)

    def _read_body(self, exchange: Exchange) -> None:
        reader = self._reader
        try:
            parts = reader.body_parts()
        except Refused as refused:
            self._refuse(refused)
            return
        for data in parts:
            self.expecting = False
            exchange.body_arrived(data)
            if exchange.finished:
                return
        if reader.body_ended:
            self._deadline = math.inf
            exchange.body_arrived_whole(reader.trailers)
            if exchange.switched:
                self._pass_rest(exchange)
            elif self._exchange is exchange:
                self._pause_if_full()
        elif not self._read_paused:
            self._set_deadline(self._server.clock.monotonic() + self.settings.body_timeout)

    # What exchanges call.

    def date(self) -> bytes:
        return self._server.date()

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def write_lines(self, lines: Iterable[bytes]) -> None:
        self._transport.writelines(lines)

    def pause_body(self) -> None:
        self._deadline = math.inf
        self._pause()

    def resume_body(self) -> None:
        if self._read_paused and not self._lingering:
            self._read_paused = False
            self._transport.resume_reading()
            exchange = self._exchange
            if exchange is not None and not exchange.body_complete:
                self._set_deadline(self._server.clock.monotonic() + self.settings.body_timeout)

    def switched(self, exchange: Exchange) -> None:
        """The connection has changed its protocol: what is here beyond the request belongs to that."""
        if exchange.body_complete:
            self._deadline = math.inf
            self._pass_rest(exchange)

    def _pass_rest(self, exchange: Exchange) -> None:
        rest = self._reader.take_rest()
        if rest:
            exchange.passed(rest)
        if self._half_closed:
            exchange.side_ended()

    def end_side(self) -> None:
        """End the server's side; a connection that cannot be half closed is closed."""
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def stays_open(self, exchange: Exchange, ended: bool) -> bool:
        """Whether the connection can take another request after this answer."""
        if self._server.draining or (self._half_closed and not self._reader.buffered):
            return False
        return exchange.body_complete or not ended or self._worth_discarding()

    def answer_ended(self, exchange: Exchange) -> None:
        """The answer was written to its end."""
        self._exchange = None
        self._ended(exchange)
        if not exchange.keep_alive or self._server.draining:
            unread = not exchange.body_complete or self._reader.buffered or self._read_paused
            self._close(unread=unread or exchange.switched)
        elif not exchange.body_complete:
            self._discard_rest()
        else:
            self._deadline = self._server.clock.monotonic() + self.settings.keep_alive
            if self._reader.buffered:
                self._advance()
            else:
                self._resume()

    def abort_exchange(self, exchange: Exchange) -> None:
        self._exchange = None
        self._lingering = True
        self._transport.abort()
        self._server.gone_total += 1
        self._ended(exchange)

    # Ends.

    def _ended(self, exchange: Exchange) -> None:
        self._server.active -= 1
        exchange.finished = True
        if exchange.sink is not None:
            exchange.let_go_of_sink()
        if exchange.on_finished is not None:
            exchange.on_finished(exchange)

    def _break_off(self, exchange: Exchange) -> None:
        """The client is gone or its request broke off: tell everyone, once."""
        self._exchange = None
        self._server.gone_total += 1
        exchange.finished = True
        exchange.client_gone()
        self._ended(exchange)

    def _refuse(self, refused: Refused) -> None:
        """Answer a message that cannot be taken, if it can still be answered, and close."""
        self._server.refused_total += 1
        exchange = self._exchange
        responded = False
        if exchange is not None:
            responded = exchange.responded
            if not responded:
                exchange.status = refused.status
            self._break_off(exchange)
        if responded:
            self._lingering = True
            self._transport.abort()
            return
        if exchange is None:
            self._server.refused(self._client, refused.status, refused.reason)
        # 417 says it all, and Go's servers leave it at that.
        body = refused.reason.encode("latin-1", "replace") + b"\n" if refused.status != 417 else b""
        kind = b"content-type: text/plain\r\n" if body else b""
        self._transport.write(
            b"%b%bcontent-length: %d\r\ndate: %b\r\nconnection: close\r\n\r\n%b"
            % (STATUS_LINES[refused.status], kind, len(body), self.date(), body)
        )
        self._close(unread=True)

    def _close(self, *, unread: bool) -> None:
        """Close once the answer is out; with bytes `unread` only after reading on a little."""
        if self._lingering:
            return
        self._lingering = True
        now = self._server.clock.monotonic()
        self._unsent = self._transport.get_write_buffer_size()
        self._unsent_until = now + self.settings.write_timeout
        self._set_deadline(now + self.settings.linger)
        if not unread or self._half_closed or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        self._discarded = 0
        self._resume()

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > self.settings.discard_bytes:
            # Reading on would serve nobody, and a reset could overtake the answer: the rest waits in the network.
            self._pause()

    def _worth_discarding(self) -> bool:
        remaining = self._reader.remaining
        return not self.expecting and remaining is not None and remaining <= self.settings.discard_bytes

    def _discard_rest(self) -> None:
        """The answer came before the body's end: read the rest away if it is small, else close."""
        if not self._worth_discarding():
            self._close(unread=True)
            return
        self._set_deadline(self._server.clock.monotonic() + self.settings.linger)
        self._resume()
        if self._reader.buffered:
            self._discard_body()

    def _discard_body(self) -> None:
        self._reader.body()
        if self._reader.body_ended:
            self._deadline = self._server.clock.monotonic() + self.settings.keep_alive
            if self._reader.buffered:
                self._advance()

    def drain(self) -> None:
        """Called when the server drains."""
        self.give_way()

    def give_way(self) -> bool:
        """Close if no request is under way here; whether it was so."""
        if self._exchange is not None or self._partial or self._lingering or not self._reader.body_ended:
            return False
        self._close(unread=False)
        return True

    def cut_off(self) -> None:
        self._lingering = True
        self._transport.abort()

    def _pause(self) -> None:
        if not self._read_paused:
            self._read_paused = True
            self._transport.pause_reading()

    def _pause_if_full(self) -> None:
        """Read on while little is buffered, so that the client's end is noticed."""
        if self._reader.full:
            self._pause()

    def _resume(self) -> None:
        if self._read_paused:
            self._read_paused = False
            self._transport.resume_reading()

    # Deadlines.

    def _set_deadline(self, deadline: float) -> None:
        self._deadline = deadline
        self._arm_for(deadline)

    def _arm_for(self, deadline: float) -> None:
        if deadline < self._timer_at or self._timer is None:
            self._arm(deadline)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._server.wheel.schedule(at - self._server.clock.monotonic(), self._time_out)

    def _time_out(self) -> None:
        now = self._server.clock.monotonic()
        due = min(self._deadline, self._write_deadline)
        if now < due:
            # No deadline set later is nearer than this one: keep_alive is what an exchange's end sets.
            self._arm(min(due, now + self.settings.keep_alive))
            return
        self._timer = None
        exchange = self._exchange
        if self._lingering and self._client_reads(now):
            self._set_deadline(now + self.settings.linger)
        elif self._lingering or now >= self._write_deadline:
            self._transport.abort()
        elif exchange is not None and exchange.body_complete:
            self._look_for_client(exchange, now)
        elif exchange is not None:
            self._refuse(Refused(408, "the request's body took too long"))
        elif self._partial:
            self._refuse(Refused(408, "the request's head took too long"))
        else:
            self._close(unread=False)

    def _wait_for_half_closed(self, exchange: Exchange) -> None:
        self._seen_sent = exchange.bytes_sent if exchange.responded else -1
        askable = not exchange.responded and exchange.request.version == b"1.1"
        pause = self.settings.half_closed_probe if askable else self.settings.half_closed_idle
        self._set_deadline(self._server.clock.monotonic() + pause)

    def _look_for_client(self, exchange: Exchange, now: float) -> None:
        """The client has ended its side some time ago, and may have left altogether."""
        settings = self.settings
        if _hung_up(self._transport) or (not exchange.responded and exchange.request.version == b"1.0"):
            self._transport.abort()
        elif exchange.responded:
            if exchange.bytes_sent == self._seen_sent and not self._transport.get_write_buffer_size():
                self._transport.abort()
                return
            self._seen_sent = exchange.bytes_sent
            self._set_deadline(now + settings.half_closed_idle)
        else:
            self._probes += 1
            if self._probes % 2:
                self._transport.write(_CONTINUE)
                self._set_deadline(now + _PROBE_ANSWER)
            else:
                self._set_deadline(now + settings.half_closed_probe * 2 ** (self._probes // 2))

    def _client_reads(self, now: float) -> bool:
        """Whether the last answer is still on its way out and the client takes of it now and then."""
        unsent = self._transport.get_write_buffer_size()
        if unsent and unsent < self._unsent:
            self._unsent = unsent
            self._unsent_until = now + self.settings.write_timeout
        return bool(unsent) and now < self._unsent_until


def _hung_up(transport: asyncio.Transport) -> bool:
    """Whether the other side has left for good, as a Unix socket knows at once and another by a reset."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
