"""What a drawing is made of: shapes with places, in pixels from the top left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from upwell.runtime.charts.model import Color

Point = tuple[float, float]

TEXT_SIZE: Final = 12.5
NARROW: Final = frozenset("iljtfrI.,:;'|!()[]/ ")
WIDE: Final = frozenset("mwMW@%")


@dataclass(frozen=True, slots=True)
class Line:
    """Straight lines from point to point."""

    points: tuple[Point, ...]
    color: Color
    width: float
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Area:
    """A filled polygon."""

    points: tuple[Point, ...]
    color: Color
    opacity: float = 1.0


@dataclass(frozen=True, slots=True)
class Box:
    """A filled upright rectangle."""

    x: float
    y: float
    width: float
    height: float
    color: Color
    opacity: float = 1.0
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Dot:
    """A filled circle with a thin rim of the ground's colour, so that dots that overlap can be told apart."""

    x: float
    y: float
    radius: float
    color: Color
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text; `y` is its base line."""

    x: float
    y: float
    text: str
    color: Color = Color.MUTED
    size: float = TEXT_SIZE
    anchor: Literal["start", "middle", "end"] = "start"
    bold: bool = False
    halo: bool = False
    """With a rim of the ground's colour, where it stands on data."""


Drawn = Line | Area | Box | Dot | Text


@dataclass(frozen=True, slots=True)
class Scene:
    """What to draw, in that order, on a ground of the given size."""

    width: float
    height: float
    shapes: tuple[Drawn, ...]


def text_width(text: str, size: float = TEXT_SIZE) -> float:
    """About how wide the text is in a sans-serif font, rather more than less."""
    return size * sum(0.34 if letter in NARROW else 0.92 if letter in WIDE else 0.6 for letter in text)
