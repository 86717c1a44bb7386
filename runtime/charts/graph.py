"""A graph that is read from left to right, as SVG: nodes in columns, groups around them, ribbons between them.

A ribbon is as thick as what flows there, each stripe of it as thick as its part; what is there at all can be seen,
however little. Thickness is in proportion to the thickest ribbon of the picture. A link with nothing on it is a
dashed line. Nodes stand in the order given, those of one group one after the other. Equal graphs give equal text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from upwell.runtime.charts.model import Color
from upwell.runtime.charts.shapes import text_width
from upwell.runtime.charts.svg import NAMESPACE, escape

THICKEST: Final = 52.0
THINNEST: Final = 2.0
"""Of a stripe with anything in it."""
LEAST_WIDTH: Final = 960.0
MARGIN: Final = 1.0
SMALL: Final = 132.0
"""Width of a node in any column but the last."""
LARGE: Final = 356.0
INSET: Final = 12.0
"""From a group's border to its nodes."""
LEAST_GAP: Final = 120.0
"""Between columns."""
LEGEND_HEIGHT: Final = 34.0
LINE: Final = 18.0
HEADING: Final = 32.0
SPACE: Final = 10.0
BETWEEN_GROUPS: Final = 20.0
BETWEEN_RIBBONS: Final = 5.0
BAR: Final = 6.0
TITLE_SIZE: Final = 14.0
TEXT_SIZE: Final = 12.0
ELLIPSIS: Final = "…"


@dataclass(frozen=True, slots=True)
class Stripe:
    """A part of what flows, or of what a node got."""

    value: float
    color: Color


@dataclass(frozen=True, slots=True)
class Node:
    """A box with a title, lines below it, and a bar of its stripes at its foot."""

    id: str
    title: str
    column: int
    """From left to right, beginning with 0."""
    lines: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()
    """Further lines, that stand out."""
    badge: str = ""
    """Beside the title."""
    stripes: tuple[Stripe, ...] = ()
    group: str = ""
    hint: str = ""
    """What a pointer over it shows."""


@dataclass(frozen=True, slots=True)
class Link:
    """A ribbon from one node to another."""

    source: str
    target: str
    stripes: tuple[Stripe, ...]
    label: str
    hint: str

    @property
    def value(self) -> float:
        """All that flows there."""
        return sum(stripe.value for stripe in self.stripes)


@dataclass(frozen=True, slots=True)
class Group:
    """A frame around nodes of one column."""

    id: str
    title: str
    lines: tuple[str, ...] = ()
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """One picture. `text` says in words what there is to see."""

    title: str
    text: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    groups: tuple[Group, ...] = ()
    legend: tuple[tuple[str, Color], ...] = ()
    note: str = ""
    """At the end of the legend."""


@dataclass(frozen=True, slots=True)
class _Box:
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class _Layout:
    width: float
    height: float
    nodes: Mapping[str, _Box]
    groups: Mapping[str, _Box]


