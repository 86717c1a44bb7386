"""The sidecar as a whole between raw clients and a container, on fake time: all sockets are real."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from support.container import Container, container
from support.http import settle
from upwell.runtime.roles.queue_proxy import QueueProxyServer, QueueProxySettings
from upwell.runtime.testing.clock import FakeClock

QUIET_SECONDS = 60.0
"""Without a further byte until a connection counts as left open: less than the sidecar's keep-alive."""
PATIENCE = 600.0
"""For the first byte."""


@dataclass
class Received:
    """What a raw client got for what it sent. `end` is "closed" or "still open"; times since it began to send."""

    raw: bytes
    end: str
    first_byte_s: float
    total_s: float


@dataclass
class Stage:
    """A running sidecar and its container. Ports are free ones."""

    server: QueueProxyServer
    container: Container
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    def port(self, name: str = "main") -> int:
        return self.server.ports[name]

    async def ask(self, raw: bytes, port: str = "main") -> Received:
        """Send `raw` on a new connection and take what comes until it is closed or long silent."""
        return await ask(self.port(port), raw)

    def begin(self, raw: bytes, port: str = "main") -> asyncio.Task[Received]:
        """The same in a task, which is ended with the stage."""
        task = asyncio.get_running_loop().create_task(self.ask(raw, port))
        self.tasks.append(task)
        return task

    def terminate(self) -> asyncio.Task[None]:
        """What SIGTERM does."""
        task = asyncio.get_running_loop().create_task(self.server.stop())
        self.tasks.append(task)
        return task


@contextlib.asynccontextmanager
async def stage(*, listening: bool = True, **settings: Any) -> AsyncIterator[Stage]:
    """A sidecar with `settings`, whose container listens or never does."""
    clock = FakeClock(loop=asyncio.get_running_loop())
    async with container() as back:
        if not listening:
            back.refuse()
        chosen = QueueProxySettings(
            user_port=back.port,
            queue_serving_port=0,
            admin_port=0,
            autoscaling_metrics_port=0,
            user_metrics_port=0,
            host=("127.0.0.1",),
            serving_pod="pod-1",
        )
        server = QueueProxyServer(dataclasses.replace(chosen, **settings), clock)
        await server.start()
        running = Stage(server, back)
        try:
            yield running
        finally:
            for task in running.tasks:
                task.cancel()
            if running.tasks:
                await asyncio.wait(running.tasks)
            if not server.ended:
                await server.close(0.0)
    await settle()


async def ask(port: int, raw: bytes) -> Received:
    """Raises ConnectionRefusedError."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = loop.time()
    try:
        writer.write(raw)
        received, end = b"", "still open"
        first: float | None = None
        last = 0.0
        with contextlib.suppress(TimeoutError):
            while True:
                try:
                    async with asyncio.timeout(PATIENCE if first is None else QUIET_SECONDS):
                        piece = await reader.read(65_536)
                except ConnectionResetError:
                    piece = b""
                last = loop.time() - began
                first = last if first is None else first
                if not piece:
                    end = "closed"
                    break
                received += piece
        return Received(received, end, first or 0.0, last)
    finally:
        writer.close()
