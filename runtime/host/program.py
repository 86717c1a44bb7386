"""A program's replica: the sidecar on the socket it was given, and the user's program as its child.

It is forked from the zygote. Without a socket it is a trial: the program is started, waited for until it is ready,
and ended. What it says on its channel is what a function's replica says; ``failed`` and ``program`` (exit code,
signal) tell how the program has ended.

Its end in order: nothing new is taken and what is under way is finished, preStop runs, the program gets SIGTERM
and, when its time is up, it and all that it started are killed.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
from collections.abc import Coroutine
from typing import Any, Final, NoReturn

from upwell.runtime.clock import SystemClock
from upwell.runtime.host import confine, linux, replica
from upwell.runtime.host.channel import Channel
from upwell.runtime.host.process import Failure
from upwell.runtime.host.reports import LoadReports
from upwell.runtime.host.source import ProgramSource
from upwell.runtime.host.wire import Received
from upwell.runtime.http.connect import Endpoint
from upwell.runtime.http.server import HttpServer
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.sidecar.checks import LOOPBACK, Check, Target, carry_out
from upwell.runtime.sidecar.prober import ProbeFailed, Prober
from upwell.runtime.sidecar.probing import Action, Probe, Probes, TcpConnect
from upwell.runtime.sidecar.program import CannotStart, Ended, Program
from upwell.runtime.sidecar.proxy import QueueProxy
from upwell.runtime.timers import TimerWheel

PORT_STARTS: Final = 3
"""With another port each, when the one that was free has been taken meanwhile."""
QUIET_POLL_SECONDS: Final = 0.02
QUIET_SECONDS: Final = 2.0
"""A connection that is silent this long while its replica drains brings no request any more."""
LEAST_TERMINATION_SECONDS: Final = 2.0
"""Between SIGTERM and SIGKILL when requests have used up the drain's time."""
FAILED: Final = 1
"""The exit code of a replica whose program could not be started or ended without a code of its own."""


class NotReady(Exception):
    """The program cannot serve."""

    def __init__(self, failure: Failure, ended: Ended | None = None) -> None:
        super().__init__(failure.what)
        self.failure = failure
        self.ended = ended


def run(
    source: ProgramSource,
    listener: socket.socket | None,
    channel: socket.socket,
    start: replica.Start,
    deadline: float,
) -> NoReturn:
    """The replica's whole life in a process that was just forked from the zygote. `deadline` is the seconds until
    the program must be ready. Ends the process."""

    def serve(phases: replica.Phases) -> int:
        confine.log_to(source.log)
        loop = replica.new_loop()
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(
            ProgramReplica(source, channel, start, loop, phases, deadline).serve(listener)
        )

    replica.live(serve, channel, start)


