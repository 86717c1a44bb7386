"""The histogram: bounded error, whatever is recorded."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.runtime.load.histogram import BUCKETS, LONGEST, MICROSECOND, Histogram, bucket_of, upper_edge

DURATIONS = st.floats(0, 100_000, allow_nan=False)
PERCENTS = st.floats(0.001, 100)


def recorded(durations: list[float]) -> Histogram:
    histogram = Histogram()
    for each in durations:
        histogram.record(each)
    return histogram


@given(st.lists(DURATIONS, min_size=1, max_size=200), PERCENTS)
def test_a_percentile_is_never_too_low_and_hardly_too_high(durations: list[float], percent: float) -> None:
    exact = sorted(durations)[max(1, math.ceil(percent * len(durations) / 100 - 1e-9)) - 1]
    told = recorded(durations).percentile(percent)
    assert exact <= told * (1 + 1e-12)
    assert told <= exact * (1 + 1 / 128) + 2 * MICROSECOND


@given(st.integers(0, LONGEST - 1))
def test_a_duration_lies_below_its_buckets_edge_and_above_the_one_before(units: int) -> None:
    bucket = bucket_of((units + 0.5) * MICROSECOND)
    assert units * MICROSECOND < upper_edge(bucket)
    if bucket:
        assert upper_edge(bucket - 1) <= (units + 1) * MICROSECOND


def test_buckets_follow_one_another_without_a_gap() -> None:
    edges = [upper_edge(bucket) for bucket in range(BUCKETS)]
    assert edges == sorted(set(edges))
    assert len({bucket_of(edge - MICROSECOND / 2) for edge in edges}) == BUCKETS
    assert all(later - earlier <= earlier / 128 + 1.1 * MICROSECOND for earlier, later in pairwise(edges))


@given(st.lists(DURATIONS, max_size=50), st.lists(DURATIONS, max_size=50), PERCENTS)
def test_two_merged_are_as_one_that_saw_both(mine: list[float], theirs: list[float], percent: float) -> None:
    merged, both = recorded(mine), recorded(mine + theirs)
    merged.merge(recorded(theirs))
    assert merged.percentile(percent) == both.percentile(percent)
    assert (merged.count, merged.least, merged.greatest) == (both.count, both.least, both.greatest)
    assert merged.mean == pytest.approx(both.mean)


def test_nothing_recorded_tells_zero() -> None:
    assert (Histogram().percentile(99), Histogram().mean, Histogram().greatest) == (0.0, 0.0, 0.0)


def test_what_is_beyond_all_bounds_is_counted_at_the_end() -> None:
    histogram = recorded([1e9, -1.0])
    assert histogram.count == 2
    assert histogram.percentile(100) == pytest.approx(LONGEST * MICROSECOND, rel=0.01)
