"""The zygote: forks templates and fresh replicas, reaps every descendant and reports how it ended.

Single-threaded and without an event loop, so that forking it is safe. It is the subreaper of all that descends
from it: a replica's parent is the zygote whatever becomes of its template. Its control socket is also the life
line, since only the platform holds the other end: when that closes, and when the kernel says that the platform
ended, the zygote kills its descendants and ends. SIGTERM rather than SIGKILL is asked for there, so that processes
which a function has started itself are ended too; templates and replicas have SIGKILL set towards the zygote.

It also looks after what a replica leaves behind, in sessions of its own too, and after memory: it ends a replica
that uses more than its limit and says so, since it alone knows for certain whose a pid is.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import math
import os
import select
import signal
import socket
import sys
from collections.abc import Iterable
from types import FrameType
from typing import NoReturn

from upwell.runtime import procfs
from upwell.runtime.clock import SystemClock
from upwell.runtime.descriptors import raise_descriptor_limit
from upwell.runtime.host import linux, memory, program, replica, template
from upwell.runtime.host.confine import REPLICA_MARK
from upwell.runtime.host.source import FunctionSource, ProgramSource, source_from_wire
from upwell.runtime.host.wire import Message, Received, Wire

WARM_MODULES = (
    "anyio._backends._asyncio",
    "concurrent.futures.thread",
    "starlette.requests",
    "starlette.responses",
    "uvicorn.lifespan.off",
    "uvicorn.protocols.websockets.auto",
    "uvloop",
)
"""What handlers and servers import on first use, which would otherwise fall into a replica's first request."""

SWEEP_SECONDS = 0.5
"""After a replica's end until what it left behind is looked for: one look serves all that end meanwhile."""

END_SECONDS = 3.0
"""For descendants to die of SIGKILL; only one that hangs in the kernel takes longer."""


