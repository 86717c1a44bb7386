"""A whole platform inside a test, and a client that mends nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from upwell.functions.project import locate
from upwell.runtime.cli.functions import function_image, function_service
from upwell.runtime.clock import SystemClock
from upwell.runtime.cluster.interface import ObjectStore
from upwell.runtime.gateway.access_log import AccessLog, NoAccessLog
from upwell.runtime.gateway.call import Call
from upwell.runtime.gateway.settings import GatewaySettings
from upwell.runtime.roles.up import Platform, PlatformState
from upwell.runtime.roles.up_settings import UpSettings

T = TypeVar("T")
PATIENCE = 20.0


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Run on the loop of production, for a bounded time."""

    async def bounded() -> T:
        async with asyncio.timeout(60):
            return await scenario

    return uvloop.run(bounded())


async def until(holds: Callable[[], bool], what: str = "", seconds: float = PATIENCE) -> None:
    """Wait for a state; fails after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            while not holds():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"did not come about in {seconds} s: {what or holds}") from None


class Kept(NoAccessLog):
    """Keeps each call that is over: the replica that had it last, the status, the reason."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, str]] = []

    def call(self, call: Call, status: int, seconds: float) -> None:
        self.calls.append((call.replica_name, status, call.reason))


@dataclass
class Answer:
    """A response as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Broken(Exception):
    """The connection ended before the answer did."""


async def read_answer(reader: asyncio.StreamReader, *, head: bool = False) -> Answer:
    """The next response on a connection; raises Broken when it is cut short."""
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        status = int(lines[0].split()[1])
        body = b""
        if head or status in (204, 304):
            pass
        elif headers.get("transfer-encoding") == "chunked":
            while size := int(await reader.readline(), 16):
                body += await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readline()
        elif "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        else:
            body = await reader.read()
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Broken(str(error)) from error
    return Answer(status, headers, body)


@dataclass
class Function:
    """A function on a test's platform."""

    platform: Platform
    name: str
    revision: str

    async def ask(
        self, path: str = "/", *, method: str = "GET", body: bytes = b"", host: str = "", timeout: float = PATIENCE
    ) -> Answer:
        """One request on a connection of its own."""
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.platform.port)
            try:
                host = host or f"{self.name}.default.localhost"
                head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
                length = f"Content-Length: {len(body)}\r\n" if body or method == "POST" else ""
                writer.write(f"{head}{length}\r\n".encode() + body)
                return await read_answer(reader, head=method == "HEAD")
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    def ready(self) -> int:
        """Replicas that the gateway may use now."""
        entry = self.platform.gateway.revisions[self.revision]
        return len(entry.activator.backends)

    async def scale(self, replicas: int) -> None:
        """Set the number of replicas by hand and wait for it."""
        self.platform.cluster.scale(self.revision, replicas, reason="a test")
        await until(lambda: len(self.platform.cluster.replicas(self.revision)) == replicas, "replicas")
        await until(lambda: self.ready() == replicas, "ready replicas")


@contextlib.asynccontextmanager
async def platform(
    directory: Path,
    *,
    show_errors: bool = False,
    gateway: GatewaySettings | None = None,
    access_log: AccessLog | None = None,
    objects: ObjectStore | None = None,
    images: tuple[str, ...] = (),
    logs: Path | None = None,
    **autoscaler: str,
) -> AsyncIterator[Platform]:
    """A platform on free ports whose state is in `directory`."""
    settings = UpSettings(
        port=0,
        admin_port=0,
        show_errors=show_errors,
        drain_seconds=2.0,
        images=images,
        autoscaler={key.replace("_", "-"): value for key, value in autoscaler.items()},
    )
    built = Platform(
        settings,
        PlatformState(directory, objects, logs),
        SystemClock(),
        access_log=access_log or NoAccessLog(),
        gateway=gateway or GatewaySettings(),
    )
    await built.start()
    try:
        yield built
    finally:
        await built.stop()


async def deploy(on: Platform, source: str | Path, name: str = "hello", **spec: Any) -> Function:
    """Deploy Python text, or a path, as a function and wait until it is ready."""
    if isinstance(source, str):
        path = on.directory / "sources" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    else:
        path = source
    function_name = locate(str(path)).name
    manifest = function_service(function_name, {})
    manifest["spec"]["template"]["spec"].update(spec)
    (applied,) = await on.apply([manifest], images={function_image(function_name): str(path)})
    ready = await on.wait_ready(applied.key, PATIENCE)
    return Function(on, function_name, f"default/{ready['status']['latestReadyRevisionName']}")


@contextlib.asynccontextmanager
async def function(directory: Path, source: str | Path, **spec: Any) -> AsyncIterator[Function]:
    """One function on a platform of its own."""
    async with platform(directory) as on:
        yield await deploy(on, source, **spec)
