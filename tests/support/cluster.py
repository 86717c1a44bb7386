"""A local cluster over a host without processes, in fake time."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from upwell.runtime.cluster.interface import Exit, Manifest, ObjectKey, Replica, ReplicaState, StartFailure
from upwell.runtime.cluster.kinds import DEPLOYMENT
from upwell.runtime.cluster.local import LocalCluster, LocalClusterSettings
from upwell.runtime.cluster.memory import MemoryStore
from upwell.runtime.cluster.reference import SOURCE_ANNOTATION, SourceReference
from upwell.runtime.control.resources import deployment
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.launcher import FakeLauncher, FakeProcess
from upwell.runtime.testing.loop import run_fake

T = TypeVar("T")
REVISION = "default/hello-00001"


def revision(name: str = "hello-00001", *, bundle: str = "", **spec: Any) -> Manifest:
    """A Revision whose source is known; unless `bundle` is given, it has code of its own."""
    reference = SourceReference(bundle or f"bundle-of-{name}", "main", "greet", "/home/me/hello")
    annotations = {SOURCE_ANNOTATION: reference.annotation()}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-of-{name}",
            "generation": 1,
            "annotations": annotations,
            "labels": {"serving.knative.dev/service": name.rpartition("-")[0]},
        },
        "spec": {"containers": [{"image": "hello"}], **spec},
    }


@dataclass
class Told:
    """An observer that keeps what it was told, in order."""

    events: list[tuple[str, str]] = field(default_factory=list)
    failures: list[StartFailure] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    on_change: Callable[[Replica], None] = lambda replica: None

    def replica_changed(self, replica: Replica) -> None:
        self.events.append((replica.name, replica.state.value))
        self.on_change(replica)

    def replica_exited(self, exit: Exit) -> None:
        self.events.append((exit.replica, "exited"))
        self.exits.append(exit)

    def start_failed(self, failure: StartFailure) -> None:
        self.failures.append(failure)


@dataclass
class LocalWorld:
    """The cluster under test and what surrounds it."""

    cluster: LocalCluster
    launcher: FakeLauncher
    objects: MemoryStore
    told: Told
    sockets: Path

    async def deploy(self, name: str = "hello-00001", **spec: Any) -> str:
        """Store the Deployment of a `revision`, which is not stored itself, and let the cluster see it."""
        await self.objects.apply_all([deployment(revision(name, **spec), name.rpartition("-")[0])])
        await settle()
        return f"default/{name}"

    def scale(self, replicas: int, revision: str = REVISION) -> None:
        self.cluster.scale(revision, replicas, reason="a test")

    def states(self, revision: str = REVISION) -> list[ReplicaState]:
        return [replica.state for replica in self.cluster.replicas(revision)]

    async def ready(self, replicas: int, revision: str = REVISION) -> list[FakeProcess]:
        """Scale and have them all ready; the processes, oldest first."""
        before = self.launcher.alive()
        self.scale(replicas, revision)
        started = [process for process in self.launcher.alive() if process not in before]
        for process in started:
            process.become_ready()
        await settle()
        return started

    async def deployment(self, name: str = "hello-00001") -> Manifest:
        """The Deployment as it is stored."""
        manifest = await self.objects.get(ObjectKey(DEPLOYMENT, "default", f"{name}-deployment"))
        assert manifest is not None
        return manifest


async def settle() -> None:
    """Let everything happen that waits for no time."""
    for _ in range(30):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def local_cluster(
    launcher: FakeLauncher | None = None, *, templates: int = 32, loads: int = 8, stored: Sequence[Manifest] = ()
) -> AsyncIterator[LocalWorld]:
    with tempfile.TemporaryDirectory(prefix="upwell-c-") as folder:
        clock = FakeClock(loop=asyncio.get_running_loop())
        objects = MemoryStore(clock)
        await objects.apply_all(stored)
        launcher = launcher or FakeLauncher()
        cluster = LocalCluster(
            objects,
            launcher,
            bundles=Path("/bundles"),
            sockets=Path(folder),
            clock=clock,
            reports=lambda report: None,
            settings=LocalClusterSettings(templates=templates, loads=loads),
        )
        told = Told()
        cluster.observe(told)
        running = asyncio.create_task(cluster.run())
        try:
            await settle()
            yield LocalWorld(cluster, launcher, objects, told, Path(folder))
            assert not running.done(), running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def in_cluster(
    scenario: Callable[[LocalWorld], Coroutine[Any, Any, T]],
    launcher: Callable[[], FakeLauncher] = FakeLauncher,
    *,
    templates: int = 32,
    loads: int = 8,
    stored: Sequence[Manifest] = (),
) -> T:
    """What `scenario` returns, in fake time."""

    async def run() -> T:
        async with local_cluster(launcher(), templates=templates, loads=loads, stored=stored) as world:
            return await scenario(world)

    return run_fake(run())
