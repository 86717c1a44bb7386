"""A host without processes: its templates load, and its replicas start and end, when a test says so.

Give it to `LocalCluster` in the place of `HostLauncher`. Everything happens in the running loop's time.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping

from upwell.autoscaler.stats import Reporter
from upwell.functions.errors import Unavailable
from upwell.runtime.cluster.processes import ProcessObserver
from upwell.runtime.host.process import ExitStatus, exit_status
from upwell.runtime.host.source import Source
from upwell.runtime.host.templates import LoadFailed, LoadResult, TemplateState


class FakeProcess:
    """A replica that serves nobody."""

    def __init__(self, name: str, template: FakeTemplate, observer: ProcessObserver, pid: int) -> None:
        self.name = name
        self.template = template
        self.pid: int | None = pid
        self.is_draining = False
        self.was_killed = False
        self.is_ready = False
        self.has_ended = False
        self._observer = observer

    def __repr__(self) -> str:
        return f"<FakeProcess {self.name}>"

    # What a cluster calls

    def drain(self) -> None:
        """Note it; the test says when it ends."""
        self.is_draining = True

    def kill(self) -> None:
        """End soon, as a killed process does."""
        self.was_killed = True
        asyncio.get_running_loop().call_soon(self._end, ExitStatus(None, 9, self.is_ready, "killed by SIGKILL"))

    # What a test calls

    def become_ready(self, phases: Mapping[str, float] | None = None) -> None:
        """Say that it serves."""
        if not self.has_ended:
            self.is_ready = True
            self._observer.ready(self, phases or {"fork": 1.0, "start": 2.0})

    def report(self) -> None:
        """Report, as a replica whose loop is not blocked does each second."""
        reporter = Reporter(self.template.source.revision, self.name, 0.0)
        self._observer.report(self, reporter.report(1.0))

    def be_unhealthy(self, reason: str = "its liveness probe failed") -> None:
        """Say that the liveness probe has failed."""
        self._observer.unhealthy(self, reason)

    def exit(self, code: int = 0, reason: str = "") -> None:
        """End with an exit code."""
        self._end(exit_status(code << 8, self.is_ready, reason))

    def vanish(self, reason: str) -> None:
        """End before it could start, so that nobody knows how."""
        self._end(ExitStatus(None, None, self.is_ready, reason))

    def _end(self, status: ExitStatus) -> None:
        if not self.has_ended:
            self.has_ended = True
            self._observer.exited(self, status)


class FakeTemplate:
    """A function that is imported, or a program that is tried, when the test says so."""

    def __init__(self, source: Source, launcher: FakeLauncher) -> None:
        self.source = source
        self.state = TemplateState.LOADING
        self.loaded: asyncio.Future[LoadResult] = asyncio.get_running_loop().create_future()
        self.loaded.add_done_callback(_retrieve)
        self.processes: list[FakeProcess] = []
        self._launcher = launcher

    def __repr__(self) -> str:
        return f"<FakeTemplate {self.source.revision} {self.state}>"

    # What a cluster calls

    def start_replica(self, name: str, listener: socket.socket, observer: ProcessObserver) -> FakeProcess:
        """Take the listener over (it is closed) and be starting until the test says more."""
        with listener:
            if self.state is TemplateState.EVICTED:
                raise Unavailable("the template was evicted", where=self.source.revision)
        process = self._launcher.started(FakeProcess(name, self, observer, 1000 + len(self._launcher.processes)))
        self.processes.append(process)
        return process

    def close(self) -> None:
        """Be evicted; replicas that wait for the import end."""
        self._stop(TemplateState.EVICTED, Unavailable("the template was evicted"))

    # What a test calls

    def load(self, seconds: float = 0.01) -> None:
        """The import has succeeded."""
        if self.state is TemplateState.LOADING:
            self.state = TemplateState.LOADED
            self.loaded.set_result(LoadResult(seconds, True, ()))

    def fail(self, what: str = "No module named 'absent'", cause: str = "ImportFailed") -> None:
        """The import has raised, or the program cannot serve."""
        self._stop(TemplateState.FAILED, LoadFailed(what, where="main.py", cause=cause))

    def lose(self, reason: str = "the function host's zygote ended") -> None:
        """Its process is gone, through no fault of the source."""
        self._stop(TemplateState.EVICTED, Unavailable(reason))

    def _stop(self, state: TemplateState, error: Exception) -> None:
        was_loading = self.state is TemplateState.LOADING
        self.state = state
        if was_loading:
            self.loaded.set_exception(error)
            for process in self.processes:
                process.vanish(str(error))


class FakeLauncher:
    """Makes fake templates and remembers them.

    A template has loaded `load_seconds` after it was asked for, a replica is ready after `start_seconds`; None
    leaves either to the test.
    """

    def __init__(self, *, load_seconds: float | None = 0.0, start_seconds: float | None = None) -> None:
        self.templates: list[FakeTemplate] = []
        self.processes: list[FakeProcess] = []
        self._load_seconds = load_seconds
        self._start_seconds = start_seconds

    def load(self, source: Source) -> FakeTemplate:
        """A template that is loading."""
        template = FakeTemplate(source, self)
        self.templates.append(template)
        _after(self._load_seconds, template.load)
        return template

    def started(self, process: FakeProcess) -> FakeProcess:
        """Called by a template for each replica."""
        self.processes.append(process)
        _after(self._start_seconds, process.become_ready)
        return process

    def open(self) -> list[FakeTemplate]:
        """The templates that hold an import, or are about to."""
        return [t for t in self.templates if t.state in (TemplateState.LOADING, TemplateState.LOADED)]

    def alive(self) -> list[FakeProcess]:
        """The processes that have not ended."""
        return [process for process in self.processes if not process.has_ended]


def _after(seconds: float | None, action: Callable[[], None]) -> None:
    if seconds is not None:
        asyncio.get_running_loop().call_later(seconds, action)


def _retrieve(loaded: asyncio.Future[LoadResult]) -> None:
    if not loaded.cancelled():
        loaded.exception()
