"""A replica: one process that serves one function on a listening socket it was given.

It was its template's standby, or it is forked: from a template of which several are asked for at once, or from the
zygote when its module has to be imported afresh. Before anything of the user's runs it gives up what is not its
own, gets random state of its own, and has the kernel end it with the zygote, which a standby has done ahead.
Then uvicorn's protocol serves on an event loop, with the queue layer around the handler, until a `drain` line or
SIGTERM has been honoured or the channel closes: the platform is gone then, and so is the reason to live.

What it says on its channel: ``forked`` (pid), ``ready`` (phases), ``report``, ``metrics``, ``stuck``, ``failed``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import select
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, Self

import uvloop
from uvicorn.config import Config

from upwell.functions import loading
from upwell.functions.errors import InvalidFunction
from upwell.functions.handler import Handler, adapt
from upwell.functions.signature import Kind
from upwell.runtime.clock import SystemClock
from upwell.runtime.host import confine, linux
from upwell.runtime.host.channel import Channel
from upwell.runtime.host.inside import ask_application
from upwell.runtime.host.reports import LoadReports
from upwell.runtime.host.source import FunctionSource
from upwell.runtime.host.wire import Received, Wire
from upwell.runtime.http.asgi import AsgiServer, ServeSettings, StartupFailed, configure
from upwell.runtime.queue.layer import AlreadyLogged, QueueLayer
from upwell.runtime.sidecar.checks import PASSED, Check, Target, carry_out
from upwell.runtime.sidecar.prober import ProbeFailed, Prober
from upwell.runtime.sidecar.probing import Action, HttpGet, TcpConnect
from upwell.runtime.timers import TimerWheel

DEFAULT_THREADS = 100
"""For sync handlers without a limit on concurrency: the autoscaler's default target."""

POST_START_SECONDS = 30.0
"""For a postStart, of which Kubernetes says no bound but which a request may be waiting for."""
READY_SECONDS = 600.0
"""For an application's own startup and readiness: Knative's progress deadline."""
STUCK_POLL_SECONDS = 0.05
ADOPTION_SECONDS = 5.0
"""For the process between template and replica to end; it has nothing else to do."""
ADOPTION_PAUSE = 0.0002
"""That process needs a processor to end on, so who waits for it leaves it one."""

STARTUP_FAILED = 3
"""The exit code of an application whose startup failed, as uvicorn's is."""
PLATFORM_GONE = 4
"""The exit code of a replica whose channel or zygote went away."""
IMPORT_FAILED = 5
"""The exit code of a replica that imports its module itself and cannot."""

_log = logging.getLogger("upwell.replica")


@dataclass(frozen=True, slots=True)
class Birth:
    """How a replica came to be, and when its command was picked up (monotonic seconds)."""

    picked_up: float
    zygote: int
    loop: asyncio.AbstractEventLoop | None = None
    """A standby's, which is settled: the zygote is its parent. Else it is forked just now and has none."""


@dataclass(frozen=True, slots=True)
class Start:
    """One start: the replica's name and when it was asked for (monotonic seconds)."""

    name: str
    sent: float
    birth: Birth


@dataclass(frozen=True, slots=True)
class Function:
    """A loaded function, with all that can be made ready before a fork."""

    source: FunctionSource
    handler: Handler
    settings: ServeSettings
    config: Config

    @classmethod
    def load(cls, source: FunctionSource) -> Self:
        """Import and adapt the function. Raises InvalidFunction, or whatever the import raises."""
        target = loading.load(source.root, source.module, source.attribute, source.origin)
        threads = source.container_concurrency or DEFAULT_THREADS
        handler = adapt(target, threads=threads, hooks=loading.hooks(target, source.module))
        settings = ServeSettings()
        lifespan: Literal["auto", "off"] = "auto" if handler.kind is Kind.ASGI else "off"
        return cls(source, handler, settings, configure(handler.app, settings, lifespan))


@dataclass(slots=True)
class Phases:
    """Milliseconds that each phase of a start took, in order."""

    milliseconds: dict[str, float] = field(default_factory=dict)
    since: float = 0.0

    def end(self, name: str, now: float) -> None:
        """The phase `name` ended at `now`, monotonic seconds; the next one begins."""
        self.milliseconds[name] = round((now - self.since) * 1000, 3)
        self.since = now


def flush() -> None:
    """Write out what is buffered, before an exit that does not."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def run(function: Function, listener: socket.socket, channel: socket.socket, start: Start) -> NoReturn:
    """The replica's whole life in a process that was just forked from its template. Ends the process."""
    _live(lambda phases: function, listener, channel, start)


