"""Charts as SVG and as PNG files."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from PIL import Image

from support.charts import HOSTILE, of, rich, times
from upwell.runtime.charts import png, svg
from upwell.runtime.charts.model import Chart, Color, Series

SVG = "{http://www.w3.org/2000/svg}"


def hostile() -> Chart:
    chart = rich()
    named = tuple(replace(series, name=HOSTILE) for series in chart.series[:3])
    points = replace(chart.series[3], name=HOSTILE, labels=[HOSTILE] * 2, hints=[HOSTILE] * 2)
    axes = replace(chart.x, label=HOSTILE), replace(chart.y, label=HOSTILE, marks=((0.0, HOSTILE), (9.0, "9")))
    band, markers = replace(chart.bands[0], name=HOSTILE), replace(chart.markers[0], name=HOSTILE)
    return Chart(HOSTILE, *axes, (*named, points), (band,), (markers,), note=HOSTILE)


def image(charts: list[Chart], title: str = "") -> Image.Image:
    picture = Image.open(io.BytesIO(png.draw(charts, title=title)))
    picture.load()
    return picture.convert("RGB")


def painted(picture: Image.Image, color: Color) -> int:
    """How many pixels have just that colour."""
    wanted = tuple(int(color.light[at : at + 2], 16) for at in (1, 3, 5))
    return sum(count for count, found in picture.getcolors(1 << 20) or [] if found == wanted)


def test_an_svg_is_xml_with_a_title_and_a_description() -> None:
    root = ElementTree.fromstring(svg.draw(rich()))
    (inner,) = root.findall(f"{SVG}svg")
    title, words = inner.find(f"{SVG}title"), inner.find(f"{SVG}desc")
    assert title is not None
    assert words is not None
    assert inner.get("aria-labelledby") == f"{title.get('id')} {words.get('id')}"
    assert title.text == "Load and capacity"
    assert "panic mode: once" in str(words.text)


def test_an_svg_has_dashes_bars_dots_and_hints_where_the_model_has() -> None:
    root = ElementTree.fromstring(svg.element(rich(), "chart"))
    dashed = [line for line in root.iter(f"{SVG}polyline") if line.get("stroke-dasharray")]
    assert {line.get("stroke") for line in dashed} == {"var(--grey)"}
    assert [dot.findtext(f"{SVG}title") for dot in root.iter(f"{SVG}circle") if len(dot)] == ["a", "b"]
    bars = [box for box in root.iter(f"{SVG}rect") if box.get("fill") == "var(--purple)"]
    assert len(bars) == 3  # one in the legend


def test_an_svg_of_hostile_texts_is_still_only_texts() -> None:
    root = ElementTree.fromstring(svg.draw(hostile()))
    known = {"svg", "style", "title", "desc", "text", "rect", "circle", "polyline", "polygon"}
    assert {each.tag.removeprefix(SVG) for each in root.iter()} == known
    assert not [name for each in root.iter() for name in each.attrib if name.startswith("on")]
    title = root.find(f"{SVG}svg/{SVG}title")
    assert title is not None
    assert title.text == HOSTILE.translate({0: 0xFFFD, 0x1B: 0xFFFD, 0xD800: 0xFFFD})


def test_an_svg_refers_to_nothing_elsewhere() -> None:
    text = svg.draw(rich()).replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|href|url\(|@import|<script", text)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_png_is_as_wide_as_asked_and_higher_with_each_chart(count: int) -> None:
    picture = Image.open(io.BytesIO(png.draw([rich()] * count, width=640, height=250)))
    picture.load()
    assert picture.format == "PNG"
    assert picture.size == (640, 48 + 250 * count + 18 * max(0, count - 1))


def test_a_png_shows_the_series_in_its_colour() -> None:
    picture = image([of(Series("load", times(3), [5, 5, 5], Color.VERMILION))])
    assert painted(picture, Color.VERMILION) > 500


def test_a_dashed_line_is_drawn_in_part() -> None:
    whole, parts = (
        painted(image([of(Series("load", times(3), [5, 5, 5], Color.VERMILION, dashed=dashed))]), Color.VERMILION)
        for dashed in (False, True)
    )
    assert 0.5 < parts / whole < 0.7


def test_a_png_of_hostile_texts_is_drawn() -> None:
    assert image([hostile()], title=HOSTILE).size == (1000, 384)


def test_letters_that_the_font_lacks_are_spelled_out() -> None:
    assert png.spelled("p99 ≤ 5 µs – Zoë × 漢") == "p99 <= 5 us - Zoe x ?"  # noqa: RUF001


def test_pillow_is_loaded_when_something_is_drawn_and_not_before() -> None:
    program = (
        "import sys; from upwell.runtime.charts import png, page; before = 'PIL' in sys.modules;"
        "png.draw([]); assert (before, 'PIL' in sys.modules) == (False, True)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
