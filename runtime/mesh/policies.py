"""All policies in force, and which of them act where.

`scope` says where each may act; where several VirtualServices or DestinationRules may, the one that names the
place most closely does, and of those one of the place's own namespace.

What a policy has learnt (tokens taken, circuits open, replicas ejected) belongs to the part of it that acts at one
place, and stays with that part for as long as what it was made from is the same, whatever else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Sized
from functools import partial
from itertools import chain
from typing import Any, Final, TypeVar

from upwell.functions.api.asm import ASMCircuitBreaker, ASMLocalRateLimiter
from upwell.functions.api.asm_scope import PolicyConfig
from upwell.functions.api.destination_rule import DestinationRule, Subset
from upwell.functions.api.policies import PolicyResource
from upwell.functions.api.scheduling import QuotaSchedulingPolicy
from upwell.functions.api.traffic_policy import RetryBudget as RetryBudgetRule
from upwell.functions.api.virtual_service import VirtualService
from upwell.runtime.clock import Clock
from upwell.runtime.mesh.by_host import ByHost
from upwell.runtime.mesh.chain import NOTHING, Chain, Found, build_chain
from upwell.runtime.mesh.circuit_breaker import CircuitBreaker, Transition
from upwell.runtime.mesh.http_match import Sender
from upwell.runtime.mesh.http_route import HttpRoutes
from upwell.runtime.mesh.load_balancing import Balancing
from upwell.runtime.mesh.local_rate_limit import LocalRateLimit
from upwell.runtime.mesh.naming import (
    SERVICE_PORTS,
    RevisionPlace,
    RoutePlace,
    canonical,
)
from upwell.runtime.mesh.percentage import Random
from upwell.runtime.mesh.policy import Filter, Observer
from upwell.runtime.mesh.quota_scheduling import QuotaScheduling
from upwell.runtime.mesh.retries import RetryBudget
from upwell.runtime.mesh.route_rules import ObservingOnRoute, OnRoute
from upwell.runtime.mesh.scope import Scope, named_hosts
from upwell.runtime.mesh.settings import MeshSettings
from upwell.runtime.timers import TimerWheel

Part = TypeVar("Part")
Policy = TypeVar("Policy", bound=PolicyResource)
_Key = tuple[str, int]
"""A policy's name and which of its parts."""

_EVENT_PREFIX: Final = "ce-"


def policy_name(resource: PolicyResource) -> str:
    """`KIND NAMESPACE/NAME`, as logs, metrics and answers name it."""
    return f"{resource.kind} {resource.metadata.namespace}/{resource.metadata.name}"


class _Kept:
    """The parts that act at one place, each with what it was made from."""

    def __init__(self) -> None:
        self._before: dict[_Key, tuple[object, Any]] = {}
        self._now: dict[_Key, tuple[object, Any]] = {}

    def again(self) -> bool:
        """What is not taken from here on until the next time is forgotten then. Whether there is anything."""
        self._before, self._now = self._now, {}
        return bool(self._before)

    def take(self, key: _Key, made_from: object, make: Callable[[], Part]) -> Part:
        """The part as it was, if it was made from the same, or a new one."""
        known = self._now.get(key) or self._before.get(key)
        if known is None or known[0] != made_from:
            known = (made_from, make())
        self._now[key] = known
        part: Part = known[1]
        return part


