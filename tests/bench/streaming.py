"""How fast a large body passes through the engine, beside a bare relay, and what memory it takes meanwhile.

Engine and relay are processes of their own on the same kind of loop; both stand between the same client and back
end, which are threads of this process with blocking sockets and do as little as they can. The relay does what any
proxy in Python has to: read, write, pause. Ways: a download with a length, a chunked one, an upload with a length,
a chunked one. A round moves the same bytes through relay and engine, one after the other.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from . import processes, streaming_server
from .figures import median
from .machine import pinned, shares
from .plan import Plan
from .table import Result, Row

WAYS: Final = ("download", "chunked download", "upload", "chunked upload")
PIECE: Final = bytes(262_144)
CHUNK: Final = b"%x\r\n%b\r\n" % (len(PIECE), PIECE)
LAST: Final = b"0\r\n\r\n"
ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
MEGABYTE: Final = 1_000_000
SECONDS: Final = 300.0
SPEED_GOAL: Final = ">= 0.5"
MEMORY_GOAL: Final = "<= 8"
"""Megabytes: the buffers of two connections and what the allocator keeps of them."""


@dataclass(slots=True)
class Middle:
    """A process between client and back end: bytes a second of each way's rounds."""

    name: str
    pid: int
    port: int
    rates: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Of CPU, for the bytes of one round."""

    def rate(self, way: str) -> float:
        """The median of a way's rounds."""
        return median(self.rates[way])


def run(plan: Plan) -> Result:
    """A row a way for the speed beside the relay's, and one for the memory of all."""
    pieces = plan.choose(quick=256, default=4_096)
    rounds = plan.choose(quick=2, default=3, everything=5)
    result = Result()
    servers, generators = shares()
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(backend(pieces))
        with pinned(servers):
            relay = stack.enter_context(middle(plan, "relay", port))
            engine = stack.enter_context(middle(plan, "proxy", port))
        with pinned(generators):
            result.rows += measured(plan, engine, relay, pieces, rounds, "streaming: the engine,")
    moved = pieces * len(PIECE) / 1e9
    result.notes.append(
        f"streaming: {moved:.2f} GB a way and round over TCP on loopback, medians of {rounds} rounds; relay and "
        "engine on uvloop, client and back end share the last processor"
    )
    return result


