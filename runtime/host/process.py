"""One replica as the platform sees it, from the wish for it to its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from upwell.autoscaler.stats import Report
from upwell.runtime.host.channel import Channel
from upwell.runtime.host.source import FunctionSource, Source
from upwell.runtime.host.wire import Received


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended. Both `code` and `signal` are None when nobody could tell."""

    code: int | None
    signal: int | None
    was_ready: bool
    reason: str
    """In words, for logs and for whoever waits for the replica."""
    cause: str = ""
    """The same in one word where Kubernetes or Knative has one for it: OOMKilled, ExitCode3."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a template or replica says of why it cannot go on."""

    what: str
    where: str = ""
    hint: str = ""
    traceback: str = ""
    cause: str = ""
    """See `ExitStatus`."""


class ReplicaObserver(Protocol):
    """Is told of one replica, in its launcher's event loop."""

    def ready(self, process: ReplicaProcess, phases: Mapping[str, float]) -> None:
        """It serves; `phases` are milliseconds in order: wait, fork, import (when fresh), start.

        ``wait`` is until the command is picked up; ``fork`` until there is a process of its own, which is next to
        nothing for the one that was forked ahead; ``start`` until it accepts connections.
        """
        ...

    def report(self, process: ReplicaProcess, report: Report) -> None:
        """Its load, once a second and when the first request after silence arrives."""
        ...

    def update(self, process: ReplicaProcess, metrics: Mapping[str, Any]) -> None:
        """Its totals, when they have changed: see `QueueMetrics.snapshot`."""
        ...

    def stuck(self, process: ReplicaProcess) -> None:
        """A handler goes on although its request timed out, and cannot be ended but with its process."""
        ...

    def unhealthy(self, process: ReplicaProcess, reason: str) -> None:
        """Its liveness probe has failed: it is to be replaced."""
        ...

    def exited(self, process: ReplicaProcess, status: ExitStatus) -> None:
        """It ended. Told exactly once, and last."""
        ...


class Supervisor(Protocol):
    """What a process needs of its launcher."""

    def claim(self, pid: int, ended: Callable[[int], None]) -> None:
        """Call `ended` with the wait status of `pid`, now if it is known already."""
        ...

    def kill_process(self, pid: int) -> None:
        """End a descendant of the zygote at once."""
        ...

    def watch_memory(self, pid: int, limit: int, itself: bool) -> None:
        """End it when it uses more than `limit` bytes; `itself` says whether it counts beside what it started."""
        ...

    def finished(self, process: ReplicaProcess) -> None:
        """The process's end has been told."""
        ...


class ReplicaProcess:
    """A replica's process. `pid` is None until it exists, `phases` are empty until it is ready."""

    def __init__(
        self,
        name: str,
        observer: ReplicaObserver,
        supervisor: Supervisor,
        source: Source,
        *,
        started_at: float,
        exit_wait: float,
    ) -> None:
        self.name = name
        self.failure: Failure | None = None
        """What it said of itself before it ended."""
        self.started_at = started_at
        self.pid: int | None = None
        self.phases: Mapping[str, float] = {}
        self.ended = False
        self.killed = False
        """Whether its end is upwell's doing."""
        self._observer = observer
        self._supervisor = supervisor
        self._source = source
        self._exit_wait = exit_wait
        self._ready = False
        self._program: tuple[int | None, int | None] | None = None
        self._channel: Channel | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "ended" if self.ended else "ready" if self._ready else "starting"
        return f"<ReplicaProcess {self.name} pid={self.pid} {state}>"

    def listen_to(self, connection: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        """Follow the replica over its channel. Called once, by the template."""
        self._loop = loop
        self._channel = Channel(connection, loop, self._received, self._channel_ended)

    def drain(self, grace: float | None = None) -> None:
        """Have it finish what it accepted, for `grace` seconds (default: the request timeout), and end."""
        if self._channel is not None:
            self._channel.send({"drain": self._source.timeout_seconds if grace is None else grace})

    def kill(self) -> None:
        """End it at once. One that does not exist yet ends as soon as it does."""
        if self.ended:
            return
        if self.pid is None:
            self.finish(None, "it was killed before it started")
        else:
            self.killed = True
            self._supervisor.kill_process(self.pid)

    def out_of_memory(self, used: int) -> None:
        """It is being ended because it uses so many bytes."""
        limit = self._source.memory_bytes
        what = f"out of memory: it used {_mebibytes(used)} and its limit is {_mebibytes(limit)} (OOMKilled)"
        hint = "Raise resources.limits.memory, or lower containerConcurrency."
        self.killed = True
        self.failure = Failure(what, self._source.where, hint, "", "OOMKilled")

    def finish(self, status: int | None, reason: str = "") -> None:
        """Tell of the end, once: with the wait status, or with a reason when there is none."""
        if self.ended:
            return
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self._channel is not None:
            self._channel.close()
        self._supervisor.finished(self)
        self._observer.exited(self, self._exit_status(status, reason))

    def _exit_status(self, status: int | None, reason: str) -> ExitStatus:
        failure = self.failure
        if self._program is not None:  # what the sidecar itself ended with says less
            assert failure is not None
            return ExitStatus(*self._program, self._ready, failure.what, failure.cause)
        if not reason and failure is not None:
            reason = failure.what
        elif not reason and not self.killed and status == signal.SIGKILL:
            reason = "signal 9 did not come from upwell; the machine may be out of memory"
        found = exit_status(status, self._ready, reason)
        return found if failure is None else replace(found, cause=failure.cause)

    def _received(self, received: Received) -> None:
        message = received.message
        if "report" in message:
            self._observer.report(self, Report.decode(message["report"].encode()))
        if "metrics" in message:
            self._observer.update(self, message["metrics"])
        if "stuck" in message:
            self._observer.stuck(self)
        if "unhealthy" in message:
            self.failure = Failure(message["unhealthy"], self._source.where, cause="Unhealthy")
            self._observer.unhealthy(self, message["unhealthy"])
        if "failed" in message:
            self.failure = Failure(**message["failed"])
        if "program" in message:
            self._program = tuple(message["program"])
        if "forked" in message:
            self.pid = message["forked"]
            if self._source.memory_bytes:
                itself = isinstance(self._source, FunctionSource)
                self._supervisor.watch_memory(self.pid, self._source.memory_bytes, itself)
            self._supervisor.claim(self.pid, self._reaped)
        if "ready" in message:
            self._ready = True
            self.phases = message["ready"]
            self._observer.ready(self, self.phases)

    def _reaped(self, status: int) -> None:
        if self._channel is not None:
            self._channel.read_rest()
        self.finish(status)

    def _channel_ended(self) -> None:
        self._timer = self._loop.call_later(self._exit_wait, self._give_up)

    def _give_up(self) -> None:
        if self.pid is not None:
            self._supervisor.kill_process(self.pid)
            self.finish(None, "it closed its channel and was killed")
        else:
            self.finish(None, "it ended before it could say anything")


def exit_status(status: int | None, was_ready: bool, reason: str = "") -> ExitStatus:
    """A wait status, as `os.waitpid` gives it, in words; `reason` replaces them or says more."""
    if status is None:
        return ExitStatus(None, None, was_ready, reason)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        words = f"killed by {_signal_name(-code)}"
        return ExitStatus(None, -code, was_ready, f"{words}: {reason}" if reason else words)
    words = f"exited with code {code}"
    return ExitStatus(code, None, was_ready, f"{words}: {reason}" if reason else words)


def _mebibytes(number: int) -> str:
    return f"{number / (1 << 20):.0f} MiB"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
