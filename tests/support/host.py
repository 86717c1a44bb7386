"""Real hosts in tests: functions written to a folder, their replicas' ends recorded, requests over raw sockets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import textwrap
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from upwell.autoscaler.stats import Report
from upwell.runtime import procfs
from upwell.runtime.clock import SystemClock
from upwell.runtime.host.launcher import (
    ExitStatus,
    FunctionSource,
    HostLauncher,
    HostSettings,
    ProgramTemplate,
    ReplicaProcess,
    Template,
)

T = TypeVar("T")

DEADLINE = 20.0
"""Long enough for a machine that is busy with other things; nothing waits for it to pass."""

HELLO = """
    def main():
        return "hello"
"""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns, on a loop of its own; it fails rather than hangs."""

    async def bounded() -> T:
        return await asyncio.wait_for(coroutine, 3 * DEADLINE)

    return asyncio.run(bounded())


async def reached(condition: Callable[[], bool], what: str = "") -> None:
    """Wait for a state, not for a time; fails at the deadline."""
    try:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"never reached: {what or condition}") from None


def is_gone(pid: int) -> bool:
    """Whether a process has ended; a zombie that its new parent has not reaped has."""
    return procfs.state(pid) in ("", "Z")


def descendants(pid: int) -> set[int]:
    """All processes below one."""
    below = set(procfs.children(pid))
    return below.union(*(descendants(child) for child in below))


def group(pid: int) -> int:
    """The process group of a process; 0 when it is gone."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


@dataclass
class Recorder:
    """A ReplicaObserver that keeps what it is told."""

    phases: Mapping[str, float] | None = None
    reports: list[Report] = field(default_factory=list)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    stuck_count: int = 0
    sick: list[str] = field(default_factory=list)
    exits: list[ExitStatus] = field(default_factory=list)

    def ready(self, process: ReplicaProcess, phases: Mapping[str, float]) -> None:
        self.phases = phases

    def report(self, process: ReplicaProcess, report: Report) -> None:
        self.reports.append(report)

    def update(self, process: ReplicaProcess, metrics: Mapping[str, Any]) -> None:
        self.metrics = metrics

    def stuck(self, process: ReplicaProcess) -> None:
        self.stuck_count += 1

    def unhealthy(self, process: ReplicaProcess, reason: str) -> None:
        self.sick.append(reason)

    def exited(self, process: ReplicaProcess, status: ExitStatus) -> None:
        self.exits.append(status)

    @property
    def is_ready(self) -> bool:
        return self.phases is not None

    async def became_ready(self) -> None:
        """Wait until the replica serves; fails when it ends instead."""
        await reached(lambda: self.is_ready or bool(self.exits), "the replica's readiness")
        assert self.is_ready, self.exits

    async def exit(self) -> ExitStatus:
        """How the replica ended."""
        await reached(lambda: bool(self.exits), "the replica's end")
        return self.exits[0]


@dataclass
class Answer:
    """One HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """The next response on a connection. Raises IncompleteReadError when it ends before."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(head[0].split()[1]), headers, body)


def request_bytes(path: str = "/", *headers: str) -> bytes:
    """A GET request on the wire."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: function.test", *headers, "", ""]).encode()


async def get(socket_path: str, path: str = "/", *headers: str) -> Answer:
    """One request on a connection of its own."""
    async with asyncio.timeout(DEADLINE):
        reader, writer = await asyncio.open_unix_connection(socket_path)
        try:
            writer.write(request_bytes(path, *headers))
            return await read_answer(reader)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@dataclass
class Running:
    """One replica of a test."""

    process: ReplicaProcess
    recorder: Recorder
    path: str

    async def get(self, path: str = "/", *headers: str) -> Answer:
        """One request to it."""
        return await get(self.path, path, *headers)

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid


class Host:
    """A launcher with a folder for sources and sockets."""

    def __init__(self, launcher: HostLauncher, folder: Path) -> None:
        self.launcher = launcher
        self.folder = folder
        self._numbers = itertools.count()

    def source(self, text: str, **fields: Any) -> FunctionSource:
        """A function whose module holds `text`."""
        number = next(self._numbers)
        root = self.folder / f"source-{number}"
        root.mkdir()
        (root / f"function_{number}.py").write_text(textwrap.dedent(text))
        return replace(FunctionSource("default/function-00001", root, f"function_{number}"), **fields)

    def load(self, text: str, **fields: Any) -> Template:
        """A template of it."""
        return self.launcher.load(self.source(text, **fields))

    def start(self, template: Template | ProgramTemplate) -> Running:
        """A replica of it, on a socket of its own."""
        path = str(self.folder / f"{next(self._numbers)}.sock")
        recorder = Recorder()
        process = template.start_replica(f"replica-{next(self._numbers)}", listening(path), recorder)
        return Running(process, recorder, path)

    def standbys(self, template: Template) -> list[int]:
        """The processes that wait to become replicas of it: its group, without itself."""
        zygote = self.launcher.zygote_pid
        return [pid for pid in descendants(zygote or 0) if pid != template.pid and group(pid) == template.pid]

    async def standby(self, template: Template) -> int:
        """The one standby, adopted by the zygote."""
        zygote = self.launcher.zygote_pid
        await reached(lambda: [procfs.parent(pid) for pid in self.standbys(template)] == [zygote], "a standby")
        return self.standbys(template)[0]

    async def serve(self, text: str, **fields: Any) -> Running:
        """A replica that is ready."""
        running = self.start(self.load(text, **fields))
        await running.recorder.became_ready()
        return running


def listening(path: str) -> socket.socket:
    """A socket as a cluster makes it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(4096)
    listener.setblocking(False)
    return listener


@contextlib.asynccontextmanager
async def hosting(folder: Path, **settings: float) -> AsyncIterator[Host]:
    """A started launcher, stopped afterwards; fails when anything of it is left."""
    launcher = HostLauncher(replace(HostSettings(), **settings), SystemClock())  # type: ignore[arg-type]  # all floats
    before = set(procfs.descriptors())
    await launcher.start()
    try:
        yield Host(launcher, folder)
    finally:
        pid = launcher.zygote_pid
        below = descendants(pid) if pid is not None else set()
        await launcher.stop(0.0)
        await reached(lambda: all(is_gone(each) for each in below), "the end of all processes")
    left = set(procfs.descriptors()) - before
    assert not {each for each in left if "socket" in procfs.descriptors().get(each, "")}


def kill(pid: int, number: int) -> None:
    """Send a signal, unless the process is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
