"""What policies are to the gateway: which chains act on which virtual hosts, and how a request enters them.

Chains are made when policies, routes or revisions change, never while a request is answered. A virtual host on
which nothing acts is not known here, and its requests pay one look-up.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from upwell.functions.api.policies import PolicyResource
from upwell.runtime.gateway.activator import FirstCome
from upwell.runtime.gateway.balancer import RuleBalancer
from upwell.runtime.gateway.call import RequestPath
from upwell.runtime.gateway.event_body import EventBody
from upwell.runtime.gateway.fair_waiting import FairWaiting
from upwell.runtime.gateway.forwarded import ClientOrigin
from upwell.runtime.gateway.mirroring import Mirroring
from upwell.runtime.gateway.policed import PolicedCall
from upwell.runtime.gateway.routes import PathRule, RouteTarget, VirtualHost
from upwell.runtime.http.exchange import Exchange
from upwell.runtime.http.upstream import NO_LIMITS, PoolLimits, UpstreamPool
from upwell.runtime.mesh.attributes import Attributes, carries_events
from upwell.runtime.mesh.chain import NOTHING, Chain
from upwell.runtime.mesh.circuit_breaker import Transition
from upwell.runtime.mesh.connection_pool import ConnectionLimits
from upwell.runtime.mesh.load_balancing import Balancing
from upwell.runtime.mesh.naming import PRIVATE, RevisionPlace, RoutePlace
from upwell.runtime.mesh.outlier_detection import Ejection
from upwell.runtime.mesh.policies import Policies
from upwell.runtime.mesh.quota_scheduling import QuotaScheduling
from upwell.runtime.mesh.request import PolicyRequest
from upwell.runtime.mesh.settings import MeshSettings

if TYPE_CHECKING:
    from upwell.runtime.gateway.gateway import Gateway, RevisionEntry

_log = logging.getLogger("upwell.gateway.policies")


class Acting(NamedTuple):
    """What acts on the requests of a virtual host."""

    chain: Chain
    """Before a revision is chosen; those of revisions stand with them."""
    reads_events: bool


class Policing:
    """The policies in force, made ready for requests. `resolved` is set whenever that may have changed."""

    def __init__(self, gateway: Gateway, settings: MeshSettings) -> None:
        self.settings = settings
        self.resolved = asyncio.Event()
        self.mirroring = Mirroring(gateway)
        self._gateway = gateway
        self._policies = Policies(settings, gateway.prompt_timers, gateway.clock, random.random, _note)
        self._acting: dict[VirtualHost, Acting] = {}
        self._known: set[VirtualHost] = set()
        self._targeting: dict[str, set[VirtualHost]] = {}
        self._leads_to: dict[tuple[str, str], PathRule | VirtualHost | None] = {}
        """What destinations mean, by host and the rule's namespace, until routes or revisions change."""

    def __repr__(self) -> str:
        return f"<Policing {self._policies!r}, acting on {len(self._acting)} virtual hosts>"

    def acting(self, vhost: VirtualHost) -> Acting | None:
        """What acts on a virtual host, or on a revision that it leads to; None where nothing does."""
        return self._acting.get(vhost)

    def quotas(self) -> Sequence[QuotaScheduling]:
        """Those in force, with what their workloads count."""
        return self._policies.quotas

    def matches(self) -> Mapping[str, Sequence[str]]:
        """Where each policy acts, by its name: routes and revisions."""
        found: dict[str, list[str]] = {}
        for vhost, acting in self._acting.items():
            for policy in acting.chain.policies:
                found.setdefault(policy, []).append(f"route {vhost.name}{':' + vhost.tag if vhost.tag else ''}")
        for revision, entry in self._gateway.revisions.items():
            for policy in entry.chain.policies:
                found.setdefault(policy, []).append(f"revision {revision}")
        return {policy: sorted(set(places)) for policy, places in found.items()}

    # What changes

    def replace(self, resources: Iterable[PolicyResource]) -> None:
        """Put these policies in force from the next request on, in the place of all that were."""
        self._policies.replace(resources)
        for revision, entry in self._gateway.revisions.items():
            self._set_chain(revision, entry)
        self._acting.clear()
        self._known.clear()
        self._targeting.clear()
        self.routes_changed()

    def routes_changed(self) -> None:
        """The gateway has other routes now."""
        self.resolved.set()
        self._leads_to.clear()
        if not len(self._policies):
            return
        vhosts = set(self._gateway.routes.vhosts)
        gone, new = self._known - vhosts, vhosts - self._known
        self._known = vhosts
        for vhost in gone:
            self._acting.pop(vhost, None)
            for revision in _revisions_of(vhost):
                self._targeting[revision].discard(vhost)
                if not self._targeting[revision]:
                    del self._targeting[revision]
        for vhost in new:
            for revision in _revisions_of(vhost):
                self._targeting.setdefault(revision, set()).add(vhost)
        self._resolve_all({vhost.name for vhost in (*gone, *new)})
        for vhost in gone:
            if all(each.tag != vhost.tag for each in self._gateway.routes.of(vhost.name)):
                self._policies.forget(f"route {_place_name(vhost)}")

    def revision_changed(self, revision: str, entry: RevisionEntry) -> None:
        """A revision is new, or its labels changed."""
        self._leads_to.clear()
        if not len(self._policies):
            return
        self._set_chain(revision, entry)
        self.resolved.set()
        for vhost in self._targeting.get(revision, ()):
            acting = self._acting.get(vhost)
            self._note(vhost, NOTHING if acting is None else acting.chain)

    def revision_removed(self, revision: str) -> None:
        """A revision is gone."""
        self._leads_to.clear()
        self._policies.forget(f"revision {revision}")
        self.resolved.set()

    def _resolve_all(self, names: set[str]) -> None:
        """Find what acts on the virtual hosts of these routes: one that changed may mean another that did not."""
        for name in names:
            vhosts = self._gateway.routes.of(name)
            # Whoever names one of a route's own hosts means all of them, private or not, and the tags' as well.
            own = [host for each in vhosts if not each.tag for host in each.hosts]
            for vhost in vhosts:
                place = RoutePlace.of(name, own, vhost.tag, vhost.hosts if vhost.tag else ())
                self._note(vhost, self._policies.at_route(place))

    def _note(self, vhost: VirtualHost, chain: Chain) -> None:
        entries = [self._gateway.revisions.get(revision) for revision in _revisions_of(vhost)]
        chains = [chain, *(entry.chain for entry in entries if entry is not None)]
        if any(each.policies for each in chains):
            self._acting[vhost] = Acting(chain, any(each.reads_events for each in chains))
        else:
            self._acting.pop(vhost, None)

    def _set_chain(self, revision: str, entry: RevisionEntry) -> None:
        before, chain = entry.chain, self._policies.at_revision(_place(revision, entry))
        entry.chain = chain
        activator = entry.activator
        if chain.balancing is not before.balancing:
            balancing = chain.balancing
            clock = self._gateway.clock
            activator.balancer = None if balancing is None else RuleBalancer(balancing, clock)
            if entry.sweep is not None:
                entry.sweep.cancel()
                entry.sweep = None
            for backend in activator.backends:
                self.bound(entry, backend.pool)
        if chain.workloads is not before.workloads:
            activator.order(FirstCome() if chain.workloads is None else FairWaiting(chain.workloads))
        self._gateway.serve_waiting(activator)

    def bound(self, entry: RevisionEntry, pool: UpstreamPool) -> None:
        """Have the pool of one of a revision's replicas keep to what the revision's DestinationRule says."""
        balancing = entry.chain.balancing
        pool.bound(NO_LIMITS if balancing is None else pool_limits(balancing.connections))

    # Requests

    def enter(self, exchange: Exchange, vhost: VirtualHost, acting: Acting, origin: ClientOrigin) -> None:
        """Send a request through the chains that act on it, once what they read of it is here."""
        if acting.reads_events and carries_events(exchange.request.header(b"content-type")):
            arrived = partial(self.route, exchange, vhost, acting, origin)
            EventBody(self._gateway, exchange, arrived).read(self.settings.event_bytes)
        else:
            self.route(exchange, vhost, acting, origin, ())

    def route(
        self,
        exchange: Exchange,
        vhost: VirtualHost,
        acting: Acting,
        origin: ClientOrigin,
        events: Sequence[Attributes],
    ) -> None:
        """Choose where the request goes and begin its call."""
        gateway = self._gateway
        request = PolicyRequest(
            exchange.request,
            client=origin.address,
            connection=exchange.connection,
            scheme=origin.scheme,
            events=events,
        )
        routes = acting.chain.routes
        found = routes.find(request) if routes is not None else None
        request.plan = plan = found.plan(request, random.random) if found is not None else None
        rule: PathRule | None
        if plan is not None and plan.destination is not None:
            host = plan.destination.host
            rule, target = self.destination(host, plan.destination.subset, exchange, plan.route.policy)
            if rule is None:
                gateway.refuse(exchange, 503, "no_destination", f"no route or revision is named {host}\n")
                return
        else:
            rule = vhost.only or vhost.find(exchange.request)
            targets = rule.targets if rule is not None else ()
            if rule is None or len(targets) != 1:
                target = rule.pick(random.random() * 100) if rule is not None else None
            else:
                target = targets[0]
        entry = gateway.revisions.get(target.revision) if target is not None else None
        if rule is None or target is None or entry is None:
            gateway.refuse_unrouted(exchange, vhost, rule)
            return
        if entry.chain.reads_events and not acting.reads_events:  # of another route, to which the rules lead
            self.enter(exchange, vhost, Acting(acting.chain, reads_events=True), origin)
            return
        path = RequestPath(vhost, rule, target, origin)
        PolicedCall(gateway, entry, path, exchange, request, acting.chain).start()

    def destination(
        self, host: str, subset: str | None, exchange: Exchange, policy: str
    ) -> tuple[PathRule | None, RouteTarget | None]:
        """Where a destination of `policy` leads: to a revision by its service, or by the rules of a route. A
        tenant's policy leads to what its own namespace has and to what everybody may call."""
        meant = (host, policy.partition(" ")[2].partition("/")[0])
        if meant not in self._leads_to:
            self._leads_to[meant] = self._place_of(*meant)
        place = self._leads_to[meant]
        if isinstance(place, PathRule):
            return place, place.targets[0]
        rule = place.find(exchange.request) if place is not None else None
        if rule is None:
            return None, None
        if subset is not None:
            rule = self._in_subset(rule, host, subset)
        total = sum(target.percent for target in rule.targets)
        return rule, rule.pick(random.random() * total) if total else None

    def _place_of(self, host: str, seen_from: str) -> PathRule | VirtualHost | None:
        gateway = self._gateway
        name, _, namespace = host.partition(".")
        is_operators = self.settings.is_operators(seen_from)
        for revision in (f"{namespace}/{name}", f"{namespace}/{name.removesuffix(PRIVATE)}"):
            if revision in gateway.revisions and (is_operators or namespace == seen_from):
                return PathRule(b"/", (), (RouteTarget(revision, 100, _told(namespace, revision)),))
        vhost = gateway.routes.find(host.encode("latin-1", "replace"))
        if vhost is None or is_operators or vhost.name.partition("/")[0] == seen_from:
            return vhost
        is_public = any(not each.is_private for each in gateway.routes.of(vhost.name))
        return vhost if is_public else None

    def _in_subset(self, rule: PathRule, host: str, subset: str) -> PathRule:
        """The rule for those of its revisions that a DestinationRule's subset names."""
        asked = self._policies.subset(host, subset)
        if asked is None:
            return PathRule(rule.path, rule.headers, (), rule.rewrite_host)
        revisions = self._gateway.revisions
        targets = tuple(
            target
            for target in rule.targets
            if target.revision in revisions and asked.has(revisions[target.revision].labels)
        )
        return PathRule(rule.path, rule.headers, targets, rule.rewrite_host)

    # What is learnt

    def learn(self, entry: RevisionEntry, balancing: Balancing, found: Ejection) -> None:
        """A replica failed too often: it is out until a sweep brings it back, or kept in all the same."""
        extra = {"replica": found.host, "reason": found.reason, "policy": balancing.policy}
        _log.warning("replica ejected" if found.enforced else "outlier kept in", extra=extra)
        if found.enforced:
            self._sweep_later(entry, balancing)

    def _sweep_later(self, entry: RevisionEntry, balancing: Balancing) -> None:
        interval = balancing.sweep_interval
        if entry.sweep is None and interval is not None:
            entry.sweep = self._gateway.timers.schedule(interval, partial(self._sweep, entry, balancing))

    def _sweep(self, entry: RevisionEntry, balancing: Balancing) -> None:
        entry.sweep = None
        back = balancing.sweep(self._gateway.clock.monotonic())
        for replica in back:
            _log.info("replica is back", extra={"replica": replica, "policy": balancing.policy})
        if balancing.has_outliers:
            self._sweep_later(entry, balancing)
        if back:
            self._gateway.serve_waiting(entry.activator)


def _note(policy: str, transition: Transition) -> None:
    extra = {"policy": policy, "reason": transition.reason}
    if transition.is_open:
        _log.warning("circuit opened", extra=extra)
    else:
        _log.info("circuit closed", extra=extra)


def _revisions_of(vhost: VirtualHost) -> set[str]:
    return {target.revision for rule in vhost.rules for target in rule.targets}


def _place_name(vhost: VirtualHost) -> str:
    return RoutePlace.of(vhost.name, (), vhost.tag).name


def pool_limits(limits: ConnectionLimits) -> PoolLimits:
    """What a DestinationRule's limits are to the connections to one replica."""
    return PoolLimits(
        limits.connect_timeout,
        limits.idle_timeout or None,
        limits.max_requests_per_connection,
        limits.max_connection_seconds,
    )


def _place(revision: str, entry: RevisionEntry) -> RevisionPlace:
    return RevisionPlace.of(revision, entry.labels, entry.activator.limits.burst_threshold)


def _told(namespace: str, revision: str) -> list[tuple[bytes, bytes]]:
    name = revision.partition("/")[2]
    return [
        (b"knative-serving-namespace", namespace.encode()),
        (b"knative-serving-revision", name.encode()),
    ]
