"""A client in a process of its own that takes the time of one request after another.

It reads a command a line from standard input, ``{"port", "host"}``, asks once on a new connection, and writes a
line of what it saw; so neither side's event loop stands in the other's way. Times are in nanoseconds from just
before the connection.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .plan import ROOT

TIMEOUT_SECONDS: Final = 30.0
MODULE: Final = "tests.bench.client"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and the milliseconds until the connection stood, its first byte and its end had come.

    `phases` are those of a Server-Timing field, in milliseconds.
    """

    status: int
    connected: float
    first_byte: float
    complete: float
    phases: Mapping[str, float]


class Client:
    """The process as the benchmark sees it. Use as a context manager."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> Client:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", MODULE, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    async def ask(self, port: int, host: str) -> Answer:
        """One GET request to `port` of 127.0.0.1. Raises OSError when it breaks."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"port": port, "host": host}).encode() + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise ConnectionError("the client's process ended")
        seen = json.loads(line)
        if "error" in seen:
            raise OSError(seen["error"])
        return _answer(seen)


def _answer(seen: dict[str, Any]) -> Answer:
    phases = {}
    for part in filter(None, seen["server_timing"].split(", ")):
        name, _, duration = part.partition(";dur=")
        phases[name] = float(duration)
    return Answer(seen["status"], seen["connected"] / 1e6, seen["first"] / 1e6, seen["complete"] / 1e6, phases)


def ask(port: int, host: str) -> dict[str, Any]:
    """Ask and say what was seen, as the line does."""
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    began = time.perf_counter_ns()
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
        connected = time.perf_counter_ns()
        connection.sendall(request)
        received = connection.recv(65536)
        first = time.perf_counter_ns()
        head, _, rest = received.partition(b"\r\n\r\n")
        fields = _fields(head)
        missing = int(fields["content-length"]) - len(rest)
        while missing > 0 and (more := connection.recv(65536)):
            missing -= len(more)
        complete = time.perf_counter_ns()
    if missing > 0:
        raise ConnectionError("the answer broke off")
    return {
        "status": int(head.split(b" ", 2)[1]),
        "connected": connected - began,
        "first": first - began,
        "complete": complete - began,
        "server_timing": fields.get("server-timing", ""),
    }


def _fields(head: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.lower(): value.strip() for name, _, value in lines}


def main() -> None:
    """Serve commands until standard input ends."""
    for line in sys.stdin:
        command = json.loads(line)
        try:
            seen = ask(command["port"], command["host"])
        except (OSError, ValueError, KeyError, IndexError) as error:
            seen = {"error": repr(error)}
        sys.stdout.write(json.dumps(seen) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