class ProgramReplica:
    """What runs on the replica's loop: the sidecar, the program, its probes, and the talk with the platform."""

    def __init__(
        self,
        source: ProgramSource,
        channel: socket.socket,
        start: replica.Start,
        loop: asyncio.AbstractEventLoop,
        phases: replica.Phases,
        deadline: float,
    ) -> None:
        self._source = source
        self._clock = SystemClock()
        self._loop = loop
        self._phases = phases
        self._deadline = deadline
        self._grace = source.timeout_seconds
        self._draining = asyncio.Event()
        self._channel = Channel(channel, loop, self._received, self._platform_gone)
        self._reports = LoadReports(source.revision, start.name, self._clock, loop, self._channel.send)
        readiness = source.probes.readiness or Probe(TcpConnect())
        probes = Probes(readiness, source.probes.liveness, source.probes.startup)
        self._prober = Prober(probes, self._ask, self._clock)
        self._program = self._new_program()

    async def serve(self, listener: socket.socket | None) -> int:
        """Start, serve, drain, stop; the process's exit code."""
        self._loop.add_signal_handler(signal.SIGTERM, self._drain, self._grace)
        try:
            await self._start()
            if listener is not None and not self._draining.is_set():
                return await self._serve(listener)
            if not self._draining.is_set():
                self._tell_ready()
            await self._program.end(self._source.termination_seconds)
            return 0
        except NotReady as error:
            return await self._fail(error)

    # Start

    def _new_program(self) -> Program:
        source = self._source
        environment = {"PYTHONUNBUFFERED": "1", **os.environ, **source.environment}
        return Program(source.command, environment, source.directory, source.log, prepare=self._prepare)

    def _prepare(self) -> None:
        """In the child, before the program takes its place."""
        linux.die_with_parent(signal.SIGKILL)
        confine.be_expendable()
        confine.limit_memory(self._source.memory_bytes)

    async def _start(self) -> None:
        """Until the program is ready, or it is to end. Raises NotReady."""
        for attempt in range(1, PORT_STARTS + 1):
            ended = await self._start_once()
            if ended is None:
                return
            if attempt == PORT_STARTS or not self._program.port_is_taken():
                raise NotReady(self._ended_early(ended), ended)
            self._program.kill()
            self._program.release()
            self._program = self._new_program()

    async def _start_once(self) -> Ended | None:
        program = self._program
        try:
            await program.start()
        except CannotStart as error:
            failure = Failure(str(error), self._source.where, error.hint, cause="StartError")
            raise NotReady(failure) from error
        ready = self._until_ready()
        ready_task, ended_task, _ = await self._first(
            ready, program.wait(), self._draining.wait(), seconds=self._deadline
        )
        if ready_task.done() and not ready_task.cancelled():
            try:
                ready_task.result()
            except ProbeFailed as error:
                raise NotReady(
                    Failure(str(error), self._source.where, self._output(), cause="Unhealthy")
                ) from error
            return None
        if ended_task.done() and not ended_task.cancelled():
            ended: Ended = ended_task.result()
            return ended
        if not self._draining.is_set():
            raise NotReady(await self._overdue())
        return None

    async def _until_ready(self) -> None:
        await self._act(self._source.lifecycle.post_start, "postStart", self._deadline)
        await self._prober.until_ready()

    def _ended_early(self, ended: Ended) -> Failure:
        port = self._program.port
        what = f"the program {ended} before it was ready; it should have listened on port {port} ($PORT)"
        return Failure(what, self._source.where, self._advice(), cause=ended.cause)

    async def _overdue(self) -> Failure:
        port, seconds = self._program.port, self._deadline
        hint = self._advice()
        if (await self._ask(TcpConnect(), 1.0)).passed:
            what = f"the program runs but is not ready after {seconds:g} s: {self._prober.last}"
        else:
            what = f"the program runs but nothing listens on port {port} ($PORT) after {seconds:g} s"
            advice = "It must listen on the port that the variable PORT names, on 127.0.0.1 or on all addresses."
            hint = f"{advice}\n  {hint}" if hint else advice
        return Failure(what, self._source.where, hint, cause="ProgressDeadlineExceeded")

    def _advice(self) -> str:
        words, output = self._source.command, self._output()
        if "-c" in words or not any(each in word for word in words for each in ("$PORT", "${PORT}")):
            return output
        advice = "No shell reads the command: its port is written as $(PORT)."
        return f"{advice}\n  {output}" if output else advice

    def _output(self) -> str:
        lines = self._program.last_lines()
        return (
            "Its output ended with:\n" + "\n".join(f"  | {line}" for line in lines.splitlines()) if lines else ""
        )

    def _tell_ready(self) -> None:
        self._phases.end("start", self._clock.monotonic())
        self._channel.send({"ready": self._phases.milliseconds})

    # Service

    async def _serve(self, listener: socket.socket) -> int:
        """Until it is told to end, or the program ends."""
        http = HttpSettings()
        proxy = QueueProxy(
            Endpoint(host=LOOPBACK, port=self._program.port),
            self._source.queue_settings(),
            self._reports.stats,
            TimerWheel(self._loop),
            self._clock,
            http=http,
            woke=self._reports.woke,
        )
        server = HttpServer(proxy.handle, http, self._clock)
        await server.start([listener])
        self._tell_ready()
        self._reports.follow(proxy)
        liveness = self._loop.create_task(self._watch_liveness(), name="liveness")
        try:
            _, ended = await self._first(self._draining.wait(), self._program.wait(), seconds=None)
            if not self._draining.is_set():
                return await self._fail(NotReady(self._ended_late(ended.result()), ended.result()))
            proxy.draining = True
            return await self._drain_and_end(server, listener)
        finally:
            liveness.cancel()
            await asyncio.gather(liveness, return_exceptions=True)
            await proxy.aclose()

    async def _drain_and_end(self, server: HttpServer, listener: socket.socket) -> int:
        deadline = self._clock.monotonic() + self._grace
        _, ended = await self._first(self._drain_server(server, listener, deadline), self._program.wait())
        # Of the time until SIGKILL, preStop is a part, as in Kubernetes.
        termination = self._source.termination_seconds
        killed_at = self._clock.monotonic() + termination
        if not ended.done() or ended.cancelled():
            seconds = max(1.0, min(self._grace, termination))
            await self._act(self._source.lifecycle.pre_stop, "preStop", seconds)
        left = max(LEAST_TERMINATION_SECONDS, min(deadline, killed_at) - self._clock.monotonic())
        await self._program.end(min(termination, left))
        self._reports.report()
        return 0

    async def _drain_server(self, server: HttpServer, listener: socket.socket, deadline: float) -> None:
        """Take what has been sent already and finish it; whoever sends has been told to stop."""
        silent_since = self._clock.monotonic()
        quiet = 0
        while quiet < 2 and self._clock.monotonic() < deadline:
            await asyncio.sleep(QUIET_POLL_SECONDS)
            now = self._clock.monotonic()
            if server.active or _has_waiting(listener):
                silent_since = now
            idle = not server.connections or now - silent_since > QUIET_SECONDS
            quiet = quiet + 1 if idle and not _has_waiting(listener) else 0
        await server.drain(deadline)

    def _ended_late(self, ended: Ended) -> Failure:
        what = f"the program {ended}"
        if ended.signal == signal.SIGKILL:
            what += "; upwell did not do that: the machine may be out of memory"
        return Failure(what, self._source.where, self._output(), cause=ended.cause)

    async def _watch_liveness(self) -> None:
        self._channel.send({"unhealthy": await self._prober.until_dead()})

    # End

    async def _fail(self, error: NotReady) -> int:
        failure, ended = error.failure, error.ended
        self._channel.send(
            {
                "failed": {
                    "what": failure.what,
                    "where": failure.where,
                    "hint": failure.hint,
                    "cause": failure.cause,
                }
            }
        )
        if ended is not None:
            self._channel.send({"program": (ended.code, ended.signal)})
            self._program.kill()  # as a container ends with its first process; requests meanwhile only fail
        else:
            await self._program.end(min(self._source.termination_seconds, LEAST_TERMINATION_SECONDS))
        self._reports.report()
        return ended.code if ended is not None and ended.code else FAILED

    def _received(self, received: Received) -> None:
        grace = received.message.get("drain")
        if grace is not None:
            self._drain(grace)

    def _drain(self, grace: float) -> None:
        self._grace = grace
        self._draining.set()

    def _platform_gone(self) -> None:
        self._program.kill()
        replica.flush()
        os._exit(replica.PLATFORM_GONE)

    # Helpers

    async def _ask(self, action: Action, timeout: float) -> Check:
        directory = self._source.directory
        target = Target(
            self._program.port, self._program.environment, None if directory is None else str(directory)
        )
        return await carry_out(action, target, timeout)

    async def _act(self, action: Action | None, name: str, seconds: float) -> None:
        if action is not None:
            passed, reason = await self._ask(action, seconds)
            if not passed:
                print(f"upwell: {name} failed: {reason}", flush=True)  # noqa: T201  # the program's own log

    async def _first(
        self, *waits: Coroutine[Any, Any, Any], seconds: float | None = None
    ) -> list[asyncio.Task[Any]]:
        """Until one of them ends or `seconds` have passed; the others are cancelled. All of them, in order."""
        tasks = [self._loop.create_task(wait) for wait in waits]
        try:
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return tasks


def _has_waiting(listener: socket.socket) -> bool:
    """Whether a connection has been made that is not accepted yet."""
    if listener.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))