def run_fresh(source: FunctionSource, listener: socket.socket, channel: socket.socket, start: Start) -> NoReturn:
    """The same in a process forked from the zygote, which imports the module itself. Ends the process."""
    from upwell.runtime.host.template import enter

    def load(phases: Phases) -> Function:
        enter(source)
        function = Function.load(source)
        phases.end("import", SystemClock().monotonic())
        return function

    _live(load, listener, channel, start)


def _live(
    load: Callable[[Phases], Function], listener: socket.socket, channel: socket.socket, start: Start
) -> NoReturn:
    def serve(phases: Phases) -> int:
        return _run_loop(_load(load, phases, channel), listener, channel, start, phases)

    live(serve, channel, start)


def live(serve: Callable[[Phases], int], channel: socket.socket, start: Start) -> NoReturn:
    """Become a process of its own and call `serve`, which gives the exit code. Ends the process."""
    code = 1
    try:
        phases = Phases(since=start.sent)
        phases.end("wait", start.birth.picked_up)
        if start.birth.loop is None:
            confine.mark(os.getpid())
            if not settle(start.birth.zygote):
                os._exit(PLATFORM_GONE)
        _be_own(channel)
        phases.end("fork", SystemClock().monotonic())
        code = serve(phases)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
        _log.error("the function ended its replica: exit(%r)", error.code)
    except BaseException:
        _log.exception("the replica failed")
    finally:
        flush()
        os._exit(code)


def settle(zygote: int) -> bool:
    """Wait until the zygote is the parent, and have the kernel end this process with it; False when it is gone."""
    clock = SystemClock()
    deadline = clock.monotonic() + ADOPTION_SECONDS
    # The process between ends as soon as it has forked; only then is the parent the one to die with.
    while linux.HAS_SUBREAPER and os.getppid() != zygote and clock.monotonic() < deadline:
        select.select([], [], [], ADOPTION_PAUSE)
    linux.die_with_parent(signal.SIGKILL)
    return not linux.HAS_SUBREAPER or os.getppid() == zygote


def new_loop() -> asyncio.AbstractEventLoop:
    """The loop that a replica runs on; a process that goes on forking closes it before."""
    return uvloop.new_event_loop()


def _be_own(channel: socket.socket) -> None:
    """Become a process of its own, with group and random state, and tell its pid: the zygote is its parent."""
    os.setpgid(0, 0)
    try:
        Wire(channel).send({"forked": os.getpid()})
    except OSError:
        os._exit(PLATFORM_GONE)
    random.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def _load(load: Callable[[Phases], Function], phases: Phases, channel: socket.socket) -> Function:
    try:
        return load(phases)
    except BaseException as error:
        from upwell.runtime.host.template import describe

        Wire(channel).send({"failed": describe(error) | {"cause": "ImportFailed"}})
        _log.error("the function cannot be loaded", exc_info=error)
        flush()
        os._exit(IMPORT_FAILED)


def _run_loop(
    function: Function, listener: socket.socket, channel: socket.socket, start: Start, phases: Phases
) -> int:
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    loop = start.birth.loop or new_loop()
    asyncio.set_event_loop(loop)
    replica = Replica(function, channel, start, loop, phases)
    return loop.run_until_complete(replica.serve(listener))


def _is_news(record: logging.LogRecord) -> bool:
    """Whether uvicorn tells what is not in the log already and is no mere cancellation."""
    return not (record.exc_info and isinstance(record.exc_info[1], AlreadyLogged | asyncio.CancelledError))


