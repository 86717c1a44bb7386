"""Where a policy acts: whom its namespace lets it mean, its selector selects and its hosts name.

The operator's namespaces (see `MeshSettings.gateway_labels`) hold policies of the gateway itself: they act on any
route and revision that they name. A policy of another namespace is its tenant's and acts on that namespace's
routes and revisions alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from upwell.functions.api.asm import ASMCircuitBreaker, ASMLocalRateLimiter
from upwell.functions.api.asm_scope import PolicyConfig
from upwell.functions.api.destination_rule import DestinationRule
from upwell.functions.api.policies import PolicyResource
from upwell.functions.api.scheduling import QuotaSchedulingPolicy, Selector
from upwell.functions.api.virtual_service import VirtualService
from upwell.runtime.mesh.naming import ANY, RevisionPlace, RoutePlace, canonical, is_service_port, selects
from upwell.runtime.mesh.settings import MeshSettings


class Scope:
    """Decides by an operator's settings."""

    def __init__(self, settings: MeshSettings) -> None:
        self._settings = settings

    def route_precision(self, policy: VirtualService, place: RoutePlace) -> tuple[int, int] | None:
        """How closely a VirtualService names a route: the smaller the closer, None where it does not. As Envoy
        finds a host's domain: in full, by the longest suffix, by `*`."""
        namespace = policy.metadata.namespace
        if not self._settings.is_operators(namespace) and namespace != place.namespace:
            return None
        named = [host for host in policy.spec.hosts or () if place.is_named(host, namespace)]
        return min(((2 if host == ANY else int("*" in host), -len(host)) for host in named), default=None)

    def rule_precision(self, rule: DestinationRule, place: RevisionPlace) -> int | None:
        """How closely a DestinationRule names a revision: itself, the service that it is one of, by a wildcard."""
        namespace, host = rule.metadata.namespace, rule.spec.host
        operators = self._settings.is_operators(namespace)
        if not operators and namespace != place.namespace:
            return None
        selector = rule.spec.workload_selector
        if selector is not None and not self._is_gateway(selector.match_labels or {}):
            return None
        if place.belongs_to(host, namespace):
            return 1
        if place.is_named(host, namespace):
            return 2 if host.startswith("*") else 0
        return 3 if host == ANY else None

    def means_route(
        self, policy: ASMLocalRateLimiter | ASMCircuitBreaker, config: PolicyConfig, place: RoutePlace
    ) -> str | None:
        """What of a route a limit or a breaker acts on, and counts together; those of the gateway alone do."""
        if not self._is_operators_gateway(policy):
            return None
        meant = (place.meant_by(*each) for each in _hosts(config, policy.metadata.namespace))
        return min((f"route {name}" for name in meant if name is not None), default=None, key=len)

    def means_revision(
        self, policy: ASMLocalRateLimiter | ASMCircuitBreaker, config: PolicyConfig, place: RevisionPlace
    ) -> str | None:
        """The revision, where a limit or a breaker acts on it: the gateway's on one that it names itself, a
        tenant's on what comes in to the workloads that it selects."""
        acts = self._acts_on_revision(policy, config, place)
        return f"revision {place.namespace}/{place.name}" if acts else None

    def _acts_on_revision(
        self, policy: ASMLocalRateLimiter | ASMCircuitBreaker, config: PolicyConfig, place: RevisionPlace
    ) -> bool:
        namespace = policy.metadata.namespace
        hosts = list(_hosts(config, namespace))
        if self._settings.is_operators(namespace):
            return self._is_operators_gateway(policy) and any(place.is_named(*each) for each in hosts)
        if namespace != place.namespace or not selects(policy.spec.labels, place.labels):
            return False
        if policy.spec.apply_to_traffic == "sidecar_outbound":
            return False
        return any(
            host == ANY
            or host.startswith("inbound|")
            or place.is_named(host, seen)
            or place.belongs_to(host, seen)
            for host, seen in hosts
        )

    def quota_selectors(self, policy: QuotaSchedulingPolicy, place: RevisionPlace) -> list[Selector]:
        """Those of its selectors that mean the revision."""
        namespace = policy.metadata.namespace
        if not self._settings.is_operators(namespace) and namespace != place.namespace:
            return []
        return [
            each
            for each in policy.spec.quota_scheduler.selectors
            if each.is_ingress
            and is_service_port(each.port_number)
            and (
                each.host == ANY or place.is_named(each.host, namespace) or place.belongs_to(each.host, namespace)
            )
        ]

    def _is_operators_gateway(self, policy: ASMLocalRateLimiter | ASMCircuitBreaker) -> bool:
        labels = self._settings.gateway_labels.get(policy.metadata.namespace)
        return labels is not None and selects(policy.spec.labels, labels)

    def _is_gateway(self, selector: dict[str, str]) -> bool:
        return any(selects(selector, labels) for labels in self._settings.gateway_labels.values())


def named_hosts(policy: PolicyResource) -> Iterator[str]:
    """The canonical hosts that a policy names, patterns among them: it means no place but by one of these."""
    namespace = policy.metadata.namespace
    named: Iterable[tuple[str, str]] = ()
    if isinstance(policy, (ASMLocalRateLimiter, ASMCircuitBreaker)):
        named = (host for config in policy.spec.configs for host in _hosts(config, namespace))
    elif isinstance(policy, VirtualService):
        named = ((host, namespace) for host in policy.spec.hosts or ())
    elif isinstance(policy, DestinationRule):
        named = ((policy.spec.host, namespace),)
    elif isinstance(policy, QuotaSchedulingPolicy):
        named = ((each.host, namespace) for each in policy.spec.quota_scheduler.selectors)
    return (canonical(*each) for each in named)


def _hosts(config: PolicyConfig, namespace: str) -> Iterator[tuple[str, str]]:
    """The hosts that a config names on a service's port, each with the namespace that it is seen from."""
    if config.host is not None and is_service_port(config.port):
        yield config.host, namespace
    for target in config.targets:
        if is_service_port(target.port):
            yield target.name, target.namespace or namespace
