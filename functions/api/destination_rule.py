"""`networking.istio.io` DestinationRule: what happens to a request between its route and a replica.

`traffic_policy` has the parts; this module has the object, which of its policies holds for a revision, and what
to warn of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, ClassVar, Final, Self

from pydantic import Field, field_validator, model_validator

from upwell.functions.api.durations import seconds
from upwell.functions.api.meta import Model, invalid
from upwell.functions.api.policies import PolicyResource
from upwell.functions.api.traffic_policy import (
    DEFAULT_MAX_EJECTION_PERCENT,
    ConnectionPool,
    LoadBalancer,
    OutlierDetection,
    PolicyParts,
    TrafficPolicy,
)

LONGEST_IDLE_SECONDS: Final = 30.0
"""A connection to a replica that nobody uses is closed then at the latest, before the replica may close it."""


class Subset(Model):
    """Some of a service's revisions, by their labels."""

    name: Annotated[str, Field(min_length=1)]
    labels: dict[str, str] | None = None
    traffic_policy: TrafficPolicy | None = None

    def has(self, labels: Mapping[str, str]) -> bool:
        """Whether what carries `labels` belongs to it; all do when it asks for none."""
        return all(labels.get(name) == value for name, value in (self.labels or {}).items())


class WorkloadSelector(Model):
    """Whose requests the rule is for: the gateway's, by its labels."""

    match_labels: dict[str, str] | None = None

    @field_validator("match_labels")
    @classmethod
    def _check_labels(cls, labels: dict[str, str] | None) -> dict[str, str] | None:
        for name, value in (labels or {}).items():
            if not name or "*" in name or "*" in value:
                raise invalid("a label must have a name, and neither it nor its value a wildcard", name)
        return labels


class DestinationRuleSpec(Model):
    """Which service, and what holds for requests to it."""

    host: Annotated[str, Field(min_length=1)]
    traffic_policy: TrafficPolicy | None = None
    subsets: list[Subset] | None = None
    export_to: list[str] | None = None
    workload_selector: WorkloadSelector | None = None

    @model_validator(mode="after")
    def _check_subsets(self) -> Self:
        names = [subset.name for subset in self.subsets or ()]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise invalid(f"{name!r} is the name of two subsets", "subsets", index, "name")
        return self


class DestinationRule(PolicyResource):
    """The object."""

    VERSIONS: ClassVar[tuple[str, ...]] = (
        "networking.istio.io/v1",
        "networking.istio.io/v1beta1",
        "networking.istio.io/v1alpha3",
    )
    KIND: ClassVar[str] = "DestinationRule"

    spec: DestinationRuleSpec

    def traffic_policy(
        self, labels: Mapping[str, str], *, ports: Collection[int] = (), subset: str | None = None
    ) -> TrafficPolicy:
        """What holds for requests to a revision with `labels`, which is reached at `ports`.

        `subset` is the one that a route named; without, it is the first whose labels the revision carries, since
        Knative's own routes name none.
        """
        policy = self.spec.traffic_policy or TrafficPolicy.model_construct()
        found = self._subset(labels, subset)
        if found is not None and found.traffic_policy is not None:
            policy = policy.overridden_by(found.traffic_policy)
        return policy.for_ports(ports)

    def _subset(self, labels: Mapping[str, str], name: str | None) -> Subset | None:
        subsets = self.spec.subsets or ()
        if name is not None:
            return next((each for each in subsets if each.name == name), None)
        return next((each for each in subsets if each.labels and each.has(labels)), None)

    def warnings(self) -> list[str]:
        """Deprecated fields, and fields that have no effect here or in this combination."""
        found = []
        for place, parts in self._parts():
            found += [f"{place}.{text}" for text in _part_warnings(parts)]
        for index, subset in enumerate(self.spec.subsets or ()):
            if not subset.labels:
                found.append(f"spec.subsets[{index}]: without labels it is met only by a route that names it")
        return found

    def _parts(self) -> Iterator[tuple[str, PolicyParts]]:
        policies = [("spec.trafficPolicy", self.spec.traffic_policy)]
        for index, subset in enumerate(self.spec.subsets or ()):
            policies.append((f"spec.subsets[{index}].trafficPolicy", subset.traffic_policy))
        for place, policy in policies:
            if policy is not None:
                yield place, policy
                for index, each in enumerate(policy.port_level_settings or ()):
                    yield f"{place}.portLevelSettings[{index}]", each


