"""A platform's interface over a real socket, with a platform behind it that only keeps objects."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from upwell.autoscaler.decision import Decision
from upwell.autoscaler.spec import RevisionSettings
from upwell.functions.errors import NotFound
from upwell.runtime.api.client import Client
from upwell.runtime.api.explanation import ReplicaStart
from upwell.runtime.api.server import ApiServer, bind_socket
from upwell.runtime.api.shapes import PlatformInfo
from upwell.runtime.clock import Clock, SystemClock
from upwell.runtime.cluster.interface import Manifest, ObjectKey, Replica
from upwell.runtime.cluster.memory import MemoryStore
from upwell.runtime.control.admission import AdmissionContext, admit, key_of
from upwell.runtime.gateway.gateway import RevisionEntry
from upwell.runtime.gateway.policing import Acting
from upwell.runtime.gateway.routes import RouteTable, VirtualHost

T = TypeVar("T")
PATIENCE = 20.0


@dataclass
class KeptApplied:
    """What became of a manifest."""

    key: ObjectKey
    action: str
    warnings: Sequence[str]
    manifest: Manifest


@dataclass
class KeptPoints:
    """A series over time."""

    times: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    want: list[float] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)

    def add(self, at: float, load: float, want: float, ready: float) -> None:
        for values, value in zip(
            (self.times, self.load, self.want, self.ready), (at, load, want, ready), strict=True
        ):
            values.append(value)


@dataclass
class KeptDecisions:
    """An autoscaler that tells what a test put in, by revision, as `namespace/name`."""

    decisions: dict[str, list[Decision]] = field(default_factory=dict)
    under: dict[str, RevisionSettings] = field(default_factory=dict)
    points: dict[str, KeptPoints] = field(default_factory=dict)
    started: dict[str, list[ReplicaStart]] = field(default_factory=dict)

    @property
    def engine(self) -> KeptDecisions:
        return self

    def latest(self, key: str) -> Decision | None:
        return self.decisions[key][-1] if key in self.decisions else None

    def history(self, key: str) -> Sequence[Decision]:
        return self.decisions.get(key, [])

    def series(self, key: str) -> KeptPoints:
        return self.points.get(key, KeptPoints())

    def settings(self, key: str) -> RevisionSettings | None:
        return self.under.get(key, RevisionSettings())

    def starts(self, revision: str) -> Sequence[ReplicaStart]:
        return self.started.get(revision, [])


@dataclass
class KeptCounts:
    """A gateway that nobody asks: what a test put in."""

    routes: RouteTable = field(default_factory=RouteTable)
    revisions: dict[str, RevisionEntry] = field(default_factory=dict)
    unrouted: int = 0
    chains: dict[VirtualHost, Acting] = field(default_factory=dict)

    @property
    def policing(self) -> KeptCounts:
        return self

    def acting(self, vhost: VirtualHost) -> Acting | None:
        return self.chains.get(vhost)


@dataclass
class KeepingPlatform:
    """Admits and stores; nothing runs."""

    directory: Path
    gateway: KeptCounts = field(default_factory=KeptCounts)
    autoscaler: KeptDecisions = field(default_factory=KeptDecisions)
    objects: MemoryStore = field(default_factory=lambda: MemoryStore(SystemClock()))
    running: dict[str, tuple[Replica, ...]] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    failure: Exception | None = None

    @property
    def cluster(self) -> KeepingPlatform:
        return self

    def replicas(self, revision: str) -> tuple[Replica, ...]:
        return self.running.get(revision, ())

    async def apply(
        self, manifests: Sequence[Manifest], *, images: Mapping[str, str], dry_run: bool
    ) -> Sequence[KeptApplied]:
        if self.failure is not None:
            raise self.failure
        self.images |= images
        found = []
        for index, manifest in enumerate(manifests):
            key = key_of(manifest, index=index)
            admitted = admit(manifest, await self.objects.get(key), AdmissionContext(), index=index)
            found.append(KeptApplied(key, admitted.action, admitted.warnings, admitted.manifest))
        if not dry_run:
            for each in found:
                store = self.objects.create if each.action == "created" else self.objects.update
                each.manifest = await store(each.manifest)
        return found

    async def delete(self, key: ObjectKey) -> None:
        if await self.objects.get(key) is None:
            raise NotFound("not found", where=str(key))
        await self.objects.delete(key)


class Served:
    """An interface on a loop in a thread of its own."""

    def __init__(self, directory: Path, port: int = 8080, clock: Clock | None = None) -> None:
        self.platform = KeepingPlatform(directory)
        self.client = Client(directory, PATIENCE)
        self.directory = directory
        self._port = port
        self._clock = clock or SystemClock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        info = PlatformInfo("0.0", 1, str(self.directory), ("127.0.0.1",), self._port, 9090)
        server = ApiServer(self.platform, info, self._clock)
        server.start(bind_socket(self.directory))
        self._ready.set()
        await self._ending.wait()
        await server.stop()

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(PATIENCE)

    def stop(self) -> None:
        """May be called again."""
        if self._thread.is_alive() and self._loop is not None and self._ending is not None:
            with contextlib.suppress(RuntimeError):  # the loop ended meanwhile
                self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """On the platform's loop."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(PATIENCE)

    def watches(self) -> int:
        """How many watches are open."""

        async def count() -> int:
            return watches_of(self.platform.objects)

        return self.run(count())


def watches_of(store: MemoryStore) -> int:
    """As its repr says."""
    return int(repr(store).rpartition(", ")[2].split()[0])


@contextlib.contextmanager
def served(directory: Path, clock: Clock | None = None) -> Iterator[Served]:
    """An interface in `directory`, until the end."""
    interface = Served(directory, clock=clock)
    interface.start()
    try:
        yield interface
    finally:
        interface.stop()


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for a state; fails after PATIENCE."""
    gate = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        if holds():
            return
        gate.wait(0.01)
    raise AssertionError(f"did not come about: {what}")


def service(name: str, image: str = "hello", **spec: Any) -> Manifest:
    """A small Knative Service."""
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": {"spec": {"containers": [{"image": image}], **spec}}},
    }
