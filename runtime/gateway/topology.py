"""What the gateway has counted and where its policies act, as a snapshot that travels.

The counts are those of the metrics page, read at one moment and cumulative; what happens between two moments is
reckoned where it is shown (`upwell.runtime.api.topology`). With thousands of revisions whoever reads gives way to
requests in between, so `read_topology` makes one record at a time and a record is consistent in itself alone.

Light, since commands import it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from upwell.runtime.clock import Clock
    from upwell.runtime.gateway.gateway import RevisionEntry
    from upwell.runtime.gateway.policing import Acting
    from upwell.runtime.gateway.routes import RouteTable, VirtualHost


class Share(NamedTuple):
    """What a route sends to a revision."""

    revision: str
    """`namespace/name`."""
    percent: int
    """Of the requests that this is about."""
    tag: str = ""
    """Of the hosts that it is about; empty for the route's own."""
    path: str = "/"
    """Prefix of the paths that it is about."""
    conditions: tuple[str, ...] = ()
    """`name: value` of fields that a request must have for it."""


class Refused(NamedTuple):
    """Requests that a policy answered in the place of a replica."""

    policy: str
    """`KIND NAMESPACE/NAME`."""
    cause: str
    requests: int


class Ejected(NamedTuple):
    """A replica that is out of use."""

    replica: str
    reason: str
    policy: str


@dataclass(frozen=True, slots=True)
class GatewayRecord:
    """The gateway itself."""

    at: float
    """Unix seconds."""
    monotonic: float
    """Seconds of the machine's other clock, by which rates are reckoned."""
    unrouted: int
    """Requests that no revision got."""


@dataclass(frozen=True, slots=True)
class RouteRecord:
    """A route: the hosts that it answers to, and which revisions get how much of its requests."""

    name: str
    """`namespace/name`."""
    hosts: tuple[str, ...]
    """Without those of tags: the ones that anybody may ask, or the private ones where there are no others."""
    shares: tuple[Share, ...]
    policies: tuple[tuple[str, str], ...]
    """Those that act before a revision is chosen: the tag on whose hosts, and the name."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RouteRecord:
        """As it came."""
        shares = (Share(**{**each, "conditions": tuple(each["conditions"])}) for each in data["shares"])
        policies = tuple((tag, policy) for tag, policy in data["policies"])
        return cls(data["name"], tuple(data["hosts"]), tuple(shares), policies)


@dataclass(frozen=True, slots=True)
class RevisionRecord:
    """A revision: what became of its requests, and how its replicas stand."""

    name: str
    """`namespace/name`."""
    outcomes: Mapping[str, int]
    """Requests that are over, by what became of them: succeeded, limited, broken, failed, left."""
    refusals: tuple[Refused, ...]
    seconds: float
    """That these requests took, all together."""
    ready: int
    """Replicas that serve, those that are ejected among them."""
    ejected: tuple[Ejected, ...]
    waiting: int
    in_flight: int
    policies: tuple[str, ...]
    """Those that act once it is chosen."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RevisionRecord:
        """As it came."""
        told = {
            "refusals": tuple(Refused(**each) for each in data["refusals"]),
            "ejected": tuple(Ejected(**each) for each in data["ejected"]),
            "policies": tuple(data["policies"]),
        }
        return cls(**{**data, **told})


