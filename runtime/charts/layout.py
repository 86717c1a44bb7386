"""A chart as shapes with places: the one arrangement that SVG and PNG both draw.

From top to bottom: title, note, legend, the vertical axis' label, the plot, markers, ticks, the horizontal axis'
label. Coordinates are pixels from the top left. Widths of text are estimated from the classes of its letters, as
neither the fonts of a reader's browser nor those of this machine may decide where things stand.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from upwell.runtime.charts.axes import Scale, caption, fit, usable
from upwell.runtime.charts.model import Band, Chart, Color, Markers, Series, Shape, Unit
from upwell.runtime.charts.shapes import Area, Box, Dot, Drawn, Line, Point, Scene, Text, text_width

TITLE_SIZE: Final = 16.0
MARKER_STRIP: Final = 12.0
RIGHT_MARGIN: Final = 30.0
LEAST_LEFT: Final = 52.0
"""Where plots begin unless their labels need more, so that charts below one another align."""
SWATCH: Final = 18.0


@dataclass(frozen=True, slots=True)
class Plot:
    """The rectangle in which data stands, and the scales that lead there."""

    left: float
    top: float
    right: float
    bottom: float
    x: Scale
    y: Scale

    def at(self, x: float) -> float:
        """Where an x stands, in pixels; outside the range, at the edge."""
        return self.left + self.x.share(x) * (self.right - self.left)

    def level(self, y: float) -> float:
        """Where a y stands, likewise."""
        return self.bottom - self.y.share(y) * (self.bottom - self.top)


def arrange(chart: Chart, width: float = 960.0, height: float = 320.0) -> Scene:
    """The chart in a rectangle of that size."""
    heading, top = _heading(chart, width)
    bottom = height - (MARKER_STRIP if chart.markers else 0.0) - 42.0
    vertical = fit(chart.y, _values(chart, vertical=True), max(2, int((bottom - top) // 34)), vertical=True)
    left = max(LEAST_LEFT, 12.0 + max((text_width(text) for _, text in vertical.marks), default=0.0))
    right = width - RIGHT_MARGIN
    horizontal = fit(chart.x, _values(chart, vertical=False), max(2, int((right - left) // 85)), vertical=False)
    plot = Plot(left, top, right, bottom, horizontal, vertical)
    shapes: list[Drawn] = [
        *heading,
        *_bands(chart.bands, plot),
        *_grid(plot),
        *(shape for series in chart.series for shape in _series(chart, series, plot)),
        *_axes(chart, plot, height),
        *(shape for markers in chart.markers for shape in _markers(markers, plot)),
        *_point_labels(chart, plot),
    ]
    if not any(isinstance(shape, Line | Area | Box | Dot) for shape in _data(chart, plot)):
        shapes.append(Text((left + right) / 2, (top + bottom) / 2, "nothing to show", anchor="middle"))
    return Scene(width, height, tuple(shapes))


def describe(chart: Chart) -> str:
    """The chart in words, for who does not see it: each series with its range, each band and marker counted."""
    parts = [part for series in chart.series if (part := _range_in_words(chart, series))]
    counted = Counter(band.name for band in chart.bands)
    parts.extend(f"{name}: {_times(count)}" for name, count in counted.items())
    parts.extend(f"{markers.name}: {_times(len(markers.xs))}" for markers in chart.markers)
    return "; ".join(parts) + "." if parts else "Nothing to show."


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _range_in_words(chart: Chart, series: Series) -> str:
    values = [value for value in series.ys if usable(chart.y, value)]
    if not values:
        return f"{series.name}: no values"
    unit = {Unit.MILLISECONDS: " ms", Unit.SECONDS: " s", Unit.PERCENT: " %"}.get(chart.y.unit, "")
    factor = 100.0 if chart.y.unit is Unit.PERCENT else 1.0
    spread = (min(values), max(values), math.fsum(values) / len(values))
    low, high, mean = (f"{value * factor:.4g}{unit}" for value in spread)
    return f"{series.name}: from {low} to {high}, mean {mean}"


def _values(chart: Chart, *, vertical: bool) -> Iterator[float]:
    for series in chart.series:
        for x, y in zip(series.xs, series.ys, strict=True):
            if usable(chart.x, x) and usable(chart.y, y):
                yield y if vertical else x
        if not vertical and series.end is not None:
            yield series.end
    if not vertical:
        yield from (x for markers in chart.markers for x in markers.xs)


def _heading(chart: Chart, width: float) -> tuple[list[Drawn], float]:
    """Title, note, legend and the vertical label; and where the plot begins."""
    y = 22.0
    shapes: list[Drawn] = [Text(0, y, chart.title, Color.INK, TITLE_SIZE, bold=True)]
    if chart.note:
        y += 20
        shapes.append(Text(0, y, chart.note))
    rows, y = _legend(chart, width, y + 22)
    shapes.extend(rows)
    if chart.y.label:
        shapes.append(Text(0, y, chart.y.label))
        y += 16
    return shapes, y


def _legend(chart: Chart, width: float, y: float) -> tuple[list[Drawn], float]:
    """Swatches with names, in as many rows as they need, and where the next row would stand."""
    shapes: list[Drawn] = []
    x, used = 0.0, False
    for name, swatch in _swatches(chart):
        advance = SWATCH + 7 + text_width(name) + 18
        if used and x + advance > width:
            x, y = 0.0, y + 20
        shapes.extend(_swatch(swatch, x, y - 4.5))
        shapes.append(Text(x + SWATCH + 7, y, name, Color.INK))
        x, used = x + advance, True
    return shapes, y + 22 if used else y


def _swatches(chart: Chart) -> Iterator[tuple[str, Series | Band | Markers]]:
    if len(chart.series) > 1 or chart.bands or chart.markers:
        yield from ((series.name, series) for series in chart.series if series.name)
    yield from {band.name: (band.name, band) for band in chart.bands}.values()
    yield from ((markers.name, markers) for markers in chart.markers if len(markers.xs))


def _swatch(item: Series | Band | Markers, x: float, y: float) -> Iterator[Drawn]:
    if isinstance(item, Markers):
        yield _triangle(x + SWATCH / 2, y - 4.5, item.color)
    elif isinstance(item, Band):
        yield Box(x, y - 6, SWATCH, 12, item.color, 0.28)
    elif item.shape is Shape.POINTS:
        yield Dot(x + SWATCH / 2, y, 4.5, item.color)
    elif item.shape is Shape.BARS:
        yield Box(x + 3, y - 6, SWATCH - 6, 12, item.color)
    else:
        filled = item.shape is Shape.AREA
        if filled:
            yield Box(x, y - 4, SWATCH, 10, item.color, 0.2)
        level = y - 4 if filled else y
        yield Line(((x, level), (x + SWATCH, level)), item.color, 2.25, item.dashed)


def _grid(plot: Plot) -> Iterator[Drawn]:
    for value, _ in plot.y.marks:
        level = plot.level(value)
        yield Line(((plot.left, level), (plot.right, level)), Color.GRID, 1.0)


def _axes(chart: Chart, plot: Plot, height: float) -> Iterator[Drawn]:
    yield Line(((plot.left, plot.bottom), (plot.right, plot.bottom)), Color.AXIS, 1.0)
    for value, text in plot.y.marks:
        yield Text(plot.left - 8, plot.level(value) + 4, text, anchor="end")
    base = plot.bottom + (MARKER_STRIP if chart.markers else 0.0)
    for value, text in plot.x.marks:
        at = plot.at(value)
        yield Line(((at, plot.bottom), (at, plot.bottom + 4)), Color.AXIS, 1.0)
        half = text_width(text) / 2
        yield Text(min(max(at, half), plot.right + RIGHT_MARGIN - half), base + 18, text, anchor="middle")
    if label := caption(chart.x, plot.x):
        yield Text((plot.left + plot.right) / 2, height - 6, label, anchor="middle")


def _bands(bands: Iterable[Band], plot: Plot) -> Iterator[Drawn]:
    for band in bands:
        if band.end >= plot.x.least and band.start <= plot.x.greatest:
            start, end = plot.at(band.start), plot.at(band.end)
            yield Box(start, plot.top, max(1.5, end - start), plot.bottom - plot.top, band.color, 0.16)


def _markers(markers: Markers, plot: Plot) -> Iterator[Drawn]:
    """A triangle for each moment; those that would hide one another entirely are drawn once."""
    last = -math.inf
    for x in sorted(x for x in markers.xs if math.isfinite(x)):
        at = plot.at(x)
        if at - last >= 2:
            last = at
            yield _triangle(at, plot.bottom + 2, markers.color)


def _triangle(x: float, top: float, color: Color) -> Area:
    return Area(((x, top), (x + 5, top + 9), (x - 5, top + 9)), color)


def _data(chart: Chart, plot: Plot) -> Iterator[Drawn]:
    for series in chart.series:
        yield from _series(chart, series, plot)
    for markers in chart.markers:
        yield from _markers(markers, plot)


def _series(chart: Chart, series: Series, plot: Plot) -> Iterator[Drawn]:
    match series.shape:
        case Shape.POINTS:
            yield from _points(chart, series, plot)
        case Shape.BARS:
            yield from _bars(chart, series, plot)
        case _:
            yield from _lines(chart, series, plot)


def _points(chart: Chart, series: Series, plot: Plot) -> Iterator[Drawn]:
    hints = series.hints or [""] * len(series.xs)
    for x, y, hint in zip(series.xs, series.ys, hints, strict=True):
        if usable(chart.x, x) and usable(chart.y, y):
            yield Dot(plot.at(x), plot.level(y), 4.5, series.color, hint)


def _bars(chart: Chart, series: Series, plot: Plot) -> Iterator[Drawn]:
    for start, end, y in _held(series):
        if usable(chart.y, y) and usable(chart.x, start) and y != 0:
            left, right = plot.at(start), plot.at(end)
            width = max(1.0, right - left - (1.0 if right - left > 3 else 0.0))
            top, bottom = sorted((plot.level(y), plot.level(0.0)))
            yield Box(left, top, width, max(1.0, bottom - top), series.color)


def _held(series: Series) -> Iterator[tuple[float, float, float]]:
    """Where each value begins and ends: at the next x; the last at the end, or as long after as the one before."""
    xs = series.xs
    count = len(xs)
    for at, y in enumerate(series.ys):
        if at + 1 < count:
            yield xs[at], xs[at + 1], y
        elif series.end is not None:
            yield xs[at], series.end, y
        else:
            before = xs[at] - xs[at - 1] if at and series.shape is Shape.BARS else 0.0
            yield xs[at], xs[at] + before, y


def _lines(chart: Chart, series: Series, plot: Plot) -> Iterator[Drawn]:
    for run in _runs(chart, series):
        points = tuple((plot.at(x), plot.level(y)) for x, y in _straightened(run))
        if len(points) > 1:
            if series.shape is Shape.AREA:
                base = plot.level(0.0 if not chart.y.logarithmic else plot.y.least)
                yield Area((*points, (points[-1][0], base), (points[0][0], base)), series.color, 0.2)
            yield Line(points, series.color, 2.0, series.dashed)
        if series.dots or len(points) == 1:
            yield from (Dot(x, y, 3.5, series.color) for x, y in points)


def _runs(chart: Chart, series: Series) -> Iterator[list[Point]]:
    """The stretches without a gap, as corners; a stretch of one point has one corner."""
    run: list[Point] = []
    for start, end, y in _held(series):
        if usable(chart.x, start) and usable(chart.y, y):
            run.append((start, y))
            if series.shape is Shape.STEP and usable(chart.x, end) and end > start:
                run.append((end, y))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _straightened(points: Sequence[Point]) -> list[Point]:
    """Without the points in the middle of a level line, and none twice."""
    kept: list[Point] = []
    for point in points:
        if kept and point == kept[-1]:
            continue
        if len(kept) > 1 and kept[-2][1] == kept[-1][1] == point[1]:
            kept.pop()
        kept.append(point)
    return kept


def _point_labels(chart: Chart, plot: Plot) -> Iterator[Drawn]:
    """Labels beside their points, on the side where they cover least of what is there."""
    scattered = [series for series in chart.series if series.shape is Shape.POINTS]
    taken = [
        (dot.x - 5, dot.y - 5, dot.x + 5, dot.y + 5)
        for series in scattered
        for dot in _points(chart, series, plot)
        if isinstance(dot, Dot)
    ]
    for series in scattered:
        for x, y, text in zip(series.xs, series.ys, series.labels or [""] * len(series.xs), strict=True):
            if text and usable(chart.x, x) and usable(chart.y, y):
                box = _place(text_width(text), plot.at(x), plot.level(y), taken, plot)
                taken.append(box)
                yield Text(box[0], box[3] - 4, text, Color.INK, bold=True, halo=True)


Rectangle = tuple[float, float, float, float]


def _place(width: float, x: float, y: float, taken: Sequence[Rectangle], plot: Plot) -> Rectangle:
    offsets = [
        (6, -24),
        (6, 8),
        (10, -8),
        (-10 - width, -8),
        (-width / 2, -26),
        (-6 - width, -24),
        (-width / 2, 10),
    ]
    boxes = [(x + dx, y + dy, x + dx + width, y + dy + 16) for dx, dy in offsets]
    inside = [
        b
        for b in boxes
        if b[0] >= plot.left
        and b[2] <= plot.right + RIGHT_MARGIN
        and b[1] >= plot.top - 12
        and b[3] <= plot.bottom
    ]
    return min(inside or boxes[:1], key=lambda box: sum(_overlap(box, other) for other in taken))


def _overlap(one: Rectangle, other: Rectangle) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0
