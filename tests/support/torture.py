"""Clients and replicas that behave badly, and an independent reading of what got through between them.

h11, which shares no code with the engine, takes the bytes apart that a replica or a client received.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import h11

from support.http import Peer


@dataclass
class Message:
    """A request as a replica reads it."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    complete: bool = False

    def values(self, name: bytes) -> list[bytes]:
        return [value for field, value in self.headers if field == name]


def requests_in(data: bytes) -> list[Message]:
    """The requests in what came over one connection. Fails where they cannot be told apart."""
    found: list[Message] = []
    while data:
        reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1_000_000)
        reader.receive_data(data)
        message: Message | None = None
        while True:
            event = reader.next_event()
            if isinstance(event, h11.Request):
                message = Message(event.method, event.target, list(event.headers))
                found.append(message)
            elif isinstance(event, h11.Data) and message is not None:
                message.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) and message is not None:
                message.complete = True
            else:
                break
        if message is None or not message.complete:
            break
        data = reader.trailing_data[0]
    return found


@dataclass
class Echo:
    """A replica that answers each request with its method, target and body, and keeps them all."""

    seen: list[Message] = field(default_factory=list)

    def script(self, peer: Peer) -> None:
        messages = requests_in(bytes(peer.received))
        for message in messages[peer.handled :]:
            if not message.complete:
                break
            peer.handled += 1
            self.seen.append(message)
            body = b"%b %b %b" % (message.method, message.target, message.body)
            length = len(body)
            if message.method == b"HEAD":
                body = b""
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (length, body))


def statuses_in(data: bytes, methods: list[bytes]) -> list[int]:
    """The statuses of the final answers that a client received, to requests of these methods. Fails where the
    answers cannot be told apart, or one of them is not whole."""
    found: list[int] = []
    for method in [*methods, *[b"GET"] * 100]:
        if not data:
            break
        reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=1_000_000)
        reader.send(h11.Request(method=method, target=b"/", headers=[(b"host", b"a")]))
        reader.send(h11.EndOfMessage())
        reader.receive_data(data)
        while not isinstance(event := reader.next_event(), h11.EndOfMessage):
            assert event is not h11.NEED_DATA, f"an answer that is not whole: {data!r}"
            assert not isinstance(event, h11.ConnectionClosed)
            if isinstance(event, h11.Response):
                found.append(event.status_code)
        data = reader.trailing_data[0]
    return found