Record = GatewayRecord | RouteRecord | RevisionRecord


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything, as it was about one moment."""

    gateway: GatewayRecord
    routes: tuple[RouteRecord, ...]
    revisions: tuple[RevisionRecord, ...]

    @classmethod
    def of(cls, records: Iterable[Record]) -> Snapshot:
        """Of all records of one reading."""
        gateway, *others = records
        assert isinstance(gateway, GatewayRecord)
        routes = tuple(each for each in others if isinstance(each, RouteRecord))
        return cls(gateway, routes, tuple(each for each in others if isinstance(each, RevisionRecord)))

    @classmethod
    def from_lines(cls, lines: Iterable[Mapping[str, Any]]) -> Snapshot:
        """Of the lines that `to_line` made."""
        return cls.of(_record(line) for line in lines)

    def within(self, namespace: str) -> Snapshot:
        """What belongs to one namespace. Requests that no route matched belong to none."""
        prefix = f"{namespace}/"
        routes = tuple(each for each in self.routes if each.name.startswith(prefix))
        revisions = tuple(each for each in self.revisions if each.name.startswith(prefix))
        gateway = GatewayRecord(self.gateway.at, self.gateway.monotonic, 0)
        return Snapshot(gateway, routes, revisions)


class Policing(Protocol):
    """Who knows what acts on a virtual host."""

    def acting(self, vhost: VirtualHost, /) -> Acting | None:
        """None where nothing does."""
        ...


class Watched(Protocol):
    """The gateway, as far as it is read."""

    @property
    def routes(self) -> RouteTable:
        """Its routes."""
        ...

    @property
    def revisions(self) -> Mapping[str, RevisionEntry]:
        """All that it keeps of revisions, by `namespace/name`."""
        ...

    @property
    def unrouted(self) -> int:
        """Requests that no revision got."""
        ...

    @property
    def policing(self) -> Policing:
        """Its policies."""
        ...


def read_topology(gateway: Watched, clock: Clock) -> Iterator[Record]:
    """The gateway, then every route, then every revision, each read when it is asked for."""
    yield GatewayRecord(clock.now(), clock.monotonic(), gateway.unrouted)
    by_name: dict[str, list[VirtualHost]] = {}
    for vhost in gateway.routes.vhosts:
        by_name.setdefault(vhost.name, []).append(vhost)
    for name, vhosts in sorted(by_name.items()):
        yield _route(name, vhosts, gateway.policing)
    for revision, entry in sorted(gateway.revisions.items()):
        yield _revision(revision, entry)


def to_line(record: Record) -> dict[str, Any]:
    """As it travels: its kind, and its fields by name."""
    told = {each.name: getattr(record, each.name) for each in fields(record)}
    if isinstance(record, GatewayRecord):
        return {"gateway": told}
    if isinstance(record, RouteRecord):
        return {"route": {**told, "shares": [each._asdict() for each in record.shares]}}
    refusals, ejected = ([each._asdict() for each in of] for of in (record.refusals, record.ejected))
    return {"revision": {**told, "refusals": refusals, "ejected": ejected}}


def _record(line: Mapping[str, Any]) -> Record:
    if "gateway" in line:
        return GatewayRecord(**line["gateway"])
    if "route" in line:
        return RouteRecord.from_json(line["route"])
    return RevisionRecord.from_json(line["revision"])


def _route(name: str, vhosts: Iterable[VirtualHost], policing: Policing) -> RouteRecord:
    hosts: dict[bool, list[str]] = {False: [], True: []}
    shares: dict[Share, None] = {}
    policies: set[tuple[str, str]] = set()
    for vhost in vhosts:
        if not vhost.tag:
            hosts[vhost.is_private].extend(vhost.hosts)
        shares.update(dict.fromkeys(_shares(vhost)))
        acting = policing.acting(vhost)
        if acting is not None:
            policies.update((vhost.tag, policy) for policy in acting.chain.policies)
    return RouteRecord(name, tuple(hosts[False] or hosts[True]), tuple(shares), tuple(sorted(policies)))


def _shares(vhost: VirtualHost) -> Iterator[Share]:
    for rule in vhost.rules:
        path = rule.path.decode("utf-8", "replace")
        conditions = tuple(b": ".join(each).decode("utf-8", "replace") for each in rule.headers)
        percents: dict[str, int] = {}
        for target in rule.targets:
            percents[target.revision] = percents.get(target.revision, 0) + target.percent
        for revision, percent in percents.items():
            yield Share(revision, percent, vhost.tag, path, conditions)


def _revision(name: str, entry: RevisionEntry) -> RevisionRecord:
    counters, activator, balancing = entry.counters, entry.activator, entry.chain.balancing
    standing = activator.statistics()
    out = {} if balancing is None else balancing.ejected()
    policy = "" if balancing is None else balancing.policy
    names = [backend.name for backend in activator.backends if backend.name in out]
    return RevisionRecord(
        name,
        dict(counters.outcomes),
        tuple(Refused(*key, count) for key, count in counters.refusals.items()),
        counters.seconds,
        standing.backends,
        tuple(Ejected(replica, out[replica].reason, policy) for replica in names),
        standing.waiting,
        standing.in_flight,
        tuple(sorted(entry.chain.policies)),
    )
