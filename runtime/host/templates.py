"""One template as the platform sees it: loading, then ready to be forked, or why it is not."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from upwell.functions.errors import InvalidFunction, Unavailable
from upwell.runtime.clock import Clock
from upwell.runtime.host.channel import Channel
from upwell.runtime.host.process import ReplicaObserver, ReplicaProcess, Supervisor, exit_status
from upwell.runtime.host.settings import HostSettings
from upwell.runtime.host.source import FunctionSource
from upwell.runtime.host.wire import Received

_log = logging.getLogger("upwell.host")


class TemplateState(StrEnum):
    """Where a template stands."""

    LOADING = "loading"
    LOADED = "loaded"
    FRESH = "fresh"
    """Its module cannot be forked: each replica imports it anew."""
    FAILED = "failed"
    EVICTED = "evicted"
    """Closed, or its process is gone. Its replicas live on; load the source again to start more."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """A successful import: the seconds it took, and why it cannot be forked if it cannot."""

    seconds: float
    forkable: bool
    reasons: tuple[str, ...]


class LoadFailed(InvalidFunction):
    """The source cannot be served; `traceback` is what its import raised, for the developer's eyes, `cause` the
    reason that a condition gives."""

    def __init__(
        self, what: str, *, where: str = "", hint: str = "", traceback: str = "", cause: str = "ImportFailed"
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.traceback = traceback
        self.cause = cause


class TemplateSupervisor(Supervisor, Protocol):
    """What a template needs of its launcher."""

    def send_to_zygote(self, message: dict[str, Any], descriptors: Sequence[int]) -> None:
        """Send now, or as soon as there is a zygote."""
        ...

    def adopt(self, process: ReplicaProcess) -> None:
        """Look after a new replica until it is `finished`."""
        ...


class Template:
    """A revision's template. `loaded` gives the LoadResult; it raises LoadFailed, an InvalidFunction, when the
    source is at fault, and Unavailable when the template was closed or lost before that was known."""

    def __init__(
        self,
        source: FunctionSource,
        supervisor: TemplateSupervisor,
        settings: HostSettings,
        clock: Clock,
        closed: Callable[[Template], None],
    ) -> None:
        self.source = source
        self.state = TemplateState.LOADING
        self.pid: int | None = None
        self._loop = asyncio.get_running_loop()
        self.loaded: asyncio.Future[LoadResult] = self._loop.create_future()
        self.loaded.add_done_callback(_retrieve)
        self._supervisor = supervisor
        self._settings = settings
        self._clock = clock
        self._closed = closed
        self._waiting: set[ReplicaProcess] = set()
        self._deadline = self._loop.call_later(settings.load_deadline, self._overdue)
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours, self._loop, self._received, self._ended)
        with theirs:
            supervisor.send_to_zygote({"template": source.to_wire()}, [theirs.fileno()])

    def __repr__(self) -> str:
        return f"<Template {self.source.revision} {self.state} pid={self.pid}>"

    def start_replica(self, name: str, listener: socket.socket, observer: ReplicaObserver) -> ReplicaProcess:
        """Start a replica that serves on `listener`, which must listen already and is taken over (closed here).

        Returns at once. Raises LoadFailed for a source that cannot be served, Unavailable when evicted.
        """
        with listener:
            self._check_usable()
            process = ReplicaProcess(
                name,
                observer,
                self._supervisor,
                self.source,
                started_at=self._clock.now(),
                exit_wait=self._settings.exit_wait,
            )
            ours, theirs = socket.socketpair()
            with theirs:
                self._command(name, self._clock.monotonic(), [listener.fileno(), theirs.fileno()])
        self._supervisor.adopt(process)
        process.listen_to(ours, self._loop)
        if self.state is TemplateState.LOADING:
            self._waiting.add(process)
        return process

    def close(self) -> None:
        """Evict it: the process ends, its replicas live on. Replicas it has not started yet are ended."""
        if self.state in (TemplateState.LOADING, TemplateState.LOADED, TemplateState.FRESH):
            self._end(TemplateState.EVICTED, Unavailable("the template was evicted while it loaded"))
            if self.pid is not None:
                # One that hangs in an import would not see its socket close.
                self._supervisor.kill_process(self.pid)

    def lost(self, reason: str) -> None:
        """The process is gone with the zygote; its source may well be sound."""
        if self.state is not TemplateState.FAILED:
            self._end(TemplateState.EVICTED, Unavailable(reason, where=self.source.where))

    def _check_usable(self) -> None:
        if self.state is TemplateState.FAILED:
            raise self.loaded.exception() or Unavailable("the function cannot be loaded")
        if self.state is TemplateState.EVICTED:
            raise Unavailable("the template was evicted", where=self.source.revision, hint="Load it again.")

    def _command(self, name: str, sent: float, descriptors: Sequence[int]) -> None:
        message: dict[str, Any] = {"name": name, "sent": sent}
        if self.state is TemplateState.FRESH:
            self._supervisor.send_to_zygote(message | {"fresh": self.source.to_wire()}, descriptors)
        else:
            self._channel.send(message, descriptors)

    def _received(self, received: Received) -> None:
        message, descriptors = received
        if "pid" in message:
            self.pid = message["pid"]
            self._supervisor.claim(message["pid"], self._reaped)
        elif "loaded" in message:
            self._loaded(message["loaded"]["seconds"], tuple(message["loaded"]["reasons"]))
        elif "failed" in message:
            self._end(TemplateState.FAILED, LoadFailed(**message["failed"]))
        elif "returned" in message:
            self._command(message["returned"], message["sent"], descriptors)
            for descriptor in descriptors:
                os.close(descriptor)

    def _loaded(self, seconds: float, reasons: tuple[str, ...]) -> None:
        self._deadline.cancel()
        self._waiting.clear()
        self.state = TemplateState.FRESH if reasons else TemplateState.LOADED
        if reasons:
            self._channel.end_sending()
            _log.warning(
                "the module cannot be forked and is imported anew for each replica",
                extra={"revision": self.source.revision, "reasons": "; ".join(reasons)},
            )
        if not self.loaded.done():
            self.loaded.set_result(LoadResult(seconds, not reasons, reasons))

    def _overdue(self) -> None:
        seconds = self._settings.load_deadline
        hint = "Move what takes long out of the module's top level, to where it is first used."
        failure = LoadFailed(f"importing it took longer than {seconds:g} s", where=self.source.where, hint=hint)
        self._end(TemplateState.FAILED, failure)
        if self.pid is not None:
            self._supervisor.kill_process(self.pid)

    def _reaped(self, status: int) -> None:
        self._channel.read_rest()
        ended = exit_status(status, False)
        if self.state is TemplateState.LOADING and ended.signal == signal.SIGKILL:
            # By the kernel that wants memory, or by a person: the source may well be sound.
            what = "the process was killed while it was imported"
            hint = "The kernel does so when memory runs out; its log tells."
            self._end(TemplateState.EVICTED, Unavailable(what, where=self.source.where, hint=hint))
        else:
            self._gone(ended.reason)

    def _ended(self) -> None:
        if self.state is not TemplateState.LOADING:
            self._gone("its process ended")
        else:
            # The zygote is about to say how; without a process there is nothing to be said.
            self._deadline.cancel()
            self._deadline = self._loop.call_later(self._settings.exit_wait, self._gone, "its process ended")

    def _gone(self, how: str) -> None:
        if self.state is TemplateState.LOADING:
            failure = LoadFailed(f"the process ended while it was imported: {how}", where=self.source.where)
            self._end(TemplateState.FAILED, failure)
        elif self.state is TemplateState.LOADED:
            _log.warning("a template ended", extra={"revision": self.source.revision, "reason": how})
            self._end(TemplateState.EVICTED, Unavailable(how))

    def _end(self, state: TemplateState, failure: LoadFailed | Unavailable) -> None:
        self.state = state
        self._deadline.cancel()
        self._channel.close()
        if not self.loaded.done():
            self.loaded.set_exception(failure)
        for process in self._waiting:
            process.finish(None, str(failure))
        self._waiting.clear()
        self._closed(self)


def _retrieve(loaded: asyncio.Future[LoadResult]) -> None:
    if not loaded.cancelled():
        loaded.exception()
