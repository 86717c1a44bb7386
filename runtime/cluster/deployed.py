"""What the local cluster keeps of each Deployment that may run here, and of each replica that does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from upwell.autoscaler.stats import Report
from upwell.runtime.cluster.backoff import StartBackoff
from upwell.runtime.cluster.interface import ObjectKey, Replica, ReplicaState
from upwell.runtime.cluster.processes import Process
from upwell.runtime.cluster.recorder import DeploymentState
from upwell.runtime.cluster.zones import Zones
from upwell.runtime.host.process import ExitStatus
from upwell.runtime.host.source import Source


def victims(replicas: list[Replica], surplus: int) -> list[Replica]:
    """Which replicas to end: those not ready yet first, then the youngest, as a ReplicaSet chooses."""
    ordered = sorted(replicas, key=lambda r: (r.state is ReplicaState.READY, -r.started_at))
    return ordered[: max(0, surplus)]


class Deployed:
    """A revision that may run here, and how far that has come."""

    __slots__ = (
        "available",
        "backoff",
        "converging",
        "key",
        "message",
        "must_load",
        "reason",
        "running",
        "short_lives",
        "source",
        "timer",
        "unsettled",
        "wanted",
        "zones",
    )

    def __init__(self, key: ObjectKey, source: Source, zones: Zones) -> None:
        self.key = key
        self.source = source
        self.zones = zones
        self.wanted = 0
        self.running: dict[str, Running] = {}
        self.backoff = StartBackoff()
        self.must_load = True
        """The function is to be imported although no replica is wanted, to see whether it can be."""
        self.available: bool | None = None
        self.reason = ""
        self.message = ""
        self.short_lives = 0
        """Replicas in a row that ended right after they were ready."""
        self.timer: asyncio.TimerHandle | None = None
        """When it converges next of its own accord."""
        self.converging = False
        self.unsettled = False
        """Something changed since the present round of convergence began."""

    @property
    def revision(self) -> str:
        """`namespace/name`."""
        return self.source.revision

    def alive(self) -> list[Replica]:
        """The replicas that serve or will."""
        states = (ReplicaState.STARTING, ReplicaState.READY)
        return [r.replica for r in self.running.values() if r.replica.state in states]

    def is_starting(self) -> bool:
        """Whether a replica is on its way."""
        return any(r.replica.state is ReplicaState.STARTING for r in self.running.values())

    def set_available(self, available: bool, reason: str, message: str = "") -> None:
        """Whether its function can be loaded."""
        self.available, self.reason, self.message = available, reason, message

    def state(self) -> DeploymentState:
        """What is to be seen of it."""
        replicas = [running.replica for running in self.running.values()]
        ready = sum(replica.state is ReplicaState.READY for replica in replicas)
        return DeploymentState(self.wanted, len(replicas), ready, self.available, self.reason, self.message)

    def cancel_timer(self) -> None:
        """Do not converge of its own accord."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class ReplicaEvents(Protocol):
    """Who is told of the replicas' processes: the cluster."""

    def became_ready(self, running: Running) -> None:
        """It serves."""
        ...

    def reported(self, report: Report) -> None:
        """Its load."""
        ...

    def replace(self, replica: Replica, *, reason: str) -> None:
        """It does not answer."""
        ...

    def ended(self, running: Running, status: ExitStatus) -> None:
        """Its process is gone."""
        ...


class Running:
    """A replica and its process. Implements `ProcessObserver`."""

    __slots__ = (
        "attempt",
        "deployed",
        "events",
        "expected",
        "heard",
        "kill_at",
        "metrics",
        "path",
        "process",
        "replica",
        "timer",
    )

    def __init__(
        self, events: ReplicaEvents, deployed: Deployed, replica: Replica, path: Path, attempt: int
    ) -> None:
        self.events = events
        self.deployed = deployed
        self.replica = replica
        self.path = path
        self.attempt = attempt
        self.process: Process | None = None
        self.expected = False
        self.heard = False
        """Whether it has reported since that was last looked at."""
        self.kill_at = 0.0
        """When it is killed once it drains, on the clock's monotonic time."""
        self.timer: asyncio.TimerHandle | None = None
        """When that is looked at."""
        self.metrics: Mapping[str, Any] = {}

    def ready(self, process: Process, phases: Mapping[str, float]) -> None:
        """See `ProcessObserver`."""
        self.replica.phases = phases
        self.replica.pid = process.pid
        self.events.became_ready(self)

    def report(self, process: Process, report: Report) -> None:
        """See `ProcessObserver`."""
        self.heard = True
        self.events.reported(report)

    def stuck(self, process: Process) -> None:
        """See `ProcessObserver`."""
        self.events.replace(self.replica, reason="a handler does not end")

    def unhealthy(self, process: Process, reason: str) -> None:
        """See `ProcessObserver`."""
        self.events.replace(self.replica, reason=reason)

    def update(self, process: Process, metrics: Mapping[str, Any]) -> None:
        """See `ProcessObserver`."""
        self.metrics = metrics

    def exited(self, process: Process, status: ExitStatus) -> None:
        """See `ProcessObserver`."""
        self.events.ended(self, status)
