"""The page and the DOT of a topology: whole, inert whatever names say, and of one picture for one topology."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from support.charts import HOSTILE
from support.external import is_absent
from support.topology import LIMITER, revision, route, shop, snapshot
from upwell.runtime.api.topology import Topology, topology
from upwell.runtime.charts.graph import LARGE, Graph, Group, Link, Node, Stripe, element, fit
from upwell.runtime.charts.model import Color
from upwell.runtime.charts.shapes import text_width
from upwell.runtime.cli.topology_dot import dot
from upwell.runtime.cli.topology_page import MOST_ROUTES, page
from upwell.runtime.gateway.topology import Ejected, Refused, Share

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
VALUES = st.floats(0, 1e6) | st.just(0.0)
SPACE = "{http://www.w3.org/2000/svg}"


def hostile() -> Topology:
    name = f"default/{HOSTILE}"
    out = Ejected(HOSTILE, HOSTILE, HOSTILE)
    told = route(HOSTILE, Share(name, 100, HOSTILE, HOSTILE, (HOSTILE,)), policies=[(HOSTILE, HOSTILE)])
    refused = [Refused(HOSTILE, "limited", 5)]
    after = revision(name, {"limited": 5}, refusals=refused, ejected=[out], policies=[HOSTILE])
    return topology(snapshot(revision(name)), snapshot(after, at=1.0, unrouted=1, routes=[told]))


class Elements(HTMLParser):
    """The names of all elements, and the texts between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


def test_the_page_tells_rates_shares_policies_and_what_is_out() -> None:
    texts = Elements(page(shop().active(), None)).texts
    for told in (
        *("cart-00001", "90%", "10%, tag next", "90.2/s", "4.0/s", "106/s"),
        f"16.0/s limited by {LIMITER}",
        *("1.5/s unrouted", "cart-00001-a is out", "0 replicas · 10.0 ms · 7 waiting", "cart.default.example.com"),
    ):
        assert told in texts
    assert "old-00001" not in " ".join(texts)


def test_names_that_are_markup_stay_text() -> None:
    text = page(hostile(), 2)
    found, plain = Elements(text), Elements(page(shop(), 2))
    assert found.names <= plain.names
    assert found.attributes <= plain.attributes
    assert "script" not in found.names
    assert not {"src", "href"} & found.attributes
    assert "\x1b" not in text
    assert "\x00" not in text


def test_the_page_asks_to_be_loaded_again_only_where_it_changes() -> None:
    assert '<meta http-equiv="refresh" content="2">' in page(shop(), 2)
    assert 'http-equiv="refresh"' not in page(shop(), None)


def test_equal_topologies_give_equal_pages() -> None:
    assert page(shop(), None) == page(shop(), None)
    assert dot(shop()) == dot(shop())


def test_of_very_many_routes_the_busiest_are_drawn_and_all_are_in_the_table() -> None:
    names = [f"f{at:03d}" for at in range(MOST_ROUTES + 30)]
    routes = [route(name, Share(f"default/{name}", 100)) for name in names]
    after = [revision(name, {"succeeded": at}) for at, name in enumerate(names)]
    found = topology(snapshot(*map(revision, names)), snapshot(*after, at=1.0, routes=routes))
    text = page(found, None)
    assert "30 more routes with fewer requests" in text
    drawn, tables = text[text.index("<svg") : text.index("</svg>")], text[text.index("</svg>") :]
    assert f"default/{names[-1]}<" in drawn
    assert f"default/{names[0]}<" not in drawn
    assert f"default/{names[0]}<" in tables


def test_nothing_at_all_is_a_page_too() -> None:
    text = page(topology(snapshot(), snapshot(at=1.0)), None)
    assert "none at present" in text
    assert 'stroke-dasharray="3 5"' in text


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    groups = tuple(Group(f"g{at}", f"group {at}") for at in range(draw(st.integers(1, 3))))
    count = draw(st.integers(0, 6))
    nodes = [Node("a", "a", 0), Node("b", "b", 1)]
    names = sorted(draw(st.sampled_from([*(group.id for group in groups), ""])) for _ in range(count))
    lines = st.lists(st.text(max_size=80), max_size=3).map(tuple)
    nodes += [
        Node(f"n{at}", "n", 2, draw(lines), stripes=(Stripe(draw(VALUES), Color.BLUE),), group=group)
        for at, group in enumerate(names)
    ]
    links = [Link("a", "b", (Stripe(draw(VALUES), Color.BLUE),), "", "")]
    links += [
        Link("b", f"n{at}", (Stripe(draw(VALUES), Color.BLUE), Stripe(draw(VALUES), Color.GREY)), "", "")
        for at in range(count)
    ]
    return Graph("title", "text", tuple(nodes), tuple(links), tuple(each for each in groups if each.id in names))


