"""The charts of a run: what came of requests over time, and how long those took that succeeded."""

from __future__ import annotations

import math
from typing import Final

from upwell.runtime.charts.model import Axis, Chart, Color, Series, Shape, Unit
from upwell.runtime.charts.svg import NAMESPACE, STYLE, element
from upwell.runtime.load.outcomes import Outcome
from upwell.runtime.load.report import ClassReport, LoadReport

WIDTH: Final = 1000.0
HEIGHT: Final = 300.0
GAP: Final = 18.0
_COLORS: Final = {
    Outcome.SUCCEEDED: Color.GREEN,
    Outcome.LIMITED: Color.ORANGE,
    Outcome.BROKEN: Color.VERMILION,
    Outcome.FAILED: Color.PURPLE,
}
_CLASS_COLORS: Final = (Color.BLUE, Color.ORANGE, Color.GREEN, Color.PURPLE, Color.SKY, Color.VERMILION)


def charts(report: LoadReport) -> tuple[Chart, ...]:
    """Rates by outcome, a chart a class, and one of durations."""
    classes = report.classes or (report.total,)
    return (*(_rates(each, report) for each in classes), _durations(classes, report))


def draw_svg(drawn: tuple[Chart, ...]) -> str:
    """An SVG file of charts, one below the other."""
    whole = len(drawn) * (HEIGHT + GAP) + GAP
    parts = [
        element(chart, f"chart{at}", WIDTH, HEIGHT).replace("<svg ", f'<svg x="{GAP:g}" y="{top:g}" ', 1)
        for at, chart in enumerate(drawn)
        for top in (GAP + at * (HEIGHT + GAP),)
    ]
    size = f'width="{WIDTH + 2 * GAP:g}" height="{whole:g}" viewBox="0 0 {WIDTH + 2 * GAP:g} {whole:g}"'
    return f'<svg {NAMESPACE} class="chart" {size}>\n<style>{STYLE}</style>\n{"".join(parts)}</svg>\n'


def _time(report: LoadReport) -> Axis:
    return Axis("since the start", Unit.SECONDS, least=0.0, greatest=report.seconds)


def _rates(of: ClassReport, report: LoadReport) -> Chart:
    series = of.series
    shown = [outcome for outcome in Outcome if of.outcomes[outcome]] or [Outcome.SUCCEEDED]
    lines = tuple(
        Series(outcome, series.times, series.rates[outcome], _COLORS[outcome], Shape.STEP, end=_end(of))
        for outcome in shown
    )
    title = "Answers" if of is report.total else f"Answers: {of.name}"
    return Chart(title, _time(report), Axis("requests a second"), lines)


def _end(of: ClassReport) -> float:
    return (of.series.times[-1] if of.series.times else 0.0) + of.series.bucket_seconds


def _durations(classes: tuple[ClassReport, ...], report: LoadReport) -> Chart:
    lines: list[Series] = []
    for at, each in enumerate(classes):
        color = _CLASS_COLORS[at % len(_CLASS_COLORS)]
        prefix = f"{each.name} " if report.classes else ""
        times = [begin + each.series.bucket_seconds / 2 for begin in each.series.times]
        for name, values, dashed in (("p50", each.series.p50, False), ("p99", each.series.p99, True)):
            shown = [math.nan if value is None else value for value in values]
            lines.append(Series(prefix + name, times, shown, color, dashed=dashed, dots=not dashed))
    present = [value for line in lines for value in line.ys if value > 0]
    wide = bool(present) and max(present) > 20 * min(present)
    vertical = Axis("duration", Unit.MILLISECONDS, logarithmic=wide)
    return Chart("Durations of what succeeded", _time(report), vertical, tuple(lines))
