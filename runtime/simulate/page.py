"""The HTML report of a simulation: what was simulated, what came of it, and how it went over time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from upwell.runtime.charts.model import Axis, Band, Chart, Color, Series, Shape, Unit, bands_where
from upwell.runtime.charts.page import Figure, Figures, Section, Table, render
from upwell.runtime.simulate.report import FunctionReport, Quantiles, SimulationReport, SweepPoint

SHOWN_POINTS: Final = 200
"""Rows of the sweep's table; the scatter has them all."""

PANIC_SHARE: Final = 0.5
"""A bucket of a single function counts as in panic mode from this share of it on."""

QUANTILES: Final = ("mean", "p50", "p90", "p95", "p99", "p99.9", "greatest")


def render_simulation(report: SimulationReport) -> str:
    """A page that stands alone, for any browser, light and dark; equal reports give equal pages."""
    return render(report.title, _lead(report), _sections(report))


def _lead(report: SimulationReport) -> str:
    functions = "1 function" if report.function_count == 1 else f"{report.function_count:,} functions"
    return (
        f"A simulation of {_count(report.requests, 'request')} to {functions} over {_duration(report.seconds)}: "
        "upwell's own decisions, over a virtual cluster and a virtual clock."
    )


def _sections(report: SimulationReport) -> Iterator[Section]:
    yield Section("Key figures", (_figures(report), _quantiles(report)))
    if report.sweep is not None:
        yield _sweep(report, report.sweep)
    yield Section("Over time", tuple(_charts(report)), _over_time(report))
    if any((report.latency.greatest, report.queueing.greatest)):
        text = "How long the slowest requests took: each step to the right looks at ten times fewer of them."
        yield Section("Latency", (_latency(report),), text)
    if report.functions:
        yield Section("Functions", (_functions(report),))
    if report.settings:
        rows = tuple(report.settings.items())
        yield Section("Settings", (Table("What was simulated under", ("Setting", "Value"), rows, text_columns=2),))


def _figures(report: SimulationReport) -> Figures:
    return Figures(
        (
            Figure(
                "Latency, p99", _milliseconds(report.latency.p99), f"median {_milliseconds(report.latency.p50)}"
            ),
            Figure("Cold starts", f"{report.cold_starts:,}", _of(report.cold_starts, report.requests)),
            Figure("Rejected", f"{report.rejected:,}", _of(report.rejected, report.requests)),
            Figure("Replicas at most", f"{report.greatest_replicas:,}", _mean_replicas(report)),
            Figure("Replica time", _duration(report.replica_seconds), _busy(report)),
            Figure("Waste", _percent(report.waste), "of replica time without a request"),
        )
    )


def _mean_replicas(report: SimulationReport) -> str:
    return f"{report.replica_seconds / report.seconds:.3g} on average" if report.seconds > 0 else ""


def _busy(report: SimulationReport) -> str:
    return f"{_duration(report.busy_replica_seconds)} of it busy"


def _quantiles(report: SimulationReport) -> Table:
    rows = tuple(
        (name, *(_milliseconds(value) for value in _spread(quantiles)))
        for name, quantiles in (("Latency", report.latency), ("Queueing", report.queueing))
    )
    return Table("Durations of the requests that were answered", ("Duration", *QUANTILES), rows)


def _spread(quantiles: Quantiles) -> tuple[float, ...]:
    return (
        *(quantiles.mean, quantiles.p50, quantiles.p90, quantiles.p95),
        *(quantiles.p99, quantiles.p999, quantiles.greatest),
    )


def _over_time(report: SimulationReport) -> str:
    return f"Each point is a mean or a sum over {_duration(report.series.bucket_seconds)}."


