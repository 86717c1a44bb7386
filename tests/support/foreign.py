"""Driving functions that were written for others: over ASGI, with and without a server's manners."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import httpx

from support.functions import request, run
from upwell.functions.asgi import Application, Message, Scope
from upwell.functions.foreign import foreign_application
from upwell.functions.threads import ThreadPool


@contextlib.contextmanager
def served(target: object, threads: int = 4) -> Iterator[Application]:
    """The application that is made of `target`; its threads end afterwards."""
    pool = ThreadPool(threads)
    application = foreign_application(target, pool, "function.py:1")
    assert application is not None
    try:
        yield application
    finally:
        pool.close()


def answer(target: object, method: str = "GET", path: str = "/", **options: Any) -> httpx.Response:
    """The answer to one request."""
    with served(target) as application:
        return run(request(application, method, path, **options))


class Client:
    """A client of one request that sends and reads piece by piece, as the test says."""

    def __init__(self, pieces: Mapping[str, Any] | None = None) -> None:
        self.scope = http_scope(**(pieces or {}))
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[Message] = []
        self.taking = asyncio.Event()
        self.taking.set()

    async def receive(self) -> Message:
        return await self.incoming.get()

    async def send(self, message: Message) -> None:
        await self.taking.wait()
        self.sent.append(message)

    def put(self, body: bytes, *, more: bool = True) -> None:
        self.incoming.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leave(self) -> None:
        self.incoming.put_nowait({"type": "http.disconnect"})

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        headers: list[tuple[bytes, bytes]] = self.sent[0]["headers"]
        return headers

    @property
    def body(self) -> bytes:
        return b"".join(each["body"] for each in self.sent[1:])


def http_scope(**fields: Any) -> Scope:
    """The scope of a request as uvicorn makes it; `headers` as a list of pairs of bytes."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"function.test")],
        "client": ("127.0.0.1", 40000),
        "server": ("/run/replica.sock", None),
        **fields,
    }


@contextlib.asynccontextmanager
async def lived(application: Application) -> AsyncIterator[list[Message]]:
    """An application within its lifespan; yields what it said of its startup, and ends it afterwards."""
    incoming: asyncio.Queue[Message] = asyncio.Queue()
    said: list[Message] = []
    started = asyncio.Event()

    async def send(message: Message) -> None:
        said.append(message)
        started.set()

    incoming.put_nowait({"type": "lifespan.startup"})
    life = asyncio.ensure_future(_live(application, incoming, send))
    await started.wait()
    try:
        yield said
    finally:
        incoming.put_nowait({"type": "lifespan.shutdown"})
        await life


async def _live(application: Application, incoming: asyncio.Queue[Message], send: Any) -> None:
    await application({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, incoming.get, send)
