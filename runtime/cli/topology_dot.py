"""A topology as DOT, for Graphviz and what reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from upwell.runtime.api.topology import OUTCOMES, UNROUTED, Edge, Flow, Node, Topology
from upwell.runtime.charts.svg import FORBIDDEN
from upwell.runtime.cli.topology_words import in_order, mean, rate, replicas, shares

WIDEST: Final = 8.0
FAILING: Final = "#d55e00"
REFUSING: Final = "#e69f00"
FINE: Final = "#009e73"
IDLE: Final = "#9aa3b2"


def dot(shown: Topology) -> str:
    """One digraph, with a cluster for each route."""
    return "\n".join(["digraph topology {", *(f"  {line}" for line in _lines(shown)), "}", ""])


def _lines(shown: Topology) -> Iterator[str]:
    yield 'rankdir="LR"; node [shape="box", style="rounded", fontname="sans-serif"]; edge [fontname="sans-serif"];'
    clusters: dict[str, list[Node]] = {}
    for node in sorted(shown.nodes, key=in_order):
        if node.home:
            clusters.setdefault(node.home, []).append(node)
        else:
            yield _node(node)
    for number, (route, nodes) in enumerate(clusters.items()):
        yield f"subgraph cluster_{number} {{"
        yield f'  label={_quoted(route)}; style="rounded"; fontname="sans-serif";'
        yield from (f"  {_node(node)}" for node in nodes)
        yield "}"
    most = max((edge.flow.rate for edge in shown.edges), default=0.0)
    yield from (_edge(edge, most) for edge in shown.edges)


def _node(node: Node) -> str:
    said = [node.name]
    if node.record is not None:
        said += [shares(node, of=node.home)] if node.home else []
        said.append(f"{replicas(node)} ready")
    return f"{_quoted(node.id)} [label={_label(said)}];"


def _edge(edge: Edge, most: float) -> str:
    flow = edge.flow
    said = [f"{rate(flow.rate)}/s"]
    said += [f"{rate(flow.rates[name])} {name}" for name in OUTCOMES if name in flow.rates]
    said += [f"{mean(flow.mean_seconds)} ms"] if flow.mean_seconds is not None else []
    said += [f"{rate(each.rate)} by {each.policy}" for each in flow.refusing if each.rate > 0]
    width = 1 + (WIDEST - 1) * flow.rate / most if most > 0 else 1.0
    style = "solid" if flow.rate else "dashed"
    looks = f'color="{_color(flow)}", penwidth="{width:.2f}", style="{style}"'
    return f"{_quoted(edge.source)} -> {_quoted(edge.target)} [label={_label(said)}, {looks}];"


def _color(flow: Flow) -> str:
    """By the worst of what came."""
    if flow.rates.keys() & {"failed", "broken"}:
        return FAILING
    if flow.rates.keys() & {"limited", UNROUTED}:
        return REFUSING
    return FINE if flow.rate else IDLE


def _label(lines: list[str]) -> str:
    return '"' + "\\n".join(_escaped(line) for line in lines) + '"'


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    """Inside a string of DOT: nothing ends it, begins an escape, or breaks the line."""
    printable = FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", " ".join(text.splitlines()))
    return printable.replace("\\", "\\\\").replace('"', '\\"')
