"""A platform within the benchmark's own process, so that it can be scaled through its cluster's interface."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from upwell.autoscaler.decision import Decision
from upwell.functions.project import locate
from upwell.runtime.cli.functions import function_image, function_service
from upwell.runtime.clock import Clock, SystemClock
from upwell.runtime.cluster.interface import Exit, Replica, ReplicaState, StartFailure
from upwell.runtime.gateway.access_log import JsonAccessLog
from upwell.runtime.lines import LineWriter
from upwell.runtime.roles.up import Platform, PlatformState
from upwell.runtime.roles.up_settings import UpSettings

READY_SECONDS: Final = 60.0
SCALE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Deployed:
    """A function on the platform: its revision `namespace/name` and the host that it answers to."""

    revision: str
    host: str


class Watcher:
    """Counts what became of replicas and wakes whoever waits for them. Implements the cluster's observer."""

    def __init__(self) -> None:
        self.ended = 0
        self.unexpected: list[Exit] = []
        self._changed = asyncio.Event()

    def replica_changed(self, replica: Replica) -> None:
        """Wake those who wait."""
        self._changed.set()

    def replica_exited(self, exit: Exit) -> None:
        """Count it."""
        if exit.expected:
            self.ended += 1
        else:
            self.unexpected.append(exit)
        self._changed.set()

    def start_failed(self, failure: StartFailure) -> None:
        """Each failed start has an exit, which is counted."""

    async def until(self, reached: Callable[[], bool], seconds: float) -> bool:
        """Wait for replicas to change until `reached`; False when `seconds` were not enough."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not reached():
                    self._changed.clear()
                    await self._changed.wait()
        return reached()


class Hosted:
    """A running platform with what benchmarks do to it."""

    def __init__(self, platform: Platform, directory: Path, clock: Clock) -> None:
        self.platform = platform
        self._clock = clock
        self.watcher = Watcher()
        self._directory = directory
        platform.cluster.observe(self.watcher)

    @property
    def port(self) -> int:
        """The gateway's."""
        return self.platform.port

    def now(self) -> float:
        """Unix seconds by the platform's clock."""
        return self._clock.now()

    async def deploy(
        self, path: Path, *, concurrency: int = 0, annotations: Mapping[str, str] | None = None, name: str = ""
    ) -> Deployed:
        """Apply the function in `path` as `upwell run` does, with a containerConcurrency and annotations of its
        template, and another name when one is given; returns once it is ready."""
        name = name or locate(str(path)).name
        manifest = function_service(name, {})
        template = manifest["spec"]["template"]
        template["spec"]["containerConcurrency"] = concurrency
        template["metadata"] = {"annotations": dict(annotations or {})}
        (applied,) = await self.platform.apply([manifest], images={function_image(name): str(path)})
        ready = await self.platform.wait_ready(applied.key, READY_SECONDS)
        metadata = ready["metadata"]
        revision = f"{metadata['namespace']}/{ready['status']['latestReadyRevisionName']}"
        return Deployed(revision, f"{metadata['name']}.{metadata['namespace']}.localhost")

    async def to_zero(self, deployed: Deployed) -> None:
        """End every replica and wait until none is left, whatever the autoscaler's tick wants meanwhile."""
        cluster = self.platform.cluster

        def is_zero() -> bool:
            replicas = cluster.replicas(deployed.revision)
            if any(replica.state in (ReplicaState.STARTING, ReplicaState.READY) for replica in replicas):
                cluster.scale(deployed.revision, 0, reason="the benchmark starts from zero")
            return not replicas

        if not await self.watcher.until(is_zero, SCALE_SECONDS):
            raise TimeoutError(f"{deployed.revision} still has replicas after {SCALE_SECONDS:g} s")

    def ready(self, deployed: Deployed) -> list[Replica]:
        """The replicas that serve now."""
        replicas = self.platform.cluster.replicas(deployed.revision)
        return [replica for replica in replicas if replica.state is ReplicaState.READY]

    async def wait_for_ready(self, deployed: Deployed, count: int) -> list[Replica]:
        """The replicas once at least `count` serve. Raises TimeoutError."""
        if not await self.watcher.until(lambda: len(self.ready(deployed)) >= count, SCALE_SECONDS):
            raise TimeoutError(f"{deployed.revision} has {len(self.ready(deployed))} of {count} replicas")
        return self.ready(deployed)


@contextlib.asynccontextmanager
async def hosted(
    directory: Path, *, templates: int = 32, decided: Callable[[Decision], None] = lambda decision: None
) -> AsyncIterator[Hosted]:
    """A platform on free ports with its state in `directory`; its access log goes to a file there."""
    directory.mkdir(parents=True, exist_ok=True)
    clock = SystemClock()
    log = os.open(directory / "access.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        platform = Platform(
            UpSettings(port=0, admin_port=0, templates=templates),
            PlatformState(directory),
            clock,
            access_log=JsonAccessLog(clock, LineWriter(log)),
            decided=decided,
        )
        await platform.start()
        try:
            yield Hosted(platform, directory, clock)
        finally:
            await platform.stop()
    finally:
        os.close(log)
