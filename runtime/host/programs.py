"""The template of a program, which has nothing to import: it is the word on whether the program can serve.

That is proved by a start: by a first replica when one is asked for in the same turn of the event loop, and else by
a trial, which is started without a socket, waited for until it is ready, and ended. A template is therefore cheap
to make again. Replicas need not wait for the proof: each is forked by the zygote at once.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from upwell.autoscaler.stats import Report
from upwell.functions.errors import Unavailable
from upwell.runtime.clock import Clock
from upwell.runtime.host.process import ExitStatus, ReplicaObserver, ReplicaProcess
from upwell.runtime.host.settings import HostSettings
from upwell.runtime.host.source import ProgramSource
from upwell.runtime.host.templates import LoadFailed, LoadResult, TemplateState, TemplateSupervisor


class ProgramTemplate:
    """A program's template. `loaded` is as in `Template`: LoadFailed says why the program cannot serve."""

    def __init__(
        self,
        source: ProgramSource,
        supervisor: TemplateSupervisor,
        settings: HostSettings,
        clock: Clock,
        closed: Callable[[ProgramTemplate], None],
    ) -> None:
        self.source = source
        self.state = TemplateState.LOADING
        self.pid: int | None = None
        """There is no process of its own."""
        self._loop = asyncio.get_running_loop()
        self.loaded: asyncio.Future[LoadResult] = self._loop.create_future()
        self.loaded.add_done_callback(_retrieve)
        self._supervisor = supervisor
        self._settings = settings
        self._clock = clock
        self._closed = closed
        self._began = clock.monotonic()
        self._starting: set[ReplicaProcess] = set()
        self._trial: ReplicaProcess | None = None
        self._loop.call_soon(self._try)

    def __repr__(self) -> str:
        return f"<ProgramTemplate {self.source.revision} {self.state}>"

    def start_replica(self, name: str, listener: socket.socket, observer: ReplicaObserver) -> ReplicaProcess:
        """Start a replica that serves on `listener`, which must listen already and is taken over (closed here).

        Returns at once. Raises LoadFailed for a program that cannot serve, Unavailable when evicted.
        """
        with listener:
            if self.state is TemplateState.FAILED:
                raise self.loaded.exception() or Unavailable("the program cannot be started")
            if self.state is TemplateState.EVICTED:
                raise Unavailable("the template was evicted", where=self.source.revision, hint="Load it again.")
            return self._start(name, [listener.fileno()], observer)

    def close(self) -> None:
        """Evict it; its replicas live on, a trial is ended."""
        if self.state in (TemplateState.LOADING, TemplateState.LOADED):
            self._end(TemplateState.EVICTED, Unavailable("the template was evicted while the program started"))

    def lost(self, reason: str) -> None:
        """The zygote is gone; the program may well be sound."""
        if self.state is not TemplateState.FAILED:
            self._end(TemplateState.EVICTED, Unavailable(reason, where=self.source.where))

    def _start(self, name: str, listeners: Sequence[int], observer: ReplicaObserver) -> ReplicaProcess:
        watching = _Watching(self, observer)
        process = ReplicaProcess(
            name,
            watching,
            self._supervisor,
            self.source,
            started_at=self._clock.now(),
            exit_wait=self._settings.exit_wait,
        )
        message: dict[str, Any] = {
            "name": name,
            "sent": self._clock.monotonic(),
            "fresh": self.source.to_wire(),
            "deadline": self.source.progress_seconds or self._settings.progress_deadline,
        }
        ours, theirs = socket.socketpair()
        with theirs:
            self._supervisor.send_to_zygote(message, [*listeners, theirs.fileno()])
        self._supervisor.adopt(process)
        process.listen_to(ours, self._loop)
        if self.state is TemplateState.LOADING:
            self._starting.add(process)
        return process

    def _try(self) -> None:
        """Start a trial, unless a replica's start is the proof."""
        if self.state is TemplateState.LOADING and not self._starting:
            name = f"{self.source.revision.partition('/')[2]}-trial"
            try:
                self._trial = self._start(name, [], _Unobserved())
            except (OSError, Unavailable) as error:  # descriptors have run out
                self._end(TemplateState.EVICTED, Unavailable(str(error), where=self.source.where))

    def became_ready(self, process: ReplicaProcess) -> None:
        """A replica or the trial serves: that is the proof."""
        if self.state is TemplateState.LOADING:
            self.state = TemplateState.LOADED
            self._let_go_of_trial(process)
            if not self.loaded.done():
                self.loaded.set_result(LoadResult(self._clock.monotonic() - self._began, True, ()))

    def ended(self, process: ReplicaProcess, status: ExitStatus) -> None:
        """One that ended before it was ready of its own accord proves the contrary."""
        self._starting.discard(process)
        if self.state is not TemplateState.LOADING or status.was_ready:
            return
        failure = process.failure
        if failure is not None:
            cause = failure.cause or "StartFailed"
            where = failure.where or self.source.where
            error = LoadFailed(failure.what, where=where, hint=failure.hint, cause=cause)
            self._end(TemplateState.FAILED, error)
        elif status.signal is not None and not process.killed:
            self._end(
                TemplateState.FAILED, LoadFailed(status.reason, where=self.source.where, cause="StartFailed")
            )
        elif not self._starting:
            self._loop.call_soon(self._try)  # it was told to end, which says nothing

    def _end(self, state: TemplateState, failure: LoadFailed | Unavailable) -> None:
        self.state = state
        if not self.loaded.done():
            self.loaded.set_exception(failure)
        self._let_go_of_trial(None)
        self._closed(self)

    def _let_go_of_trial(self, ready: ReplicaProcess | None) -> None:
        """A trial ends by itself once it is ready; one that is not is of no use any more."""
        trial, self._trial = self._trial, None
        self._starting.clear()
        if trial is not None and trial is not ready:
            trial.drain(0.0)


class _Watching:
    """Passes on what a replica tells, and tells the template what concerns it."""

    def __init__(self, template: ProgramTemplate, observer: ReplicaObserver) -> None:
        self._template = template
        self._observer = observer
        self.report = observer.report
        self.update = observer.update
        self.stuck = observer.stuck
        self.unhealthy = observer.unhealthy

    def ready(self, process: ReplicaProcess, phases: Mapping[str, float]) -> None:
        self._template.became_ready(process)
        self._observer.ready(process, phases)

    def exited(self, process: ReplicaProcess, status: ExitStatus) -> None:
        self._template.ended(process, status)
        self._observer.exited(process, status)


class _Unobserved:
    """Of a trial nobody but the template hears."""

    def ready(self, process: ReplicaProcess, phases: Mapping[str, float]) -> None:
        """See `ReplicaObserver`."""

    def report(self, process: ReplicaProcess, report: Report) -> None:
        """See `ReplicaObserver`."""

    def update(self, process: ReplicaProcess, metrics: Mapping[str, Any]) -> None:
        """See `ReplicaObserver`."""

    def stuck(self, process: ReplicaProcess) -> None:
        """See `ReplicaObserver`."""

    def unhealthy(self, process: ReplicaProcess, reason: str) -> None:
        """See `ReplicaObserver`."""

    def exited(self, process: ReplicaProcess, status: ExitStatus) -> None:
        """See `ReplicaObserver`."""


def _retrieve(loaded: asyncio.Future[LoadResult]) -> None:
    if not loaded.cancelled():
        loaded.exception()
