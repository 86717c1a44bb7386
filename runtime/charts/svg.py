"""Charts as SVG: one element, no script, nothing from elsewhere, light or dark as the reader prefers.

Colours are CSS variables, which `STYLE` sets for both grounds. A page includes STYLE once and sets charts in with
`element`; `draw` gives a file of its own. Equal charts give equal text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Final, assert_never

from upwell.runtime.charts.layout import arrange, describe
from upwell.runtime.charts.model import Chart, Color
from upwell.runtime.charts.shapes import Area, Box, Dot, Drawn, Line, Point, Text

FONT: Final = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
NAMESPACE: Final = 'xmlns="http://www.w3.org/2000/svg"'
FORBIDDEN: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _variables(*, dark: bool) -> str:
    return "".join(f"--{color.name.lower()}:{color.dark if dark else color.light};" for color in Color)


STYLE: Final = (
    f":root{{color-scheme:light dark;{_variables(dark=False)}}}\n"
    f"@media (prefers-color-scheme:dark){{:root{{{_variables(dark=True)}}}}}\n"
    f"svg.chart{{background:var(--paper);font-family:{FONT};font-variant-numeric:tabular-nums}}\n"
)
"""The style sheet that charts need: what each colour is on a light and on a dark ground, and the font."""


def draw(chart: Chart, width: float = 960.0, height: float = 320.0) -> str:
    """An SVG file of that many pixels, with a margin around the chart."""
    picture = element(chart, "chart", width - 32, height - 32)
    inner = picture.replace("<svg ", '<svg x="16" y="16" ', 1)
    return f'<svg {NAMESPACE} class="chart" {_size(width, height)}>\n<style>{STYLE}</style>\n{inner}</svg>\n'


def element(chart: Chart, name: str, width: float = 960.0, height: float = 320.0) -> str:
    """The chart as an `svg` element for a page that includes STYLE; `name` is unique there, letters and digits."""
    scene = arrange(chart, width, height)
    lines = [
        f'<svg {NAMESPACE} class="chart" role="img" aria-labelledby="{name}-title {name}-text" '
        f"{_size(width, height)}>",
        f'<title id="{name}-title">{escape(chart.title)}</title>',
        f'<desc id="{name}-text">{escape(describe(chart))}</desc>',
        *(_shape(shape) for shape in scene.shapes),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """The text as content or attribute value of SVG and HTML; what XML cannot hold becomes U+FFFD."""
    return html.escape(FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text))


def _shape(shape: Drawn) -> str:
    match shape:
        case Line():
            dashes = ' stroke-dasharray="6 4"' if shape.dashed else ""
            return (
                f'<polyline points="{_points(shape.points)}" fill="none" stroke="{_paint(shape.color)}" '
                f'stroke-width="{_number(shape.width)}" stroke-linejoin="round"{dashes}/>'
            )
        case Area():
            fill = f'fill="{_paint(shape.color)}"{_opacity(shape.opacity)}'
            return f'<polygon points="{_points(shape.points)}" {fill}/>'
        case Box():
            place = (
                f'x="{_number(shape.x)}" y="{_number(shape.y)}" '
                f'width="{_number(shape.width)}" height="{_number(shape.height)}"'
            )
            return f'<rect {place} fill="{_paint(shape.color)}"{_opacity(shape.opacity)}/>'
        case Dot():
            hint = f"<title>{escape(shape.hint)}</title>" if shape.hint else ""
            return (
                f'<circle cx="{_number(shape.x)}" cy="{_number(shape.y)}" r="{_number(shape.radius)}" '
                f'fill="{_paint(shape.color)}" stroke="{_paint(Color.PAPER)}">{hint}</circle>'
            )
        case Text():
            return _text(shape)
        case _:
            assert_never(shape)


def _text(shape: Text) -> str:
    anchor = "" if shape.anchor == "start" else f' text-anchor="{shape.anchor}"'
    weight = ' font-weight="600"' if shape.bold else ""
    rim = f' stroke="{_paint(Color.PAPER)}" stroke-width="4" paint-order="stroke"' if shape.halo else ""
    return (
        f'<text x="{_number(shape.x)}" y="{_number(shape.y)}" font-size="{_number(shape.size)}" '
        f'fill="{_paint(shape.color)}"{anchor}{weight}{rim}>{escape(shape.text)}</text>'
    )


def _size(width: float, height: float) -> str:
    across, down = _number(width), _number(height)
    return f'width="{across}" height="{down}" viewBox="0 0 {across} {down}"'


def _paint(color: Color) -> str:
    return f"var(--{color.name.lower()})"


def _opacity(opacity: float) -> str:
    return "" if opacity == 1 else f' fill-opacity="{opacity:g}"'


def _points(points: Iterable[Point]) -> str:
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in points)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
