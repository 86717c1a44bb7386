"""What a DestinationRule says of a service, a subset or a port: Istio's TrafficPolicy and its parts.

Fields, defaults and validation are Istio's (istio/api networking/v1alpha3, pilot's validation), but for
`consecutiveErrors`: today's Istio does not read it any more, here it keeps its old meaning. Numbers with a default
are read through properties, so that a manifest prints as it was given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from upwell.functions.api.durations import Duration, PositiveDuration, seconds
from upwell.functions.api.meta import Model, invalid

REGION_LABEL: Final = "topology.kubernetes.io/region"
ZONE_LABEL: Final = "topology.kubernetes.io/zone"
SUBZONE_LABEL: Final = "topology.istio.io/subzone"

DEFAULT_MAX_EJECTION_PERCENT: Final = 10
DEFAULT_CONSECUTIVE_ERRORS: Final = 5
DEFAULT_INTERVAL_SECONDS: Final = 10.0
DEFAULT_EJECTION_SECONDS: Final = 30.0
DEFAULT_RING_SIZE: Final = 1024
LARGEST_MAGLEV_TABLE: Final = 5_000_011

Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
UnsignedCount = Annotated[int, Field(ge=0, le=2**32 - 1)]
Percent = Annotated[int, Field(ge=0, le=100)]
Port = Annotated[int, Field(ge=1, le=65535)]


class OutlierDetection(Model):
    """When a replica is taken out, for how long, and how many may be."""

    consecutive_errors: Count | None = None
    split_external_local_origin_errors: bool | None = None
    consecutive_local_origin_failures: UnsignedCount | None = None
    consecutive_gateway_errors: UnsignedCount | None = None
    consecutive_5xx_errors: UnsignedCount | None = Field(default=None, alias="consecutive5xxErrors")
    interval: PositiveDuration | None = None
    base_ejection_time: PositiveDuration | None = None
    max_ejection_percent: Percent | None = None
    min_health_percent: Percent | None = None
    outlier_detection_http_error_codes: list[Annotated[int, Field(ge=100, le=599)]] | None = None

    @model_validator(mode="after")
    def _check_split(self) -> Self:
        if self.consecutive_local_origin_failures and not self.split_external_local_origin_errors:
            raise invalid(
                "counts only with splitExternalLocalOriginErrors: true; add it, or leave this out",
                "consecutiveLocalOriginFailures",
            )
        return self

    @property
    def uses_old_count(self) -> bool:
        """Whether `consecutiveErrors` counts: it is set and neither of the fields that replaced it is."""
        current = (self.consecutive_gateway_errors, self.consecutive_5xx_errors)
        return bool(self.consecutive_errors) and current == (None, None)

    @property
    def server_errors(self) -> int:
        """5xx in a row that eject; 0 for never."""
        if self.uses_old_count:
            return 0
        given = self.consecutive_5xx_errors
        return DEFAULT_CONSECUTIVE_ERRORS if given is None else given

    @property
    def gateway_errors(self) -> int:
        """502, 503 and 504 in a row that eject; 0 for never."""
        if self.uses_old_count:
            return self.consecutive_errors or 0
        return self.consecutive_gateway_errors or 0

    @property
    def local_failures(self) -> int:
        """Failures to reach it in a row that eject, where they are counted apart; 0 for never."""
        if not self.split_external_local_origin_errors:
            return 0
        given = self.consecutive_local_origin_failures
        return DEFAULT_CONSECUTIVE_ERRORS if given is None else given

    @property
    def interval_seconds(self) -> float:
        """Between two sweeps."""
        return DEFAULT_INTERVAL_SECONDS if self.interval is None else seconds(self.interval)

    @property
    def base_ejection_seconds(self) -> float:
        """Of a first ejection."""
        return DEFAULT_EJECTION_SECONDS if self.base_ejection_time is None else seconds(self.base_ejection_time)

    @property
    def most_ejected_percent(self) -> int:
        """Of the replicas; unset and 0 are Envoy's default."""
        return self.max_ejection_percent or DEFAULT_MAX_EJECTION_PERCENT


class HttpCookie(Model):
    """A cookie whose value is hashed; with `ttl` one is given to a client that brings none."""

    name: Annotated[str, Field(min_length=1)]
    path: str | None = None
    ttl: Duration | None = None


class RingHash(Model):
    """Ketama's ring."""

    minimum_ring_size: Count | None = None


class Maglev(Model):
    """Maglev's table."""

    table_size: int | None = None

    @field_validator("table_size")
    @classmethod
    def _check_table_size(cls, size: int | None) -> int | None:
        if size is not None and not (2 < size < LARGEST_MAGLEV_TABLE and _is_prime(size)):
            raise invalid(f"must be a prime number below {LARGEST_MAGLEV_TABLE}, not {size}")
        return size


