"""Load, want and ready of each revision over time: every tick of late, and by the minute further back."""

from __future__ import annotations

import math
from random import Random
from typing import NamedTuple

import numpy as np
import pytest

from upwell.autoscaler.series import COARSE_POINTS, FINE_POINTS, Series, SeriesColumns

BEGIN = 1_700_000_000.0
TICK = 2.0


class Point(NamedTuple):
    time: float
    load: float
    want: int
    ready: int


def points_of(series: Series) -> list[Point]:
    columns = (column.tolist() for column in series)
    return [Point(*values) for values in zip(*columns, strict=True)]


def note(columns: SeriesColumns, now: float, **points: tuple[float, int, int]) -> None:
    """Note points by row, `row_3=(load, want, ready)`."""
    rows = np.array([int(name.removeprefix("row_")) for name in points], np.int64)
    load = np.array([load for load, _, _ in points.values()], np.float64)
    want = np.array([want for _, want, _ in points.values()], np.int64)
    ready = np.array([ready for _, _, ready in points.values()], np.int64)
    columns.note(now, rows, load, want, ready)


def expected_of(noted: list[Point]) -> list[Point]:
    """What a series should hold of all the points noted of a row, up to the minute that is not over."""
    fine = noted[-FINE_POINTS:]
    if len(noted) <= FINE_POINTS:
        return fine
    minutes: dict[float, list[Point]] = {}
    for point in noted:
        minutes.setdefault(point.time // 60 * 60, []).append(point)
    over = list(minutes.items())[:-1]
    coarse = [
        Point(start, max(p.load for p in points), max(p.want for p in points), max(p.ready for p in points))
        for start, points in over
    ]
    return [point for point in coarse[-COARSE_POINTS:] if point.time < fine[0].time] + fine


def test_a_series_is_fine_of_late_and_by_the_minute_before_with_the_greatest_values() -> None:
    random = Random(5)
    columns = SeriesColumns()
    noted: dict[int, list[Point]] = {0: [], 5: [], 300: []}
    for tick in range(6500):
        now = BEGIN + TICK * tick
        points = {}
        for row, joins in ((0, 0), (5, 17), (300, 4000)):
            if tick < joins:
                continue
            # One row sleeps for hours in between, longer than a series reaches back.
            asleep = row == 5 and 500 < tick < 6300
            count = 0 if asleep else random.randrange(9)
            point = Point(now, count / 2, count, random.randrange(5) if count else 0)
            noted[row].append(point)
            points[f"row_{row}"] = point[1:]
        note(columns, now, **points)
        if tick in (0, 20, 299, 300, 450, 801, 2000, 5400, 6299):
            for row, history in noted.items():
                assert points_of(columns.of(row)) == (expected_of(history) if history else [])
    for row, history in noted.items():
        assert points_of(columns.of(row)) == expected_of(history)
    reach = columns.of(0).times[-1] - columns.of(0).times[0]
    assert len(columns.of(0).times) <= FINE_POINTS + COARSE_POINTS
    assert 3 * 3600 - 120 <= reach <= 3 * 3600 + 60


def test_what_is_unknown_is_told_as_unknown_unless_nothing_is_there() -> None:
    columns = SeriesColumns()
    note(columns, BEGIN, row_0=(math.nan, -1, 2), row_1=(math.nan, -1, 0))
    note(columns, BEGIN + 60, row_0=(3.0, 1, 2), row_1=(0.0, 0, 0))
    known, rests = columns.of(0), columns.of(1)
    assert np.isnan(known.load).tolist() == [True, False]
    assert known.want.tolist() == [-1, 1]
    assert points_of(rests) == [Point(BEGIN, 0, 0, 0), Point(BEGIN + 60, 0, 0, 0)]


def test_a_minute_partly_unknown_shows_what_was_known() -> None:
    columns = SeriesColumns()
    begin = BEGIN // 60 * 60
    for tick in range(FINE_POINTS + 31):
        unknown = tick % 2 == 0
        note(columns, begin + TICK * tick, row_0=(math.nan if unknown else 4.0, -1 if unknown else 3, 1))
    series = columns.of(0)
    assert points_of(series)[0] == Point(begin, 4.0, 3, 1)
    assert len(series.times) == 2 + FINE_POINTS


def test_counts_beyond_what_a_point_holds_saturate() -> None:
    columns = SeriesColumns()
    note(columns, BEGIN, row_0=(1.5, 10**6, 10**6))
    assert points_of(columns.of(0)) == [Point(BEGIN, 1.5, 32767, 32767)]


@pytest.mark.parametrize("ticks", [5, FINE_POINTS + 100])
def test_a_cleared_row_shares_nothing_with_the_next_that_gets_its_number_or_memory(ticks: int) -> None:
    columns = SeriesColumns()
    for tick in range(ticks):
        note(columns, BEGIN + TICK * tick, row_0=(9.0, 9, 9), row_1=(0.0, 0, 0))
    columns.clear(0)
    columns.clear(1000)
    assert points_of(columns.of(0)) == []
    later = BEGIN + TICK * ticks
    note(columns, later, row_0=(1.0, 1, 1), row_1=(2.0, 2, 2))
    assert points_of(columns.of(0)) == [Point(later, 1.0, 1, 1)]
    one = points_of(columns.of(1))
    assert one[-1] == Point(later, 2.0, 2, 2)
    assert {point[1:] for point in one[:-1]} == {(0.0, 0, 0)}


def test_a_series_of_a_row_never_noted_is_empty() -> None:
    columns = SeriesColumns()
    note(columns, BEGIN)
    assert [len(column) for column in columns.of(3)] == [0, 0, 0, 0]
