"""From stored objects to the data plane: routes to the gateway, revisions to gateway and autoscaler.

In a cluster gateway and autoscaler are processes of their own and each follows the objects itself; `Follower` is
what they run, over whatever store.

Routes are programmed first when everything that was there is known, then at once for a change that comes alone and
for many together when they come in a row; what did not change costs nothing but its place in a map. An Ingress
whose routes the gateway uses is told so in its status, with the generation; a Service is Ready only then, and so
Ready means that the gateway answers. One that cannot be read, as another version may have stored it, says so in
its status, and the gateway keeps what it had of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from upwell.functions.api.serving import Defaults
from upwell.runtime.clock import Clock
from upwell.runtime.cluster.interface import Manifest, ObjectChange, ObjectKey, ObjectStore
from upwell.runtime.cluster.kinds import INGRESS, REVISION
from upwell.runtime.control.conditions import READY, holds_for_generation
from upwell.runtime.control.ingress import outclaimed_status, programmed_status, unreadable_status, virtual_hosts
from upwell.runtime.gateway.activator import RevisionLimits
from upwell.runtime.gateway.routes import RouteTable, VirtualHost
from upwell.runtime.workqueue import Controller

PROGRAM_INTERVAL_SECONDS: Final = 0.01
"""At the least between two times that routes are replaced."""
PROGRAM_SHARE: Final = 0.1
"""Of the event loop's time for replacing routes while they keep changing; the rest is for requests."""

_log = logging.getLogger("upwell.control.routes")


class ProgrammedGateway(Protocol):
    """What is told of routes and of revisions' limits."""

    def set_routes(self, routes: RouteTable) -> None:
        """All routes as they are now."""
        ...

    def set_revision(self, revision: str, limits: RevisionLimits, labels: Mapping[str, str]) -> None:
        """A revision is new, or its limits or labels changed."""
        ...

    def remove_revision(self, revision: str) -> None:
        """A revision is gone."""
        ...


class ProgrammedAutoscaler(Protocol):
    """What is told of revisions."""

    def set_revision(self, revision: str, manifest: Manifest) -> None:
        """A revision is new or its settings changed."""
        ...

    def remove_revision(self, revision: str) -> None:
        """A revision is gone."""
        ...


class _Ingress(NamedTuple):
    uid: str
    generation: int
    vhosts: Sequence[VirtualHost]
    fault: str = ""
    """Why these are not what the object says, where they are not."""


