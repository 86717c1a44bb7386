"""The charts of an explanation: load against capacity, and replicas, with panic mode and starts."""

from __future__ import annotations

import math
from dataclasses import replace

from upwell.autoscaler.annotations import HPA
from upwell.runtime.api.explanation import Explanation
from upwell.runtime.charts.model import Axis, Band, Chart, Color, Markers, Series, Shape, Unit, bands_where
from upwell.runtime.cli.reasons import metric_unit


def charts(told: Explanation, now: float) -> tuple[Chart, ...]:
    """What was so until `now` (Unix seconds), one chart above the other over the same time."""
    replicas = _replicas(told, now)
    if told.settings.autoscaler_class == HPA:
        return (replicas,)
    return (_load(told, now), replicas)


def _load(told: Explanation, now: float) -> Chart:
    times = [each.at for each in told.series]
    loads = [math.nan if each.load is None else each.load for each in told.series]
    total, target = told.settings.total_value, told.settings.target_value
    ready = [each.ready for each in told.series]
    return Chart(
        "Load and capacity",
        x=_time(told, now),
        y=Axis(metric_unit(told.latest.metric)),
        series=(
            Series("load", times, loads, Color.BLUE, Shape.AREA),
            Series("capacity", times, [each * total for each in ready], Color.GREY, Shape.STEP, end=now),
            Series(
                "target", times, [each * target for each in ready], Color.GREEN, Shape.STEP, dashed=True, end=now
            ),
        ),
        bands=_panic(told, now),
        markers=_starts(told),
        note=f"a replica can take {total:g} and is meant to have {target:g}",
    )


def _replicas(told: Explanation, now: float) -> Chart:
    times = [each.at for each in told.series]
    wants = [math.nan if each.want is None else each.want for each in told.series]
    return Chart(
        "Replicas",
        x=_time(told, now),
        y=Axis("replicas", Unit.COUNT),
        series=(
            Series("ready", times, [each.ready for each in told.series], Color.BLUE, Shape.STEP, end=now),
            Series("wanted", times, wants, Color.ORANGE, Shape.STEP, dashed=True, end=now),
        ),
        bands=_panic(told, now),
        markers=_starts(told),
    )


def _time(told: Explanation, now: float) -> Axis:
    return Axis("", Unit.TIME, least=_begin(told, now), greatest=now)


def _begin(told: Explanation, now: float) -> float:
    return told.series[0].at if told.series else now


def _panic(told: Explanation, now: float) -> tuple[Band, ...]:
    """Each decision holds until the next; what began before the first point is shown from there on."""
    decisions, begin = told.history, _begin(told, now)
    times, held = [each.at for each in decisions], [each.panicking for each in decisions]
    bands = bands_where("panic mode", times, held, now, Color.VERMILION)
    return tuple(replace(each, start=max(each.start, begin)) for each in bands if each.end > begin)


def _starts(told: Explanation) -> tuple[Markers, ...]:
    times = [each.ready_at for each in told.starts]
    return (Markers("replica started", times, Color.PURPLE),) if times else ()
