"""Chooses a replica for a request: DestinationRule's loadBalancer, among the shares of `locality`.

One `Balancing` a revision and rule. For each request it takes a share by its percentage, and of the share's
replicas that have room one by the rule's algorithm; a share without room is spilled over into the next, so a
request waits only when no share has any. Room is a free slot below containerConcurrency. Without one a replica
still counts as full for spilling at `capacity` requests, and takes more once all are.

Algorithms are Envoy's: ROUND_ROBIN, LEAST_REQUEST (the better of two taken at random), RANDOM, a ring or Maglev
table by a hash of the request. A rule that names none leaves the choice to Knative's own (pkg/activator/net),
which is the better of two without containerConcurrency, as Istio's default is. A young replica in its warm-up
gets less, unless it is the oldest of its zone: nobody else could take its part there.

State: what a spread is made of, ejections, and a credit for each replica while one warms up; all bounded by the
replicas there are. Times are monotonic seconds, those of `Host.ready_at` included.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from upwell.functions.api.durations import seconds
from upwell.functions.api.traffic_policy import ConsistentHash, HttpCookie, LoadBalancer, TrafficPolicy
from upwell.runtime.mesh.connection_pool import ConnectionLimits
from upwell.runtime.mesh.consistent_hash import HashTable, MaglevTable, Ring, hash_of
from upwell.runtime.mesh.locality import H, Host, Locality, Placement, Share, Spread, Standpoint
from upwell.runtime.mesh.outlier_detection import Ejection, OutlierDetector, OutlierRule
from upwell.runtime.mesh.policy import Cause, Refusal
from upwell.runtime.mesh.request import PolicyRequest

FIRST_AVAILABLE_LIMIT: Final = 3
"""Knative takes the first replica with a free slot up to this containerConcurrency, and round robin above."""
DEFAULT_MINIMUM_PERCENT: Final = 10.0
"""Envoy's slow start begins with this part of a replica's weight."""
UNHEALTHY_BODY: Final = b"no healthy upstream"


class Algorithm(enum.Enum):
    """How one of several replicas with room is chosen."""

    KNATIVE = "knative"
    ROUND_ROBIN = "ROUND_ROBIN"
    LEAST_REQUEST = "LEAST_REQUEST"
    RANDOM = "RANDOM"
    HASH = "consistentHash"


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Envoy's slow start."""

    seconds: float
    minimum: float = DEFAULT_MINIMUM_PERCENT / 100
    aggression: float = 1.0

    def factor(self, age: float) -> float:
        """The part of its weight that a replica has at `age` seconds, from `minimum` to 1."""
        if age >= self.seconds:
            return 1.0
        elapsed = max(age, 0.001) / self.seconds
        return max(self.minimum, float(elapsed ** (1 / self.aggression)))


