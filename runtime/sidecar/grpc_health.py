"""One call of gRPC's health protocol (grpc.health.v1.Health/Check) over HTTP/2 without TLS, as the kubelet's.

The two messages are small enough to be written and read by hand: the request holds the service's name as field
1, the answer the status as field 1. h2 does the framing; it comes with this module, which only such a probe
imports.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Final

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

PATH: Final = "/grpc.health.v1.Health/Check"
STATUSES: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
ANSWER_BYTES: Final = 65_536
"""More than any answer to a check holds."""

_CODES: Final = {
    "1": "CANCELLED",
    "2": "UNKNOWN",
    "4": "DEADLINE_EXCEEDED",
    "5": "NOT_FOUND (it does not know the service)",
    "12": "UNIMPLEMENTED (it does not speak the health protocol)",
    "14": "UNAVAILABLE",
}


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, service: str, agent: str) -> str:
    """The status in words: ``SERVING``, another of the protocol's, or what went wrong. Raises OSError."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    stream = connection.get_next_available_stream_id()
    host, port = writer.get_extra_info("peername")[:2]
    connection.send_headers(
        stream,
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", PATH),
            (":authority", f"{host}:{port}"),
            ("content-type", "application/grpc"),
            ("user-agent", agent),
            ("te", "trailers"),
        ],
    )
    connection.send_data(stream, framed(encode_request(service)), end_stream=True)
    writer.write(connection.data_to_send())
    try:
        return await _read(connection, reader, writer)
    except h2.exceptions.ProtocolError:
        return "what is not HTTP/2"


async def _read(
    connection: h2.connection.H2Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> str:
    fields: dict[str, str] = {}
    body = b""
    while data := await reader.read(ANSWER_BYTES):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                fields.update({str(name): str(value) for name, value in event.headers or ()})
            elif isinstance(event, h2.events.DataReceived):
                body += event.data or b""
                if len(body) > ANSWER_BYTES:
                    return "too much"
                connection.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            elif isinstance(event, h2.events.StreamEnded):
                return _status(fields, body)
            elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                return "a reset stream"
        writer.write(connection.data_to_send())
    return "nothing"


def _status(fields: dict[str, str], body: bytes) -> str:
    if fields.get(":status") != "200":
        return f"HTTP status {fields.get(':status')}"
    code = fields.get("grpc-status", "0")
    if code != "0":
        return f"gRPC status {_CODES.get(code, code)}"
    try:
        number = decode_answer(body)
    except ValueError:
        return "a message that cannot be read"
    return STATUSES[number] if number < len(STATUSES) else str(number)


def framed(message: bytes) -> bytes:
    """A message as gRPC sends it: not compressed, its length before it."""
    return struct.pack(">BI", 0, len(message)) + message


def encode_request(service: str) -> bytes:
    """HealthCheckRequest: the service's name, left out when it is empty."""
    name = service.encode()
    return b"\x0a" + _varint(len(name)) + name if name else b""


def decode_answer(body: bytes) -> int:
    """The status in a framed HealthCheckResponse. Raises ValueError."""
    if len(body) < 5 or body[0] != 0 or len(body) != 5 + int(struct.unpack(">I", body[1:5])[0]):
        raise ValueError("no framed message")
    message = body[5:]
    if not message:
        return 0
    if message[0] != 0x08:
        raise ValueError("no status")
    number, shift = 0, 0
    for byte in message[1:6]:
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number
        shift += 7
    raise ValueError("a number without an end")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
