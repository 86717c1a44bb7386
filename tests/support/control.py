"""Reconcilers and a follower over a cluster without processes, in fake time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from support.cluster import LocalWorld, local_cluster, settle
from upwell.runtime.cluster.interface import Manifest, ObjectKey
from upwell.runtime.cluster.kinds import SERVICE
from upwell.runtime.cluster.reference import SOURCE_ANNOTATION, SourceReference
from upwell.runtime.control.conditions import READY, find_for_generation
from upwell.runtime.control.domains import Domains
from upwell.runtime.control.follow import Follower
from upwell.runtime.control.kingress import IngressSettings
from upwell.runtime.control.planning import ServingSettings
from upwell.runtime.control.serving import ServingController
from upwell.runtime.gateway.activator import RevisionLimits
from upwell.runtime.gateway.routes import RouteTable
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.launcher import FakeLauncher
from upwell.runtime.testing.loop import run_fake

T = TypeVar("T")
SETTINGS = ServingSettings(IngressSettings(Domains((), ("localhost",))), 8080)


def service(name: str = "hello", digest: str = "d1", revision: str | None = None) -> Manifest:
    annotations = {SOURCE_ANNOTATION: SourceReference(digest, "main").annotation()}
    metadata: dict[str, Any] = {"annotations": annotations}
    if revision is not None:
        metadata["name"] = revision
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": {"metadata": metadata, "spec": {"containers": [{"image": name}]}}},
    }


@dataclass
class Told:
    """Plays gateway and autoscaler."""

    tables: list[RouteTable] = field(default_factory=list)
    revisions: set[str] = field(default_factory=set)
    limits: dict[str, RevisionLimits] = field(default_factory=dict)

    def set_routes(self, routes: RouteTable) -> None:
        self.tables.append(routes)

    def set_revision(self, revision: str, told: object, labels: Mapping[str, str] | None = None) -> None:
        self.revisions.add(revision)
        if isinstance(told, RevisionLimits) and labels is not None:
            self.limits[revision] = told

    def remove_revision(self, revision: str) -> None:
        self.revisions.discard(revision)

    def target(self, host: str) -> str | None:
        vhost = self.tables[-1].find(host.encode()) if self.tables else None
        return vhost.rules[0].targets[0].revision if vhost is not None else None


@dataclass
class ControlWorld:
    local: LocalWorld
    told: Told
    serving: ServingController
    follower: Follower

    async def apply(self, manifest: Manifest) -> Manifest:
        key = ObjectKey.of(manifest)
        objects = self.local.objects
        if await objects.get(key) is None:
            return await objects.create(manifest)
        return await objects.update(manifest)

    async def find(self, kind: str, name: str) -> Manifest:
        manifest = await self.local.objects.get(ObjectKey(kind, "default", name))
        assert manifest is not None
        return manifest

    async def ready(self, name: str = "hello") -> tuple[str, str]:
        condition = find_for_generation(await self.find(SERVICE, name), READY)
        return (condition.status, condition.reason) if condition is not None else ("", "")


@contextlib.asynccontextmanager
async def control_plane(launcher: FakeLauncher | None = None) -> AsyncIterator[ControlWorld]:
    async with local_cluster(launcher) as local:
        clock = FakeClock(loop=asyncio.get_running_loop())
        told = Told()
        serving = ServingController(local.objects, clock, SETTINGS)
        follower = Follower(
            local.objects, told, told, clock, burst_threshold=lambda _: 7, fallback_hosts=("localhost",)
        )
        tasks = [asyncio.create_task(run) for run in (serving.watch(), serving.work(), follower.run())]
        try:
            await settle()
            yield ControlWorld(local, told, serving, follower)
            assert not any(task.done() for task in tasks), tasks
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def run(scenario: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(3600):
            return await scenario

    return run_fake(bounded())