class Balancing:
    """Which replica of one revision a request goes to, by one DestinationRule."""

    def __init__(
        self,
        policy: str,
        settings: TrafficPolicy,
        *,
        random: Callable[[], float],
        zone: str = "",
        gateway_labels: Mapping[str, str] = MappingProxyType({}),
        labels: Mapping[str, str] = MappingProxyType({}),
        capacity: int = 0,
    ) -> None:
        """`policy` is `KIND NAMESPACE/NAME` of the rule, `settings` what of it holds for the revision, whose
        replicas carry `labels`. `zone` is the gateway's own locality, `REGION/ZONE`. `capacity` is how many
        requests a replica without containerConcurrency should have before another zone helps out, 0 for any."""
        balancer = settings.load_balancer or LoadBalancer()
        outlier = settings.outlier_detection
        rule = None if outlier is None else OutlierRule.of(outlier)
        standpoint = Standpoint(Locality.read(zone), gateway_labels)
        self.policy = policy
        self.connections = ConnectionLimits.of(policy, settings.connection_pool)
        self.algorithm = _algorithm(balancer)
        self._placement = Placement(rule, balancer.locality_lb_setting, standpoint, labels)
        self._detector = None if rule is None else OutlierDetector(rule)
        self._warm_up = _warm_up(balancer, self.algorithm)
        self._hashing = None if balancer.consistent_hash is None else _Hashing(balancer.consistent_hash)
        self._capacity = capacity
        self._random = random
        self._members: tuple[Any, ...] | None = None
        self._names: set[str] = set()
        self._spread: Spread[Any] = Spread((), "there is no replica")
        self._oldest: dict[tuple[str, str], float] = {}
        self._warm_until = 0.0
        self._credits: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Balancing {self.policy} {self.algorithm.value}: {self._spread.reason}>"

    # Choosing

    def pick(
        self,
        hosts: Sequence[H],
        concurrency: int,
        rotation: int,
        request: PolicyRequest | None,
        now: float,
        tried: Collection[str] = (),
    ) -> H | None:
        """The replica for a request, or None when none has room and it should wait.

        `hosts` are all that are ready, ejected ones among them; `concurrency` is containerConcurrency (0: none),
        `rotation` a counter that grows with each pick; `tried` names those that another is to be preferred to.
        None too when all are ejected: see `unhealthy`.
        """
        if self._members != tuple(hosts):
            self._renew(hosts)
        shares = self._spread.shares
        if not shares:
            return None
        key = self._hashing.key(request) if self._hashing is not None and request is not None else None
        found: H | None
        if tried:
            others: tuple[Share[H], ...] = tuple(each.without(tried) for each in shares)
            found = self._pick_share(others, concurrency, rotation, key, now)
            if found is not None:
                return found
        if len(shares) == 1:
            found = self._choose(shares[0], concurrency, concurrency, rotation, key, now)
        else:
            found = self._pick_share(shares, concurrency, rotation, key, now)
        return found

    def _pick_share(
        self, shares: tuple[Share[H], ...], concurrency: int, rotation: int, key: int | None, now: float
    ) -> H | None:
        first = _share_at(shares, self._random() * 100 if key is None else key % 100)
        limits = (concurrency,) if concurrency or not self._capacity else (self._capacity, 0)
        for limit in limits:
            found = self._choose(first, concurrency, limit, rotation, key, now)
            if found is not None:
                return found
            for share in shares:
                if share is not first:
                    found = self._choose(share, concurrency, limit, rotation, key, now)
                    if found is not None:
                        return found
        return None

    def _choose(
        self, share: Share[H], concurrency: int, limit: int, rotation: int, key: int | None, now: float
    ) -> H | None:
        """One of a share's replicas with fewer than `limit` requests (0: any number)."""
        if len(share.hosts) == 1 and not self.connections.max_connections:
            only = share.hosts[0]
            return only if not only.suspensions and (not limit or only.in_flight < limit) else None
        if limit:
            free = [host for host in share.hosts if host.in_flight < limit and not host.suspensions]
        else:
            free = [host for host in share.hosts if not host.suspensions]
        if self.connections.max_connections and free:
            free = self._connectable(free)
        if len(free) < 2:
            return free[0] if free else None
        if now < self._warm_until and self._warm_up is not None:
            return self._by_credit(free, self._warm_up, now)
        if key is not None and self._hashing is not None:
            return self._hashing.pick([host.name for host in self._members or ()], free, key)
        return self._by_algorithm(free, concurrency, rotation)

    def _by_algorithm(self, free: list[H], concurrency: int, rotation: int) -> H:
        algorithm = self.algorithm
        if algorithm is Algorithm.KNATIVE and 0 < concurrency <= FIRST_AVAILABLE_LIMIT:
            return free[0]
        if algorithm is Algorithm.ROUND_ROBIN or (algorithm is Algorithm.KNATIVE and concurrency):
            return free[rotation % len(free)]
        if algorithm is Algorithm.RANDOM or algorithm is Algorithm.HASH:
            return free[int(self._random() * len(free))]
        return self._better_of_two(free)

    def _connectable(self, free: list[H]) -> list[H]:
        under_way = sum(host.in_flight for host in self._members or ())
        if under_way < self.connections.max_connections:
            return free
        return [host for host in free if host.in_flight == 0]

    def _better_of_two(self, free: list[H]) -> H:
        count = len(free)
        first = int(self._random() * count)
        second = first + 1 + int(self._random() * (count - 1))
        one, other = free[first], free[second - count if second >= count else second]
        return one if one.in_flight <= other.in_flight else other

    def _by_credit(self, free: list[H], warm_up: WarmUp, now: float) -> H:
        """Smooth weighted round robin: each gains its weight, the richest is taken and pays for all."""
        credits, total, chosen = self._credits, 0.0, free[0]
        for host in free:
            weight = 1.0
            if host.ready_at > self._oldest[_zone(host.locality)]:
                weight = warm_up.factor(now - host.ready_at)
            if self.algorithm is Algorithm.LEAST_REQUEST:
                weight /= host.in_flight + 1
            credits[host.name] = credits.get(host.name, 0.0) + weight
            total += weight
            if credits[host.name] > credits[chosen.name]:
                chosen = host
        credits[chosen.name] -= total
        return chosen

    def _renew(self, hosts: Sequence[H]) -> None:
        self._members = members = tuple(hosts)
        self._names = {host.name for host in members}
        self._spread = self._placement.spread(members, self._detector.ejected if self._detector else ())
        if self._warm_up is not None:
            self._oldest = {}
            for host in members:
                zone = _zone(host.locality)
                self._oldest[zone] = min(self._oldest.get(zone, host.ready_at), host.ready_at)
            young = (host.ready_at for host in members if host.ready_at > self._oldest[_zone(host.locality)])
            self._warm_until = max(young, default=-self._warm_up.seconds) + self._warm_up.seconds
            self._credits.clear()

    def spread(self, hosts: Sequence[H]) -> Spread[H]:
        """How the traffic is spread now, with the reason, for those who ask why."""
        if self._members != tuple(hosts):
            self._renew(hosts)
        return self._spread

    @property
    def gives_cookies(self) -> bool:
        """Whether requests that bring no cookie are given one."""
        return self._hashing is not None

    def set_cookie(self, request: PolicyRequest) -> tuple[bytes, bytes] | None:
        """The field to add to the answer of a request that brought no cookie, where the rule gives it one."""
        return None if self._hashing is None else self._hashing.set_cookie(request)

    # Outliers

    def unhealthy(self, hosts: Sequence[Host]) -> bool:
        """Whether every replica is ejected and the rule says that requests fail then (`no_healthy_replica`)."""
        return bool(hosts) and self.spread(hosts).is_unhealthy

    def no_healthy_replica(self) -> Refusal:
        """Envoy's answer where every replica is out."""
        headers = [(b"content-type", b"text/plain")]
        return Refusal(self.policy, Cause.BROKEN, "UH", self._spread.reason, 503, headers, UNHEALTHY_BODY)

    def answered(self, name: str, status: int | None, local_origin_failure: bool, now: float) -> Ejection | None:
        """Count the answer of a replica, or that it gave none (`local_origin_failure`, with the status that the
        client was told). What was decided if it is an outlier now; it is out only if the record says `enforced`.
        Answers of replicas that are gone count for nothing."""
        if self._detector is None or name not in self._names:
            return None
        found = self._detector.answered(name, status, local_origin_failure, len(self._names), now)
        if found is not None and found.enforced:
            self._members = None
        return found

    @property
    def sweep_interval(self) -> float | None:
        """Seconds between calls of `sweep`; None when there is nothing to sweep."""
        return None if self._detector is None else self._detector.rule.interval

    @property
    def has_outliers(self) -> bool:
        """Whether sweeps have something to do."""
        return self._detector is not None and not self._detector.is_idle

    def sweep(self, now: float) -> list[str]:
        """The replicas that are back from now on: waiting requests may be tried again."""
        back = self._detector.sweep(now) if self._detector else []
        if back:
            self._members = None
        return back

    def ejected(self) -> Mapping[str, Ejection]:
        """The replicas that are out, by name, each with the reason."""
        return {} if self._detector is None else dict(self._detector.ejected)

    def forget(self, name: str) -> None:
        """The replica is gone."""
        if self._detector is not None:
            self._detector.forget(name)
        self._credits.pop(name, None)
        self._names.discard(name)
        self._members = None


