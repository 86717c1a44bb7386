"""One connection to what is loaded: a request at a time, its answer read and dropped.

Of an answer the status counts, the fields that tell a cause, and that all of it came. Everything else is parsed
and let go, out of one buffer that all connections of a loop share.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol, cast

import httptools

from upwell.runtime.load.outcomes import TELLING, Outcome, outcome_of

BUFFER_BYTES: Final = 64 * 1024
_FRAMED: Final = frozenset({b"content-length", b"transfer-encoding"})
_INFORMATIONAL: Final = range(100, 200)


class User(Protocol):
    """Whoever sends requests on a connection."""

    def answered(self, connection: LoadConnection, status: int, outcome: Outcome) -> None:
        """The answer is whole; the connection takes another request unless it is `closed`."""
        ...

    def broke(self, connection: LoadConnection, cause: str) -> None:
        """There will be no answer. The connection is closed."""
        ...

    def gone(self, connection: LoadConnection) -> None:
        """It was closed while nothing was asked on it."""
        ...


class LoadConnection(asyncio.BufferedProtocol):
    """Made for `user`, which calls `send` when it is connected and no request is under way."""

    def __init__(self, user: User, buffer: memoryview) -> None:
        self._user = user
        self._buffer = buffer
        self._transport: asyncio.Transport
        self.closed = False
        self.busy = False
        self.due = 0.0
        """When the request under way was due: the user's to read and write, as is `deadline`."""
        self.deadline = 0.0
        self._bodiless = False
        self._renew()

    def _renew(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self._status = 0
        self._telling: list[tuple[bytes, bytes]] = []
        self._framed = False
        self._begun = False
        self._head_ended = False
        self._keep_alive = False
        self._complete = False
        self._surplus = False

    def send(self, request: bytes, bodiless: bool) -> None:
        """Send a request; `bodiless` when its answer has no body whatever it says."""
        self.busy = True
        self._bodiless = bodiless
        self._transport.write(request)

    def close(self) -> None:
        """Close at once. The user hears nothing of it."""
        self.busy = False
        if not self.closed:
            self.closed = True
            self._transport.abort()

    def fail(self, cause: str) -> None:
        """Close at once, and have the request under way be told to have ended so."""
        was_busy = self.busy
        self.close()
        if was_busy:
            self._user.broke(self, cause)

    # The transport's calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.closed:
            return
        if not self.busy:
            self.close()
            self._user.gone(self)
            return
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._complete:
                self.fail("malformed answer")
                return
            self._surplus = True
        if self._complete or (self._head_ended and self._bodiless):
            self._finish()

    def eof_received(self) -> None:
        """The transport closes itself then."""

    def connection_lost(self, exc: Exception | None) -> None:
        if self.closed:
            return
        if self.busy and self._head_ended and not self._framed and exc is None:
            # Its end is all that can end such an answer.
            self.closed = True
            self._finish()
        elif self.busy:
            self.fail("closed during the answer" if self._begun else "closed before the answer")
        else:
            self.closed = True
            self._user.gone(self)

    def _finish(self) -> None:
        status, outcome = self._status, outcome_of(self._status, self._telling)
        if self._surplus or not self._keep_alive:
            self.close()
        elif self._bodiless:
            self._renew()
        else:
            self._reset()
        self.busy = False
        self._user.answered(self, status, outcome)

    # The parser's calls.

    def on_message_begin(self) -> None:
        self._surplus = self._complete
        self._begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in TELLING:
            self._telling.append((name, value))
        elif name in _FRAMED:
            self._framed = True

    def on_headers_complete(self) -> None:
        if not self._complete:
            self._status = self._parser.get_status_code()
            self._head_ended = self._status not in _INFORMATIONAL
            # The parser forgets it with the end of the message, and takes what has no length for endless.
            self._keep_alive = self._parser.should_keep_alive() or (self._bodiless and not self._framed)

    def on_message_complete(self) -> None:
        if self._head_ended:
            self._complete = True
        else:
            self._telling.clear()
            self._framed = False
