"""A client in a process of its own that sees every answer and every connection that breaks.

``crowd N`` opens N connections at once with a request on each; ``steady N`` keeps N connections busy, half of them
kept alive and half made anew for each request, GET and POST in turn, until standard input ends. Both begin at the
first line of standard input and write what they saw as a line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final

from .plan import ROOT

MODULE: Final = "tests.bench.traffic"
TIMEOUT_SECONDS: Final = 60.0
BODY_BYTES: Final = (0, 10, 2_000, 100_000)
"""Of POST requests, in turn; the last is more than the gateway holds to send it again."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Requests sent; those not answered rightly, by what went wrong; and the seconds to the last answer."""

    sent: int
    wrong: dict[str, int]
    seconds: float

    @property
    def failed(self) -> int:
        """Requests without the right answer."""
        return sum(self.wrong.values())


class Traffic:
    """The process as the benchmark sees it. Use as a context manager: it is there and waits."""

    def __init__(self, way: str, count: int, port: int, host: str) -> None:
        self._arguments = (way, str(count), str(port), host)
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> Traffic:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            MODULE,
            *self._arguments,
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        await self._line()
        return self

    async def __aexit__(self, *exception: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    def begin(self) -> None:
        """Send requests from now on."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def end(self) -> Seen:
        """Send no more, and wait for what is under way. A crowd ends by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return Seen(**json.loads(await self._line()))

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise ConnectionError("the traffic's process ended")
        return line


class WrongAnswer(Exception):
    """An answer other than the one that was due."""


class Tally:
    """Counts requests of one run."""

    def __init__(self, port: int, host: str) -> None:
        self.port = port
        self.host = host
        self.sent = 0
        self.wrong: Counter[str] = Counter()
        self.began = time.monotonic()
        self.last = self.began

    async def ask(self, connection: Connection, body: bytes | None) -> None:
        """One request, whatever becomes of it."""
        self.sent += 1
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await connection.ask(self.host, body)
        except (OSError, EOFError, TimeoutError, ValueError, KeyError, WrongAnswer) as error:
            # The kernel's words without the address; a broken connection by its kind.
            self.wrong[str(error) if isinstance(error, WrongAnswer) else type(error).__name__] += 1
            await connection.close()
        self.last = time.monotonic()

    def seen(self) -> str:
        """The line that is written."""
        return json.dumps({"sent": self.sent, "wrong": self.wrong, "seconds": self.last - self.began})


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; names of fields are in lower case."""

    status: int
    fields: dict[str, str]
    body: bytes


class Connection:
    """One client connection to the gateway, opened when it is needed."""

    def __init__(self, port: int, *, keep: bool) -> None:
        self._port = port
        self._keep = keep
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, host: str, body: bytes | None) -> None:
        """GET, or POST with a body whose length is the answer. Raises WrongAnswer, or what broke."""
        reply = await self.exchange(host, "/", body)
        if reply.status != 200:
            raise WrongAnswer(f"{reply.status} {reply.fields.get('x-upwell-rejected-by', '')}".strip())
        if body is not None and reply.body != str(len(body)).encode():
            raise WrongAnswer("the body was not whole")

    async def exchange(self, host: str, path: str, body: bytes | None, fields: tuple[str, ...] = ()) -> Reply:
        """GET, or POST with a body; `fields` are lines of the head. Raises what broke."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", f"Host: {host}", *fields]
        lines.append(f"Connection: {'keep-alive' if self._keep else 'close'}")
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        writer.write("\r\n".join([*lines, "", ""]).encode())
        if body:
            writer.write(body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        told = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head.split("\r\n"))
        }
        answer = await reader.readexactly(int(told["content-length"]))
        if told.get("connection") == "close" or not self._keep:
            await self.close()
        return Reply(int(head.split(" ", 2)[1]), told, answer)

    async def close(self) -> None:
        """Close it; the next request opens another."""
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _crowd(tally: Tally, count: int) -> None:
    connections = [Connection(tally.port, keep=False) for _ in range(count)]
    await asyncio.gather(*(tally.ask(connection, None) for connection in connections))


async def _steady(tally: Tally, count: int, ended: asyncio.Event) -> None:
    async def work(number: int) -> None:
        connection = Connection(tally.port, keep=number % 2 == 0)
        for size in itertools.cycle(BODY_BYTES):
            if ended.is_set():
                break
            await tally.ask(connection, None)
            await tally.ask(connection, b"x" * size)
        await connection.close()

    await asyncio.gather(*(work(number) for number in range(count)))


async def _main(way: str, count: int, port: int, host: str) -> None:
    _say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    tally = Tally(port, host)
    if way == "crowd":
        await _crowd(tally, count)
    else:
        ended = asyncio.Event()
        steady = asyncio.create_task(_steady(tally, count, ended))
        await asyncio.to_thread(sys.stdin.readline)
        ended.set()
        await steady
    _say(tally.seen())


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    _raise_descriptor_limit()
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