@settings(max_examples=60)
@given(graphs())
def test_whatever_flows_all_that_is_drawn_lies_within_the_picture_and_no_box_on_another(graph: Graph) -> None:
    root = ElementTree.fromstring(element(graph, "graph"))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = []
    for each in root.iter(f"{SPACE}rect"):
        x, y, wide, high = (float(each.attrib[name]) for name in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + wide <= width + 0.11
        assert y + high <= height + 0.11
        if each.attrib["rx"] == "8":
            boxes.append((x, y, x + wide, y + high))
    assert len(boxes) == len(graph.nodes)
    for at, one in enumerate(boxes):
        for other in boxes[at + 1 :]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    for each in root.iter(f"{SPACE}path"):
        points = re.findall(r"(-?[\d.]+),(-?[\d.]+)", each.attrib["d"])
        assert all(0 <= float(x) <= width and 0 <= float(y) <= height for x, y in points)


@given(st.text(max_size=100), st.floats(20, LARGE))
def test_a_text_that_is_cut_fits(text: str, width: float) -> None:
    cut = fit(text, width)
    assert cut == text or (cut.endswith("…") and text.startswith(cut[:-1].rstrip()))
    assert text_width(cut, 12.0) <= width


def test_ribbons_are_as_thick_as_what_flows() -> None:
    links = (
        Link("a", "b", (Stripe(30.0, Color.BLUE), Stripe(10.0, Color.GREY)), "", ""),
        Link("a", "c", (Stripe(20.0, Color.BLUE), Stripe(0.0, Color.GREY)), "", ""),
    )
    graph = Graph("t", "d", (Node("a", "a", 0), Node("b", "b", 1), Node("c", "c", 1)), links)
    root = ElementTree.fromstring(element(graph, "graph"))
    found = []
    for each in root.iter(f"{SPACE}path"):
        begin, *_, end = re.findall(r"[\d.]+,([\d.]+)", each.attrib["d"])
        found.append(float(end) - float(begin))
    assert found == pytest.approx([39.0, 13.0, 26.0], abs=0.11)


def test_dot_has_a_cluster_for_each_route_and_an_edge_for_each_flow() -> None:
    text = dot(shop())
    assert text.count("subgraph cluster_") == 2
    assert text.count(" -> ") == 5
    assert '"gateway" -> "revision default/cart-00001" [label="90.2/s\\n72.0 succeeded\\n16.0 limited' in text


def test_dot_keeps_hostile_names_within_their_strings() -> None:
    found = topology(snapshot(), snapshot(revision('default/a"];\nx -> y; "\\'), at=1.0))
    (line,) = (each for each in dot(found).splitlines() if 'label="default/a' in each)
    assert (
        line == '  "revision default/a\\"]; x -> y; \\"\\\\" [label="default/a\\"]; x -> y; \\"\\\\\\n1 ready"];'
    )
    assert "\x1b" not in dot(hostile())


@pytest.fixture(scope="module")
def browser() -> str:
    """The command of a browser that can run without a screen."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        is_absent("a browser", "apt-get install chromium")
    return found


@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_ribbons_in_the_colours_of_outcomes_and_complains_of_nothing(
    browser: str, tmp_path: Path, dark: bool
) -> None:
    file, picture = tmp_path / "topology.html", tmp_path / "topology.png"
    file.write_text(page(shop().active(), None), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    place = [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1040,1200", f"--screenshot={picture}"]
    theme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    done = subprocess.run(
        [browser, *flags, *place, theme, file.as_uri()], capture_output=True, text=True, timeout=60, check=True
    )
    assert "CONSOLE" not in done.stderr
    with Image.open(picture) as opened:
        colours = {found: count for count, found in opened.convert("RGB").getcolors(1 << 24) or []}

    def painted(color: Color) -> int:
        text = color.dark if dark else color.light
        return colours.get(tuple(int(text[at : at + 2], 16) for at in (1, 3, 5)), 0)

    for color in (Color.GREEN, Color.ORANGE, Color.VERMILION, Color.PURPLE):
        assert painted(color) > 100
    assert painted(Color.PAPER) > 1040 * 600
