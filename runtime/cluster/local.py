"""This machine as a cluster: objects in a store, replicas as processes forked from templates.

It plays the kubelet: it watches Deployments, keeps a template (the imported function) for those in use, and runs
as many replicas of each as `scale` last said. `scale` acts before it returns, since a request may be waiting for
it; the Deployment's status is written afterwards. When replicas end before they are ready they are tried again at
once, then after growing delays (`backoff`), and observers are told so that nobody waits in vain.

Each Deployment converges in rounds, one at a time: a round looks at what runs and ends or starts replicas. What
happens meanwhile, in an observer that is told, makes another round before the call returns; what a process does by
itself makes one as soon as the event loop is free.

Lifetime of a replica: its listener is bound here and handed over with the fork, so connections are taken from
that moment on; it is told of as READY when it says so itself, as DRAINING before it is asked to end, and as GONE
when its process is.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from upwell.autoscaler.stats import Report
from upwell.functions.errors import UpwellError
from upwell.runtime.clock import Clock
from upwell.runtime.cluster.deployed import Deployed, Running, victims
from upwell.runtime.cluster.interface import (
    ClusterObserver,
    Exit,
    Manifest,
    ObjectChange,
    ObjectKey,
    ObjectStore,
    Replica,
    ReplicaState,
    StartFailure,
)
from upwell.runtime.cluster.kinds import DEPLOYMENT
from upwell.runtime.cluster.processes import LoadedTemplate, Loader
from upwell.runtime.cluster.proofs import Proofs
from upwell.runtime.cluster.recorder import DeploymentState, Recorder, shows, was_available
from upwell.runtime.cluster.source import function_source
from upwell.runtime.cluster.templates import TemplateCache
from upwell.runtime.cluster.zones import Zones
from upwell.runtime.host.process import ExitStatus
from upwell.runtime.host.templates import LoadFailed, LoadResult
from upwell.runtime.http.connect import Endpoint

AVAILABLE: Final = "MinimumReplicasAvailable"
BACKLOG: Final = 4096
"""A burst may connect before the young replica accepts; a full Unix backlog would refuse at once."""
DRAIN_MARGIN_SECONDS: Final = 5.0
SHORT_LIFE_SECONDS: Final = 1.0
SHORT_LIFE_PAUSE_SECONDS: Final = 0.2
"""Before the successor of a replica that ended so soon after it was ready: one that always does must not have us
fork without a pause, which is doubled while it goes on. A request that waits has its replica at once all the
same."""
SHORT_LIFE_PAUSE_MOST_SECONDS: Final = 10.0
SILENCE_SECONDS: Final = 10.0
"""A replica that drains and has not reported for so long, which it should each second, hangs: it is killed."""

_log = logging.getLogger("upwell.cluster")


@dataclass(frozen=True, slots=True)
class LocalClusterSettings:
    """How replicas run on this machine."""

    templates: int = 32
    """Imported functions kept ready to fork; about 10 MB of private memory each."""
    loads: int = field(default_factory=lambda: 2 * (os.cpu_count() or 1))
    """Imports at a time that requests wait for; what is only deployed is imported while there are fewer. Twice the
    cores, since an import waits for the disk too."""
    show_errors: bool = False
    """Answer an exception with its traceback instead of a bare 500; only for the one who develops it."""
    logs: Path | None = None
    """The folder of what revisions print; None leaves it to the platform's own output."""


