"""The traffic of a soak, in a process of its own: clients of many kinds, each request with an id in its path.

Writes a line of JSON for every request that was not answered as it may be, and one of totals at its end, which is
when standard input ends. What a policy answers is right where the policy may act (see `ALLOWED`).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Final

from .plan import ROOT
from .traffic import BODY_BYTES, TIMEOUT_SECONDS, Connection

MODULE: Final = "tests.bench.soak_traffic"
PATHS: Final = ("/", "/", "/slow", "/pieces")
"""That clients ask for in turn."""
PAUSE_SECONDS: Final = 0.02
"""Of a client between two requests: the load is to be mixed, not heavy."""
RARE_SECONDS: Final = 12.0
"""Between two requests to the function that goes to zero meanwhile."""
PATIENCE_SECONDS: Final = 0.1
"""Of the client that leaves before it has its answer."""
ALLOWED: Final = {"limited": (200, 429, 498), "absent": (404,)}
"""Statuses that are right, by function; elsewhere it is 200 alone."""
CLASSES: Final = ("subscriber", "guest")


@dataclass(frozen=True, slots=True)
class Wrong:
    """A request that was not answered as it may be. Times are monotonic seconds, the same in all processes."""

    id: str
    function: str
    asked: str
    began: float
    ended: float
    reason: str


class Clients:
    """All clients of the soak, until `ended`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._numbers = itertools.count()
        self.ended = asyncio.Event()
        self.sent = 0
        self.left = 0
        self.statuses: Counter[str] = Counter()

    async def run(self) -> None:
        """Every kind of client, until the end."""
        async with asyncio.TaskGroup() as group:
            for function in ("steady", "rolled", "limited"):
                for number in range(4):
                    group.create_task(self._regular(function, keep=number % 2 == 0))
                group.create_task(self._leaving(function))
            for kind in (*CLASSES, *CLASSES):
                group.create_task(self._regular("queued", keep=True, fields=(f"user_type: {kind}",)))
            group.create_task(self._rare("rare"))
            group.create_task(self._regular("absent", keep=True))

    async def _regular(self, function: str, *, keep: bool, fields: tuple[str, ...] = ()) -> None:
        connection = Connection(self._port, keep=keep)
        for path, size in zip(itertools.cycle(PATHS), itertools.cycle((None, *BODY_BYTES)), strict=False):
            if self.ended.is_set():
                break
            await self._ask(connection, function, path, size, fields)
            await self._pause(PAUSE_SECONDS)
        await connection.close()

    async def _rare(self, function: str) -> None:
        while not self.ended.is_set():
            await self._ask(Connection(self._port, keep=False), function, "/", None, ())
            await self._pause(RARE_SECONDS)

    async def _leaving(self, function: str) -> None:
        """A client that goes away in the middle, every time."""
        while not self.ended.is_set():
            connection = Connection(self._port, keep=False)
            self.left += 1
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await connection.exchange(f"{function}.default.localhost", "/slow?left", None)
            except (OSError, EOFError, TimeoutError):
                pass
            await connection.close()
            await self._pause(PAUSE_SECONDS * 10)

    async def _ask(
        self, connection: Connection, function: str, path: str, size: int | None, fields: tuple[str, ...]
    ) -> None:
        began, name = time.monotonic(), f"{next(self._numbers):08}"
        body = None if size is None else b"x" * size
        self.sent += 1
        reason = ""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                reply = await connection.exchange(
                    f"{function}.default.localhost", f"{path}?id={name}", body, fields
                )
            self.statuses[str(reply.status)] += 1
            if reply.status not in ALLOWED.get(function, (200,)):
                reason = f"{reply.status} {reply.fields.get('x-upwell-rejected-by', '')}".strip()
            elif reply.status == 200 and not _is_whole(reply.body, size or 0):
                reason = "another body"
        except (OSError, EOFError, TimeoutError, ValueError, KeyError) as error:
            reason = type(error).__name__
            await connection.close()
        if reason:
            asked = f"{'GET' if body is None else 'POST'} {path} {size or 0}"
            _say(asdict(Wrong(name, function, asked, began, time.monotonic(), reason)))

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.ended.wait()
        except TimeoutError:
            pass


def _is_whole(body: bytes, size: int) -> bool:
    length = str(size).encode()
    return bool(body) and body == length * (len(body) // len(length))


class Crowd:
    """The process as the benchmark sees it. Use as a context manager: its clients ask from then on."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.wrong: list[Wrong] = []
        self.totals: dict[str, object] = {}
        self._process: asyncio.subprocess.Process
        self._reading: asyncio.Task[None]

    async def __aenter__(self) -> Crowd:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            MODULE,
            str(self._port),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Its clients end what is under way."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._reading
        await self._process.wait()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            if "sent" in told:
                self.totals = told
            else:
                self.wrong.append(Wrong(**told))


async def _main(port: int) -> None:
    clients = Clients(port)
    asking = asyncio.create_task(clients.run())
    await asyncio.to_thread(sys.stdin.read)
    clients.ended.set()
    await asking
    _say({"sent": clients.sent, "left": clients.left, "statuses": clients.statuses})


def _say(told: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
