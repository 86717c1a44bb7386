"""Whatever a chart or a page holds, what comes out is well-formed, inert, and the same every time."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from datetime import UTC
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from upwell.runtime.charts import page, png, svg
from upwell.runtime.charts.model import Axis, Band, Chart, Color, Markers, Series, Shape, Unit

HOSTILE = "</title></style><script>alert('1')</script>\x00\ud800\"&amp;"
SPACE = "{http://www.w3.org/2000/svg}"


def chart(xs: Sequence[float], ys: Sequence[float], shape: Shape = Shape.LINE, unit: Unit = Unit.NUMBER) -> Chart:
    return Chart("one", Axis("", unit, zone=UTC), Axis("value"), (Series("values", xs, ys, Color.BLUE, shape),))


def hostile() -> Chart:
    return Chart(
        HOSTILE,
        Axis(HOSTILE, marks=((1.0, HOSTILE),)),
        Axis(HOSTILE),
        (Series(HOSTILE, [1.0], [1.0], Color.BLUE, Shape.POINTS, labels=[HOSTILE], hints=[HOSTILE]),),
        (Band(HOSTILE, 0.0, 1.0, Color.ORANGE),),
        (Markers(HOSTILE, [1.0], Color.PURPLE),),
        HOSTILE,
    )


class Elements(HTMLParser):
    """The names of all elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: dict[str, set[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value or "")


def coordinates(text: str) -> list[float]:
    root = ElementTree.fromstring(text)
    lines = (each.get("points") or "" for each in root.iter())
    return [float(number) for line in lines for pair in line.split() for number in pair.split(",")]


NOTHING_AND_LITTLE = [
    chart([], []),
    chart([], [], unit=Unit.TIME),
    chart([1.0], [1.0]),
    chart([1.0, 2.0], [math.nan, math.nan], Shape.STEP),
    chart([1.0, 2.0, 3.0], [1.0, math.inf, 2.0], Shape.AREA),
    chart([math.nan, 2.0], [1.0, 2.0], Shape.POINTS),
    chart([1.0, 2.0], [7e9, 7e9], Shape.BARS),
    chart([1.0, 2.0], [0.0, 0.0], Shape.STEP),
    chart([1e18, 2e18], [1.0, 2.0], unit=Unit.TIME),
]


@pytest.mark.parametrize("shown", NOTHING_AND_LITTLE)
def test_charts_of_nothing_or_little_can_be_drawn(shown: Chart) -> None:
    assert all(map(math.isfinite, coordinates(svg.draw(shown))))
    with Image.open(io.BytesIO(png.draw((shown,), width=500, height=200))) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width == 500


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(), max_size=8), st.sampled_from(Shape), st.sampled_from(Unit))
def test_any_numbers_give_well_formed_svg_with_finite_places(ys: list[float], shape: Shape, unit: Unit) -> None:
    drawn = svg.draw(chart([float(each) for each in range(len(ys))], ys, shape, unit))
    assert all(map(math.isfinite, coordinates(drawn)))


def test_a_gap_breaks_a_line() -> None:
    def lines(ys: list[float]) -> int:
        root = ElementTree.fromstring(svg.draw(chart([0.0, 1.0, 2.0, 3.0, 4.0], ys)))
        found = [each.get("stroke") for each in root.iter(f"{SPACE}polyline")]
        return found.count("var(--blue)")

    assert lines([1.0, 2.0, math.nan, 2.0, 1.0]) == lines([1.0, 2.0, 1.5, 2.0, 1.0]) + 1


def test_a_chart_names_and_describes_itself() -> None:
    root = ElementTree.fromstring(svg.element(chart([0.0, 1.0], [1.0, 2.0]), "it"))
    assert root.get("role") == "img"
    named = {each.get("id"): each.text for each in root if each.get("id")}
    assert set(named) == set((root.get("aria-labelledby") or "").split())
    assert all(named.values())


def test_hostile_texts_stay_texts() -> None:
    root = ElementTree.fromstring(svg.draw(hostile()))
    assert not list(root.iter(f"{SPACE}script"))
    table = page.Table(HOSTILE, (HOSTILE,), [(HOSTILE,)])
    figures = page.Figures((page.Figure(HOSTILE, HOSTILE, HOSTILE),))
    written = page.render(HOSTILE, HOSTILE, [page.Section(HOSTILE, (figures, table, hostile()), HOSTILE)])
    written.encode("utf-8")
    assert "script" not in Elements(written).names


def test_a_page_loads_and_runs_nothing() -> None:
    found = Elements(page.render("a", "b", [page.Section("c", (hostile(),))]))
    assert not found.names & {"script", "link", "img", "iframe", "object", "base", "form"}
    assert not {name for name in found.attributes if name.startswith("on")} | (
        found.attributes.keys() & {"href", "src"}
    )
    assert any("default-src 'none'" in each for each in found.attributes["content"])


def test_ids_on_a_page_are_unique() -> None:
    one = chart([0.0, 1.0], [1.0, 2.0])
    written = page.render("a", "b", [page.Section("c", (one, one)), page.Section("d", (one,))])
    root = ElementTree.fromstring(
        written.partition("<main>")[2].partition("</main>")[0].join(("<main>", "</main>"))
    )
    ids = [each.get("id") for each in root.iter() if each.get("id")]
    assert len(ids) == len(set(ids)) == 6


def test_equal_charts_give_equal_bytes() -> None:
    assert svg.draw(hostile()) == svg.draw(hostile())
    assert png.draw((hostile(),), title="t") == png.draw((hostile(),), title="t")


def test_both_grounds_have_every_colour() -> None:
    light, _, dark = svg.STYLE.partition("prefers-color-scheme:dark")
    for color in Color:
        assert f"--{color.name.lower()}:{color.light}" in light
        assert f"--{color.name.lower()}:{color.dark}" in dark


def test_a_series_with_uneven_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="2 xs and 1 ys"):
        Series("a", [0.0, 1.0], [1.0], Color.BLUE)
