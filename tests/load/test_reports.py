"""What a report says of a run, in JSON, conditions and pictures."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from support.load import plain
from upwell.functions.errors import InvalidSettings
from upwell.runtime.charts.png import draw
from upwell.runtime.load.conditions import read_condition
from upwell.runtime.load.outcomes import Outcome
from upwell.runtime.load.plan import Load, LoadClass
from upwell.runtime.load.plots import charts, draw_svg
from upwell.runtime.load.record import MOST_BUCKETS, Record
from upwell.runtime.load.report import LoadReport, report
from upwell.runtime.load.requests import Outline


def record(succeeded: int, limited: int, failed: int = 0, *, seconds: float = 0.01) -> Record:
    """So many in one a tenth of a second, each of them as long."""
    made = Record()
    for number in range(succeeded):
        made.answered(200, Outcome.SUCCEEDED, seconds, number / 10)
    for number in range(limited):
        made.answered(429, Outcome.LIMITED, 0.001, number / 10)
    for number in range(failed):
        made.broke("timeout of the answer", 15.0, number / 10)
    return made


def two_classes() -> Load:
    names = ("guest", "subscriber")
    classes = tuple(LoadClass(name, Outline("GET", "/", "test")) for name in names)
    return replace(plain(80), rate=10.0, classes=classes)


def reported(*records: Record) -> LoadReport:
    load = two_classes() if len(records) == 2 else plain(80)
    return report(load, records, 10.0, interrupted=False)


def test_the_total_is_the_sum_of_the_classes() -> None:
    told = reported(record(50, 50), record(90, 5, 5))
    assert told.total.requests == 200
    assert told.total.outcomes == {"succeeded": 140, "limited": 55, "broken": 0, "failed": 5}
    assert told.total.statuses == {"200": 140, "429": 55}
    assert told.total.errors == {"timeout of the answer": 5}
    assert [each.name for each in told.classes] == ["guest", "subscriber"]
    assert told.total.rate == 20.0
    for name in told.total.series.rates:
        apart = [sum(each.series.rates[name]) for each in told.classes]
        assert sum(told.total.series.rates[name]) == pytest.approx(sum(apart))


def test_the_json_is_json_and_says_what_there_is() -> None:
    told = json.loads(reported(record(60, 40)).encode())
    assert told["total"]["outcomes"]["limited"] == 40
    assert told["total"]["durations"]["succeeded"]["p99"] == pytest.approx(10.0, rel=0.01)
    assert told["classes"] == []
    assert sum(told["total"]["series"]["rates"]["limited"]) > 0


def test_an_empty_run_is_told_too() -> None:
    told = reported(Record())
    assert told.total.durations["all"].p99 == 0.0
    assert json.loads(told.encode())["total"]["requests"] == 0
    assert ElementTree.fromstring(draw_svg(charts(told))).tag.endswith("svg")


def test_a_course_stays_bounded_however_long_a_run_is() -> None:
    made = Record()
    for number in range(50_000):
        made.answered(200, Outcome.SUCCEEDED, 0.001, number * 1.0)
    assert len(made.course.moments) <= MOST_BUCKETS
    assert sum(moment.counts[Outcome.SUCCEEDED] for moment in made.course.moments) == 50_000


@pytest.mark.parametrize(
    ("text", "violated"),
    [
        ("failed>0", True),
        ("failed>5", False),
        ("failed>2%", True),
        ("failed>3%", False),
        ("limited>27%", True),
        ("succeeded<71%", True),
        ("succeeded < 70%", False),
        ("guest:failed>0", False),
        ("subscriber:failed>=0", None),
        ("p50>5ms", True),
        ("p99>11ms", False),
        ("p99.9>0.011s", False),
        ("max>0.009s", True),
        ("mean>9.9ms", True),
        ("rate<21", True),
        ("rate<20", False),
        ("unsent>0", False),
        ("p99>5", None),
        ("rate>5%", None),
        ("nothing>5", None),
        ("p98>5ms", None),
    ],
)
def test_conditions_are_held_to_the_report(text: str, violated: bool | None) -> None:
    told = reported(record(50, 50), record(90, 5, 5))
    if violated is None:
        with pytest.raises(InvalidSettings, match="--fail-on"):
            read_condition(text)
    else:
        assert (read_condition(text).violated(told) is not None) == violated


def test_a_violation_says_what_it_is() -> None:
    told = read_condition("failed>1%").violated(reported(record(90, 0, 10)))
    assert told == "failed>1%: it is 10 %"


def test_charts_show_each_class_and_what_came_of_it() -> None:
    drawn = charts(reported(record(50, 50), record(90, 5, 5)))
    assert [chart.title for chart in drawn] == [
        "Answers: guest",
        "Answers: subscriber",
        "Durations of what succeeded",
    ]
    assert [series.name for series in drawn[0].series] == ["succeeded", "limited"]
    assert [series.name for series in drawn[1].series] == ["succeeded", "limited", "failed"]
    assert [series.name for series in drawn[2].series] == [
        *("guest p50", "guest p99"),
        *("subscriber p50", "subscriber p99"),
    ]
    assert any(not math.isnan(value) for series in drawn[2].series for value in series.ys)


def test_both_kinds_of_pictures_are_drawn() -> None:
    drawn = charts(reported(record(50, 50)))
    assert draw(drawn, title="x").startswith(b"\x89PNG")
    root = ElementTree.fromstring(draw_svg(drawn))
    assert len([each for each in root if each.tag.endswith("svg")]) == 2