def measured(plan: Plan, subject: Middle, relay: Middle, pieces: int, rounds: int, name: str) -> list[Row]:
    """The rows of `subject`, which stands before the same back end as `relay`."""
    for way in WAYS:
        for each in (relay, subject):
            move(each, way, max(1, pieces // 16))
    before = peak_bytes(subject.pid)
    for number in range(rounds):
        for way in WAYS:
            plan.progress(f"round {number + 1} of {rounds}, {way}")
            for each in (relay, subject):
                spent = processes.cpu_seconds(each.pid)[each.pid]
                each.rates.setdefault(way, []).append(move(each, way, pieces))
                spent = processes.cpu_seconds(each.pid)[each.pid] - spent
                each.seconds.setdefault(way, []).append(spent)
    grown = (peak_bytes(subject.pid) - before) / MEGABYTE
    rows = [row for way in WAYS for row in _speed(subject, relay, way, name)]
    rows += [
        Row(
            f"{name} {way}, CPU",
            median(subject.seconds[way]) / (pieces * len(PIECE) / 1e9),
            "s/GB",
            "bare relay",
            median(relay.seconds[way]) / (pieces * len(PIECE) / 1e9),
        )
        for way in WAYS
    ]
    rows.append(Row(f"{name} memory it grew by", grown, "MB", goal=MEMORY_GOAL))
    return rows


def _speed(subject: Middle, relay: Middle, way: str, name: str) -> list[Row]:
    ours, bare = subject.rate(way), relay.rate(way)
    return [
        Row(f"{name} {way}", ours / MEGABYTE, "MB/s", "bare relay", bare / MEGABYTE),
        Row(f"{name} {way}, of the relay's speed", ours / bare, "x", goal=SPEED_GOAL),
    ]


def peak_bytes(pid: int) -> int:
    """The largest resident set that a process has had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


@contextlib.contextmanager
def middle(plan: Plan, way: str, port: int) -> Iterator[Middle]:
    """A relay or an engine before the back end at `port`."""
    log = plan.directory / f"{way}.log"
    command = [sys.executable, "-m", streaming_server.MODULE, way, str(port)]
    with processes.server(command, log) as process:
        found = processes.wait_for_line(process, log, r"^(\d+)\n")
        yield Middle(way, process.pid, int(found[1]))


@contextlib.contextmanager
def backend(pieces: int) -> Iterator[int]:
    """The port of a back end that sends, or takes, as many pieces as a request's path says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=_accept, args=(listener,), daemon=True)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(SECONDS)


def _accept(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the listener's end
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection,), daemon=True).start()


def _serve(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        connection.settimeout(SECONDS)
        while head := _head(connection):
            _, way, pieces = head.split(b" ")[1].decode().split("/")
            if way == "download":
                _send(connection, int(pieces), chunked=b"chunked:" in head)
            else:
                _take(connection, int(pieces), chunked=b"chunked\r\n" in head)


def _head(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return b""
        received += byte
    return received


def _send(connection: socket.socket, pieces: int, *, chunked: bool) -> None:
    framing = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % (pieces * len(PIECE))
    connection.sendall(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
    for _ in range(pieces):
        connection.sendall(CHUNK if chunked else PIECE)
    if chunked:
        connection.sendall(LAST)


def _take(connection: socket.socket, pieces: int, *, chunked: bool) -> None:
    """Read a body; of a chunked one only the end is looked for."""
    left = pieces * len(PIECE)
    buffer = bytearray(len(PIECE))
    tail = b""
    while tail != LAST if chunked else left:
        size = connection.recv_into(buffer)
        if not size:
            return
        left -= size
        tail = (tail + bytes(buffer[max(0, size - len(LAST)) : size]))[-len(LAST) :]
    connection.sendall(ANSWER)


def move(through: Middle, way: str, pieces: int) -> float:
    """Move so many pieces; bytes a second."""
    chunked = way.startswith("chunked")
    with socket.create_connection(("127.0.0.1", through.port)) as connection:
        connection.settimeout(SECONDS)
        started = time.perf_counter()
        if way.endswith("download"):
            accept = b"x-want: chunked:\r\n" if chunked else b""
            connection.sendall(b"GET /download/%d HTTP/1.1\r\nhost: a\r\n%b\r\n" % (pieces, accept))
            _drain(connection, pieces, chunked=chunked)
        else:
            framing = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % (pieces * len(PIECE))
            connection.sendall(b"POST /upload/%d HTTP/1.1\r\nhost: a\r\n%b\r\n\r\n" % (pieces, framing))
            for _ in range(pieces):
                connection.sendall(CHUNK if chunked else PIECE)
            if chunked:
                connection.sendall(LAST)
            _expect(connection, ANSWER[-2:])
        return pieces * len(PIECE) / (time.perf_counter() - started)


def _drain(connection: socket.socket, pieces: int, *, chunked: bool) -> None:
    left = pieces * len(PIECE)
    head = _head(connection)
    if not head.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError(f"answered {head!r}")
    buffer = bytearray(len(PIECE))
    tail = b""
    while tail != LAST if chunked else left:
        size = connection.recv_into(buffer)
        if not size:
            raise ConnectionError("the download was cut")
        left -= size
        tail = (tail + bytes(buffer[max(0, size - len(LAST)) : size]))[-len(LAST) :]


def _expect(connection: socket.socket, ending: bytes) -> None:
    received = b""
    while not received.endswith(ending):
        data = connection.recv(4096)
        if not data:
            raise ConnectionError(f"cut after {received!r}")
        received += data
