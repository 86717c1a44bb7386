"""A gateway over replicas that a test scripts: no processes, raw sockets, fake time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from support.http import Backend, Peer, Script, Served, answering, backend, serving
from upwell.autoscaler.stats import Report, ReportBatch
from upwell.runtime.cluster.interface import Replica, ReplicaState, StartFailure
from upwell.runtime.gateway.access_log import NoAccessLog
from upwell.runtime.gateway.activator import Activator, RevisionLimits
from upwell.runtime.gateway.gateway import Gateway, RevisionEntry
from upwell.runtime.gateway.routes import PathRule, RouteTable, RouteTarget, VirtualHost
from upwell.runtime.gateway.settings import GatewaySettings
from upwell.runtime.http.connect import Endpoint
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.mesh.settings import MeshSettings
from upwell.runtime.testing.clock import FakeClock

REVISION = "default/hello-00001"
HOST = b"hello.default.example.com"


def request(method: bytes = b"GET", path: bytes = b"/", fields: bytes = b"", body: bytes = b"") -> bytes:
    """A request for the function, keep-alive."""
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n%b" % (method, path, HOST, fields, length, body)


@dataclass
class Recorded:
    """Plays autoscaler and cluster: keeps what it was told."""

    pokes: list[tuple[str, int]] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    running: list[Replica] = field(default_factory=list)

    def report_batch(self, batch: ReportBatch) -> None:
        columns = (
            batch.spans,
            batch.average_concurrency,
            batch.average_proxied_concurrency,
            batch.request_count,
            batch.proxied_request_count,
        )
        for revision, span, *load in zip(batch.revisions, *columns, strict=True):
            began = batch.ended - span
            self.reports.append(Report(revision, batch.reporter, batch.sequence, began, batch.ended, *load))

    def poke(self, revision: str, in_flight: int) -> None:
        self.pokes.append((revision, in_flight))

    def replicas(self, revision: str) -> tuple[Replica, ...]:
        return tuple(replica for replica in self.running if replica.revision == revision)

    def replace(self, replica: Replica, *, reason: str) -> None:
        self.replaced.append(replica.name)


@dataclass
class Stage:
    """A running gateway, its clients and its replicas."""

    gateway: Gateway
    served: Served
    told: Recorded
    clock: FakeClock
    stack: contextlib.AsyncExitStack

    @property
    def entry(self) -> RevisionEntry:
        return self.gateway.revisions[REVISION]

    @property
    def activator(self) -> Activator:
        return self.entry.activator

    async def ask(self, data: bytes | None = None, ending: bytes = b"ok") -> bytes:
        return await self.served.ask(request() if data is None else data, ending)

    async def client(self, data: bytes | None = None) -> Peer:
        return await self.served.client(request() if data is None else data)

    async def replica(
        self, script: Script | None = None, name: str = "r1", *, revision: str = REVISION, locality: str = ""
    ) -> tuple[Replica, Backend]:
        """A ready replica behind which a raw back end plays."""
        made = await self.stack.enter_async_context(backend(script or answering()))
        return self.rise(made.endpoint, name, revision=revision, locality=locality), made

    def rise(
        self, endpoint: Endpoint, name: str = "r1", *, revision: str = REVISION, locality: str = ""
    ) -> Replica:
        phases = {"fork": 1.0, "start": 2.5}
        replica = Replica(name, revision, endpoint, ReplicaState.READY, 0.0, phases=phases, locality=locality)
        self.told.running.append(replica)
        self.gateway.replica_changed(replica)
        return replica

    def move(self, replica: Replica, state: ReplicaState) -> None:
        replica.state = state
        self.gateway.replica_changed(replica)

    def fail(self, seconds: float = 2.0) -> None:
        failure = StartFailure(REVISION, "exited with code 3", 2, self.clock.now() + seconds)
        self.gateway.start_failed(failure)


@contextlib.asynccontextmanager
async def stage(
    limits: RevisionLimits | None = None,
    settings: GatewaySettings | None = None,
    http: HttpSettings | None = None,
    mesh: MeshSettings | None = None,
) -> AsyncIterator[Stage]:
    """A gateway with one route and one revision without a replica."""
    told = Recorded()
    clock = FakeClock(loop=asyncio.get_running_loop())
    gateway = Gateway(
        name="gateway-1",
        clock=clock,
        autoscaling=told,
        access_log=NoAccessLog(),
        http=http or HttpSettings(),
        cluster=told,
        settings=settings or GatewaySettings(),
        mesh=mesh or MeshSettings(),
    )
    target = RouteTarget(REVISION, 100)
    rule = PathRule(b"/", (), (target,))
    gateway.set_routes(RouteTable([VirtualHost("default/hello", (HOST.decode(),), (rule,))]))
    gateway.set_revision(REVISION, limits or RevisionLimits(), {})
    running = asyncio.create_task(gateway.run())
    async with contextlib.AsyncExitStack() as stack, serving(gateway.handle, http, clock) as served:
        try:
            yield Stage(gateway, served, told, clock, stack)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
