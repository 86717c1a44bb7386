"""Where the ticks of an axis stand and how they read."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.runtime.charts.axes import GREATEST, LATEST, caption, fit, usable
from upwell.runtime.charts.model import Axis, Unit

ANYTHING = st.floats(allow_nan=True, allow_infinity=True)
SENSIBLE = st.floats(-1e6, 1e6)
MOMENTS = st.floats(0, LATEST)
UNITS = st.sampled_from([unit for unit in Unit if unit is not Unit.TIME])
MOST = st.integers(2, 20)
SLACK = 1e-6
"""Of the range: what no picture shows."""
INDIA = timezone(timedelta(hours=5, minutes=30))


def read(axis: Axis, *values: float, most: int = 6, vertical: bool = True) -> list[str]:
    return [label for _, label in fit(axis, values, most, vertical=vertical).marks]


@given(st.lists(ANYTHING, max_size=20), UNITS, MOST, st.booleans(), st.booleans())
def test_ticks_ascend_are_few_and_stand_within_the_range_that_shows_all(
    values: list[float], unit: Unit, most: int, vertical: bool, logarithmic: bool
) -> None:
    axis = Axis(unit=unit, logarithmic=logarithmic, from_zero=not logarithmic)
    scale = fit(axis, values, most, vertical=vertical)
    places = [place for place, _ in scale.marks]
    assert scale.least < scale.greatest
    assert all(one < other for one, other in pairwise(places))
    assert len(places) <= most + 2
    assert all(scale.least <= place <= scale.greatest for place in places)
    assert len({label for _, label in scale.marks}) == len(places)
    slack = SLACK * (scale.greatest - scale.least)
    for value in values:
        if usable(axis, value):
            assert scale.least - slack <= value <= scale.greatest + slack
            assert 0 <= scale.share(value) <= 1


@given(st.lists(SENSIBLE, min_size=1), MOST)
def test_an_axis_of_values_begins_and_ends_at_a_tick(values: list[float], most: int) -> None:
    scale = fit(Axis(), values, most, vertical=True)
    slack = SLACK * (scale.greatest - scale.least)
    assert scale.marks[0][0] == scale.least <= min(*values, 0) + slack
    assert scale.marks[-1][0] == scale.greatest >= max(*values, 0) - slack
    assert "0" in [label for _, label in scale.marks]


@given(MOMENTS, st.floats(0, 1e8), MOST)
def test_ticks_of_a_time_axis_are_few_and_stand_within_the_data(start: float, seconds: float, most: int) -> None:
    end = min(start + seconds, LATEST)
    scale = fit(Axis(unit=Unit.TIME, zone=UTC), [start, end], most, vertical=False)
    places = [place for place, _ in scale.marks]
    assert scale.least <= start <= end <= scale.greatest
    assert all(one < other for one, other in pairwise(places))
    assert len(places) <= most + 2
    assert all(scale.least <= place <= scale.greatest for place in places)


@given(st.lists(SENSIBLE, min_size=1), MOST)
def test_counts_have_ticks_at_whole_numbers_only(values: list[float], most: int) -> None:
    assert all(place == int(place) for place, _ in fit(Axis(unit=Unit.COUNT), values, most, vertical=True).marks)


@pytest.mark.parametrize(
    ("unit", "greatest", "labels"),
    [
        (Unit.NUMBER, 34.2, ["0", "10", "20", "30", "40"]),
        (Unit.NUMBER, 0.9, ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (Unit.NUMBER, 123_456, ["0", "25k", "50k", "75k", "100k", "125k"]),
        (Unit.COUNT, 3, ["0", "1", "2", "3"]),
        (Unit.PERCENT, 0.037, ["0", "1 %", "2 %", "3 %", "4 %"]),
        (Unit.MILLISECONDS, 480, ["0", "100 ms", "200 ms", "300 ms", "400 ms", "500 ms"]),
        (Unit.MILLISECONDS, 4800, ["0", "1 s", "2 s", "3 s", "4 s", "5 s"]),
    ],
)
def test_values_read_in_one_unit_with_equal_decimals(unit: Unit, greatest: float, labels: list[str]) -> None:
    assert read(Axis(unit=unit), 0, greatest) == labels


@pytest.mark.parametrize(
    ("seconds", "labels"),
    [
        (2, ["0", "0.5 s", "1.0 s", "1.5 s", "2.0 s"]),
        (60, ["0", "15 s", "30 s", "45 s", "60 s"]),
        (150, ["0", "0:30", "1:00", "1:30", "2:00", "2:30"]),
        (600, ["0", "2 min", "4 min", "6 min", "8 min", "10 min"]),
        (8000, ["0", "0:30 h", "1:00 h", "1:30 h", "2:00 h"]),
        (86_400, ["0", "6 h", "12 h", "18 h", "24 h"]),
        (5 * 86_400, ["0", "1 d", "2 d", "3 d", "4 d", "5 d"]),
    ],
)
def test_elapsed_time_reads_as_people_count_it(seconds: float, labels: list[str]) -> None:
    assert read(Axis(unit=Unit.SECONDS), 0, seconds, vertical=False) == labels


def test_logarithmic_ticks_are_powers_of_ten_or_round_numbers_between() -> None:
    axis = Axis(unit=Unit.MILLISECONDS, logarithmic=True)
    assert read(axis, 3, 4800) == ["1 ms", "10 ms", "100 ms", "1 s", "10 s"]
    assert read(axis, 30, 240) == ["20 ms", "50 ms", "100 ms", "200 ms", "500 ms"]


@pytest.mark.parametrize("most", [2, 3, 4])
@pytest.mark.parametrize(("least", "greatest"), [(0.5, 5.0), (1e-9, 1e15), (0.9, 1.1), (1e-9, 1.0)])
def test_a_logarithmic_axis_with_little_room_has_few_ticks(least: float, greatest: float, most: int) -> None:
    scale = fit(Axis(logarithmic=True), [least, greatest], most, vertical=True)
    assert 2 <= len(scale.marks) <= max(most, 3)
    assert scale.least <= least < greatest <= scale.greatest


def test_ticks_of_the_time_of_day_stand_at_round_times_of_the_zone_and_midnight_is_the_date() -> None:
    start = datetime(2026, 3, 1, 22, 10, tzinfo=INDIA).timestamp()
    axis = Axis("local time", Unit.TIME, zone=INDIA)
    scale = fit(axis, [start, start + 4 * 3600], 8, vertical=False)
    assert [label for _, label in scale.marks] == ["23:00", "2 Mar", "01:00", "02:00"]
    assert caption(axis, scale) == "local time, 1 Mar to 2 Mar 2026, UTC+05:30"


def test_a_single_moment_has_a_minute_around_it() -> None:
    scale = fit(Axis(unit=Unit.TIME, zone=UTC), [1e9], 6, vertical=False)
    assert (scale.least, scale.greatest) == (1e9 - 30, 1e9 + 30)
    assert scale.share(1e9) == 0.5


def test_without_any_value_there_is_a_range_but_no_tick() -> None:
    for axis in (Axis(), Axis(logarithmic=True)):
        scale = fit(axis, [math.nan, math.inf, 10 * GREATEST], 6, vertical=False)
        assert scale.marks == ()
        assert scale.least < scale.greatest


def test_counts_that_differ_by_less_than_can_be_shown_have_a_whole_step_around_them() -> None:
    assert read(Axis(unit=Unit.COUNT), 0, 1e-7) == ["0", "1"]


def test_a_range_that_was_asked_for_is_shown_and_data_beyond_it_too() -> None:
    scale = fit(Axis(unit=Unit.SECONDS, least=0, greatest=600), [100, 700], 8, vertical=False)
    assert (scale.least, scale.greatest) == (0, 700)
