"""The page of `upwell topology --html`: the graph, and all of it in tables for those who do not see the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from upwell.runtime.api.topology import CLIENT, GATEWAY, OUTCOMES, UNROUTED, Edge, Flow, Node, NodeKind, Topology
from upwell.runtime.charts import graph
from upwell.runtime.charts.graph import Graph, Group, Link, Stripe
from upwell.runtime.charts.model import Color
from upwell.runtime.charts.page import Figure, Figures, Section, Table, render
from upwell.runtime.cli.topology_words import (
    headings,
    in_order,
    in_reading_order,
    mean,
    outcomes_of,
    percent,
    rate,
    row,
    shares,
)
from upwell.runtime.gateway.topology import RevisionRecord

MOST_ROUTES: Final = 40
"""In the picture: those with the most requests. The tables hold all."""
NO_ROUTE: Final = "no route"
COLORS: Final[Mapping[str, Color]] = {
    "succeeded": Color.GREEN,
    "limited": Color.ORANGE,
    "broken": Color.VERMILION,
    "failed": Color.PURPLE,
    "left": Color.GREY,
    UNROUTED: Color.SKY,
}
_POLICIES: Final = ("policy", "acts at", "answered", "a second", "in all")
_EJECTED: Final = ("replica", "revision", "why it is out", "policy")


def page(shown: Topology, refresh: int | None) -> str:
    """The whole page, to be loaded again after `refresh` seconds."""
    at = datetime.fromtimestamp(shown.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    lead = f"What flowed from clients to revisions in {shown.seconds:.1f} s up to {at}, and what became of it."
    return render("Topology", lead, [*_sections(shown)], refresh=refresh)


def _sections(shown: Topology) -> Iterator[Section]:
    drawn, left_out = _busiest(shown)
    said = f"{left_out} more routes with fewer requests are in the tables below." if left_out else ""
    yield Section("Traffic", (_graph(drawn), _figures(shown.whole.flow)), said)
    caption = "Requests a second by what became of them, and how many there were since the counting began"
    outcomes = outcomes_of(shown)
    rows = [row(edge, node, outcomes) for edge, node in in_reading_order(shown)]
    yield Section("Edges", (Table(caption, headings(outcomes), rows, text_columns=3),))
    if shown.routes:
        yield Section("Routes", (_routes(shown),))
    policies = [*_policies(shown)]
    if policies:
        yield Section("Policies", (Table("Policies on the way, and what they answered", _POLICIES, policies, 3),))
    ejected = [*_ejected(shown)]
    if ejected:
        yield Section("Replicas out of use", (Table("Replicas that a rule took out", _EJECTED, ejected, 4),))


def _busiest(shown: Topology) -> tuple[Topology, int]:
    """What is drawn, and how many routes are left out of it."""
    rates: dict[str, float] = {}
    for node in shown.nodes:
        if node.kind is NodeKind.REVISION:
            rates[node.home] = rates.get(node.home, 0.0) + shown.to(node.id).flow.rate
    chosen = set(sorted(rates, key=lambda home: (-rates[home], home))[:MOST_ROUTES])
    nodes = tuple(node for node in shown.nodes if node.kind is not NodeKind.REVISION or node.home in chosen)
    known = {node.id for node in nodes}
    edges = tuple(edge for edge in shown.edges if edge.target in known)
    return Topology(shown.at, shown.seconds, nodes, edges, shown.routes), len(rates) - len(chosen)


def _figures(flow: Flow) -> Figures:
    whole = flow.rate
    names = [name for name in OUTCOMES if name != "left"]
    figures = [
        Figure(name, percent(flow.rates.get(name, 0.0), whole), f"{rate(flow.rates.get(name, 0.0))} a second")
        for name in names
    ]
    took = flow.mean_seconds
    remark = "" if took is None else f"{mean(took)} ms each, on average"
    return Figures((Figure("requests a second", rate(whole), remark), *figures))


def _graph(shown: Topology) -> Graph:
    homes = sorted({node.home for node in shown.nodes if node.kind is NodeKind.REVISION}, key=_last_if_empty)
    kinds = [*NodeKind]
    nodes = sorted(shown.nodes, key=lambda node: (kinds.index(node.kind), in_order(node)))
    flow = shown.whole.flow
    return Graph(
        "Requests from client to revision",
        f"{rate(flow.rate)} requests a second come to the gateway, {_parts(flow)}. They go on to "
        f"{len(nodes) - 2} revisions of {len(homes)} routes; the table of edges has every number.",
        tuple(_node(node, shown) for node in nodes),
        tuple(_link(edge) for edge in shown.edges),
        tuple(_group(home, shown) for home in homes),
        tuple((name, COLORS[name]) for name in outcomes_of(shown)),
        "A ribbon is as thick as its share of the requests.",
    )


def _last_if_empty(home: str) -> tuple[bool, str]:
    return not home, home


def _parts(flow: Flow) -> str:
    said = [f"{rate(flow.rates[name])} {name}" for name in OUTCOMES if name in flow.rates]
    return ", ".join(said) or "none at present"


def _group(home: str, shown: Topology) -> Group:
    found = next((route for route in shown.routes if route.name == home), None)
    if found is None:
        return Group(home or NO_ROUTE, home or NO_ROUTE)
    acting = [policy if not tag else f"{policy} (tag {tag})" for tag, policy in found.policies]
    hosts = found.hosts[0] if found.hosts else ""
    hint = "\n".join([found.name, *found.hosts, *acting])
    return Group(home, found.name, (*([hosts] if hosts else []), *acting), hint)


def _node(node: Node, shown: Topology) -> graph.Node:
    column = [*NodeKind].index(node.kind)
    flow = shown.whole.flow
    if node.record is not None:
        return _revision(node, node.record, shown.to(node.id).flow, column)
    if node.kind is NodeKind.CLIENT:
        return graph.Node(node.id, "clients", column, (f"{rate(flow.rate)}/s",))
    took, unrouted = flow.mean_seconds, flow.rates.get(UNROUTED, 0.0)
    lines = [] if took is None else [f"{mean(took)} ms"]
    return graph.Node(
        node.id, "gateway", column, (*lines, *([f"{rate(unrouted)}/s unrouted"] if unrouted else []))
    )


def _revision(node: Node, record: RevisionRecord, flow: Flow, column: int) -> graph.Node:
    took = flow.mean_seconds
    standing = [_ready(record), *([] if took is None else [f"{mean(took)} ms"])]
    counts = (("waiting", record.waiting), ("in flight", record.in_flight))
    standing += [f"{count} {name}" for name, count in counts if count]
    refusing = [each for each in flow.refusing if each.rate > 0]
    idle = [policy for policy in record.policies if policy not in {each.policy for each in refusing}]
    reasons = (f"{each.replica}: {each.reason}" for each in record.ejected)
    return graph.Node(
        node.id,
        node.name.partition("/")[2],
        column,
        lines=(" · ".join(standing), *idle),
        alerts=(
            *(f"{rate(each.rate)}/s {each.cause} by {each.policy}" for each in refusing),
            *(f"{each.replica} is out" for each in record.ejected),
        ),
        badge=shares(node, of=node.home),
        stripes=_stripes(flow),
        group=node.home or NO_ROUTE,
        hint="\n".join([node.name, shares(node), *reasons]),
    )


def _ready(record: RevisionRecord) -> str:
    return f"{record.ready} {'replica' if record.ready == 1 else 'replicas'}"


def _link(edge: Edge) -> Link:
    names = {CLIENT: "client", GATEWAY: "gateway"}
    ends = [names.get(each, each.partition(" ")[2]) for each in (edge.source, edge.target)]
    hint = f"{ends[0]} → {ends[1]}: {rate(edge.flow.rate)} requests a second, {_parts(edge.flow)}"
    return Link(edge.source, edge.target, _stripes(edge.flow), f"{rate(edge.flow.rate)}/s", hint)


def _stripes(flow: Flow) -> tuple[Stripe, ...]:
    return tuple(Stripe(flow.rates.get(name, 0.0), COLORS[name]) for name in OUTCOMES)


def _routes(shown: Topology) -> Table:
    split: dict[str, list[str]] = {}
    for node in shown.nodes:
        for route in dict.fromkeys(each.route for each in node.routes):
            split.setdefault(route, []).append(f"{node.name.partition('/')[2]}: {shares(node, of=route)}")
    rows = [(each.name, ", ".join(each.hosts), "; ".join(split.get(each.name, ()))) for each in shown.routes]
    return Table("Routes, their hosts and how they split", ("route", "hosts", "split"), rows, 3)


def _policies(shown: Topology) -> Iterator[tuple[str, ...]]:
    places: dict[str, dict[str, None]] = {}
    for acting in (each for edge in shown.edges for each in edge.policies):
        places.setdefault(acting.policy, {})[acting.place] = None
    refusing = shown.whole.flow.refusing
    for each in refusing:
        places.setdefault(each.policy, {})
    for policy, where in sorted(places.items()):
        answered = [each for each in refusing if each.policy == policy]
        for each in answered:
            yield policy, ", ".join(where), each.cause, rate(each.rate), f"{each.total:,}"
        if not answered:
            yield policy, ", ".join(where), "nothing", rate(0.0), "0"


def _ejected(shown: Topology) -> Iterator[tuple[str, ...]]:
    for node in shown.nodes:
        for each in node.record.ejected if node.record else ():
            yield each.replica, node.name, each.reason, each.policy