class Zygote:
    """The zygote's state: its control socket and the wake-up pipe of SIGCHLD."""

    def __init__(self, control: socket.socket) -> None:
        self._wire = Wire(control)
        self._ending = False
        self._clock = SystemClock()
        self._watched: dict[int, memory.Watched] = {}
        self._next_look = math.inf
        self._ended: set[int] = set()
        self._next_sweep = math.inf
        self._marks: dict[int, str] = {}
        self._wake, self._wake_signal = os.pipe()
        for descriptor in (self._wake, self._wake_signal):
            os.set_blocking(descriptor, False)

    def serve(self) -> None:
        """Handle commands and deaths until the platform is gone."""
        signal.set_wakeup_fd(self._wake_signal, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, self._end)
        linux.become_subreaper()
        linux.die_with_parent(signal.SIGTERM)
        self._wire.send({"ready": os.getpid()})
        poll = select.poll()
        poll.register(self._wire.socket, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while not self._ending:
            ready = {descriptor for descriptor, _ in poll.poll(self._wait())}
            if self._wake in ready:
                self._reap()
            if self._wire.socket.fileno() in ready:
                self._read()
            self._look_around()
        self._end_descendants()

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._ending = True

    def _read(self) -> None:
        batch = self._wire.read()
        if batch is None:
            self._ending = True
            return
        for received in batch:
            self._handle(received)

    def _handle(self, received: Received) -> None:
        message, descriptors = received
        try:
            if "template" in message:
                self._fork_template(message["template"], descriptors[0])
            elif "fresh" in message:
                self._fork_replica(message, descriptors)
            elif "kill" in message:
                self._kill(message["kill"])
            elif "watch" in message:
                self._watched[message["watch"]] = memory.Watched(message["limit"], message["itself"])
                self._next_look = min(self._next_look, self._clock.monotonic())
        except OSError as error:  # no memory or no process to be had: the descriptors' closing tells the platform
            print(f"upwell: the zygote cannot start a process: {error}", file=sys.stderr)  # noqa: T201
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _fork_template(self, values: Message, control: int) -> None:
        zygote = os.getpid()
        if os.fork() == 0:
            self._leave()
            source = source_from_wire(values)
            assert isinstance(source, FunctionSource)
            template.run(source, socket.socket(fileno=control), zygote)

    def _fork_replica(self, message: Message, descriptors: list[int]) -> None:
        zygote = os.getpid()
        picked_up = self._clock.monotonic()
        if os.fork() == 0:
            self._leave()
            *listeners, channel = (socket.socket(fileno=descriptor) for descriptor in descriptors)
            start = replica.Start(message["name"], message["sent"], replica.Birth(picked_up, zygote))
            source = source_from_wire(message["fresh"])
            if isinstance(source, ProgramSource):
                program.run(source, listeners[0] if listeners else None, channel, start, message["deadline"])
            replica.run_fresh(source, listeners[0], channel, start)

    def _leave(self) -> None:
        """Give up, in a child, what is the zygote's alone."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        self._wire.close()
        os.close(self._wake)
        os.close(self._wake_signal)

    def _kill(self, pid: int) -> None:
        # A pid that was reaped may be another's by now; one that was not is ours or does not exist.
        parents = procfs.parents()
        if parents.get(pid, 0) in (os.getpid(), 0):
            _kill_all([pid, *procfs.below(pid, parents)])

    def _wait(self) -> float | None:
        """Milliseconds until there is something to look at; None when there is nothing."""
        due = min(self._next_look, self._next_sweep)
        return None if due == math.inf else max(0.0, due - self._clock.monotonic()) * 1000

    def _look_around(self) -> None:
        now = self._clock.monotonic()
        if now >= self._next_sweep:
            self._sweep()
        if now >= self._next_look:
            self._look_at_memory(now)

    def _look_at_memory(self, now: float) -> None:
        found = memory.excesses(self._watched, procfs.parents())
        for excess in found:
            del self._watched[excess.pid]
        if found:
            with contextlib.suppress(OSError):
                self._wire.send({"out_of_memory": [(excess.pid, excess.used) for excess in found]})
        for excess in found:
            _kill_all(excess.processes)
        pause = memory.pause(self._clock.monotonic() - now)
        self._next_look = now + pause if self._watched else math.inf

    def _sweep(self) -> None:
        """End what replicas that are gone have left behind. A process is asked for its mark once."""
        self._next_sweep = math.inf
        parents = procfs.parents()
        children = {pid for pid, parent in parents.items() if parent == os.getpid()}
        self._marks = {pid: mark for pid, mark in self._marks.items() if pid in children}
        for child in children:
            if child not in self._marks:
                self._marks[child] = procfs.initial_variable(child, REPLICA_MARK)
            mark = self._marks[child]
            if mark.isdigit() and int(mark) in self._ended:
                _kill_all([child, *procfs.below(child, parents)])
        self._ended.clear()

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake, 4096):
                pass
        ended: list[tuple[int, int]] = []
        while (pid := _ended_child()) is not None:
            ended.append(_bury(pid))
            self._watched.pop(pid, None)
            self._marks.pop(pid, None)
            self._ended.add(pid)
        if ended:
            self._next_sweep = min(self._next_sweep, self._clock.monotonic() + SWEEP_SECONDS)
            try:
                self._wire.send({"exits": ended})
            except OSError:
                self._ending = True

    def _end_descendants(self) -> None:
        """Kill child after child: each one's own children become ours when it dies."""
        clock = SystemClock()
        deadline = clock.monotonic() + END_SECONDS
        me = os.getpid()
        while clock.monotonic() < deadline:
            for child in procfs.children(me):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            select.select([self._wake], [], [], 0.01)


def _kill_all(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _ended_child() -> int | None:
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found is not None else None


def _bury(pid: int) -> tuple[int, int]:
    """Reap an ended child, and end what it leaves behind in its process group.

    Before it is reaped its pid is still its own, so the group cannot be another's.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if pid != os.getpgrp():
            os.killpg(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)


def run(control: socket.socket) -> NoReturn:
    """The zygote's whole life. Ends the process."""
    for name in WARM_MODULES:
        importlib.import_module(name)
    linux.find_variable(REPLICA_MARK)
    raise_descriptor_limit()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    gc.collect()
    gc.freeze()
    Zygote(control).serve()
    os._exit(0)
