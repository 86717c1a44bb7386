"""How requests flow, from client to revision, and what becomes of them: rates between two snapshots.

    client ──→ gateway ──→ revision            each arrow a `Flow`: totals, rates, the policies that refused

Pure. A counter only grows while what it belongs to lives, so one that has fallen began anew, and all that it
shows came since; so has all of a revision that was not there before. What is gone at the second snapshot is left
out. The rates of the arrow into the gateway are the sum of those out of it, and of the requests that no revision
got: a revision that is removed takes its counts along, and a difference of sums would be off by these.

The kinds of nodes stand in the order in which a request passes them; brokers and triggers will stand between the
gateway and the revisions.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from upwell.runtime.gateway.topology import Refused, RevisionRecord, RouteRecord, Share, Snapshot

UNROUTED: Final = "unrouted"
OUTCOMES: Final = ("succeeded", "limited", "broken", "failed", "left", UNROUTED)
"""What becomes of requests, in the order in which it is shown."""
CLIENT: Final = "client"
GATEWAY: Final = "gateway"


class NodeKind(enum.StrEnum):
    """What a node is; from left to right."""

    CLIENT = CLIENT
    GATEWAY = GATEWAY
    REVISION = "revision"


class Refusing(NamedTuple):
    """A policy that answered in the place of a replica."""

    policy: str
    cause: str
    total: int
    rate: float


class Acting(NamedTuple):
    """A policy and where it acts."""

    policy: str
    place: str
    """`route NAMESPACE/NAME`, with `:TAG` for the hosts of a tag, or `revision NAMESPACE/NAME`."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Requests that went one way."""

    totals: Mapping[str, int]
    """By outcome, since the counting began; an outcome that never came is not there."""
    rates: Mapping[str, float]
    """Requests a second by outcome, of the time between the snapshots; one that did not come then is not there."""
    refusing: tuple[Refusing, ...] = ()
    spent: float = 0.0
    """Seconds that requests which ended took, a second."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return sum(self.rates.values())

    @property
    def total(self) -> int:
        """Requests since the counting began."""
        return sum(self.totals.values())

    @property
    def mean_seconds(self) -> float | None:
        """That a request took which a revision got; None when there was none."""
        counted = self.rate - self.rates.get(UNROUTED, 0.0)
        return self.spent / counted if counted > 0 else None


class RouteShare(NamedTuple):
    """What one route sends to a revision."""

    route: str
    share: Share


@dataclass(frozen=True, slots=True)
class Node:
    """Where requests come from or go to."""

    id: str
    kind: NodeKind
    name: str
    """`namespace/name` of a revision."""
    routes: tuple[RouteShare, ...] = ()
    record: RevisionRecord | None = None
    """How a revision stands."""

    @property
    def home(self) -> str:
        """The route that it is shown with: that which sends it most. Empty for none."""
        if not self.routes:
            return ""
        return min(self.routes, key=lambda each: (bool(each.share.tag), -each.share.percent, each.route)).route


@dataclass(frozen=True, slots=True)
class Edge:
    """Requests from one node to another."""

    source: str
    target: str
    flow: Flow
    policies: tuple[Acting, ...] = ()
    """Those that act on the way, whether they refused anything or not."""


@dataclass(frozen=True, slots=True)
class Topology:
    """All of it."""

    at: float
    """Unix seconds, of the later snapshot."""
    seconds: float
    """Between the two snapshots."""
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    routes: tuple[RouteRecord, ...]

    @property
    def whole(self) -> Edge:
        """From the client to the gateway."""
        return self.edges[0]

    def to(self, node: str) -> Edge:
        """The edge that leads to a node. Raises StopIteration when there is none."""
        return next(edge for edge in self.edges if edge.target == node)

    def active(self) -> Topology:
        """Without the revisions that no route leads to, that have no replica and got no request meanwhile."""
        idle = {node.id for node in self.nodes if _is_idle(node)} - {
            edge.target for edge in self.edges if edge.flow.rate > 0
        }
        nodes = tuple(node for node in self.nodes if node.id not in idle)
        edges = tuple(edge for edge in self.edges if edge.target not in idle)
        return Topology(self.at, self.seconds, nodes, edges, self.routes)

    def to_json(self) -> dict[str, Any]:
        """As `-o json` prints it; the time in RFC 3339."""
        return {
            "at": datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "interval_seconds": self.seconds,
            "nodes": [_node_json(node) for node in self.nodes],
            "routes": [
                {
                    "name": route.name,
                    "hosts": list(route.hosts),
                    "policies": [_acting(route, tag, policy)._asdict() for tag, policy in route.policies],
                }
                for route in self.routes
            ],
            "edges": [_edge_json(edge) for edge in self.edges],
        }


def topology(before: Snapshot, after: Snapshot) -> Topology:
    """What flowed between two snapshots of one platform, and how it stands at the second.

    Where no time lies between them nothing has flowed.
    """
    seconds = max(0.0, after.gateway.monotonic - before.gateway.monotonic)
    earlier = {each.name: each for each in before.revisions}
    routes: dict[str, list[RouteShare]] = {}
    acting: dict[str, list[Acting]] = {}
    for route in after.routes:
        _place(route, routes, acting)
    nodes = [Node(CLIENT, NodeKind.CLIENT, CLIENT), Node(GATEWAY, NodeKind.GATEWAY, GATEWAY)]
    edges: list[Edge] = []
    for each in after.revisions:
        node = Node(_id(each.name), NodeKind.REVISION, each.name, tuple(routes.get(each.name, ())), each)
        own = (Acting(policy, node.id) for policy in each.policies)
        nodes.append(node)
        flow = flow_between(earlier.get(each.name), each, seconds)
        edges.append(Edge(GATEWAY, node.id, flow, (*acting.get(each.name, ()), *own)))
    unrouted = _unrouted(before.gateway.unrouted, after.gateway.unrouted, seconds)
    whole = Edge(CLIENT, GATEWAY, together([unrouted, *(edge.flow for edge in edges)]))
    return Topology(after.gateway.at, seconds, tuple(nodes), (whole, *edges), after.routes)


def flow_between(before: RevisionRecord | None, after: RevisionRecord, seconds: float) -> Flow:
    """Of the requests to one revision."""
    if before is not None and _began_anew(before, after):
        before = None
    counted = {} if before is None else before.outcomes
    refused = _by_key(() if before is None else before.refusals)
    refusing = [
        Refusing(each.policy, each.cause, each.requests, _rate(refused.get(each[:2], 0), each.requests, seconds))
        for each in after.refusals
    ]
    return Flow(
        after.outcomes,
        {
            name: _rate(counted.get(name, 0), count, seconds)
            for name, count in after.outcomes.items()
            if seconds > 0 and count > counted.get(name, 0)
        },
        tuple(refusing),
        _rate(0.0 if before is None else before.seconds, after.seconds, seconds),
    )


def together(flows: Iterable[Flow]) -> Flow:
    """The sum of flows."""
    totals: dict[str, int] = {}
    rates: dict[str, float] = {}
    refusing: dict[tuple[str, str], Refusing] = {}
    spent = 0.0
    for flow in flows:
        spent += flow.spent
        for name, count in flow.totals.items():
            totals[name] = totals.get(name, 0) + count
        for name, rate in flow.rates.items():
            rates[name] = rates.get(name, 0.0) + rate
        for each in flow.refusing:
            known = refusing.get((each.policy, each.cause), Refusing(each.policy, each.cause, 0, 0.0))
            summed = known._replace(total=known.total + each.total, rate=known.rate + each.rate)
            refusing[each.policy, each.cause] = summed
    return Flow(totals, rates, tuple(refusing[key] for key in sorted(refusing)), spent)


def _began_anew(before: RevisionRecord, after: RevisionRecord) -> bool:
    """Whether any counter has fallen: they are all of one age."""
    refused = _by_key(after.refusals)
    return (
        any(after.outcomes.get(name, 0) < count for name, count in before.outcomes.items())
        or any(refused.get(key, 0) < count for key, count in _by_key(before.refusals).items())
        or after.seconds < before.seconds
    )


def _by_key(refusals: Iterable[Refused]) -> dict[tuple[str, str], int]:
    return {(each.policy, each.cause): each.requests for each in refusals}


def _rate(before: float, after: float, seconds: float) -> float:
    return (after - before) / seconds if seconds > 0 else 0.0


def _unrouted(before: int, after: int, seconds: float) -> Flow:
    rate = _rate(before if before <= after else 0, after, seconds)
    return Flow({UNROUTED: after} if after else {}, {UNROUTED: rate} if rate else {})


def _place(route: RouteRecord, routes: dict[str, list[RouteShare]], acting: dict[str, list[Acting]]) -> None:
    """Note what a route means to its revisions: their shares, and the policies that act on the way."""
    for share in _told(route.shares):
        routes.setdefault(share.revision, []).append(RouteShare(route.name, share))
    tags: dict[str, set[str]] = {}
    for share in route.shares:
        tags.setdefault(share.revision, set()).add(share.tag)
    for revision, through in tags.items():
        found = (_acting(route, tag, policy) for tag, policy in route.policies if tag in through)
        acting.setdefault(revision, []).extend(found)


def _told(shares: Iterable[Share]) -> list[Share]:
    """Without those on condition of a field where the revision has others: they are what a tag's header does."""
    plain = {each.revision for each in shares if not each.conditions}
    return [each for each in shares if not each.conditions or each.revision not in plain]