class Policies:
    """What `replace` was given last, asked for the chain of a place.

    After a change everything is asked for anew; between two changes, places that are new.
    """

    def __init__(
        self,
        settings: MeshSettings,
        wheel: TimerWheel,
        clock: Clock,
        random: Random,
        changed: Callable[[str, Transition], None] = lambda policy, transition: None,
    ) -> None:
        """`changed` is told of each circuit that opens or closes, with its policy's name."""
        self._settings = settings
        self._scope = Scope(settings)
        self._wheel = wheel
        self._clock = clock
        self._random = random
        self._changed = changed
        self._sender = Sender(labels=settings.gateway_labels)
        self._gateway_labels = dict(chain.from_iterable(each.items() for each in settings.gateway_labels.values()))
        self._limiters: ByHost[ASMLocalRateLimiter] = ByHost()
        self._breakers: ByHost[ASMCircuitBreaker] = ByHost()
        self._routes: ByHost[VirtualService] = ByHost()
        self._rules: ByHost[DestinationRule] = ByHost()
        self._quotas: ByHost[tuple[QuotaSchedulingPolicy, QuotaScheduling]] = ByHost()
        self._kept: dict[str, _Kept] = {}
        self._whole = _Kept()

    def __repr__(self) -> str:
        return f"<Policies {len(self)} at {len(self._kept)} places>"

    def __len__(self) -> int:
        every: tuple[Sized, ...] = (
            self._limiters,
            self._breakers,
            self._routes,
            self._rules,
            self._quotas,
        )
        return sum(len(each) for each in every)

    @property
    def quotas(self) -> Sequence[QuotaScheduling]:
        """Those in force, in the order of their names."""
        return [quota for _, quota in self._quotas]

    def replace(self, resources: Iterable[PolicyResource]) -> None:
        """Put these policies in force, in the place of all that were."""
        ordered = sorted(resources, key=_precedence)
        self._limiters = _by_host(each for each in ordered if isinstance(each, ASMLocalRateLimiter))
        self._breakers = _by_host(each for each in ordered if isinstance(each, ASMCircuitBreaker))
        self._routes = _by_host(each for each in ordered if isinstance(each, VirtualService))
        self._rules = _by_host(each for each in ordered if isinstance(each, DestinationRule))
        self._whole.again()
        quotas = [
            (each, self._whole.take((policy_name(each), 0), each.spec, partial(self._quota, each)))
            for each in ordered
            if isinstance(each, QuotaSchedulingPolicy)
        ]
        self._quotas = ByHost((quota, named_hosts(quota[0])) for quota in quotas)
        self._kept = {place: kept for place, kept in self._kept.items() if kept.again() and len(self)}

    def forget(self, place: str) -> None:
        """The route or revision `place` is gone."""
        self._kept.pop(place, None)

    # Chains

    def at_route(self, place: RoutePlace) -> Chain:
        """What a request meets at a route's host before its revision is chosen."""
        if not len(self):
            return NOTHING
        scope, key = self._scope, f"route {place.name}"
        limiters, breakers = self._limiters.at(place.every_host), self._breakers.at(place.every_host)
        limits, limit_events = self._limits(limiters, lambda each, config: scope.means_route(each, config, place))
        circuits, observers, events = self._circuits(
            breakers, lambda each, config: scope.means_route(each, config, place)
        )
        routes = self._http_routes(key, place)
        route_events = routes is not None and any(name.startswith(_EVENT_PREFIX) for name in routes.header_names)
        found = Found(limits, circuits, observers, routes, reads_events=limit_events or events or route_events)
        return build_chain(found, self._wheel)

    def at_revision(self, place: RevisionPlace) -> Chain:
        """What a request meets before a replica of its revision is chosen."""
        if not len(self):
            return NOTHING
        scope, key = self._scope, f"revision {place.namespace}/{place.name}"
        hosts = place.every_host
        limits, limit_events = self._limits(
            self._limiters.at(hosts), lambda each, config: scope.means_revision(each, config, place)
        )
        circuits, observers, events = self._circuits(
            self._breakers.at(hosts), lambda each, config: scope.means_revision(each, config, place)
        )
        quotas = [
            quota.at(selectors)
            for each, quota in self._quotas.at(hosts)
            if (selectors := scope.quota_selectors(each, place))
        ]
        balancing, budget = self._balancing(key, place)
        found = Found(
            limits,
            circuits,
            observers,
            None,
            tuple(quotas),
            balancing,
            budget,
            limit_events or events or any(quota.reads_events for quota in quotas),
        )
        return build_chain(found, self._wheel)

    def _limits(
        self,
        limiters: Iterable[ASMLocalRateLimiter],
        meant: Callable[[ASMLocalRateLimiter, PolicyConfig], str | None],
    ) -> tuple[tuple[Filter, ...], bool]:
        filters: list[Filter] = []
        reads = False
        for policy in limiters:
            name = policy_name(policy)
            for index, config in enumerate(policy.spec.configs):
                place = meant(policy, config)
                if place is not None:
                    make = partial(LocalRateLimit, name, config, stepped=self._settings.stepped_refill)
                    limit = self._keep(place).take((name, index), config, make)
                    filters.extend(OnRoute(limit, route) if route else limit for route in _route_names(config))
                    reads = reads or _reads_events(config)
        return tuple(filters), reads

    def _circuits(
        self,
        breakers: Iterable[ASMCircuitBreaker],
        meant: Callable[[ASMCircuitBreaker, PolicyConfig], str | None],
    ) -> tuple[tuple[Filter, ...], tuple[Observer, ...], bool]:
        filters: list[Filter] = []
        observers: list[Observer] = []
        reads = False
        for policy in breakers:
            name = policy_name(policy)
            for index, config in enumerate(policy.spec.configs):
                place = meant(policy, config)
                if place is not None:
                    breaker = self._keep(place).take(
                        (name, index), config, partial(CircuitBreaker, name, config, partial(self._changed, name))
                    )
                    for route in _route_names(config):
                        filters.append(OnRoute(breaker, route) if route else breaker)
                        observers.append(ObservingOnRoute(breaker, route) if route else breaker)
                    reads = reads or _reads_events(config)
        return tuple(filters), tuple(observers), reads

    def _http_routes(self, key: str, place: RoutePlace) -> HttpRoutes | None:
        found = [
            (precision, each.metadata.namespace != place.namespace, index, each)
            for index, each in enumerate(self._routes.at(place.every_host))
            if (precision := self._scope.route_precision(each, place)) is not None
        ]
        if not found:
            return None
        each = min(found, key=lambda each: each[:3])[3]
        name = policy_name(each)
        make = partial(HttpRoutes, name, each.spec, each.metadata.namespace, self._sender)
        return self._keep(key).take((name, 0), each.spec, make)

    def subset(self, host: str, name: str) -> Subset | None:
        """The subset `name` that a DestinationRule declares for a canonical host."""
        for rule in self._rules:
            if canonical(rule.spec.host, rule.metadata.namespace) == host:
                for each in rule.spec.subsets or ():
                    if each.name == name:
                        return each
        return None

    def _balancing(self, key: str, place: RevisionPlace) -> tuple[Balancing | None, RetryBudget | None]:
        rule = self._rule_of(place)
        if rule is None:
            return None, None
        name = policy_name(rule)
        policy = rule.traffic_policy(place.labels, ports=SERVICE_PORTS)
        make = partial(
            Balancing,
            name,
            policy,
            random=self._random,
            zone=self._settings.zone,
            gateway_labels=self._gateway_labels,
            labels=place.labels,
            capacity=place.capacity,
        )
        balancing = self._keep(key).take((name, 0), (policy, place.capacity), make)
        return balancing, None if policy.retry_budget is None else _retry_budget(policy.retry_budget)

    def _rule_of(self, place: RevisionPlace) -> DestinationRule | None:
        """The one that names the revision most closely; among those its own namespace's."""
        found = [
            (precision, each.metadata.namespace != place.namespace, index, each)
            for index, each in enumerate(self._rules.at(place.every_host))
            if (precision := self._scope.rule_precision(each, place)) is not None
        ]
        return min(found, key=lambda each: each[:3])[3] if found else None

    def _quota(self, policy: QuotaSchedulingPolicy) -> QuotaScheduling:
        return QuotaScheduling(policy_name(policy), policy.spec, self._wheel, self._clock, self._random)

    def _keep(self, place: str) -> _Kept:
        return self._kept.setdefault(place, _Kept())


def _retry_budget(rule: RetryBudgetRule) -> RetryBudget:
    default = RetryBudget()
    percent, least = rule.percent, rule.min_retry_concurrency
    return RetryBudget(
        default.percent if percent is None else percent, default.min_concurrency if least is None else least
    )


def _by_host(policies: Iterable[Policy]) -> ByHost[Policy]:
    return ByHost((policy, named_hosts(policy)) for policy in policies)


def _precedence(resource: PolicyResource) -> tuple[str, str]:
    return (resource.metadata.namespace, resource.metadata.name)


def _route_names(config: PolicyConfig) -> Sequence[str]:
    """The routes that a config is for; an empty name stands for all."""
    sections = [target.section_name or "" for target in config.targets]
    if config.host is not None:
        sections.append(config.route_name or "")
    return ("",) if "" in sections else tuple(dict.fromkeys(sections))


def _reads_events(config: PolicyConfig) -> bool:
    return any(name.startswith(_EVENT_PREFIX) for name in config.header_names)
