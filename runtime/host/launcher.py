"""The platform's side of the host: one zygote, a template for each revision in use, and the replicas.

Nothing here waits between the wish for a replica and its fork: `Template.start_replica` hands the command and the
listener to the kernel and returns. Commands for a template that is still importing wait in its socket; those for
a zygote that is being started again wait here.

Each replica's end is told exactly once, joined from two sources: its channel closes, and the zygote tells its wait
status. Whichever comes first, the other is waited for, the status for `HostSettings.exit_wait` seconds at most.
The launcher belongs to one event loop, whose thread must outlive it: the kernel ends the zygote with the thread
that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import secrets
import socket
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, overload

from upwell.functions.errors import Unavailable
from upwell.runtime.clock import Clock
from upwell.runtime.host.channel import Channel
from upwell.runtime.host.confine import REPLICA_MARK, UNMARKED
from upwell.runtime.host.orphans import end_carriers
from upwell.runtime.host.process import ExitStatus, ReplicaObserver, ReplicaProcess
from upwell.runtime.host.programs import ProgramTemplate
from upwell.runtime.host.settings import HostSettings
from upwell.runtime.host.source import FunctionSource, ProgramSource, Source
from upwell.runtime.host.templates import LoadFailed, LoadResult, Template, TemplateState
from upwell.runtime.host.wire import Received

ZYGOTE_MARK = "UPWELL_ZYGOTE"
"""In the environment of all that descends from one zygote; a zygote that was killed can end nothing itself."""

MOST_UNSENT = 1024
"""Each holds two descriptors; so many replicas are never started within the seconds that a restart takes."""

__all__ = [
    "ExitStatus",
    "FunctionSource",
    "HostLauncher",
    "HostSettings",
    "LoadFailed",
    "LoadResult",
    "ProgramSource",
    "ProgramTemplate",
    "ReplicaObserver",
    "ReplicaProcess",
    "Template",
    "TemplateState",
]

_log = logging.getLogger("upwell.host")


class HostLauncher:
    """Starts and ends functions' processes. `start` once, then `load` templates; `stop` ends all of them.

    `environment` is added to that of all processes; by it they can be told from any others.
    """

    def __init__(
        self, settings: HostSettings, clock: Clock, *, environment: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._settings = settings
        self._environment = environment
        self._clock = clock
        self._zygote: subprocess.Popen[bytes] | None = None
        self._zygote_started = 0.0
        self._zygote_mark = ""
        self._sweeps: set[asyncio.Task[None]] = set()
        self._channel: Channel | None = None
        self._is_ready = asyncio.Event()
        self._is_gone = asyncio.Event()
        self._is_empty = asyncio.Event()
        self._stopping = False
        self._deaths = 0
        self._restart: asyncio.TimerHandle | None = None
        self._unsent: list[tuple[dict[str, Any], list[int]]] = []
        self._templates: set[Template | ProgramTemplate] = set()
        self._processes: set[ReplicaProcess] = set()
        self._claims: dict[int, Callable[[int], None]] = {}
        self._unclaimed: OrderedDict[int, tuple[int, float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<HostLauncher [{len(self._templates)} templates, {len(self._processes)} replicas]>"

    @property
    def zygote_pid(self) -> int | None:
        """The zygote's process, while there is one."""
        return self._zygote.pid if self._zygote is not None else None

    async def start(self) -> None:
        """Start the zygote and wait until it can fork. Raises Unavailable when it cannot be started."""
        self._spawn()
        try:
            async with asyncio.timeout(self._settings.start_deadline):
                await self._is_ready.wait()
        except TimeoutError:
            await self.stop(0.0)
            hint = "Its own messages stand above; is upwell installed in this Python?"
            raise Unavailable("the function host did not start", where=sys.executable, hint=hint) from None

    async def stop(self, grace: float) -> None:
        """Drain every replica for `grace` seconds at most, then end all processes. Every end is told of."""
        self._stopping = True
        if self._restart is not None:
            self._restart.cancel()
        if grace > 0:
            for process in list(self._processes):
                process.drain(grace)
            await self._wait_until_empty(grace)
        for process in list(self._processes):
            process.kill()
        await self._wait_until_empty(self._settings.exit_wait)
        for template in list(self._templates):
            template.close()
        await self._end_zygote()
        self._drop_unsent()

    @overload
    def load(self, source: FunctionSource) -> Template: ...

    @overload
    def load(self, source: ProgramSource) -> ProgramTemplate: ...

    @overload
    def load(self, source: Source) -> Template | ProgramTemplate: ...

    def load(self, source: Source) -> Template | ProgramTemplate:
        """A template for `source`, at once; it imports, or is tried, in the background. The caller closes it when
        it is done."""
        template: Template | ProgramTemplate
        if isinstance(source, ProgramSource):
            template = ProgramTemplate(source, self, self._settings, self._clock, self._templates.discard)
        else:
            template = Template(source, self, self._settings, self._clock, self._templates.discard)
        self._templates.add(template)
        return template

    # What templates and processes need

    def send_to_zygote(self, message: dict[str, Any], descriptors: Sequence[int]) -> None:
        """Send a command now, or once a zygote that died has been started again."""
        if self._channel is not None:
            self._channel.send(message, descriptors)
        elif len(self._unsent) >= MOST_UNSENT:
            raise Unavailable("too many commands wait for the function host to be started again")
        elif not self._stopping:
            self._unsent.append((message, [os.dup(descriptor) for descriptor in descriptors]))

    def adopt(self, process: ReplicaProcess) -> None:
        """Look after a replica until it is `finished`."""
        self._processes.add(process)
        self._is_empty.clear()

    def finished(self, process: ReplicaProcess) -> None:
        """Forget a replica, whose end is being told."""
        self._processes.discard(process)
        if process.pid is not None:
            self._claims.pop(process.pid, None)
        if not self._processes:
            self._is_empty.set()

    def claim(self, pid: int, ended: Callable[[int], None]) -> None:
        """Call `ended` with the wait status of `pid`, now if the zygote has told it already."""
        status, told_at = self._unclaimed.pop(pid, (0, -math.inf))
        if self._clock.monotonic() - told_at > self._settings.exit_wait:
            self._claims[pid] = ended  # never told, or of one that had its pid before
        else:
            ended(status)

    def kill_process(self, pid: int) -> None:
        """End a descendant of the zygote; only its parent knows for certain whose pid it is."""
        if self._channel is not None:
            self._channel.send({"kill": pid})

    def watch_memory(self, pid: int, limit: int, itself: bool) -> None:
        """Have the zygote end a replica that uses more than `limit` bytes."""
        if self._channel is not None:
            self._channel.send({"watch": pid, "limit": limit, "itself": itself})

    # The zygote

    def _spawn(self) -> None:
        self._restart = None
        loop = asyncio.get_running_loop()
        mark = self._zygote_mark = secrets.token_hex(8)
        ours, theirs = socket.socketpair()
        with theirs:
            descriptor = theirs.fileno()
            # Its standard output and error, and with them the functions', are the platform's own. A session of
            # its own keeps the terminal's Ctrl-C to the platform.
            self._zygote = subprocess.Popen(  # noqa: S603  # our own interpreter and module
                [sys.executable, "-P", "-m", "upwell.runtime.host.base", str(descriptor)],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self._environment, REPLICA_MARK: UNMARKED, ZYGOTE_MARK: mark},
                pass_fds=[descriptor],
                start_new_session=True,
            )
        self._zygote_started = self._clock.monotonic()
        self._is_gone.clear()
        self._channel = Channel(ours, loop, self._received, self._zygote_ended)
        for message, descriptors in self._unsent:
            self._channel.send(message, descriptors)
        self._drop_unsent()

    def _drop_unsent(self) -> None:
        for _, descriptors in self._unsent:
            for descriptor in descriptors:
                os.close(descriptor)
        self._unsent.clear()

    def _received(self, received: Received) -> None:
        message = received.message
        if "ready" in message:
            self._is_ready.set()
        for pid, used in message.get("out_of_memory", ()):
            for process in self._processes:
                if process.pid == pid:
                    process.out_of_memory(used)
        for pid, status in message.get("exits", ()):
            ended = self._claims.pop(pid, None)
            if ended is not None:
                ended(status)
                continue
            self._unclaimed[pid] = (status, self._clock.monotonic())
            if len(self._unclaimed) > self._settings.unclaimed_exits:
                self._unclaimed.popitem(last=False)

    def _zygote_ended(self) -> None:
        self._channel = None
        self._is_gone.set()
        for template in list(self._templates):
            template.lost("the function host's zygote ended")
        for process in list(self._processes):
            process.finish(None, "the function host's zygote ended")
        self._claims.clear()
        self._unclaimed.clear()
        self._sweep()
        if self._stopping:
            return
        if self._clock.monotonic() - self._zygote_started > self._settings.steady_seconds:
            self._deaths = 0
        delay = min(self._settings.restart_delay * 2**self._deaths, self._settings.restart_delay_most)
        self._deaths += 1
        _log.error("the function host's zygote ended and is started again", extra={"delay_s": delay})
        self._restart = asyncio.get_running_loop().call_later(delay, self._respawn)

    def _sweep(self) -> None:
        """End what a zygote that is gone has left: the kernel ends its replicas, but not what they had started."""
        task = asyncio.get_running_loop().create_task(self._end_left_over(self._zygote_mark), name="sweep")
        self._sweeps.add(task)
        task.add_done_callback(self._sweeps.discard)

    async def _end_left_over(self, mark: str) -> None:
        try:
            await asyncio.to_thread(end_carriers, ZYGOTE_MARK, mark)
        except Unavailable as error:
            _log.error("what a zygote left running does not end", extra={"error": str(error)})

    def _respawn(self) -> None:
        if self._zygote is not None:
            self._zygote.poll()
        self._spawn()

    async def _wait_until_empty(self, seconds: float) -> None:
        if self._processes:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._is_empty.wait()

    async def _end_zygote(self) -> None:
        zygote = self._zygote
        if zygote is None:
            return
        if self._channel is not None and self._is_ready.is_set():  # else nothing lives below it yet
            self._channel.end_sending()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.stop_deadline):
                    await self._is_gone.wait()
        if self._channel is not None:
            self._channel.close()
            self._zygote_ended()
            zygote.kill()
        await asyncio.to_thread(zygote.wait)
        await asyncio.gather(*self._sweeps)
        self._zygote = None
