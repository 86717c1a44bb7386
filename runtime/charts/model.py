"""What a chart holds: series over two axes, bands of time, markers. Values only; `svg` and `png` draw them.

    Chart("Load and capacity",
          x=Axis("", Unit.TIME), y=Axis("requests in flight"),
          series=(Series("load", times, load, Color.BLUE, Shape.AREA),
                  Series("capacity", times, capacity, Color.GREY, Shape.STEP, dashed=True)),
          bands=(Band("panic mode", start, end, Color.VERMILION),),
          markers=(Markers("cold start", starts, Color.PURPLE),))

A value that is NaN or infinite is a gap in its series. Coordinates are floats throughout: times are Unix seconds
(Unit.TIME) or seconds from a start (Unit.SECONDS).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from enum import Enum, StrEnum


class Color(Enum):
    """A colour by name: what it is on a light and on a dark ground.

    The hues of data are those of Okabe and Ito ("Color Universal Design", 2008), which people with any common kind
    of colour blindness tell apart; on the dark ground the darker ones are lifted. The rest is what surrounds data.
    """

    BLUE = ("#0072b2", "#4aa8e0")
    ORANGE = ("#e69f00", "#f0b030")
    GREEN = ("#009e73", "#2dbf93")
    VERMILION = ("#d55e00", "#f07c2e")
    SKY = ("#56b4e9", "#7cc8f2")
    PURPLE = ("#cc79a7", "#dd93bb")
    GREY = ("#6b7280", "#9aa3b2")
    INK = ("#1c2430", "#e6e9ef")
    MUTED = ("#5a6472", "#a3adbb")
    GRID = ("#e3e7ec", "#2b313b")
    AXIS = ("#aab2bd", "#4b5563")
    PAPER = ("#ffffff", "#14181f")

    @property
    def light(self) -> str:
        """As #rrggbb, on a light ground."""
        return self.value[0]

    @property
    def dark(self) -> str:
        """As #rrggbb, on a dark ground."""
        return self.value[1]


class Shape(StrEnum):
    """How the values of a series are drawn."""

    LINE = "line"
    """Joined point by point."""
    STEP = "step"
    """A value holds until the next: for counts that change at a moment."""
    AREA = "area"
    """A line, and what lies between it and zero filled lightly."""
    BARS = "bars"
    """A bar from each x to the next, down to zero."""
    POINTS = "points"
    """Dots that nothing joins: a scatter."""


class Unit(StrEnum):
    """What the numbers of an axis are, which decides where ticks stand and how they read."""

    NUMBER = "number"
    COUNT = "count"
    """Ticks stand at whole numbers only."""
    PERCENT = "percent"
    """Shares from 0 to 1, shown as per cent."""
    MILLISECONDS = "milliseconds"
    SECONDS = "seconds"
    """Seconds from a start."""
    TIME = "time"
    """Unix seconds, shown as the time of day in the axis' zone."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis. Its range is that of the data, made wider where the fields say so; data is never cut off."""

    label: str = ""
    unit: Unit = Unit.NUMBER
    least: float | None = None
    """The range begins here or lower."""
    greatest: float | None = None
    """The range ends here or higher."""
    from_zero: bool = True
    """Zero belongs to the range, as a length that is to be compared needs. Only of a vertical, linear axis."""
    logarithmic: bool = False
    """Only what is above zero can be shown then; the rest are gaps."""
    zone: tzinfo | None = None
    """Of Unit.TIME: None is the machine's own."""
    marks: tuple[tuple[float, str], ...] = ()
    """Ticks with their labels, in place of computed ones."""


@dataclass(frozen=True, slots=True)
class Series:
    """Values over x; `xs` ascend (save for points) and are as many as `ys`. Drawn in the order given."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    color: Color
    shape: Shape = Shape.LINE
    dashed: bool = False
    dots: bool = False
    """Each value has a dot on its line."""
    labels: Sequence[str] = ()
    """Of points: what stands beside each one, "" for nothing; none, or as many as there are points."""
    hints: Sequence[str] = ()
    """Of points: what a pointer over each one shows, likewise."""
    end: float | None = None
    """Of steps and bars: where the last ends. Without it a step ends at its x, a bar is as wide as others."""

    def __post_init__(self) -> None:
        if len(self.xs) != len(self.ys):
            raise ValueError(f"series {self.name!r} has {len(self.xs)} xs and {len(self.ys)} ys")
        for texts in (self.labels, self.hints):
            if texts and len(texts) != len(self.xs):
                raise ValueError(f"series {self.name!r} has {len(self.xs)} points and {len(texts)} texts")


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch of the x axis that is shaded over the whole height. Bands of one name share a legend."""

    name: str
    start: float
    end: float
    color: Color


@dataclass(frozen=True, slots=True)
class Markers:
    """Moments on the x axis, each a small triangle on the base line."""

    name: str
    xs: Sequence[float]
    color: Color


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture: a title, two axes and what stands between them."""

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...] = ()
    bands: tuple[Band, ...] = ()
    markers: tuple[Markers, ...] = ()
    note: str = ""
    """One line under the title."""


def bands_where(
    name: str, xs: Sequence[float], held: Iterable[bool], end: float, color: Color
) -> tuple[Band, ...]:
    """A band for each run of moments that hold; a moment lasts until the next, the last until `end`."""
    bands: list[Band] = []
    start: float | None = None
    for x, holds in zip(xs, held, strict=True):
        if holds and start is None:
            start = x
        elif not holds and start is not None:
            bands.append(Band(name, start, x, color))
            start = None
    if start is not None:
        bands.append(Band(name, start, end, color))
    return tuple(bands)