class _Hashing:
    """The part of a request that decides, and the table for the replicas there are."""

    __slots__ = ("_names", "_rule", "_table")

    def __init__(self, rule: ConsistentHash) -> None:
        self._rule = rule
        self._names: list[str] = []
        self._table: HashTable = Ring((), 0)

    def key(self, request: PolicyRequest) -> int | None:
        """None for a request without what is hashed: any replica will do."""
        rule = self._rule
        text: str | None = None
        if rule.http_header_name is not None:
            text = ",".join(request.values(rule.http_header_name.lower())) or None
        elif rule.http_cookie is not None:
            text = self._cookie(rule.http_cookie, request)
        elif rule.http_query_parameter_name is not None:
            text = request.query.get(rule.http_query_parameter_name)
        elif rule.use_source_ip:
            text = request.client or None
        return None if text is None else hash_of(text)

    def _cookie(self, cookie: HttpCookie, request: PolicyRequest) -> str | None:
        brought = _cookie_of(request, cookie.name)
        return _new_value(request) if not brought and cookie.ttl is not None else brought

    def set_cookie(self, request: PolicyRequest) -> tuple[bytes, bytes] | None:
        cookie = self._rule.http_cookie
        if cookie is None or cookie.ttl is None or _cookie_of(request, cookie.name):
            return None
        parts = [f'{cookie.name}="{_new_value(request)}"']
        if seconds(cookie.ttl) >= 1:
            parts.append(f"Max-Age={int(seconds(cookie.ttl))}")
        if cookie.path:
            parts.append(f"Path={cookie.path}")
        return b"set-cookie", "; ".join((*parts, "HttpOnly")).encode("latin-1", "replace")

    def pick(self, names: list[str], free: Sequence[H], key: int) -> H:
        if names != self._names:
            self._names, self._table = names, self._new_table(names)
        by_name = {host.name: host for host in free}
        return next(by_name[name] for name in self._table.walk(key) if name in by_name)

    def _new_table(self, names: Sequence[str]) -> HashTable:
        if self._rule.maglev is not None:
            return MaglevTable(names, self._rule.maglev.table_size)
        return Ring(names, self._rule.ring_size)