def _charts(report: SimulationReport) -> Iterator[Chart]:
    series = report.series
    time = Axis("since the start", Unit.SECONDS, least=0.0, greatest=report.seconds)
    end = max(report.seconds, series.times[-1]) if series.times else report.seconds
    panic = _panic(report, end)
    yield Chart(
        "Load and capacity",
        time,
        Axis("requests in flight"),
        (
            Series("load, waiting included", series.times, series.load, Color.BLUE, Shape.AREA),
            Series(
                "capacity of the ready replicas", series.times, series.capacity, Color.GREY, Shape.STEP, end=end
            ),
        ),
        panic,
    )
    yield Chart(
        "Replicas",
        time,
        Axis(),
        (
            Series("ready", series.times, series.ready, Color.GREEN, Shape.STEP, end=end),
            Series("wanted", series.times, series.want, Color.ORANGE, Shape.STEP, dashed=True, end=end),
        ),
        panic,
    )
    arrivals = Series("arrivals", series.times, series.arrivals, Color.SKY, Shape.AREA)
    yield Chart("Arrivals", time, Axis("requests a second"), (arrivals,))
    yield _cold_starts(report, time, end)
    if report.function_count > 1 and any(series.panic):
        share = Series("in panic mode", series.times, series.panic, Color.VERMILION, Shape.AREA)
        yield Chart("Functions in panic mode", time, Axis("share of those with traffic", Unit.PERCENT), (share,))


def _panic(report: SimulationReport, end: float) -> tuple[Band, ...]:
    """Bands for a single function; of many, some are in panic mode at any time."""
    if report.function_count > 1:
        return ()
    held = [share >= PANIC_SHARE for share in report.series.panic]
    return bands_where("panic mode", report.series.times, held, end, Color.VERMILION)


def _cold_starts(report: SimulationReport, time: Axis, end: float) -> Chart:
    series = report.series
    shown = [Series("found no replica ready", series.times, series.cold_starts, Color.PURPLE, Shape.BARS, end=end)]
    if any(series.rejected):
        shown.append(Series("rejected", series.times, series.rejected, Color.VERMILION, Shape.STEP, end=end))
    title = "Cold starts and rejections" if len(shown) > 1 else "Cold starts"
    note = "Requests that found no replica ready." if len(shown) == 1 else ""
    return Chart(
        title, time, Axis(f"requests in {_duration(series.bucket_seconds)}", Unit.COUNT), tuple(shown), note=note
    )


def _latency(report: SimulationReport) -> Chart:
    """Quantiles over how rare they are, so that the tail has as much room as it has weight."""
    answered = max(1, report.requests - report.rejected)
    places = [-math.log10(1 - share) for share in (0.5, 0.9, 0.95, 0.99, 0.999)]
    places.append(max(places[-1] + 0.3, math.log10(answered)))
    names = ("p50", "p90", "p95", "p99", "p99.9", "greatest")
    lines = tuple(
        Series(name, places, _spread(quantiles)[1:], color, dots=True)
        for name, quantiles, color in (
            ("latency", report.latency, Color.BLUE),
            ("queueing", report.queueing, Color.ORANGE),
        )
    )
    values = [value for line in lines for value in line.ys if value > 0]
    marks = tuple(zip(places, names, strict=True))
    vertical = _milliseconds_axis("duration", values)
    unshown = vertical.logarithmic and any(value <= 0 for line in lines for value in line.ys)
    note = "Where a line does not begin, the duration is zero." if unshown else ""
    return Chart("Latency and queueing", Axis(marks=marks), vertical, lines, note=note)


def _milliseconds_axis(label: str, values: Sequence[float]) -> Axis:
    """Logarithmic where one line could not show both the least and the greatest."""
    wide = bool(values) and max(values) > 20 * min(values)
    return Axis(label, Unit.MILLISECONDS, logarithmic=wide)


def _sweep(report: SimulationReport, points: Sequence[SweepPoint]) -> Section:
    ordered = sorted(points, key=lambda point: (point.replica_seconds, point.p99, point.label))
    chart = _scatter(report, ordered)
    text = (
        "On the front stands what no other setting beats: none has a lower p99 latency for as little replica time."
    )
    if report.recommended is not None:
        text = f"Recommended: {report.recommended.label}{_because(report.reason)}. {text}"
    return Section("Settings compared", (chart, _sweep_table(report, ordered)), text)


def _because(reason: str) -> str:
    return f", because: {reason.rstrip(' .')}" if reason else ""


