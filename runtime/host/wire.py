"""JSON lines with descriptors over a Unix stream socket, as platform, zygote, templates and replicas speak them.

A message that carries descriptors says how many under ``descriptors``; they arrive in order with its bytes or
before, so a queue of them is enough to hand each message its own. The reading side never waits: `read` makes one
system call. The sending side here waits when the socket is full; `channel.Channel` is the one that does not.
"""

from __future__ import annotations

import json
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

Message = dict[str, Any]

CHUNK_BYTES = 65536
DESCRIPTORS_A_READ = 16
"""More than any message carries; the kernel closes what exceeds the space given."""


class Received(NamedTuple):
    """One message and the descriptors that came with it, now the receiver's to close."""

    message: Message
    descriptors: list[int]


def encode(message: Message, descriptors: Sequence[int] = ()) -> bytes:
    """`message` as one line."""
    if descriptors:
        message = message | {"descriptors": len(descriptors)}
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class Wire:
    """One end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._partial = b""
        self._descriptors: deque[int] = deque()

    @property
    def has_partial(self) -> bool:
        """Whether the last read ended amid a message."""
        return bool(self._partial)

    def read(self) -> list[Received] | None:
        """What one read completes, which may be nothing; None when the other end is gone.

        Raises nothing for a socket that has no data and does not block: that is an empty answer.
        """
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self.socket, CHUNK_BYTES, DESCRIPTORS_A_READ, getattr(socket, "MSG_CMSG_CLOEXEC", 0)
            )
        except BlockingIOError:
            return []
        except ConnectionError:
            return None
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self._descriptors.extend(descriptors)
        if not data:
            return None
        *lines, self._partial = (self._partial + data).split(b"\n")
        try:
            return [self._received(line) for line in lines]
        except (ValueError, IndexError):
            return None  # a function has written to what is not its own: nothing after it can be trusted

    def _received(self, line: bytes) -> Received:
        """Raises ValueError or IndexError for what `send` cannot have written."""
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("not a message")
        count = message.pop("descriptors", 0)
        return Received(message, [self._descriptors.popleft() for _ in range(int(count))])

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send and wait until all of it is with the kernel. Raises OSError when the other end is gone."""
        data = encode(message, descriptors)
        sent = socket.send_fds(self.socket, [data], descriptors) if descriptors else self.socket.send(data)
        if sent < len(data):
            self.socket.sendall(data[sent:])

    def close(self) -> None:
        """Close the socket and every descriptor that no message has claimed."""
        self.socket.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())
