"""Where the parts of a chart stand, whatever it holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.charts import NAN, START, of, rich, times
from upwell.runtime.charts.layout import arrange, describe
from upwell.runtime.charts.model import Band, Color, Markers, Series, Shape, bands_where
from upwell.runtime.charts.shapes import Area, Box, Dot, Drawn, Line, Text

INF = float("inf")


def data(shapes: tuple[Drawn, ...], color: Color = Color.BLUE) -> list[Drawn]:
    """What is drawn of the series of that colour."""
    return [shape for shape in shapes if not isinstance(shape, Text) and shape.color is color]


def texts(shapes: tuple[Drawn, ...]) -> list[str]:
    return [shape.text for shape in shapes if isinstance(shape, Text)]


def corners(shape: Drawn) -> list[tuple[float, float]]:
    match shape:
        case Line() | Area():
            return list(shape.points)
        case Box():
            return [(shape.x, shape.y), (shape.x + shape.width, shape.y + shape.height)]
        case _:
            return [(shape.x, shape.y)]


@given(
    st.lists(st.tuples(st.floats(START, START + 1e6), st.floats()), max_size=12),
    st.sampled_from(Shape),
    st.sampled_from([(320.0, 200.0), (960.0, 320.0)]),
)
def test_all_data_stands_inside_the_picture(
    values: list[tuple[float, float]], shape: Shape, size: tuple[float, float]
) -> None:
    values.sort(key=lambda each: each[0])
    series = Series("load", [x for x, _ in values], [y for _, y in values], Color.BLUE, shape)
    scene = arrange(of(series), *size)
    for drawn in scene.shapes:
        for x, y in corners(drawn):
            assert 0 <= x <= size[0]
            assert 0 <= y <= size[1]


@pytest.mark.parametrize("values", [[], [NAN, NAN], [INF, -INF]], ids=["empty", "nan", "infinite"])
@pytest.mark.parametrize("shape", Shape)
def test_a_series_without_values_says_that_there_is_nothing(values: list[float], shape: Shape) -> None:
    scene = arrange(of(Series("load", times(len(values)), values, Color.BLUE, shape)))
    assert "nothing to show" in texts(scene.shapes)
    assert not data(scene.shapes)


@pytest.mark.parametrize("shape", [Shape.LINE, Shape.STEP, Shape.AREA, Shape.POINTS])
def test_a_single_value_is_a_dot(shape: Shape) -> None:
    (dot,) = data(arrange(of(Series("load", [START], [3.0], Color.BLUE, shape))).shapes)
    assert isinstance(dot, Dot)


def test_a_gap_parts_a_line_and_nothing_bridges_it() -> None:
    drawn = data(arrange(of(Series("load", times(5), [1, 2, NAN, 3, 4], Color.BLUE))).shapes)
    assert len(drawn) == 2
    left, right = (corners(line) for line in drawn)
    assert left[-1][0] < right[0][0]


def test_a_step_runs_level_until_the_next_value_and_to_its_end() -> None:
    series = Series("ready", times(3), [1, 2, 2], Color.BLUE, Shape.STEP, end=START + 8)
    (line,) = data(arrange(of(series)).shapes)
    (a, b, c, d) = corners(line)
    assert a[1] == b[1]
    assert b[0] == c[0]
    assert c[1] == d[1]
    assert (d[0] - a[0]) == pytest.approx(4 * (b[0] - a[0]))


def test_bars_stand_on_zero_and_a_zero_has_none() -> None:
    boxes = data(arrange(of(Series("cold", times(3), [2, 0, 1], Color.BLUE, Shape.BARS))).shapes)
    assert len(boxes) == 2
    (first, second) = (corners(box) for box in boxes)
    assert first[1][1] == second[1][1]
    assert first[1][1] - first[0][1] == pytest.approx(2 * (second[1][1] - second[0][1]))


def test_the_legend_names_each_series_band_and_marker_once() -> None:
    chart = rich()
    more = replace(chart, bands=(*chart.bands, Band("panic mode", START + 8, START + 9, Color.VERMILION)))
    shown = texts(arrange(more).shapes)
    for name in ("load", "capacity", "cold", "panic mode", "cold start"):
        assert shown.count(name) == 1


def test_a_single_series_needs_no_legend() -> None:
    assert "load" not in texts(arrange(of(Series("load", times(2), [1, 2], Color.BLUE))).shapes)


def test_a_legend_too_wide_for_one_row_takes_more() -> None:
    series = [Series(f"a rather long name, number {at}", times(2), [1, 2], Color.BLUE) for at in range(6)]
    shapes = arrange(of(*series), 500).shapes
    rows = {shape.y for shape in shapes if isinstance(shape, Text) and "rather" in shape.text}
    assert len(rows) == 6 / 2


def test_bands_are_cut_to_the_range_and_left_out_beyond_it() -> None:
    chart = of(Series("load", times(3), [1, 2, 3], Color.BLUE))
    inside = Band("panic mode", START - 100, START + 2, Color.VERMILION)
    beyond = Band("panic mode", START + 100, START + 200, Color.ORANGE)
    shapes = arrange(replace(chart, bands=(inside, beyond))).shapes
    (band,) = (box for box in data(shapes, Color.VERMILION) if isinstance(box, Box) and box.height > 20)
    line = data(shapes)[-1]
    assert corners(band)[0][0] == corners(line)[0][0]
    assert corners(band)[1][0] == pytest.approx(corners(line)[1][0])
    assert not [box for box in data(shapes, Color.ORANGE) if isinstance(box, Box) and box.height > 20]


def test_markers_at_one_place_are_drawn_once() -> None:
    chart = of(Series("load", times(100), [1.0] * 100, Color.BLUE))
    many = Markers("cold start", [START + 50 + at / 1000 for at in range(100)], Color.PURPLE)
    triangles = data(arrange(replace(chart, markers=(many,))).shapes, Color.PURPLE)
    assert len(triangles) == 2  # one in the legend


def test_the_label_of_a_point_covers_no_other_point() -> None:
    xs, ys = [START, START + 10, START + 20, START + 60], [5.0, 5.0, 5.0, 9.0]
    points = Series("settings", xs, ys, Color.BLUE, Shape.POINTS, labels=["target=70", "", "", ""])
    shapes = arrange(of(points)).shapes
    (label,) = (shape for shape in shapes if isinstance(shape, Text) and shape.text == "target=70")
    for dot in data(shapes):
        (x, y) = corners(dot)[0]
        assert not (label.x <= x <= label.x + 60 and label.y - 10 <= y <= label.y)


def test_runs_of_moments_become_bands() -> None:
    held = [False, True, True, False, True]
    bands = bands_where("panic mode", times(5), held, START + 12, Color.VERMILION)
    assert [(band.start - START, band.end - START) for band in bands] == [(2, 6), (8, 12)]


def test_a_chart_is_told_in_words() -> None:
    assert describe(rich()) == (
        "load: from 0 to 8.5, mean 3.3; capacity: from 0 to 14, mean 8.167; cold: from 0 to 2, mean 0.5; "
        "slow: from 5 to 6, mean 5.5; panic mode: once; cold start: 2 times."
    )


def test_series_of_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 xs and 1 ys"):
        Series("load", [1, 2], [1], Color.BLUE)
    with pytest.raises(ValueError, match="2 points and 1 texts"):
        Series("load", [1, 2], [1, 2], Color.BLUE, Shape.POINTS, labels=["a"])
