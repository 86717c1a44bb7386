"""Charts as PNG, one below the other, on a light ground.

Shapes are drawn several times as large and made smaller, which smooths their edges; text is drawn at its final
size, in the font that Pillow carries, so that no font need be on the machine. That font knows Latin letters
without accents: others lose theirs, or become a question mark.
"""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from upwell.runtime.charts.layout import arrange
from upwell.runtime.charts.model import Chart, Color
from upwell.runtime.charts.shapes import Area, Box, Dot, Drawn, Line, Point, Scene, Text

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

FINER: Final = 3
"""How many times as large shapes are drawn in each direction."""

MARGIN: Final = 24
GAP: Final = 18
DASH: Final = (6.0, 4.0)
SPELLED: Final = str.maketrans(
    {
        "\N{EN DASH}": "-",
        "\N{EM DASH}": "-",
        "\N{MINUS SIGN}": "-",
        "\N{MULTIPLICATION SIGN}": "x",
        "\N{LESS-THAN OR EQUAL TO}": "<=",
        "\N{GREATER-THAN OR EQUAL TO}": ">=",
        "\N{RIGHTWARDS ARROW}": "->",
        "\N{MICRO SIGN}": "u",
    }
)


def draw(charts: Sequence[Chart], *, title: str = "", width: int = 1000, height: int = 300) -> bytes:
    """A PNG file, `width` pixels wide and `height` for each chart, besides margins; equal for equal charts."""
    from PIL import Image, ImageDraw

    head = 36 if title else 0
    scenes = [arrange(chart, width - 2 * MARGIN, height) for chart in charts]
    whole = 2 * MARGIN + head + sum(int(scene.height) for scene in scenes) + GAP * max(0, len(scenes) - 1)
    picture = Image.new("RGB", (width, whole), Color.PAPER.light)
    if title:
        _write(ImageDraw.Draw(picture), Text(0, 18, title, Color.INK, 20, bold=True), MARGIN, MARGIN)
    top = MARGIN + head
    for scene in scenes:
        picture.paste(_drawn(scene), (MARGIN, top))
        top += int(scene.height) + GAP
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def _drawn(scene: Scene) -> Image.Image:
    from PIL import Image, ImageDraw

    size = (int(scene.width), int(scene.height))
    large = Image.new("RGB", (size[0] * FINER, size[1] * FINER), Color.PAPER.light)
    brush = ImageDraw.Draw(large, "RGBA")
    for shape in scene.shapes:
        _paint(brush, shape)
    picture = large.resize(size, Image.Resampling.BOX)
    pen = ImageDraw.Draw(picture)
    for shape in scene.shapes:
        if isinstance(shape, Text):
            _write(pen, shape, 0, 0)
    return picture


def _paint(brush: ImageDraw.ImageDraw, shape: Drawn) -> None:
    match shape:
        case Line():
            width = max(1, round(shape.width * FINER))
            for stretch in _dashes(shape.points) if shape.dashed else [shape.points]:
                brush.line(_enlarged(stretch), fill=_color(shape.color), width=width, joint="curve")
        case Area():
            brush.polygon(_enlarged(shape.points), fill=_color(shape.color, shape.opacity))
        case Box():
            corners = ((shape.x, shape.y), (shape.x + shape.width, shape.y + shape.height))
            (left, top), (right, bottom) = _enlarged(corners)
            brush.rectangle((left, top, right - 1, bottom - 1), fill=_color(shape.color, shape.opacity))
        case Dot():
            _disc(brush, shape.x, shape.y, shape.radius + 1, Color.PAPER)
            _disc(brush, shape.x, shape.y, shape.radius, shape.color)
        case Text():
            pass


def _disc(brush: ImageDraw.ImageDraw, x: float, y: float, radius: float, color: Color) -> None:
    (left, top), (right, bottom) = _enlarged(((x - radius, y - radius), (x + radius, y + radius)))
    brush.ellipse((left, top, right, bottom), fill=_color(color))


def _write(pen: ImageDraw.ImageDraw, text: Text, left: float, top: float) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(text.size)
    anchor = {"start": "ls", "middle": "ms", "end": "rs"}[text.anchor]
    place = (round(text.x + left), round(text.y + top))
    words = spelled(text.text)
    if text.halo:
        pen.text(place, words, Color.PAPER.light, font, anchor, stroke_width=2, stroke_fill=Color.PAPER.light)
    pen.text(place, words, text.color.light, font, anchor, stroke_width=0.3 if text.bold else 0)


def spelled(text: str) -> str:
    """The text in letters that the font has: signs spelled out, letters without accents, else a question mark."""
    plain = unicodedata.normalize("NFKD", text.translate(SPELLED))
    kept = (letter for letter in plain if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" or letter in "·…“”" else "?" for letter in kept)


def _dashes(points: Sequence[Point]) -> Iterator[tuple[Point, ...]]:
    """The drawn stretches of a dashed line; the pattern runs on around corners."""
    on, left = True, DASH[0]
    stretch: list[Point] = [points[0]]
    for (x, y), (far_x, far_y) in pairwise(points):
        length, done = math.hypot(far_x - x, far_y - y), 0.0
        while length - done > left:
            done += left
            corner = (x + (far_x - x) * done / length, y + (far_y - y) * done / length)
            if on:
                yield (*stretch, corner)
            on, stretch = not on, [corner]
            left = DASH[0] if on else DASH[1]
        left -= length - done
        stretch.append((far_x, far_y))
    if on and len(stretch) > 1:
        yield tuple(stretch)


def _enlarged(points: Sequence[Point]) -> list[tuple[int, int]]:
    return [(round(x * FINER), round(y * FINER)) for x, y in points]


def _color(color: Color, opacity: float = 1.0) -> tuple[int, int, int, int]:
    red, green, blue = (int(color.light[at : at + 2], 16) for at in (1, 3, 5))
    return red, green, blue, round(255 * opacity)