class LocalCluster:
    """A `Cluster` on this machine. `run` must be running for Deployments to be seen."""

    def __init__(
        self,
        objects: ObjectStore,
        launcher: Loader,
        *,
        bundles: Path,
        sockets: Path,
        clock: Clock,
        reports: Callable[[Report], None],
        settings: LocalClusterSettings,
    ) -> None:
        self.objects = objects
        self.reported = reports
        self._bundles = bundles
        self._sockets = sockets
        self._clock = clock
        self._settings = settings
        self._observers: list[ClusterObserver] = []
        self._deployed: dict[str, Deployed] = {}
        self._by_key: dict[ObjectKey, Deployed] = {}
        self._templates = TemplateCache(
            launcher,
            settings.templates,
            settings.loads,
            busy=self._has_starting,
            loading=self._loading,
            unloadable=self._unloadable,
            room=self._room,
        )
        self._proofs = Proofs()
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
        if deployed is None or (deployed.wanted == replicas and deployed.timer is None):
            return
        if deployed.wanted != replicas:
            change = {"revision": revision, "from": deployed.wanted, "to": replicas, "reason": reason}
            _log.info("scale", extra=change)
        deployed.wanted = replicas
        if replicas == 0:
            deployed.backoff = deployed.backoff.succeeded()
        self._converge(deployed)

    def replace(self, replica: Replica, *, reason: str) -> None:
        deployed = self._deployed.get(replica.revision)
        running = deployed.running.get(replica.name) if deployed is not None else None
        if deployed is None or running is None or replica.state is not ReplicaState.READY:
            return
        _log.warning("replace", extra={"revision": replica.revision, "replica": replica.name, "reason": reason})
        self._drain(running)
        self._watch_silence(running)
        self._converge(deployed)

    def replica_metrics(self) -> Iterator[tuple[Replica, Mapping[str, Any]]]:
        """What each replica last said of itself, for the metrics page."""
        for deployed in self._deployed.values():
            for running in deployed.running.values():
                yield running.replica, running.metrics

    # Deployments

    async def run(self) -> None:
        """Follow Deployments until cancelled; then end every replica."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._recorder.run(), name="recorder")
                await self._follow()
        finally:
            for deployed in list(self._deployed.values()):
                self._forget(deployed)

    async def _follow(self) -> None:
        async with contextlib.aclosing(self.objects.watch(DEPLOYMENT)) as changes:
            async for change in changes:
                if isinstance(change, ObjectChange):
                    self._apply(change.key, change.manifest)

    def _apply(self, key: ObjectKey, manifest: Manifest | None) -> None:
        deployed = self._by_key.get(key)
        if manifest is None:
            if deployed is not None:
                self._forget(deployed)
        elif deployed is None:
            try:
                show_errors, logs = self._settings.show_errors, self._settings.logs
                source = function_source(manifest, self._bundles, show_errors=show_errors, logs=logs)
            except UpwellError as error:
                self._recorder.note(key, DeploymentState(0, 0, 0, False, "NoSource", str(error)))
                return
            deployed = Deployed(key, source, Zones.of(manifest))
            self._deployed[source.revision] = self._by_key[key] = deployed
            self._begin(deployed, manifest)

    def _begin(self, deployed: Deployed, manifest: Manifest) -> None:
        """None of its replicas runs, whatever an earlier platform wrote; the autoscaler says how many should."""
        if was_available(manifest):
            self._proofs.add(deployed.source)
            deployed.set_available(True, AVAILABLE)
            deployed.must_load = False
            if shows(manifest, deployed.state()):
                return
        elif self._proofs.cover(deployed.source):
            deployed.set_available(True, AVAILABLE)
            # Where there is room the first request is to find it warm.
            deployed.must_load = self._templates.has_room()
        self._converge(deployed)

    def _forget(self, deployed: Deployed) -> None:
        del self._deployed[deployed.revision], self._by_key[deployed.key]
        deployed.wanted = 0
        deployed.cancel_timer()
        for running in list(deployed.running.values()):
            self._drain(running)
        self._templates.forget(deployed.revision)

    def _is_current(self, deployed: Deployed) -> bool:
        return self._by_key.get(deployed.key) is deployed

    def _has_starting(self, revision: str) -> bool:
        deployed = self._deployed.get(revision)
        return deployed is not None and deployed.is_starting()

    def _room(self, revision: str) -> None:
        """A revision that had to wait for its template may load it now."""
        deployed = self._deployed.get(revision)
        if deployed is not None:
            self._converge(deployed)

    def _unloadable(self, revision: str, error: Exception) -> None:
        """A proof could not begin: descriptors have run out, or the host is away."""
        deployed = self._deployed.get(revision)
        if deployed is not None:
            deployed.must_load = True
            self._start_failed(deployed, deployed.backoff.attempt, str(error))

    def _loading(self, template: LoadedTemplate) -> None:
        deployed = self._deployed[template.source.revision]
        ended = functools.partial(self._load_ended, template, deployed.backoff.attempt)
        template.loaded.add_done_callback(ended)

    def _load_ended(self, template: LoadedTemplate, attempt: int, loaded: asyncio.Future[LoadResult]) -> None:
        deployed = self._deployed.get(template.source.revision)
        error = loaded.exception()
        if error is None:
            _log.info("loaded", extra={"revision": template.source.revision, "import_s": loaded.result().seconds})
            self._templates.trim()
            if deployed is not None:
                self._loaded(deployed)
        elif self._templates.discard(template) and deployed is not None:
            if isinstance(error, LoadFailed):
                self._load_failed(deployed, attempt, error)
            else:
                self._load_lost(deployed, attempt, str(error))

    def _loaded(self, deployed: Deployed) -> None:
        if deployed.wanted == 0:
            deployed.backoff = deployed.backoff.succeeded()
        deployed.set_available(True, AVAILABLE)
        self._proofs.add(deployed.source)
        self._note(deployed)

    def _load_lost(self, deployed: Deployed, attempt: int, reason: str) -> None:
        """The process ended through no fault of the source; unless it always does, nobody need know."""
        deployed.must_load = not deployed.available
        self._start_failed(deployed, attempt, reason, lost=True)
        if deployed.must_load and deployed.backoff.failures:
            deployed.set_available(False, "ImportLost", reason)
            self._note(deployed)

    def _load_failed(self, deployed: Deployed, attempt: int, error: LoadFailed) -> None:
        # At this level because the status tells it too, to whoever deployed it.
        details = {"revision": deployed.revision, "error": str(error), "traceback": error.traceback}
        _log.info("the source cannot be served", extra=details)
        # The same source fails the same way: nobody need wait for a second attempt.
        self._start_failed(deployed, attempt, str(error), certain=True, traceback=error.traceback)
        deployed.set_available(False, error.cause, str(error))
        self._proofs.discard(deployed.source)
        self._note(deployed)

    def _note(self, deployed: Deployed) -> None:
        if self._is_current(deployed):
            self._recorder.note(deployed.key, deployed.state())

    # Convergence

    def _converge(self, deployed: Deployed) -> None:
        """Start or end replicas until as many serve as are wanted, before it returns. Called from within, by an
        observer that is told of a round's doings, it leaves the rest to that round's loop."""
        deployed.unsettled = True
        if deployed.converging:
            return
        deployed.converging = True
        try:
            while deployed.unsettled:
                deployed.unsettled = False
                self._round(deployed)
        finally:
            deployed.converging = False
        self._note(deployed)

    def _round(self, deployed: Deployed) -> None:
        alive = deployed.alive()
        for replica in victims(alive, len(alive) - deployed.wanted):
            if deployed.unsettled:
                return
            self._drain(deployed.running[replica.name])
        missing = deployed.wanted - len(alive)
        if missing <= 0 and not deployed.must_load:
            return
        wait = deployed.backoff.wait(self._clock.monotonic())
        if wait > 0:
            self._converge_after(deployed, wait)
            return
        if deployed.must_load and missing <= 0:
            deployed.must_load = False
            self._templates.prove(deployed.source)
        attempt = deployed.backoff.attempt
        for _ in range(missing):
            if deployed.unsettled or deployed.backoff.attempt != attempt:
                return
            template = self._template(deployed)
            if template is None:
                return
            deployed.must_load = False
            self._start(deployed, template, attempt)

    def _template(self, deployed: Deployed) -> LoadedTemplate | None:
        """What to start a replica from; None when another round is due once it can be had."""
        try:
            return self._templates.take(deployed.source)
        except (UpwellError, OSError) as error:
            self._start_failed(deployed, deployed.backoff.attempt, str(error))
            return None

    def _converge_after(self, deployed: Deployed, seconds: float) -> None:
        """Another round after a while, in the place of the one that was due."""
        deployed.cancel_timer()
        if self._is_current(deployed):
            deployed.timer = asyncio.get_running_loop().call_later(seconds, self._due, deployed)

    def _due(self, deployed: Deployed) -> None:
        deployed.timer = None
        self._converge(deployed)

    def _start_failed(
        self,
        deployed: Deployed,
        attempt: int,
        reason: str,
        *,
        certain: bool = False,
        lost: bool = False,
        traceback: str = "",
    ) -> None:
        if not self._is_current(deployed):
            return
        before, now = deployed.backoff, self._clock.monotonic()
        if lost:
            deployed.backoff = before.interrupted(attempt, now)
        else:
            deployed.backoff = before.failed(attempt, now, certain=certain)
        self._converge_after(deployed, 0.0)
        wait = deployed.backoff.wait(now)
        if deployed.backoff.failures == before.failures or wait == 0.0:
            return
        retry_at = self._clock.now() + wait
        failure = StartFailure(deployed.revision, reason, deployed.backoff.failures, retry_at, traceback)
        for observer in self._observers:
            observer.start_failed(failure)

    # Replicas

    def _start(self, deployed: Deployed, template: LoadedTemplate, attempt: int) -> None:
        token = secrets.token_hex(3)
        path = self._sockets / f"{token}{secrets.token_hex(2)}"
        try:
            listener = _listen(path)
        except OSError as error:  # descriptors or disk have run out
            self._start_failed(deployed, attempt, f"no socket for a replica: {error.strerror}")
            return
        replica = Replica(
            name=f"{deployed.revision.partition('/')[2]}-{token}",
            revision=deployed.revision,
            endpoint=Endpoint(path=str(path)),
            state=ReplicaState.STARTING,
            started_at=self._clock.now(),
            locality=deployed.zones.next(alive.locality for alive in deployed.alive()),
        )
        running = deployed.running[replica.name] = Running(self, deployed, replica, path, attempt)
        self._tell(replica)
        try:
            running.process = template.start_replica(replica.name, listener, running)
        except (UpwellError, OSError) as error:
            listener.close()
            self.ended(running, ExitStatus(None, None, False, str(error)))

    def became_ready(self, running: Running) -> None:
        """Called by a replica's process."""
        replica, deployed = running.replica, running.deployed
        if replica.state is not ReplicaState.STARTING:
            return
        replica.state = ReplicaState.READY
        replica.ready_at = self._clock.now()
        backoff = deployed.backoff.succeeded()
        if backoff is not deployed.backoff:
            deployed.backoff = backoff
            self._converge_after(deployed, 0.0)
        self._tell(replica)
        self._templates.trim()
        self._note(deployed)

    def _drain(self, running: Running) -> None:
        """Tell observers first, so that nothing new is sent; then ask the replica to finish and end."""
        replica = running.replica
        if replica.state in (ReplicaState.DRAINING, ReplicaState.GONE):
            return
        running.expected = True
        replica.state = ReplicaState.DRAINING
        self._tell(replica)
        if running.process is not None:
            running.process.drain()
        seconds = running.deployed.source.end_seconds + DRAIN_MARGIN_SECONDS
        running.kill_at = self._clock.monotonic() + seconds
        self._look_after(running, seconds)

    def _watch_silence(self, running: Running) -> None:
        """Kill a draining replica as soon as it hangs: its loop is blocked, so none of its requests goes on."""
        running.heard = False
        self._look_after(running, min(SILENCE_SECONDS, running.kill_at - self._clock.monotonic()))

    def _look_after(self, running: Running, seconds: float) -> None:
        if running.timer is not None:
            running.timer.cancel()
        running.timer = asyncio.get_running_loop().call_later(seconds, self._overdue, running)

    def _overdue(self, running: Running) -> None:
        if running.heard and self._clock.monotonic() < running.kill_at:
            self._watch_silence(running)
            return
        if running.process is not None:
            running.process.kill()

    def ended(self, running: Running, status: ExitStatus) -> None:
        """Called when a replica's process is gone."""
        deployed, replica = running.deployed, running.replica
        if running.timer is not None:
            running.timer.cancel()
        deployed.running.pop(replica.name, None)
        replica.state = ReplicaState.GONE
        with contextlib.suppress(FileNotFoundError):
            running.path.unlink()
        self._tell(replica)
        exit = Exit(replica.revision, replica.name, status.reason, running.expected, status.was_ready)
        for observer in self._observers:
            observer.replica_exited(exit)
        pause = 0.0
        if not running.expected:
            details = {"revision": replica.revision, "replica": replica.name, "reason": status.reason}
            _log.warning("replica ended", extra=details)
            if not status.was_ready:
                self._start_failed(deployed, running.attempt, status.reason, lost=_is_lost(status))
            elif replica.ready_at is not None and self._clock.now() - replica.ready_at < SHORT_LIFE_SECONDS:
                pause = min(SHORT_LIFE_PAUSE_MOST_SECONDS, SHORT_LIFE_PAUSE_SECONDS * 2**deployed.short_lives)
                deployed.short_lives = min(deployed.short_lives + 1, 10)
            else:
                deployed.short_lives = 0
        self._converge_after(deployed, pause)
        self._templates.trim()

    def _tell(self, replica: Replica) -> None:
        for observer in self._observers:
            observer.replica_changed(replica)


def _is_lost(status: ExitStatus) -> bool:
    """Whether it ended by no doing of its own, as far as can be known: the kernel wanted memory, the host died."""
    return status.code is None and status.signal in (None, signal.SIGKILL) and not status.cause


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