def element(graph: Graph, name: str) -> str:
    """The graph as an `svg` element for a page that includes STYLE; `name` is unique there, letters and digits.

    Raises KeyError when a link names a node, or a node a group, that is not there.
    """
    layout = _arrange(graph)
    size = f"{_number(layout.width)} {_number(layout.height)}"
    across, down = size.split()
    lines = [
        f'<svg {NAMESPACE} class="chart" role="img" aria-labelledby="{name}-title {name}-text" '
        f'width="{across}" height="{down}" viewBox="0 0 {size}">',
        f'<title id="{name}-title">{escape(graph.title)}</title>',
        f'<desc id="{name}-text">{escape(graph.text)}</desc>',
        *_legend(graph),
        *(line for group in graph.groups for line in _group(group, layout.groups[group.id])),
        *_ribbons(graph, layout),
        *(line for node in graph.nodes for line in _node(node, layout.nodes[node.id])),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def fit(text: str, width: float, size: float = TEXT_SIZE) -> str:
    """As much of the text as has room, with an ellipsis where it was cut."""
    if text_width(text, size) <= width:
        return text
    room = width - text_width(ELLIPSIS, size)
    used, kept = 0.0, 0
    for letter in text:
        used += text_width(letter, size)
        if used > room:
            break
        kept += 1
    return text[:kept].rstrip() + ELLIPSIS


# Where things stand


def _arrange(graph: Graph) -> _Layout:
    columns = sorted({node.column for node in graph.nodes})
    last = len(columns) - 1
    fixed = SMALL * last + LARGE + 2 * INSET
    gap = max(LEAST_GAP, (LEAST_WIDTH - 2 * MARGIN - fixed) / last if last else 0.0)
    leaving = _thickness_leaving(graph)
    boxes: dict[str, _Box] = {}
    groups: dict[str, _Box] = {}
    heights: dict[int, float] = {}
    for at, column in enumerate(columns):
        x = MARGIN + at * (SMALL + gap) + (INSET if at == last else 0.0)
        width = LARGE if at == last else SMALL
        members = [node for node in graph.nodes if node.column == column]
        heights[column] = _stack(members, graph.groups, (x, width), leaving, boxes, groups)
    height = max(heights.values(), default=0.0)
    for node in graph.nodes:
        box = boxes[node.id]
        down = LEGEND_HEIGHT + (height - heights[node.column]) / 2
        boxes[node.id] = _Box(box.x, box.y + down, box.width, box.height)
    columns_of = {node.group: node.column for node in graph.nodes}
    for name, box in groups.items():
        down = LEGEND_HEIGHT + (height - heights[columns_of[name]]) / 2
        groups[name] = _Box(box.x, box.y + down, box.width, box.height)
    width = MARGIN * 2 + fixed + gap * last
    return _Layout(width, height + LEGEND_HEIGHT + MARGIN, boxes, groups)


def _stack(
    members: Sequence[Node],
    groups: Iterable[Group],
    place: tuple[float, float],
    leaving: Mapping[str, float],
    boxes: dict[str, _Box],
    frames: dict[str, _Box],
) -> float:
    """Place the nodes of a column and their groups from 0 downwards; the height that they take."""
    x, width = place
    by_id = {group.id: group for group in groups}
    y, group, top = 0.0, "", 0.0
    for node in members:
        if node.group != group or (not boxes and node.group):
            y = _close(group, top, y, place, frames)
            group, top = node.group, y
            if group:
                y += HEADING + LINE * len(by_id[group].lines)
        height = max(_height(node), leaving.get(node.id, 0.0) + 2 * SPACE)
        boxes[node.id] = _Box(x, y, width, height)
        y += height + SPACE
    y = _close(group, top, y, place, frames)
    return max(0.0, y - (BETWEEN_GROUPS if group else SPACE))


def _close(group: str, top: float, y: float, place: tuple[float, float], frames: dict[str, _Box]) -> float:
    """End a group whose last node ends SPACE above `y`; where the next thing begins."""
    if not group:
        return y + (BETWEEN_GROUPS - SPACE if y else 0.0)
    x, width = place
    bottom = y - SPACE + INSET
    frames[group] = _Box(x - INSET, top, width + 2 * INSET, bottom - top)
    return bottom + BETWEEN_GROUPS


def _height(node: Node) -> float:
    foot = BAR + SPACE if node.stripes else 0.0
    return 32.0 + LINE * (len(node.lines) + len(node.alerts)) + foot


def _thickness_leaving(graph: Graph) -> dict[str, float]:
    scale = _scale(graph)
    found: dict[str, float] = {}
    for link in graph.links:
        found[link.source] = found.get(link.source, -BETWEEN_RIBBONS) + BETWEEN_RIBBONS + _thickness(link, scale)
    return found


def _scale(graph: Graph) -> float:
    most = max((link.value for link in graph.links), default=0.0)
    return THICKEST / most if most > 0 else 0.0


def _parts(link: Link, scale: float) -> list[tuple[float, Color]]:
    return [(max(THINNEST, each.value * scale), each.color) for each in link.stripes if each.value > 0]


def _thickness(link: Link, scale: float) -> float:
    return sum(thickness for thickness, _ in _parts(link, scale)) or THINNEST


# What is drawn


def _legend(graph: Graph) -> Iterator[str]:
    x = MARGIN
    for name, color in graph.legend:
        yield f'<rect x="{_number(x)}" y="2" width="12" height="12" rx="3" fill="{_paint(color)}"/>'
        yield _text(x + 18, 12, name, Color.MUTED)
        x += 18 + text_width(name, TEXT_SIZE) + 16
    if graph.note:
        yield _text(x, 12, graph.note, Color.MUTED)


def _group(group: Group, box: _Box) -> Iterator[str]:
    yield "<g>"
    if group.hint:
        yield f"<title>{escape(group.hint)}</title>"
    yield _rect(box, 12, Color.GRID, Color.AXIS, ' fill-opacity="0.45"')
    inside = box.width - 2 * INSET
    title = fit(group.title, inside, TITLE_SIZE)
    yield _text(box.x + INSET, box.y + 21, title, Color.INK, TITLE_SIZE, bold=True)
    for at, line in enumerate(group.lines):
        yield _text(box.x + INSET, box.y + 21 + LINE * (at + 1), fit(line, inside), Color.MUTED)
    yield "</g>"


def _node(node: Node, box: _Box) -> Iterator[str]:
    yield "<g>"
    if node.hint:
        yield f"<title>{escape(node.hint)}</title>"
    yield _rect(box, 8, Color.PAPER, Color.AXIS)
    foot = BAR + SPACE if node.stripes else 0.0
    x, inside = box.x + INSET, box.width - 2 * INSET
    y = box.y + (box.height - _height(node)) / 2 + 21
    badge_width = text_width(node.badge, TITLE_SIZE) + 8 if node.badge else 0.0
    yield _text(x, y, fit(node.title, inside - badge_width, TITLE_SIZE), Color.INK, TITLE_SIZE, bold=True)
    if node.badge:
        yield _text(box.x + box.width - INSET, y, node.badge, Color.INK, TITLE_SIZE, anchor="end")
    for line in node.lines:
        y += LINE
        yield _text(x, y, fit(line, inside), Color.MUTED)
    for line in node.alerts:
        y += LINE
        yield _text(x, y, fit(line, inside), Color.VERMILION)
    if foot:
        yield from _bar(node.stripes, _Box(x, y + 10, inside, BAR))
    yield "</g>"


def _bar(stripes: Sequence[Stripe], box: _Box) -> Iterator[str]:
    """Shares of a whole; what is there at all is a pixel or more."""
    yield _rect(box, 3, Color.GRID, None)
    whole = sum(each.value for each in stripes)
    shown = [each for each in stripes if each.value > 0]
    widths = [max(THINNEST, box.width * each.value / whole) for each in shown]
    squeezed = box.width / sum(widths) if widths else 1.0
    x = box.x
    for each, width in zip(shown, widths, strict=True):
        yield _rect(_Box(x, box.y, width * squeezed, box.height), 0, each.color, None)
        x += width * squeezed


def _ribbons(graph: Graph, layout: _Layout) -> Iterator[str]:
    scale = _scale(graph)
    order = {node.id: layout.nodes[node.id].middle for node in graph.nodes}
    leaving, arriving = _ports(graph, layout, scale)
    labels: list[str] = []
    for at, link in sorted(enumerate(graph.links), key=lambda each: order[each[1].target]):
        source, target = layout.nodes[link.source], layout.nodes[link.target]
        begin, end = source.x + source.width, target.x
        y, to = leaving[at], arriving[at]
        yield f"<g><title>{escape(link.hint)}</title>"
        parts = _parts(link, scale)
        if not parts:
            path = _curve(begin, y + THINNEST / 2, end, to + THINNEST / 2)
            dashes = 'stroke-width="1.5" stroke-dasharray="3 5" stroke-linecap="round"'
            yield f'<path d="{path}" fill="none" stroke="{_paint(Color.AXIS)}" {dashes}/>'
        for thickness, color in parts:
            shape = _ribbon((begin, y), (end, to), thickness)
            yield f'<path d="{shape}" fill="{_paint(color)}" fill-opacity="0.8"/>'
            y += thickness
            to += thickness
        yield "</g>"
        # On the side from which the ribbon does not come.
        beside = to + 14 + (0 if parts else THINNEST) if leaving[at] < arriving[at] - LINE else arriving[at] - 6
        labels.append(_text(end - 8, beside, link.label, Color.INK, anchor="end", halo=True))
    yield from labels


def _ports(graph: Graph, layout: _Layout, scale: float) -> tuple[dict[int, float], dict[int, float]]:
    """Where each link's top is at its source and at its target, by its number."""
    found: tuple[dict[int, float], dict[int, float]] = ({}, {})
    for ports, near, far in ((found[0], "source", "target"), (found[1], "target", "source")):
        ends: dict[str, list[int]] = {}
        for at, link in enumerate(graph.links):
            ends.setdefault(getattr(link, near), []).append(at)
        for node, links in ends.items():
            links.sort(key=lambda at: layout.nodes[getattr(graph.links[at], far)].middle)
            sizes = [_thickness(graph.links[at], scale) for at in links]
            y = layout.nodes[node].middle - (sum(sizes) + BETWEEN_RIBBONS * (len(sizes) - 1)) / 2
            for at, size in zip(links, sizes, strict=True):
                ports[at] = y
                y += size + BETWEEN_RIBBONS
    return found


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    middle = _number((x + to_x) / 2)
    ends = f"{middle},{_number(y)} {middle},{_number(to_y)} {_number(to_x)},{_number(to_y)}"
    return f"M{_number(x)},{_number(y)} C{ends}"


def _ribbon(begin: tuple[float, float], end: tuple[float, float], thickness: float) -> str:
    there = _curve(*begin, *end)
    back = _curve(end[0], end[1] + thickness, begin[0], begin[1] + thickness)
    return f"{there} L{back.removeprefix('M')} Z"


def _rect(box: _Box, radius: float, fill: Color, stroke: Color | None, more: str = "") -> str:
    rim = f' stroke="{_paint(stroke)}"' if stroke is not None else ""
    return (
        f'<rect x="{_number(box.x)}" y="{_number(box.y)}" width="{_number(box.width)}" '
        f'height="{_number(box.height)}" rx="{_number(radius)}" fill="{_paint(fill)}"{rim}{more}/>'
    )


def _text(
    x: float,
    y: float,
    text: str,
    color: Color,
    size: float = TEXT_SIZE,
    *,
    bold: bool = False,
    anchor: str = "start",
    halo: bool = False,
) -> str:
    end = "" if anchor == "start" else f' text-anchor="{anchor}"'
    weight = ' font-weight="600"' if bold else ""
    rim = f' stroke="{_paint(Color.PAPER)}" stroke-width="4" paint-order="stroke"' if halo else ""
    return (
        f'<text x="{_number(x)}" y="{_number(y)}" font-size="{_number(size)}" fill="{_paint(color)}"'
        f"{end}{weight}{rim}>{escape(text)}</text>"
    )


def _paint(color: Color) -> str:
    return f"var(--{color.name.lower()})"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