class Replica:
    """What runs on the replica's loop: server, queue layer, probes, and the conversation with the platform."""

    def __init__(
        self,
        function: Function,
        channel: socket.socket,
        start: Start,
        loop: asyncio.AbstractEventLoop,
        phases: Phases,
    ) -> None:
        source = function.source
        self._clock = SystemClock()
        self._loop = loop
        self._phases = phases
        self._source = source
        self._grace = source.timeout_seconds
        self._handler = function.handler
        self._channel = Channel(channel, loop, self._received, self._platform_gone)
        self._reports = LoadReports(source.revision, start.name, self._clock, loop, self._channel.send)
        self._layer = QueueLayer(
            function.handler.app,
            source.queue_settings(),
            self._reports.stats,
            TimerWheel(loop),
            self._clock,
            abandoned=lambda: function.handler.abandoned_threads,
            woke=self._reports.woke,
            stuck=self._stuck,
        )
        self._prober = Prober(source.probes, self._ask, self._clock)
        function.config.loaded_app = self._layer
        self._server = AsgiServer(function.config, function.settings, self._clock)
        self._draining = asyncio.Event()

    async def serve(self, listener: socket.socket) -> int:
        """Start, serve, drain, stop; the process's exit code."""
        self._loop.add_signal_handler(signal.SIGTERM, self._drain, self._grace)
        liveness: asyncio.Task[None] | None = None
        try:
            await self._start(listener)
        except (StartupFailed, ProbeFailed, InvalidFunction) as error:
            self._channel.send({"failed": _startup_failure(error, self._source)})
            return STARTUP_FAILED
        if self._source.probes.liveness is not None:
            liveness = self._loop.create_task(self._watch_liveness(), name="liveness")
        self._phases.end("start", self._clock.monotonic())
        self._channel.send({"ready": self._phases.milliseconds})
        self._reports.follow(self._layer)
        await self._draining.wait()
        if liveness is not None:
            liveness.cancel()
        if not await self._drain_server():
            _log.warning("requests were cut off: the drain took longer than %g s", self._grace)
        await self._act(self._source.lifecycle.pre_stop, "preStop", self._grace)
        await self._handler.stop()
        await self._server.stop()
        self._handler.close()
        self._reports.report()
        return 0

    async def _start(self, listener: socket.socket) -> None:
        """Raises InvalidFunction, StartupFailed or ProbeFailed."""
        if self._handler.has_start_hooks:
            await self._handler.start()
            self._phases.end("on_start", self._clock.monotonic())
        await self._server.start(listener)
        lifecycle = self._source.lifecycle
        if lifecycle.post_start is not None:
            await self._act(lifecycle.post_start, "postStart", POST_START_SECONDS)
        if self._source.probes.any:
            await self._until_ready()

    async def _until_ready(self) -> None:
        """Until its probes say so, or it is to end. Raises ProbeFailed."""
        ready = self._loop.create_task(self._prober.until_ready(), name="readiness")
        draining = self._loop.create_task(self._draining.wait(), name="draining")
        try:
            async with asyncio.timeout(READY_SECONDS):
                await asyncio.wait((ready, draining), return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                ready.result()
        except TimeoutError:
            raise ProbeFailed(f"it was not ready after {READY_SECONDS:g} s: {self._prober.last}") from None
        finally:
            ready.cancel()
            draining.cancel()
            await asyncio.gather(ready, draining, return_exceptions=True)

    async def _watch_liveness(self) -> None:
        self._channel.send({"unhealthy": await self._prober.until_dead()})

    async def _ask(self, action: Action, timeout: float) -> Check:
        """A probe of its own port goes to the handler, past the queue: it is no load and waits for nobody."""
        if isinstance(action, HttpGet) and action.port is None and not action.host:
            return await ask_application(self._handler.app, action, timeout)
        if isinstance(action, TcpConnect) and action.port is None and not action.host:
            return PASSED
        return await carry_out(action, Target(environment=os.environ), timeout)

    async def _act(self, action: Action | None, name: str, seconds: float) -> None:
        if action is not None:
            passed, reason = await self._ask(action, seconds)
            if not passed:
                _log.warning("%s failed: %s", name, reason)

    async def _drain_server(self) -> bool:
        """Finish what is under way, but for calls that do not end; False when time was too short."""
        drained = self._loop.create_task(self._tell_and_drain(), name="drain")
        try:
            while not drained.done():
                await asyncio.wait((drained,), timeout=STUCK_POLL_SECONDS)
                if 0 < self._reports.stats.in_flight <= self._layer.overdue:
                    return True
            return drained.result()
        finally:
            drained.cancel()
            await asyncio.gather(drained, return_exceptions=True)

    async def _tell_and_drain(self) -> bool:
        # In one turn of the loop: who hears that it drains is to hear that the connection ends, too.
        self._layer.draining = True
        return await self._server.drain(self._grace)

    def _received(self, received: Received) -> None:
        grace = received.message.get("drain")
        if grace is not None:
            self._drain(grace)

    def _drain(self, grace: float) -> None:
        self._grace = grace
        self._draining.set()

    def _platform_gone(self) -> None:
        flush()
        os._exit(PLATFORM_GONE)

    def _stuck(self) -> None:
        self._channel.send({"stuck": self._handler.busy_threads})


def _startup_failure(error: Exception, source: FunctionSource) -> dict[str, Any]:
    if isinstance(error, InvalidFunction):
        from upwell.runtime.host.template import describe

        _log.error("the function cannot start: %s", error.what, exc_info=error.__cause__)
        return describe(error) | {"cause": "StartupFailed"}
    if isinstance(error, StartupFailed):
        return {"what": f"{error}; its traceback is in the log", "cause": "StartupFailed"}
    return {"what": str(error), "where": source.where, "cause": "Unhealthy"}