class ConsistentHash(Model):
    """What of a request decides its replica, and by which table."""

    http_header_name: str | None = None
    http_cookie: HttpCookie | None = None
    use_source_ip: bool | None = None
    http_query_parameter_name: str | None = None
    ring_hash: RingHash | None = None
    maglev: Maglev | None = None
    minimum_ring_size: Count | None = None

    @model_validator(mode="after")
    def _check_choices(self) -> Self:
        keys = {
            "httpHeaderName": self.http_header_name,
            "httpCookie": self.http_cookie,
            "useSourceIp": self.use_source_ip,
            "httpQueryParameterName": self.http_query_parameter_name,
        }
        _check_one_at_most(keys)
        if all(value is None for value in keys.values()):
            raise invalid(f"needs one of {', '.join(keys)}")
        tables = {"ringHash": self.ring_hash, "maglev": self.maglev}
        _check_one_at_most({**tables, "minimumRingSize": self.minimum_ring_size or None})
        return self

    @property
    def ring_size(self) -> int:
        """Points on the ring, at least."""
        given = self.ring_hash.minimum_ring_size if self.ring_hash else self.minimum_ring_size
        return given or DEFAULT_RING_SIZE


class Warmup(Model):
    """How a young replica comes to its full share."""

    duration: PositiveDuration
    minimum_percent: Annotated[float, Field(ge=0, le=100)] | None = None
    aggression: Annotated[float, Field(ge=1)] | None = None


class Distribute(Model):
    """Shares of the traffic that comes from one locality."""

    from_: str = Field(alias="from")
    to: dict[str, Annotated[int, Field(ge=1, le=100)]]

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if sum(self.to.values()) != 100:
            raise invalid(f"weights must be 100 together, not {sum(self.to.values())}", "to")
        _check_localities(self.to, "to")
        return self


class Failover(Model):
    """Where the traffic of a region goes when its own replicas are out."""

    from_: str = Field(alias="from")
    to: str

    @model_validator(mode="after")
    def _check_regions(self) -> Self:
        if self.from_ == self.to:
            raise invalid("must be another region than `from`", "to")
        for field, region in (("from", self.from_), ("to", self.to)):
            if "/" in region or "*" in region:
                raise invalid(f"{region!r} must be a region alone", field)
        return self


class LocalityLbSetting(Model):
    """Which localities are preferred."""

    distribute: list[Distribute] | None = None
    failover: list[Failover] | None = None
    failover_priority: list[str] | None = None
    enabled: bool | None = None

    @model_validator(mode="after")
    def _check_choice(self) -> Self:
        if self.distribute and (self.failover or self.failover_priority):
            other = "failover" if self.failover else "failoverPriority"
            raise invalid("cannot stand beside distribute; leave one of them out", other)
        topology = {REGION_LABEL, ZONE_LABEL, SUBZONE_LABEL}
        for index, label in enumerate(self.failover_priority or ()):
            if self.failover and label in topology:
                raise invalid(f"{label} cannot stand beside failover", "failoverPriority", index)
        _check_localities((each.from_ for each in self.distribute or ()), "distribute")
        return self


Simple = Literal["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"]


class LoadBalancer(Model):
    """Which of the replicas that may be chosen is."""

    simple: Simple | None = None
    consistent_hash: ConsistentHash | None = None
    locality_lb_setting: LocalityLbSetting | None = None
    warmup_duration_secs: PositiveDuration | None = None
    warmup: Warmup | None = None

    @model_validator(mode="after")
    def _check_choice(self) -> Self:
        _check_one_at_most({"simple": self.simple, "consistentHash": self.consistent_hash})
        return self


class TcpKeepalive(Model):
    """Probes of an idle connection."""

    probes: UnsignedCount | None = None
    time: PositiveDuration | None = None
    interval: PositiveDuration | None = None


class TcpSettings(Model):
    """Limits of connections to replicas; 0 is no limit."""

    max_connections: Count | None = None
    connect_timeout: PositiveDuration | None = None
    tcp_keepalive: TcpKeepalive | None = None
    max_connection_duration: PositiveDuration | None = None
    idle_timeout: Duration | None = None