def _share_at(shares: tuple[Share[H], ...], percent: float) -> Share[H]:
    for share in shares:
        percent -= share.percent
        if percent < 0:
            return share
    return shares[0]


def _algorithm(balancer: LoadBalancer) -> Algorithm:
    if balancer.consistent_hash is not None:
        return Algorithm.HASH
    if balancer.simple in ("ROUND_ROBIN", "RANDOM"):
        return Algorithm(balancer.simple)
    if balancer.simple in ("LEAST_REQUEST", "LEAST_CONN"):
        return Algorithm.LEAST_REQUEST
    warms = balancer.warmup is not None or balancer.warmup_duration_secs is not None
    return Algorithm.LEAST_REQUEST if warms and balancer.simple != "PASSTHROUGH" else Algorithm.KNATIVE


def _warm_up(balancer: LoadBalancer, algorithm: Algorithm) -> WarmUp | None:
    if algorithm not in (Algorithm.ROUND_ROBIN, Algorithm.LEAST_REQUEST):
        return None
    warmup = balancer.warmup
    if warmup is None:
        duration = balancer.warmup_duration_secs
        return None if duration is None else WarmUp(seconds(duration))
    percent = DEFAULT_MINIMUM_PERCENT if warmup.minimum_percent is None else warmup.minimum_percent
    return WarmUp(seconds(warmup.duration), percent / 100, warmup.aggression or 1.0)


def _zone(locality: str) -> tuple[str, str]:
    place = Locality.read(locality)
    return place.region, place.zone


def _cookie_of(request: PolicyRequest, name: str) -> str | None:
    for pair in ";".join(request.values("cookie")).split(";"):
        found, equals, value = pair.strip().partition("=")
        if equals and found == name:
            return value.strip('"') or None
    return None


def _new_value(request: PolicyRequest) -> str:
    """The same for every request of a connection until its client brings the cookie back."""
    return f"{hash_of(f'{request.client}|{id(request.connection)}'):016x}"