def _scatter(report: SimulationReport, ordered: Sequence[SweepPoint]) -> Chart:
    unit, divisor = _replica_unit([point.replica_seconds for point in ordered])
    chosen = [point for point in ordered if point == report.recommended]
    front = [point for point in ordered if point.on_front]
    beaten = [point for point in ordered if not point.on_front and point not in chosen]

    def places(points: Sequence[SweepPoint]) -> tuple[list[float], list[float]]:
        return [point.replica_seconds / divisor for point in points], [point.p99 for point in points]

    def scatter(name: str, points: Sequence[SweepPoint], color: Color, labels: Sequence[str] = ()) -> Series:
        hints = [
            f"{point.label}: p99 {_milliseconds(point.p99)}, {_duration(point.replica_seconds)}"
            for point in points
        ]
        return Series(name, *places(points), color, Shape.POINTS, labels=labels, hints=hints)

    series = (
        Series("the front", *places(front), Color.BLUE, dashed=True),
        scatter("beaten", beaten, Color.GREY),
        scatter("on the front", [point for point in front if point not in chosen], Color.BLUE),
        scatter("recommended", chosen[:1], Color.VERMILION, [point.label for point in chosen[:1]]),
    )
    vertical = _milliseconds_axis("p99 latency", [point.p99 for point in ordered if point.p99 > 0])
    kept = tuple(each for each in series if len(each.xs) > (each.shape is Shape.LINE))
    return Chart("Latency against replica time", Axis(unit), vertical, kept)


def _sweep_table(report: SimulationReport, ordered: Sequence[SweepPoint]) -> Table:
    """The front first where not all can be shown."""
    shown = ordered
    caption = f"All {len(ordered):,} settings, cheapest first"
    if len(ordered) > SHOWN_POINTS:
        chosen = sorted(ordered, key=lambda point: (point != report.recommended, not point.on_front))[
            :SHOWN_POINTS
        ]
        shown = [point for point in ordered if point in chosen]
        caption = f"{len(shown):,} of {len(ordered):,} settings, the front among them, cheapest first"
    unit, divisor = _replica_unit([point.replica_seconds for point in ordered])
    columns = ("Setting", "p50", "p99", "greatest", "cold starts", "rejected", unit, "waste", "front")
    rows = [
        (
            *(point.label, _milliseconds(point.p50), _milliseconds(point.p99), _milliseconds(point.greatest)),
            *(
                f"{point.cold_starts:,}",
                f"{point.rejected:,}",
                _amount(point.replica_seconds / divisor),
                _percent(point.waste),
            ),
            "yes" if point.on_front else "",
        )
        for point in shown
    ]
    marked = next((at for at, point in enumerate(shown) if point == report.recommended), None)
    return Table(caption, columns, rows, marked=marked)


def _functions(report: SimulationReport) -> Table:
    shown, count = len(report.functions), report.function_count
    caption = "By requests, most first" if shown == count else f"The {shown} with the most requests, of {count:,}"
    unit, divisor = _replica_unit([each.replica_seconds for each in report.functions])
    columns = (
        *("Function", "requests", "rejected", "cold starts", "p50", "p99"),
        *("replicas at most", unit, "waste"),
    )
    return Table(caption, columns, [_function(each, divisor) for each in report.functions])


def _function(each: FunctionReport, divisor: float) -> tuple[str, ...]:
    waste = 1 - each.busy_replica_seconds / each.replica_seconds if each.replica_seconds > 0 else 0.0
    return (
        *(each.name, f"{each.requests:,}", f"{each.rejected:,}", f"{each.cold_starts:,}"),
        *(_milliseconds(each.latency.p50), _milliseconds(each.latency.p99), f"{each.greatest_replicas:,}"),
        *(_amount(each.replica_seconds / divisor), _percent(waste)),
    )


def _replica_unit(replica_seconds: Sequence[float]) -> tuple[str, float]:
    """One unit for all that is compared, and how many seconds it has."""
    return ("replica-hours", 3600.0) if max(replica_seconds, default=0.0) >= 36_000 else ("replica-seconds", 1.0)


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _of(part: int, whole: int) -> str:
    return f"{part / whole * 100:.3g} % of the requests" if part else ""


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def _milliseconds(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:,.1f} s"
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def _duration(seconds: float) -> str:
    """With about three digits, in the largest unit that leaves a whole one."""
    for unit, name in ((86_400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * unit or (seconds >= unit and seconds % unit == 0):
            return f"{seconds / unit:.3g} {name}" if seconds < 1000 * unit else f"{seconds / unit:,.0f} {name}"
    return f"{seconds:.3g} s"
