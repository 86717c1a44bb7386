"""What the charts of an explanation hold."""

from __future__ import annotations

import math
from dataclasses import replace

from upwell.autoscaler import bounds, kpa
from upwell.autoscaler.annotations import HPA
from upwell.autoscaler.bounds import RequestPath
from upwell.autoscaler.decision import Activity, Decision, Inputs, State, Status
from upwell.autoscaler.spec import RevisionSettings
from upwell.runtime.api.explanation import Explanation, Point, ReplicaStart
from upwell.runtime.charts.model import Chart
from upwell.runtime.cli.plots import charts

NOW = 1_700_049_600.0
SETTINGS = RevisionSettings()


def decided(ago: float, *, panic_since: float | None) -> Decision:
    state = State(panic_since, 2, None, 0)
    wished = kpa.decide(SETTINGS, state, Inputs(100.0, 100.0, 2), NOW - ago)
    return bounds.bound(SETTINGS, Activity(Status.ACTIVE, NOW - 900, True), wished, RequestPath(), NOW - ago)


def explanation(*history: Decision, series: tuple[Point, ...]) -> Explanation:
    return Explanation(
        namespace="default",
        revision="hello-00001",
        service="hello",
        percent=100,
        settings=SETTINGS,
        latest=history[-1],
        outlook=None,
        history=history,
        ready_since=None,
        series=series,
        starts=(ReplicaStart(NOW - 30, 0.01),),
        notes=(),
    )


POINTS = (Point(NOW - 60, None, None, 0), Point(NOW - 30, 140.0, 2, 1), Point(NOW - 2, 150.0, 3, 2))


def values(chart: Chart, name: str) -> list[float | None]:
    (series,) = (each for each in chart.series if each.name == name)
    assert list(series.xs) == [each.at for each in POINTS]
    return [None if math.isnan(each) else each for each in series.ys]


def test_load_stands_beside_what_ready_replicas_can_take() -> None:
    load, replicas = charts(explanation(decided(50, panic_since=None), series=POINTS), NOW)
    assert values(load, "load") == [None, 140.0, 150.0]
    assert values(load, "capacity") == [0.0, 100.0, 200.0]
    assert values(load, "target") == [0.0, 70.0, 140.0]
    assert values(replicas, "ready") == [0, 1, 2]
    assert values(replicas, "wanted") == [None, 2, 3]
    for chart in (load, replicas):
        assert (chart.x.least, chart.x.greatest) == (NOW - 60, NOW)
        assert [(each.name, list(each.xs)) for each in chart.markers] == [("replica started", [NOW - 30])]


def test_panic_is_shaded_from_when_it_began_to_when_it_ended() -> None:
    history = (
        decided(300, panic_since=NOW - 310),
        decided(40, panic_since=None),
        decided(20, panic_since=NOW - 22),
    )
    for chart in charts(explanation(*history, series=POINTS), NOW):
        assert [(each.name, each.start, each.end) for each in chart.bands] == [
            ("panic mode", NOW - 60, NOW - 40),
            ("panic mode", NOW - 20, NOW),
        ]


def test_a_class_that_does_not_follow_requests_has_its_replicas_drawn() -> None:
    told = explanation(decided(50, panic_since=None), series=POINTS)
    (only,) = charts(replace(told, settings=replace(SETTINGS, autoscaler_class=HPA)), NOW)
    assert only.title == "Replicas"
