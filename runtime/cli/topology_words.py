"""How rates, shares and standings of a topology read, in tables, on the page and in DOT."""

from __future__ import annotations

from collections.abc import Sequence

from upwell.runtime.api.topology import CLIENT, OUTCOMES, Edge, Node, Topology
from upwell.runtime.gateway.topology import Share


def rate(value: float) -> str:
    """Requests a second, with as many digits as tell something."""
    if value == 0:
        return "0"
    if value < 0.01:
        return "< 0.01"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def percent(value: float, whole: float) -> str:
    """A share; a small one is not none, and a large one not all."""
    if whole <= 0:
        return "none"
    share = value / whole
    if 0 < share < 0.001:
        return "< 0.1%"
    return "> 99.9%" if 0.999 < share < 1 else f"{share:.1%}".replace(".0%", "%")


def mean(seconds: float | None) -> str:
    """In milliseconds."""
    if seconds is None:
        return ""
    value = seconds * 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def replicas(node: Node) -> str:
    """How many serve, and how many of these are out."""
    record = node.record
    if record is None:
        return ""
    return f"{record.ready}, {len(record.ejected)} out" if record.ejected else str(record.ready)


def shares(node: Node, of: str | None = None) -> str:
    """What a route, or each of them, sends to a revision, such as `90%` or `10%, tag next`."""
    if of is None:
        return "; ".join(
            f"{shares(node, each)} of {each}" for each in dict.fromkeys(one.route for one in node.routes)
        )
    return ", ".join(_share(each.share) for each in node.routes if each.route == of)


def _share(share: Share) -> str:
    said = [f"{share.percent}%"]
    if share.tag:
        said = [f"tag {share.tag}"] if share.percent == 100 else [f"{share.percent}% of tag {share.tag}"]
    if share.path != "/":
        said.append(f"below {share.path}")
    if share.conditions:
        said.append(f"with {' and '.join(share.conditions)}")
    return " ".join(said)


def in_order(node: Node) -> tuple[bool, str, int, str]:
    """By kind of place, route, share and name: those of no route last."""
    main = sum(each.share.percent for each in node.routes if each.route == node.home and not each.share.tag)
    return not node.home, node.home, -main, node.name


def outcomes_of(topology: Topology) -> tuple[str, ...]:
    """The four that are told always, and what else ever came."""
    totals = topology.whole.flow.totals
    return tuple(name for name in OUTCOMES if name in OUTCOMES[:4] or totals.get(name))


def headings(outcomes: Sequence[str]) -> tuple[str, ...]:
    """Of the cells that `row` makes."""
    return ("from", "to", "ready", "a second", *outcomes, "mean ms", "in all")


def in_reading_order(topology: Topology) -> list[tuple[Edge, Node]]:
    """Each edge and where it leads: first into the gateway, then to the revisions, those of a route together."""
    nodes = {node.id: node for node in topology.nodes}
    found = [(edge, nodes[edge.target]) for edge in topology.edges]
    return sorted(found, key=lambda each: (each[0].source != CLIENT, in_order(each[1])))


def row(edge: Edge, node: Node, outcomes: Sequence[str]) -> tuple[str, ...]:
    """The cells below `headings` of an edge, which leads to `node`; the first three are text."""
    flow = edge.flow
    return (
        edge.source.partition(" ")[2] or edge.source,
        node.name,
        replicas(node),
        rate(flow.rate),
        *(rate(flow.rates.get(name, 0.0)) for name in outcomes),
        mean(flow.mean_seconds),
        f"{flow.total:,}",
    )
