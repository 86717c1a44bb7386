"""This machine as a cluster: objects in a store, replicas as processes forked from templates.

It plays the kubelet: it watches Deployments, keeps a template (the imported function) for those in use, and runs
as many replicas of each as `scale` last said. `scale` acts before it returns, since a request may be waiting for
it; the Deployment's status is written afterwards. A replica that ends before it was ready is tried again at once,
then after growing delays, and observers are told so that nobody waits in vain.

Lifetime of a replica: its listener is bound here and handed over with the fork, so connections are taken from
that moment on; it is told of as READY when it says so itself, as DRAINING before it is asked to end, and as GONE
when its process is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from upwell.autoscaler.stats import Report
from upwell.functions.errors import UpwellError
from upwell.runtime.clock import Clock
from upwell.runtime.cluster.deployments import function_source
from upwell.runtime.cluster.interface import (
    ClusterObserver,
    Exit,
    Manifest,
    ObjectKey,
    ObjectStore,
    Replica,
    ReplicaState,
    StartFailure,
)
from upwell.runtime.cluster.recorder import DeploymentState, Recorder
from upwell.runtime.cluster.templates import TemplateCache
from upwell.runtime.host.launcher import (
    ExitStatus,
    FunctionSource,
    HostLauncher,
    LoadFailed,
    ReplicaProcess,
    Template,
    TemplateState,
)
from upwell.runtime.http.connect import Endpoint

BACKLOG: Final = 4096
"""A burst may connect before the young replica accepts; a full Unix backlog would refuse at once."""
LONGEST_RETRY_SECONDS: Final = 60.0
DRAIN_MARGIN_SECONDS: Final = 5.0
REPLACE_GRACE_SECONDS: Final = 10.0
"""What a replica that did not answer in time gets to finish its other requests before it is killed."""

_log = logging.getLogger("upwell.cluster")


@dataclass(frozen=True, slots=True)
class LocalClusterSettings:
    """How replicas run on this machine."""

    templates: int = 32
    """Imported functions kept ready to fork; about 10 MB of private memory each."""
    show_errors: bool = False
    """Answer an exception with its traceback instead of a bare 500; only for the one who develops it."""


def start_delay(failures: int) -> float:
    """Seconds before the next start after this many failures in a row: at once, then 1, 2, 4 … 60."""
    return 0.0 if failures <= 1 else min(LONGEST_RETRY_SECONDS, 2.0 ** min(failures - 2, 6))


def victims(replicas: list[Replica], surplus: int) -> list[Replica]:
    """Which replicas to end: those not ready yet first, then the youngest, as a ReplicaSet chooses."""
    ordered = sorted(replicas, key=lambda r: (r.state is ReplicaState.READY, -r.started_at))
    return ordered[:surplus]


class _Deployed:
    """A revision that may run here."""

    __slots__ = (
        "available",
        "failures",
        "key",
        "message",
        "reason",
        "retry",
        "running",
        "source",
        "wanted",
    )

    def __init__(self, key: ObjectKey, source: FunctionSource) -> None:
        self.key = key
        self.source = source
        self.wanted = 0
        self.running: dict[str, _Running] = {}
        self.failures = 0
        self.available: bool | None = None
        self.reason = ""
        self.message = ""
        self.retry: asyncio.TimerHandle | None = None

    def alive(self) -> list[Replica]:
        """The replicas that serve or will."""
        states = (ReplicaState.STARTING, ReplicaState.READY)
        return [r.replica for r in self.running.values() if r.replica.state in states]

    def cancel_retry(self) -> None:
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None


class _Running:
    """A replica and its process. Implements the launcher's observer."""

    __slots__ = ("cluster", "deployed", "expected", "metrics", "path", "process", "replica", "timer")

    def __init__(self, cluster: LocalCluster, deployed: _Deployed, replica: Replica, path: Path) -> None:
        self.cluster = cluster
        self.deployed = deployed
        self.replica = replica
        self.path = path
        self.process: ReplicaProcess | None = None
        self.expected = False
        self.timer: asyncio.TimerHandle | None = None
        self.metrics: Mapping[str, Any] = {}

    def ready(self, process: ReplicaProcess, phases: Mapping[str, float]) -> None:
        self.replica.phases = phases
        self.replica.pid = process.pid
        self.cluster.became_ready(self)

    def report(self, process: ReplicaProcess, report: Report) -> None:
        self.cluster.reports(report)

    def stuck(self, process: ReplicaProcess) -> None:
        self.cluster.replace(self.replica, reason="a handler does not end")

    def update(self, process: ReplicaProcess, metrics: Mapping[str, Any]) -> None:
        self.metrics = metrics

    def exited(self, process: ReplicaProcess, status: ExitStatus) -> None:
        self.cluster.ended(self, status)


