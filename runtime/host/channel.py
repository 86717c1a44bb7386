"""The end of a wire that lives in an event loop: it never waits, neither to read nor to send.

`send` gives the message to the kernel at once when it can. What the kernel does not take is kept, up to a bound,
and sent when the socket is writable again; descriptors kept meanwhile are duplicates, so the caller may close its
own as soon as `send` returns. Owner: whoever made it, who must `close` it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from upwell.runtime.host.wire import Received, Wire, encode

QUEUED_MESSAGES = 4096
"""Messages kept for a reader that is slow: a burst of starts on a template that still imports."""


class Channel:
    """Messages both ways over `connection`, which it owns from now on."""

    def __init__(
        self,
        connection: socket.socket,
        loop: asyncio.AbstractEventLoop,
        received: Callable[[Received], None],
        ended: Callable[[], None],
    ) -> None:
        connection.setblocking(False)
        self._wire = Wire(connection)
        self._loop = loop
        self._received = received
        self._ended = ended
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self._closed = False
        loop.add_reader(connection.fileno(), self._readable)

    def send(self, message: dict[str, object], descriptors: Sequence[int] = ()) -> bool:
        """Send or keep `message`; False when the other end is gone or too far behind, and it is dropped."""
        if self._closed or len(self._queue) >= QUEUED_MESSAGES:
            return False
        data = encode(message, descriptors)
        if not self._queue:
            sent = self._offer(data, descriptors)
            if sent is None:
                return False
            if sent == len(data):
                return True
            data, descriptors = data[sent:], descriptors if sent == 0 else ()
            self._loop.add_writer(self._wire.socket.fileno(), self._writable)
        self._queue.append((data, [os.dup(descriptor) for descriptor in descriptors]))
        return True

    def end_sending(self) -> None:
        """Tell the other end that no message follows."""
        with contextlib.suppress(OSError):
            self._wire.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go of the socket; nothing is called any more."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._wire.socket.fileno())
        self._loop.remove_writer(self._wire.socket.fileno())
        self._wire.close()
        for _, descriptors in self._queue:
            for descriptor in descriptors:
                os.close(descriptor)
        self._queue.clear()

    def read_rest(self) -> None:
        """Deliver what has arrived, without waiting; for a process that is known to have ended."""
        while not self._closed:
            batch = self._wire.read()
            if not batch:
                return
            self._deliver(batch)

    def _readable(self) -> None:
        batch = self._wire.read()
        if batch is not None:
            self._deliver(batch)
            return
        self.close()
        self._ended()

    def _deliver(self, batch: list[Received]) -> None:
        for received in batch:
            if self._closed:
                return
            self._received(received)

    def _offer(self, data: bytes, descriptors: Sequence[int]) -> int | None:
        """The bytes that the kernel took; None when the other end is gone."""
        try:
            if descriptors:
                return socket.send_fds(self._wire.socket, [data], descriptors)
            return self._wire.socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return None  # reading tells of the end

    def _writable(self) -> None:
        while self._queue:
            data, descriptors = self._queue[0]
            sent = self._offer(data, descriptors)
            if sent == 0:
                return
            if sent is not None and sent < len(data):
                self._queue[0] = (data[sent:], [])
            else:
                self._queue.popleft()
            for descriptor in descriptors:
                os.close(descriptor)
        self._loop.remove_writer(self._wire.socket.fileno())