def _part_warnings(parts: PolicyParts) -> Iterator[str]:
    if parts.outlier_detection is not None:
        yield from (f"outlierDetection{text}" for text in _outlier_warnings(parts.outlier_detection))
    if parts.load_balancer is not None:
        texts = _balancer_warnings(parts.load_balancer, parts.outlier_detection)
        yield from (f"loadBalancer.{text}" for text in texts)
    if parts.connection_pool is not None:
        yield from (f"connectionPool.{text}" for text in _pool_warnings(parts.connection_pool))
    if parts.tls is not None and parts.tls.mode not in (None, "DISABLE"):
        yield "tls: sets nothing, since replicas are reached within the platform"
    if isinstance(parts, TrafficPolicy):
        if parts.tunnel is not None:
            yield "tunnel: sets nothing, since it is for TCP routes alone"
        if parts.proxy_protocol is not None:
            yield "proxyProtocol: sets nothing; replicas are told the client in Forwarded and X-Forwarded-For"


def _outlier_warnings(outlier: OutlierDetection) -> Iterator[str]:
    if outlier.consecutive_errors and outlier.uses_old_count:
        yield (
            ".consecutiveErrors: deprecated, and Istio does not read it any more; it counts 502, 503 and 504 in a "
            f"row. Write consecutiveGatewayErrors: {outlier.consecutive_errors} with consecutive5xxErrors: 0 for "
            f"the same, or consecutive5xxErrors: {outlier.consecutive_errors} to count every 5xx"
        )
    elif outlier.consecutive_errors:
        yield ".consecutiveErrors: deprecated; sets nothing beside consecutiveGatewayErrors, consecutive5xxErrors"
    if not (outlier.server_errors or outlier.gateway_errors or outlier.local_failures):
        yield ": every way of finding an outlier is off, so no replica is ever ejected"
    if outlier.server_errors and outlier.gateway_errors >= outlier.server_errors:
        yield f".consecutiveGatewayErrors: sets nothing: {outlier.server_errors} consecutive5xxErrors come first"
    fewest = -(-100 // outlier.most_ejected_percent)
    if fewest > 1:
        given = outlier.max_ejection_percent or f"unset, so {DEFAULT_MAX_EJECTION_PERCENT}"
        yield f".maxEjectionPercent: {given}; as in Envoy, of fewer than {fewest} replicas none is ever ejected"


def _balancer_warnings(balancer: LoadBalancer, outlier: OutlierDetection | None) -> Iterator[str]:
    if balancer.simple == "LEAST_CONN":
        yield "simple: LEAST_CONN is deprecated; write LEAST_REQUEST, which it stands for"
    elif balancer.simple == "PASSTHROUGH":
        yield "simple: PASSTHROUGH leaves the choice to Knative's own rule, since clients name no replica here"
    warms = balancer.simple not in ("RANDOM", "PASSTHROUGH") and balancer.consistent_hash is None
    for field in ("warmup", "warmup_duration_secs"):
        if getattr(balancer, field) is not None and not warms:
            yield "warmup: sets nothing but with ROUND_ROBIN or LEAST_REQUEST"
    if balancer.warmup_duration_secs is not None:
        yield f"warmupDurationSecs: deprecated; write warmup.duration: {balancer.warmup_duration_secs}"
    if balancer.consistent_hash is not None and balancer.consistent_hash.minimum_ring_size:
        yield "consistentHash.minimumRingSize: deprecated; write consistentHash.ringHash.minimumRingSize"
    locality = balancer.locality_lb_setting
    if locality is not None and locality.enabled is not False and not locality.distribute and outlier is None:
        yield "localityLbSetting: sets nothing without outlierDetection, since failover needs it"


def _pool_warnings(pool: ConnectionPool) -> Iterator[str]:
    tcp, http = pool.tcp, pool.http
    if tcp is not None and tcp.tcp_keepalive is not None:
        yield "tcp.tcpKeepalive: sets nothing, since replicas are reached within the platform"
    idle = (http and http.idle_timeout) or (tcp and tcp.idle_timeout)
    if idle and not 0 < seconds(idle) <= LONGEST_IDLE_SECONDS:
        place = "http" if http and http.idle_timeout else "tcp"
        yield f"{place}.idleTimeout: {idle}; idle connections are closed after {LONGEST_IDLE_SECONDS:g} s anyway"
    if http is None:
        return
    if http.h2_upgrade_policy == "UPGRADE" or http.use_client_protocol:
        field = "useClientProtocol" if http.use_client_protocol else "h2UpgradePolicy"
        yield f"http.{field}: sets nothing, since replicas are spoken to in HTTP/1.1"
    if http.max_concurrent_streams:
        yield "http.maxConcurrentStreams: sets nothing, since replicas are spoken to in HTTP/1.1"
