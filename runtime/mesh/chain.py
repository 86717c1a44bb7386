"""The policies of a place, in the order in which a request meets them.

    the route's host                               the revision that was chosen
    limits → breakers → the route's own rules  →   limits → breakers → quotas → choice of a replica
             (CORS, redirects, faults)

A limit counts what a client sends, so it comes before everything that may answer. Breakers come before quotas: a
request that an open circuit refuses takes nobody's turn. What is refused at one place never reaches the next.
"""

from __future__ import annotations

from dataclasses import dataclass

from upwell.runtime.mesh.http_route import HttpRoutes
from upwell.runtime.mesh.load_balancing import Balancing
from upwell.runtime.mesh.policy import Filter, Observer
from upwell.runtime.mesh.quota_scheduling import QuotaScheduling
from upwell.runtime.mesh.retries import RetryBudget
from upwell.runtime.mesh.route_rules import RouteRules
from upwell.runtime.mesh.workloads import Workloads
from upwell.runtime.timers import TimerWheel


@dataclass(frozen=True, slots=True)
class Found:
    """The policies that act at one place, each kind in the order of their names."""

    limits: tuple[Filter, ...] = ()
    breakers: tuple[Filter, ...] = ()
    observers: tuple[Observer, ...] = ()
    """The breakers again, as those that learn from answers."""
    routes: HttpRoutes | None = None
    quotas: tuple[QuotaScheduling, ...] = ()
    balancing: Balancing | None = None
    retry_budget: RetryBudget | None = None
    reads_events: bool = False


@dataclass(frozen=True, slots=True)
class Chain:
    """What a request meets at one place."""

    filters: tuple[Filter, ...] = ()
    observers: tuple[Observer, ...] = ()
    routes: HttpRoutes | None = None
    balancing: Balancing | None = None
    workloads: Workloads | None = None
    """Whose turn it is among requests that wait for a replica."""
    retry_budget: RetryBudget | None = None
    reads_events: bool = False
    """Whether it matches attributes of events, which may stand in a body."""
    policies: frozenset[str] = frozenset()
    """Names of all that stand in it."""


NOTHING = Chain()


def build_chain(found: Found, wheel: TimerWheel) -> Chain:
    """The one place where the order of policies is decided."""
    rules = () if found.routes is None else (RouteRules(found.routes.policy, wheel),)
    filters: tuple[Filter, ...] = (*found.limits, *found.breakers, *rules, *found.quotas)
    balancing = () if found.balancing is None else (found.balancing.policy,)
    policies = frozenset((*(each.policy for each in filters), *balancing))
    if not policies:
        return NOTHING
    return Chain(
        filters,
        found.observers,
        found.routes,
        found.balancing,
        found.quotas[0].workloads if found.quotas else None,
        found.retry_budget,
        found.reads_events,
        policies,
    )
