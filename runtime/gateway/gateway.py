"""The gateway: routes, revisions, replicas and calls brought together.

It is told of routes and revisions by the control plane, of replicas by the cluster, and of requests by the HTTP
server; it tells the autoscaler of load (a report a second for each revision with traffic, a poke at once when
load exceeds what is ready). Everything runs on one event loop and no request has a task.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from upwell.autoscaler.stats import ReportBatch, RequestStats
from upwell.functions.api.policies import PolicyResource
from upwell.runtime.clock import Clock
from upwell.runtime.cluster.interface import Exit, Replica, ReplicaState, StartFailure
from upwell.runtime.gateway.access_log import AccessLog
from upwell.runtime.gateway.activator import Activator, Backend, Rejection, RevisionLimits
from upwell.runtime.gateway.call import Call, RequestPath
from upwell.runtime.gateway.forwarded import ForwardedFields, last_answer
from upwell.runtime.gateway.metrics import CLIENT_CLOSED, CallCounters
from upwell.runtime.gateway.policing import Policing
from upwell.runtime.gateway.prediction import Forecast, Pace
from upwell.runtime.gateway.routes import PathRule, RouteTable, VirtualHost
from upwell.runtime.gateway.settings import GatewaySettings
from upwell.runtime.http.exchange import Exchange
from upwell.runtime.http.messages import Headers
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.http.upstream import UpstreamPool
from upwell.runtime.mesh.chain import NOTHING
from upwell.runtime.mesh.policy import Cause
from upwell.runtime.mesh.settings import MeshSettings
from upwell.runtime.timers import Timer, TimerWheel

PROMPT_SECONDS: Final = 0.002
"""Resolution of timers that a request waits for; deadlines, which hardly ever come, have a coarser one."""

_log = logging.getLogger("upwell.gateway")


class Autoscaling(Protocol):
    """What the gateway tells the autoscaler."""

    def report_batch(self, batch: ReportBatch) -> None:
        """The load of every revision that has any."""
        ...

    def poke(self, revision: str, in_flight: int) -> None:
        """Load exceeds what is ready; act now."""
        ...


class ReplicaSource(Protocol):
    """What the gateway asks of the cluster."""

    def replicas(self, revision: str) -> tuple[Replica, ...]:
        """The replicas of a revision that are not gone."""
        ...

    def replace(self, replica: Replica, *, reason: str) -> None:
        """Put another replica in the place of this one."""
        ...


class RevisionEntry:
    """All that the gateway keeps of one revision."""

    __slots__ = (
        "activator",
        "chain",
        "counters",
        "labels",
        "pace",
        "poke_above",
        "reporting",
        "stats",
        "sweep",
    )

    def __init__(self, activator: Activator, stats: RequestStats) -> None:
        self.activator = activator
        self.stats = stats
        self.counters = CallCounters()
        self.pace = Pace()
        self.chain = NOTHING
        """The policies between the choice of the revision and that of a replica."""
        self.labels: Mapping[str, str] = {}
        self.sweep: Timer | None = None
        """Until replicas that are out are looked at again."""
        self.poke_above = 0
        self.reporting = False

    @property
    def ready_capacity(self) -> int:
        """Requests in flight that the replicas which are ready are taken to handle."""
        return len(self.activator.backends) * self.activator.limits.burst_threshold

    def reset_poke(self) -> None:
        """From now on a poke is due when load exceeds the replicas that are ready."""
        self.poke_above = self.ready_capacity


class Gateway:
    """Answers requests for functions. `handle` is the HTTP server's handler."""

    def __init__(
        self,
        *,
        name: str,
        clock: Clock,
        autoscaling: Autoscaling,
        access_log: AccessLog,
        http: HttpSettings,
        cluster: ReplicaSource,
        settings: GatewaySettings,
        mesh: MeshSettings = MeshSettings(),
        forwarded: ForwardedFields | None = None,
    ) -> None:
        self.clock = clock
        self.settings = settings
        self.timers = TimerWheel(asyncio.get_running_loop())
        self.prompt_timers = TimerWheel(asyncio.get_running_loop(), PROMPT_SECONDS)
        self.routes = RouteTable()
        self.revisions: dict[str, RevisionEntry] = {}
        self.unrouted = 0
        self._name = name
        self._autoscaling = autoscaling
        self.access_log = access_log
        self._http = http
        self._cluster = cluster
        self._reporting: dict[str, RevisionEntry] = {}
        self._batches = 0
        self._pools: dict[str, UpstreamPool] = {}
        self.forwarded = forwarded or ForwardedFields()
        self.policing = Policing(self, mesh)

    def __repr__(self) -> str:
        waiting = sum(len(entry.activator.waiting) for entry in self.revisions.values())
        return f"<Gateway {len(self.revisions)} revisions, {len(self._pools)} replicas, {waiting} waiting>"

    # Requests

    def handle(self, exchange: Exchange) -> None:
        """Route a request whose head has been read."""
        request = exchange.request
        answer = last_answer(request)
        if answer is not None:
            exchange.respond(200, *answer)
            self.left_unrouted(exchange, 200, "no_further")
            return
        vhost = self.routes.find(request.host)
        origin = self.forwarded.client_of(exchange)
        if vhost is None or not self.forwarded.answers(vhost, origin):
            self.refuse(exchange, 404, "no_route", f"no function answers to the host {_shown(request.host)}\n")
            return
        elsewhere = self.forwarded.redirect(vhost, request, origin) if vhost.redirects else None
        if elsewhere is not None:
            self.refuse(exchange, 301, "redirected", "", [(b"location", elsewhere)])
            return
        acting = self.policing.acting(vhost)
        if acting is not None:
            self.policing.enter(exchange, vhost, acting, origin)
            return
        rule = vhost.only or vhost.find(request)
        if rule is None:
            self.refuse_unrouted(exchange, vhost, rule)
            return
        targets = rule.targets
        target = targets[0] if len(targets) == 1 else rule.pick(random.random() * 100)
        entry = self.revisions.get(target.revision) if target is not None else None
        if target is None or entry is None:
            self.refuse_unrouted(exchange, vhost, rule)
            return
        Call(self, entry, RequestPath(vhost, rule, target, origin), exchange).start()

    def refuse_unrouted(self, exchange: Exchange, vhost: VirtualHost, rule: PathRule | None) -> None:
        """Answer for a virtual host without a path for the request, or without a revision that is ready."""
        if rule is None:
            self.refuse(exchange, 404, "no_path", f"no path of {vhost.name} fits\n")
        else:
            self.refuse(exchange, 503, "no_revision", f"no revision of {vhost.name} is ready\n")

    def begin(self, entry: RevisionEntry) -> None:
        """A request for this revision has arrived."""
        now = self.clock.now()
        if not entry.reporting:
            entry.reporting = True
            entry.stats.report(now)  # nothing happened since the last one
            self._reporting[entry.activator.revision] = entry
            # Told at once, since the autoscaler may be about to let go of the last replica.
            entry.poke_above = 0
        entry.stats.start(now)

    def end(self, call: Call, status: int) -> None:
        """A request is over, however it ended: count it and log it."""
        entry = call.entry
        if call.counted:
            entry.stats.finish(self.clock.now())
        now = self.clock.monotonic()
        seconds = now - call.exchange.received_at
        if call.dispatched_at and entry.activator.limits.container_concurrency:
            entry.pace.served(now - call.dispatched_at)
        entry.counters.add(status, seconds, call.reason, cold=call.cold, refused=call.refused)
        self.access_log.call(call, status, seconds)

    def refuse(
        self, exchange: Exchange, status: int, reason: str, text: str, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        """Answer a request that no revision gets."""
        own = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-upwell-rejected-by", reason.encode())]
        exchange.respond(status, [*own, *headers], text.encode())
        self.left_unrouted(exchange, status, reason)

    def left_unrouted(self, exchange: Exchange, status: int = CLIENT_CLOSED, reason: str = "client_gone") -> None:
        """Count and log a request that no revision got."""
        self.unrouted += 1
        self.access_log.refused(exchange, status, reason, self.clock.monotonic() - exchange.received_at)

    def signed(self, headers: Headers, policy: str, cause: Cause) -> Headers:
        """The fields of a policy's answer: with its cause, and its name where callers may know it."""
        headers = [*headers, (b"x-upwell-policy-cause", cause.value.encode())]
        if self.policing.settings.name_policies:
            headers.append((b"x-upwell-rejected-by", policy.encode("latin-1", "replace")))
        return headers

    def unreadable(self, client: str, status: int, reason: str) -> None:
        """The server refused what was no request: count it and log it."""
        self.unrouted += 1
        self.access_log.unreadable(client, status, reason)

    def poke(self, entry: RevisionEntry) -> None:
        """Tell the autoscaler of load beyond what is ready, and when to be told again."""
        in_flight = entry.stats.in_flight
        entry.poke_above = max(entry.ready_capacity, in_flight, int(in_flight * self.settings.poke_growth))
        try:
            self._autoscaling.poke(entry.activator.revision, in_flight)
        except Exception:  # the request waits on: the autoscaler ticks besides
            _log.exception("the autoscaler could not be poked", extra={"revision": entry.activator.revision})

    def serve_waiting(self, activator: Activator) -> None:
        """Send waiting calls to replicas for as long as slots are free."""
        while (ready := activator.next_ready()) is not None:
            call, taken = ready
            if isinstance(taken, Backend):
                call.dispatch(taken)
            else:
                call.refuse_by(taken)

    def forecast(self, entry: RevisionEntry) -> Forecast | None:
        """When a request that has just been held will be sent on; None where nothing tells."""
        activator = entry.activator
        if activator.backends:
            slots = len(activator.backends) * activator.limits.container_concurrency
            # Where a policy orders those that wait, nobody knows how many go before it.
            ahead = len(activator.waiting) - 1 if entry.chain.workloads is None else 0
            return entry.pace.until_slot(ahead, slots)
        now = self.clock.now()
        replicas = self._cluster.replicas(activator.revision)
        rising = [each.started_at for each in replicas if each.state is ReplicaState.STARTING]
        return entry.pace.until_start(now - min(rising, default=now))

    def replace(self, replica: Replica) -> None:
        """Ask for another replica in the place of one that does not answer."""
        self._cluster.replace(replica, reason="it did not answer within the timeout")

    def suspend(self, backend: Backend) -> None:
        """Pass over a replica that did not take a connection, or lost one, for a moment."""
        backend.suspensions += 1
        entry = self.revisions.get(backend.replica.revision)
        alone = entry is not None and len(entry.activator.backends) <= 1
        pause = self.settings.doubt_seconds if alone else self.settings.suspend_seconds
        self.timers.schedule(pause, lambda: self._resume(backend))

    def _resume(self, backend: Backend) -> None:
        backend.suspensions -= 1
        entry = self.revisions.get(backend.replica.revision)
        if entry is not None:
            self.serve_waiting(entry.activator)

    # Told by the control plane

    def set_routes(self, routes: RouteTable) -> None:
        """Use these routes from the next request on."""
        self.routes = routes
        self.policing.routes_changed()

    def set_policies(self, resources: Iterable[PolicyResource]) -> None:
        """Put these policies in force, in the place of all that were, from the next request on."""
        self.policing.replace(resources)

    def policy_matches(self) -> Mapping[str, Sequence[str]]:
        """Where each policy acts, by `KIND NAMESPACE/NAME`."""
        return self.policing.matches()

    @property
    def policies_resolved(self) -> asyncio.Event:
        """Set whenever it may have changed where policies act."""
        return self.policing.resolved

    def set_revision(self, revision: str, limits: RevisionLimits, labels: Mapping[str, str]) -> None:
        """Serve this revision, whose object has `labels`, from now on, or under these limits."""
        entry = self.revisions.get(revision)
        if entry is None:
            stats = RequestStats(self.clock.now())
            entry = self.revisions[revision] = RevisionEntry(Activator(revision, limits), stats)
            for replica in self._cluster.replicas(revision):
                self.replica_changed(replica)
        entry.activator.limits = limits
        entry.reset_poke()
        entry.labels = labels
        self.policing.revision_changed(revision, entry)

    def remove_revision(self, revision: str) -> None:
        """Forget a revision; calls that still wait for it are answered."""
        entry = self.revisions.pop(revision, None)
        self._reporting.pop(revision, None)
        if entry is not None:
            if entry.sweep is not None:
                entry.sweep.cancel()
            entry.activator.is_removed = True
            self._refuse_waiting(entry, Rejection.NO_REVISION)
            self.policing.revision_removed(revision)

    # Told by the cluster

    def replica_changed(self, replica: Replica) -> None:
        """Use a replica that became ready; send nothing more to one that is leaving."""
        entry = self.revisions.get(replica.revision)
        if replica.state is ReplicaState.READY:
            if entry is not None:
                pool = UpstreamPool(replica.endpoint, self._http, self.clock, self.timers)
                self._pools[replica.name] = pool
                self.policing.bound(entry, pool)
                entry.activator.set_ready(replica, pool, self.clock.monotonic())
                if replica.ready_at is not None:
                    entry.pace.started(replica.ready_at - replica.started_at)
                entry.reset_poke()
                self.serve_waiting(entry.activator)
        elif replica.state in (ReplicaState.DRAINING, ReplicaState.GONE):
            self._retire(replica, entry)

    def replica_exited(self, exit: Exit) -> None:
        """Nothing to do: the replica has been retired by then."""

    def start_failed(self, failure: StartFailure) -> None:
        """Answer the calls that wait for replicas that cannot start."""
        entry = self.revisions.get(failure.revision)
        if entry is not None and not entry.activator.backends:
            entry.activator.set_failure(failure.retry_at)
            self._refuse_waiting(entry, Rejection.START_FAILED)

    def _abandon(self, name: str) -> None:
        pool = self._pools.pop(name, None)
        if pool is not None:
            pool.abandon("the replica is gone")

    def _refuse_waiting(self, entry: RevisionEntry, rejection: Rejection) -> None:
        waiting = entry.activator.waiting
        while waiting:
            waiting.popleft().refuse(rejection)

    def _retire(self, replica: Replica, entry: RevisionEntry | None) -> None:
        if entry is not None:
            removed = entry.activator.remove(replica) is not None
            if removed:
                entry.reset_poke()
                if entry.chain.balancing is not None:
                    entry.chain.balancing.forget(replica.name)
            if entry.activator.waiting and (removed or not entry.activator.backends):
                self.poke(entry)
        pool = self._pools.get(replica.name)
        if pool is None:
            return
        pool.retire()
        if replica.state is ReplicaState.GONE:
            self.timers.schedule(self.settings.gone_seconds, lambda: self._abandon(replica.name))

    # Life

    async def run(self) -> None:
        """Report load once a second, until cancelled; then close every upstream connection.

        Reports end on whole Unix seconds, where the autoscaler's buckets end.
        """
        period = self.settings.report_seconds
        try:
            while True:
                await asyncio.sleep(period - self.clock.now() % period)
                self.report_load()
        finally:
            await asyncio.gather(*(pool.aclose() for pool in self._pools.values()))

    def report_load(self) -> None:
        """Report every revision with traffic, and zero once when it has ended."""
        if not self._reporting:
            return
        now = self.clock.now()
        seen = {revision: entry.stats.report(now) for revision, entry in self._reporting.items()}
        self._batches += 1
        self._autoscaling.report_batch(ReportBatch.of(self._name, self._batches, now, seen))
        for revision, averages in seen.items():
            entry = self._reporting[revision]
            in_flight = entry.stats.in_flight
            if in_flight <= entry.ready_capacity:
                entry.reset_poke()
            if averages.request_count == 0 and averages.average_concurrency == 0 and in_flight == 0:
                entry.reporting = False
                del self._reporting[revision]


def _shown(host: bytes) -> str:
    return host[:253].decode("latin-1")