class Follower:
    """Keeps gateway and autoscaler told of every Revision and Ingress.

    `burst_threshold` says how many requests one replica of a revision takes before the autoscaler is poked.
    `fallback_hosts` lead to the only Ingress, as long as there is but one and it answers outside; what answers
    there does so below each of `loopback_domains`, whatever its domain is.
    """

    def __init__(
        self,
        objects: ObjectStore,
        gateway: ProgrammedGateway,
        autoscaler: ProgrammedAutoscaler,
        clock: Clock,
        *,
        burst_threshold: Callable[[Manifest], int],
        fallback_hosts: Sequence[str] = (),
        loopback_domains: Sequence[str] = (),
    ) -> None:
        self._objects = objects
        self._loopback_domains = loopback_domains
        self._gateway = gateway
        self._autoscaler = autoscaler
        self._clock = clock
        self._burst_threshold = burst_threshold
        self._routes = RouteTable(fallback_hosts=fallback_hosts)
        self.is_programmed = asyncio.Event()
        """Set once the gateway has all that was stored when this began."""
        self._revisions: set[ObjectKey] = set()
        self._ingresses: dict[ObjectKey, _Ingress] = {}
        self._lost: Mapping[str, Mapping[str, str]] = {}
        """Hosts that Ingresses claim and others have."""
        self._changed: set[ObjectKey] = set()
        self._is_synced = False
        self._to_program = asyncio.Event()
        self._acknowledging: Controller[ObjectKey] = Controller("ingress-status", self._acknowledge)

    def __repr__(self) -> str:
        return f"<Follower {len(self._ingresses)} ingresses, {len(self._changed)} to program>"

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._acknowledging.run(), name="ingress-status")
            group.create_task(self._program(), name="routes")
            await self._follow()

    async def refresh(self) -> None:
        """Tell of every Revision again, since what their settings rest on has changed."""
        for manifest in await self._objects.list(REVISION):
            key = ObjectKey.of(manifest)
            if key in self._revisions:
                self._revision_changed(key, manifest)
            await asyncio.sleep(0)  # many of them leave room for requests

    async def _follow(self) -> None:
        async with contextlib.aclosing(self._objects.watch(REVISION, INGRESS)) as changes:
            async for change in changes:
                if not isinstance(change, ObjectChange):
                    self._is_synced = True
                    self._to_program.set()
                elif change.key.kind == INGRESS:
                    self._ingress_changed(change.key, change.manifest)
                else:
                    self._revision_changed(change.key, change.manifest)

    def _revision_changed(self, key: ObjectKey, manifest: Manifest | None) -> None:
        revision = _name(key)
        if manifest is None:
            self._revisions.discard(key)
            self._gateway.remove_revision(revision)
            self._autoscaler.remove_revision(revision)
        else:
            self._revisions.add(key)
            try:
                self._autoscaler.set_revision(revision, manifest)
                limits = _limits(manifest, self._burst_threshold(manifest))
                self._gateway.set_revision(revision, limits, manifest["metadata"].get("labels") or {})
            except Exception:  # whatever was stored: the others go on
                _log.exception("a Revision cannot be followed", extra={"revision": revision})

    def _ingress_changed(self, key: ObjectKey, manifest: Manifest | None) -> None:
        if manifest is None:
            self._ingresses.pop(key, None)
        else:
            uid, generation = manifest["metadata"]["uid"], manifest["metadata"]["generation"]
            known = self._ingresses.get(key)
            if known is not None and known[:2] == (uid, generation):
                return
            self._ingresses[key] = self._read(key, manifest, known)
        self._changed.add(key)
        if self._is_synced:
            self._to_program.set()

    def _read(self, key: ObjectKey, manifest: Manifest, known: _Ingress | None) -> _Ingress:
        uid, generation = manifest["metadata"]["uid"], manifest["metadata"]["generation"]
        try:
            vhosts = virtual_hosts(manifest, self._loopback_domains)
            RouteTable(vhosts)  # whatever hosts it names must be ones that a table takes
        except Exception as error:  # whatever was stored: the others go on
            fault = f"cannot be read: {type(error).__name__}: {error}"
            _log.warning("an Ingress cannot be read", extra={"ingress": _name(key), "error": fault})
            before = known.vhosts if known is not None and known.uid == uid else ()
            return _Ingress(uid, generation, before, fault)
        return _Ingress(uid, generation, vhosts)

    async def _program(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._to_program.wait()
            self._to_program.clear()
            changed, self._changed = self._changed, set()
            began = loop.time()
            self._routes = self._routes.changed({_name(key): self._vhosts(key) for key in changed})
            self._gateway.set_routes(self._routes)
            self.is_programmed.set()
            before, self._lost = self._lost, self._routes.lost()
            for name in before.keys() | self._lost.keys():
                if before.get(name) != self._lost.get(name):
                    changed.add(ObjectKey(INGRESS, *name.split("/", 1)))
            for key in sorted(changed):
                self._acknowledging.queue.add(key)
            await asyncio.sleep(max(PROGRAM_INTERVAL_SECONDS, (loop.time() - began) / PROGRAM_SHARE))

    def _vhosts(self, key: ObjectKey) -> Sequence[VirtualHost]:
        known = self._ingresses.get(key)
        return known.vhosts if known is not None else ()

    async def _acknowledge(self, key: ObjectKey) -> None:
        """Say in the Ingress' status that its routes are in use, unless it has changed again meanwhile."""
        programmed = self._ingresses.get(key)
        if programmed is None or key in self._changed:
            return
        manifest = await self._objects.get(key)
        if manifest is None or manifest["metadata"]["uid"] != programmed.uid:
            return
        if programmed.generation != manifest["metadata"]["generation"]:
            return
        lost, now = self._lost.get(_name(key)), self._clock.now()
        if programmed.fault or lost:
            if programmed.fault:
                status = unreadable_status(manifest, programmed.generation, programmed.fault, now)
            else:
                status = outclaimed_status(manifest, programmed.generation, lost or {}, now)
            if status != manifest.get("status"):
                await self._objects.update_status(manifest | {"status": status})
        elif not holds_for_generation(manifest, READY):
            status = programmed_status(manifest, programmed.generation, now)
            await self._objects.update_status(manifest | {"status": status})


def _name(key: ObjectKey) -> str:
    return f"{key.namespace}/{key.name}"


def _limits(revision: Manifest, burst_threshold: int) -> RevisionLimits:
    spec = revision["spec"]
    return RevisionLimits(
        container_concurrency=int(spec.get("containerConcurrency") or 0),
        timeout_seconds=float(spec.get("timeoutSeconds") or Defaults().timeout_seconds),
        burst_threshold=burst_threshold,
    )