class LocalCluster:
    """A `Cluster` on this machine. `run` must be running for Deployments to be seen."""

    def __init__(
        self,
        objects: ObjectStore,
        launcher: HostLauncher,
        *,
        bundles: Path,
        sockets: Path,
        clock: Clock,
        reports: Callable[[Report], None],
        settings: LocalClusterSettings,
    ) -> None:
        self.objects = objects
        self.reports = reports
        self._bundles = bundles
        self._sockets = sockets
        self._clock = clock
        self._settings = settings
        self._observers: list[ClusterObserver] = []
        self._deployed: dict[str, _Deployed] = {}
        self._templates = TemplateCache(
            launcher, settings.templates, busy=self._has_starting, loading=self._loading
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._recorder = Recorder(objects)

    def __repr__(self) -> str:
        running = sum(len(deployed.running) for deployed in self._deployed.values())
        return (
            f"<LocalCluster {len(self._deployed)} deployed, {running} replicas, {len(self._templates)} templates>"
        )

    # The Cluster protocol

    def observe(self, observer: ClusterObserver) -> None:
        self._observers.append(observer)

    def replicas(self, revision: str) -> tuple[Replica, ...]:
        deployed = self._deployed.get(revision)
        return () if deployed is None else tuple(r.replica for r in deployed.running.values())

    def scale(self, revision: str, replicas: int, *, reason: str) -> None:
        deployed = self._deployed.get(revision)
        if deployed is None or deployed.wanted == replicas:
            return
        _log.info("scale", extra={"revision": revision, "from": deployed.wanted, "to": replicas, "reason": reason})
        deployed.wanted = replicas
        if replicas == 0:
            deployed.failures = 0
            deployed.cancel_retry()
        self._converge(deployed)
        self._note(deployed)

    def replace(self, replica: Replica, *, reason: str) -> None:
        deployed = self._deployed.get(replica.revision)
        running = deployed.running.get(replica.name) if deployed is not None else None
        if deployed is None or running is None or replica.state is not ReplicaState.READY:
            return
        _log.warning("replace", extra={"revision": replica.revision, "replica": replica.name, "reason": reason})
        self._drain(running, REPLACE_GRACE_SECONDS)
        self._converge(deployed)

    def replica_metrics(self) -> Iterator[tuple[Replica, Mapping[str, Any]]]:
        """What each replica last said of itself, for the metrics page."""
        for deployed in self._deployed.values():
            for running in deployed.running.values():
                yield running.replica, running.metrics

    # Deployments

    async def run(self) -> None:
        """Follow Deployments until cancelled; then end every replica."""
        self._spawn(self._recorder.run())
        try:
            async with contextlib.aclosing(self.objects.watch("Deployment")) as changes:
                async for change in changes:
                    self._apply(change.key, change.manifest)
        finally:
            await self._end_all()

    def _apply(self, key: ObjectKey, manifest: Manifest | None) -> None:
        revision = f"{key.namespace}/{key.name.removesuffix('-deployment')}"
        deployed = self._deployed.get(revision)
        if manifest is None:
            if deployed is not None:
                self._forget(revision, deployed)
        elif deployed is None:
            try:
                source = function_source(revision, manifest, self._bundles, show_errors=self._settings.show_errors)
            except UpwellError as error:
                self._recorder.note(key, DeploymentState(0, 0, 0, False, "NoSource", str(error)))
                return
            self._deployed[revision] = deployed = _Deployed(key, source)
            self._templates.take(source)
            deployed.wanted = int(manifest["spec"].get("replicas", 0))
            self._converge(deployed)

    def _forget(self, revision: str, deployed: _Deployed) -> None:
        deployed.wanted = 0
        deployed.cancel_retry()
        for running in list(deployed.running.values()):
            self._drain(running)
        self._templates.forget(revision)
        del self._deployed[revision]

    def _loading(self, template: Template) -> None:
        self._spawn(self._follow_load(template))

    def _has_starting(self, revision: str) -> bool:
        return any(replica.state is ReplicaState.STARTING for replica in self.replicas(revision))

    async def _follow_load(self, template: Template) -> None:
        revision = template.source.revision
        try:
            result = await template.loaded
        except LoadFailed as error:
            if template.state is not TemplateState.EVICTED:
                self._load_failed(revision, error)
            return
        _log.info("loaded", extra={"revision": revision, "import_s": round(result.seconds, 4)})
        self._templates.trim()
        deployed = self._deployed.get(revision)
        if deployed is not None:
            deployed.available, deployed.reason, deployed.message = True, "MinimumReplicasAvailable", ""
            self._note(deployed)

    def _load_failed(self, revision: str, error: LoadFailed) -> None:
        # At this level because the status tells it too, to whoever deployed it.
        details = {"revision": revision, "error": str(error), "traceback": error.traceback}
        _log.info("the function cannot be loaded", extra=details)
        self._templates.forget(revision)
        deployed = self._deployed.get(revision)
        if deployed is not None:
            # The same source fails the same way: nobody need wait for a second attempt.
            deployed.failures = max(1, deployed.failures)
            self._start_failed(deployed, str(error))
            deployed.available, deployed.reason, deployed.message = False, "ImportFailed", str(error)
            self._note(deployed)

    def _note(self, deployed: _Deployed) -> None:
        replicas = [running.replica for running in deployed.running.values()]
        ready = sum(replica.state is ReplicaState.READY for replica in replicas)
        state = DeploymentState(
            deployed.wanted, len(replicas), ready, deployed.available, deployed.reason, deployed.message
        )
        self._recorder.note(deployed.key, state)

    # Replicas

    def _converge(self, deployed: _Deployed) -> None:
        """Start or end replicas until as many serve as are wanted."""
        alive = deployed.alive()
        for replica in victims(alive, len(alive) - deployed.wanted if len(alive) > deployed.wanted else 0):
            self._drain(deployed.running[replica.name])
        for _ in range(deployed.wanted - len(alive)):
            if deployed.retry is None:
                self._start(deployed)

    def _start(self, deployed: _Deployed) -> None:
        revision = deployed.source.revision
        token = secrets.token_hex(3)
        path = self._sockets / f"{token}{secrets.token_hex(2)}"
        try:
            listener = _listen(path)
        except OSError as error:  # descriptors or disk have run out
            self._start_failed(deployed, f"no socket for a replica: {error.strerror}")
            return
        replica = Replica(
            name=f"{revision.partition('/')[2]}-{token}",
            revision=revision,
            endpoint=Endpoint(path=str(path)),
            state=ReplicaState.STARTING,
            started_at=self._clock.now(),
        )
        running = _Running(self, deployed, replica, path)
        deployed.running[replica.name] = running
        self._tell(replica)
        try:
            running.process = self._templates.take(deployed.source).start_replica(replica.name, listener, running)
        except UpwellError as error:
            listener.close()
            self.ended(running, ExitStatus(None, None, False, str(error)))

    def became_ready(self, running: _Running) -> None:
        """Called by a replica's process."""
        if running.replica.state is not ReplicaState.STARTING:
            return
        running.deployed.failures = 0
        running.replica.state = ReplicaState.READY
        running.replica.ready_at = self._clock.now()
        self._tell(running.replica)
        self._templates.trim()
        self._note(running.deployed)

    def _drain(self, running: _Running, grace: float | None = None) -> None:
        """Tell observers first, so that nothing new is sent; then ask the replica to finish and end."""
        replica = running.replica
        if replica.state in (ReplicaState.DRAINING, ReplicaState.GONE):
            return
        running.expected = True
        replica.state = ReplicaState.DRAINING
        self._tell(replica)
        if running.process is not None:
            running.process.drain()
        seconds = running.deployed.source.timeout_seconds + DRAIN_MARGIN_SECONDS if grace is None else grace
        running.timer = asyncio.get_running_loop().call_later(seconds, self._kill, running)

    def _kill(self, running: _Running) -> None:
        if running.process is not None:
            running.process.kill()

    def ended(self, running: _Running, status: ExitStatus) -> None:
        """Called when a replica's process is gone."""
        deployed, replica = running.deployed, running.replica
        if running.timer is not None:
            running.timer.cancel()
        deployed.running.pop(replica.name, None)
        replica.state = ReplicaState.GONE
        self._tell(replica)
        with contextlib.suppress(FileNotFoundError):
            running.path.unlink()
        exit = Exit(replica.revision, replica.name, status.reason, running.expected, status.was_ready)
        for observer in self._observers:
            observer.replica_exited(exit)
        if not running.expected:
            _log.warning(
                "replica ended",
                extra={"revision": replica.revision, "replica": replica.name, "reason": status.reason},
            )
            if not status.was_ready:
                self._start_failed(deployed, status.reason)
        if self._deployed.get(replica.revision) is deployed:
            self._converge(deployed)
            self._note(deployed)

    def _start_failed(self, deployed: _Deployed, reason: str) -> None:
        deployed.failures += 1
        delay = start_delay(deployed.failures)
        if delay == 0.0:
            return
        deployed.cancel_retry()
        deployed.retry = asyncio.get_running_loop().call_later(delay, self._retry, deployed)
        failure = StartFailure(deployed.source.revision, reason, deployed.failures, self._clock.now() + delay)
        for observer in self._observers:
            observer.start_failed(failure)

    def _retry(self, deployed: _Deployed) -> None:
        deployed.retry = None
        self._converge(deployed)

    def _tell(self, replica: Replica) -> None:
        for observer in self._observers:
            observer.replica_changed(replica)

    # Life

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a task of the cluster failed", exc_info=task.exception())

    async def _end_all(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for revision, deployed in list(self._deployed.items()):
            self._forget(revision, deployed)


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(os.fspath(path))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