class HttpSettings(Model):
    """Limits of requests to replicas; 0 is no limit."""

    http1_max_pending_requests: Count | None = Field(default=None, alias="http1MaxPendingRequests")
    http2_max_requests: Count | None = Field(default=None, alias="http2MaxRequests")
    max_requests_per_connection: Annotated[int, Field(ge=0, le=2**29)] | None = None
    max_retries: Count | None = None
    idle_timeout: PositiveDuration | None = None
    h2_upgrade_policy: Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"] | None = Field(
        default=None, alias="h2UpgradePolicy"
    )
    use_client_protocol: bool | None = None
    max_concurrent_streams: Count | None = None

    @model_validator(mode="after")
    def _check_protocol(self) -> Self:
        if self.h2_upgrade_policy == "UPGRADE" and self.use_client_protocol:
            raise invalid("cannot be true with h2UpgradePolicy: UPGRADE", "useClientProtocol")
        return self


class ConnectionPool(Model):
    """Limits of what may be under way to a service at once."""

    tcp: TcpSettings | None = None
    http: HttpSettings | None = None

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        if self.tcp is None and self.http is None:
            raise invalid("needs tcp or http")
        return self


class ClientTls(Model):
    """How connections to replicas would be secured; replicas are reached within the platform here."""

    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] | None = None
    client_certificate: str | None = None
    private_key: str | None = None
    ca_certificates: str | None = None
    ca_crl: str | None = None
    credential_name: str | None = None
    subject_alt_names: list[str] | None = None
    sni: str | None = None
    insecure_skip_verify: bool | None = None


class PortSelector(Model):
    """A port of the service."""

    number: Port


class PolicyParts(Model):
    """What a policy and its parts for one port have in common."""

    load_balancer: LoadBalancer | None = None
    connection_pool: ConnectionPool | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTls | None = None


class PortTrafficPolicy(PolicyParts):
    """What holds for one port in the place of all that is said for the others."""

    port: PortSelector

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        if not any((self.load_balancer, self.connection_pool, self.outlier_detection, self.tls)):
            raise invalid("needs one of loadBalancer, connectionPool, outlierDetection, tls")
        return self


class RetryBudget(Model):
    """How many of the requests under way may be repetitions."""

    percent: Annotated[float, Field(ge=0, le=100)] | None = None
    min_retry_concurrency: UnsignedCount | None = None


class Tunnel(Model):
    """How TCP would be carried on; HTTP routes have no use for it."""

    protocol: Literal["CONNECT", "POST"] | None = None
    target_host: str
    target_port: Port


class ProxyProtocol(Model):
    """The version of the PROXY header that replicas would be sent."""

    version: Literal["V1", "V2"] | None = None


class TrafficPolicy(PolicyParts):
    """What holds for all ports but those that have settings of their own."""

    port_level_settings: Annotated[list[PortTrafficPolicy], Field(max_length=4096)] | None = None
    tunnel: Tunnel | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        if not any(value is not None for value in self.__dict__.values()):
            raise invalid("needs one field at least, such as loadBalancer or outlierDetection")
        if self.tunnel is not None and self.proxy_protocol is not None:
            raise invalid("cannot stand beside tunnel", "proxyProtocol")
        return self

    def for_ports(self, ports: Collection[int]) -> TrafficPolicy:
        """What holds for a service that is reached at `ports`: the settings for one of them alone, where there are
        any (the first, of several); else what is said for all."""
        for each in self.port_level_settings or ():
            if each.port.number in ports:
                parts = {name: getattr(each, name) for name in PolicyParts.model_fields}
                return TrafficPolicy.model_construct(**parts)
        return self

    def overridden_by(self, other: TrafficPolicy) -> TrafficPolicy:
        """A subset's policy: its own parts, and these where it has none."""
        own = {name: value for name, value in other.__dict__.items() if value is not None}
        return TrafficPolicy.model_construct(**{**self.__dict__, **own})


def _check_one_at_most(choices: Mapping[str, Any]) -> None:
    given = [name for name, value in choices.items() if value is not None]
    if len(given) > 1:
        raise invalid(f"cannot stand beside {given[0]}; leave one of them out", given[1])


def _check_localities(localities: Iterable[str], *path: str) -> None:
    """Each is `region/zone/subzone` or a beginning of it, perhaps with `*` at its end; no two overlap."""
    seen: list[tuple[str, ...]] = []
    for locality in localities:
        parts = tuple(locality.split("/", 2))
        if "*" in locality.removesuffix("*") or not all(parts):
            raise invalid(f"{locality!r} must be like region/zone/subzone, with `*` at its end at most", *path)
        stem = parts[:-1] if parts[-1] == "*" else parts
        if any(stem[: len(other)] == other or other[: len(stem)] == stem for other in seen):
            raise invalid(f"{locality!r} overlaps one before it", *path)
        seen.append(stem)


def _is_prime(number: int) -> bool:
    return number % 2 == 1 and all(number % factor for factor in range(3, int(number**0.5) + 1, 2))
