"""One attempt to have a request answered by the user's container, answered to the caller as Go's server would.

It forwards as `runtime/http` does, and differs where that shows on the wire. The head that the container gets is
made by `request`. An answer of declared length is held until more of it has come than Go's server buffers, or all
of it: if the container breaks it off before that, the caller has seen nothing. A missing Content-Type is guessed.
And an answer that takes too long is not cut: a text is appended and the answer ended, so that the caller can tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from upwell.runtime.http.exchange import Exchange
from upwell.runtime.http.forward import Changes, Forwarding, OutcomeKind
from upwell.runtime.http.messages import Headers
from upwell.runtime.http.upstream import UpstreamPool
from upwell.runtime.sidecar.request import add_cache_control, encode_head
from upwell.runtime.sidecar.sniff import content_type

if TYPE_CHECKING:
    from upwell.runtime.sidecar.proxy import Passage

HELD_BYTES: Final = 2048
"""What Go's server gathers of a body before it writes the head."""
_NONE: Final[frozenset[bytes]] = frozenset()


class _HeldAnswer(NamedTuple):
    """An answer of which nothing has been written to the caller."""

    status: int
    headers: Headers
    length: int
    body: list[bytes]


class Relay(Forwarding):
    """A forwarding of `passage`'s exchange; `authority` is the Host of requests without one."""

    __slots__ = ("_authority", "_held", "_passage")

    def __init__(self, passage: Passage, exchange: Exchange, pool: UpstreamPool, authority: bytes) -> None:
        super().__init__(exchange, pool, Changes([], _NONE), passage)
        self._passage = passage
        self._authority = authority
        self._held: _HeldAnswer | None = None

    def encode_head(self) -> bytes:
        """As Knative's queue-proxy makes it."""
        return encode_head(self._exchange.request, self._exchange.client, self._authority)

    def informed(self, status: int, headers: Headers) -> None:
        """An informational answer counts as a sign of life."""
        if self._passage.watched:
            self._passage.progressed()
        super().informed(status, headers)

    def answer(self, status: int, headers: Headers, length: int | None, data: bytes, ended: bool) -> None:
        """The head of the answer, which is held for now if its length is known and its end is not here."""
        passage = self._passage
        if passage.watched:
            passage.progressed()
        if not ended and length is not None and len(data) <= HELD_BYTES and not _is_event_stream(headers):
            self._held = _HeldAnswer(status, headers, length, [data])
            return
        guessed = ended or length is not None or passage.watches_idleness
        headers = _mended(status, headers, data if guessed else b"")
        super().answer(status, headers, None if status == 304 else length, data, ended)

    def answer_data(self, data: bytes, ended: bool) -> None:
        """More of the body."""
        passage = self._passage
        if passage.watches_idleness:
            passage.progressed()
        held = self._held
        if held is None:
            super().answer_data(data, ended)
            return
        held.body.append(data)
        if ended or sum(map(len, held.body)) > HELD_BYTES:
            self._release(held, ended)

    def lost(self, cause: str, malformed: bool) -> None:
        """A held answer that breaks off is no answer: the caller's connection ends with nothing on it."""
        if self._held is None:
            super().lost(cause, malformed)
            return
        self._end(OutcomeKind.LOST_DURING_RESPONSE, cause)
        self._exchange.abort()

    @property
    def begun(self) -> bool:
        """Whether the container has answered with a head, written on or held."""
        return self._held is not None or self._exchange.responded

    def cut(self, text: bytes) -> None:
        """The answer has begun and takes too long: append `text` and end it."""
        if self._held is not None:
            self._release(self._held, ended=False)
        self._end(OutcomeKind.CANCELLED, "out of time")
        exchange = self._exchange
        if exchange.lacks is None:
            exchange.write_last(text, None)
            exchange.close_answer()
        else:
            if len(text) <= exchange.lacks:
                exchange.write(text)
            exchange.cut_short()

    def _release(self, held: _HeldAnswer, ended: bool) -> None:
        self._held = None
        data = b"".join(held.body)
        super().answer(held.status, _mended(held.status, held.headers, data), held.length, data, ended)


def _mended(status: int, headers: Headers, data: bytes) -> Headers:
    """With the guessed type of `data`, if it begins a body that names none and is not coded; without what Go's
    server does not write, and with what Go's client reads into an answer."""
    if status == 304:
        return [field for field in headers if field[0] != b"content-type"]
    for name, value in headers:
        if name == b"content-type" or (name == b"content-encoding" and value):
            data = b""
        elif name == b"pragma" and value == b"no-cache":
            add_cache_control(headers)
    if data:
        headers.append((b"content-type", content_type(data)))
    return headers


def _is_event_stream(headers: Headers) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)