def _acting(route: RouteRecord, tag: str, policy: str) -> Acting:
    return Acting(policy, f"route {route.name}{':' + tag if tag else ''}")


def _id(revision: str) -> str:
    return f"{NodeKind.REVISION} {revision}"


def _is_idle(node: Node) -> bool:
    record = node.record
    if record is None or node.routes:
        return False
    return not (record.ready or record.waiting or record.in_flight)


def _node_json(node: Node) -> dict[str, Any]:
    told: dict[str, Any] = {"id": node.id, "kind": node.kind.value, "name": node.name}
    if node.record is not None:
        namespace, _, name = node.name.partition("/")
        told |= {"namespace": namespace, "name": name}
        told["routes"] = [{"route": each.route, **each.share._asdict()} for each in node.routes]
        told["replicas"] = {
            "ready": node.record.ready,
            "ejected": [each._asdict() for each in node.record.ejected],
        }
        told |= {"waiting": node.record.waiting, "in_flight": node.record.in_flight}
    return told


def _edge_json(edge: Edge) -> dict[str, Any]:
    flow = edge.flow
    outcomes = OUTCOMES if edge.source == CLIENT else OUTCOMES[:-1]
    return {
        "source": edge.source,
        "target": edge.target,
        "rate": flow.rate,
        "rates": {name: flow.rates.get(name, 0.0) for name in outcomes},
        "total": flow.total,
        "totals": {name: flow.totals.get(name, 0) for name in outcomes},
        "mean_seconds": flow.mean_seconds,
        "policies": [each._asdict() for each in edge.policies],
        "refusals": [each._asdict() for each in flow.refusing],
    }
