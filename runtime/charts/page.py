"""An HTML page that stands alone: headings, figures, tables and charts, with no script and nothing from elsewhere.

A policy in its head forbids all but its own style sheet, so that even text that got past the escaping could load
and run nothing. Light or dark as the reader prefers; equal pages give equal text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from upwell.runtime.charts import graph
from upwell.runtime.charts.graph import Graph
from upwell.runtime.charts.model import Chart
from upwell.runtime.charts.svg import FONT, STYLE, element, escape

WIDTH: Final = 960.0
HEIGHT: Final = 320.0


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that matters, what it is, and a remark on it."""

    name: str
    value: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """The key figures, side by side."""

    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a caption. Its first `text_columns` columns are text, the others numbers, set to the right."""

    caption: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    text_columns: int = 1
    marked: int | None = None
    """The row that stands out."""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, a paragraph where there is one, and what stands below."""

    title: str
    parts: tuple[Figures | Table | Chart | Graph, ...]
    text: str = ""


def render(title: str, lead: str, sections: Iterable[Section], *, refresh: int | None = None) -> str:
    """The whole page; a browser loads it again after `refresh` seconds, where they are given."""
    body: list[str] = []
    for number, section in enumerate(sections, 1):
        body.extend(_section(section, number))
    top = [*_head(title, refresh), f"<h1>{escape(title)}</h1>", _paragraph(lead, "lead")]
    return "\n".join([*top, *body, *_FOOT])


def _head(title: str, refresh: int | None) -> list[str]:
    return [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        *([] if refresh is None else [f'<meta http-equiv="refresh" content="{refresh}">']),
        f"<title>{escape(title)}</title>",
        f"<style>\n{STYLE}{_STYLE}</style>",
        "</head>",
        "<body>",
        "<main>",
    ]


_FOOT: Final = ("</main>", "</body>", "</html>", "")


def _section(section: Section, number: int) -> list[str]:
    lines = ["<section>", f"<h2>{escape(section.title)}</h2>"]
    if section.text:
        lines.append(_paragraph(section.text))
    for at, part in enumerate(section.parts, 1):
        match part:
            case Figures():
                lines.extend(_figures(part))
            case Table():
                lines.extend(_table(part))
            case Chart():
                picture = element(part, f"chart{number}x{at}", WIDTH, HEIGHT)
                lines.append(f'<div class="wide" tabindex="0">\n{picture}</div>')
            case Graph():
                picture = graph.element(part, f"graph{number}x{at}")
                lines.append(f'<div class="wide" tabindex="0">\n{picture}</div>')
            case _:
                assert_never(part)
    return [*lines, "</section>"]


def _paragraph(text: str, name: str = "") -> str:
    return f'<p class="{name}">{escape(text)}</p>' if name else f"<p>{escape(text)}</p>"


def _figures(part: Figures) -> list[str]:
    lines = ['<dl class="figures">']
    for figure in part.figures:
        remark = f"<dd>{escape(figure.remark)}</dd>" if figure.remark else ""
        lines.append(
            f'<div><dt>{escape(figure.name)}</dt><dd class="value">{escape(figure.value)}</dd>{remark}</div>'
        )
    return [*lines, "</dl>"]


def _table(table: Table) -> list[str]:
    def kind(column: int) -> str:
        return "" if column < table.text_columns else ' class="number"'

    head = "".join(f'<th scope="col"{kind(at)}>{escape(name)}</th>' for at, name in enumerate(table.columns))
    lines = [
        '<div class="wide" tabindex="0">',
        f"<table>\n<caption>{escape(table.caption)}</caption>",
        f"<thead><tr>{head}</tr></thead>\n<tbody>",
    ]
    for number, row in enumerate(table.rows):
        first, *rest = (escape(cell) for cell in row)
        cells = "".join(f"<td{kind(at)}>{cell}</td>" for at, cell in enumerate(rest, 1))
        name = ' class="marked"' if number == table.marked else ""
        lines.append(f'<tr{name}><th scope="row"{kind(0)}>{first}</th>{cells}</tr>')
    return [*lines, "</tbody>\n</table>\n</div>"]


_STYLE: Final = f"""*{{box-sizing:border-box}}
body{{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 {FONT}}}
main{{max-width:1008px;margin:0 auto;padding:32px 24px 64px}}
h1{{font-size:28px;line-height:1.25;margin:0 0 8px;overflow-wrap:break-word}}
h2{{font-size:20px;line-height:1.3;margin:48px 0 12px;padding-top:16px;border-top:1px solid var(--grid)}}
p{{margin:0 0 16px;max-width:72ch;overflow-wrap:break-word}}
.lead{{color:var(--muted);font-size:17px}}
.wide{{overflow-x:auto;margin:0 0 28px}}
svg.chart{{display:block;max-width:100%;min-width:640px;height:auto}}
.figures{{display:grid;grid-template-columns:repeat(auto-fit,minmax(250px,1fr));gap:12px;margin:0 0 28px}}
.figures div{{border:1px solid var(--grid);border-radius:8px;padding:12px 16px}}
.figures dt,.figures dd{{margin:0;color:var(--muted);font-size:14px}}
.figures .value{{color:var(--ink);font-size:26px;line-height:1.3;font-weight:600}}
table{{border-collapse:collapse;min-width:50%;font-size:14px}}
caption{{text-align:left;font-weight:600;padding:0 0 8px}}
th,td{{padding:6px 20px 6px 0;text-align:left;border-bottom:1px solid var(--grid);vertical-align:top}}
th{{font-weight:400}}
td:not(.number),th{{max-width:28em;overflow-wrap:break-word}}
thead th{{color:var(--muted);border-color:var(--axis);vertical-align:bottom}}
.number{{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}}
.marked th,.marked td{{font-weight:600;box-shadow:inset 0 -2px var(--vermilion)}}
@media print{{section{{break-inside:avoid}}}}
"""
