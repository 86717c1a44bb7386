"""What holds for every window: nothing negative, nothing left behind."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.autoscaler.window import LinearWindow, MaxWindow, WeightedWindow

BEGIN = 1_700_000_000
KINDS = pytest.mark.parametrize("kind", [LinearWindow, WeightedWindow])

records = st.lists(st.tuples(st.integers(-20, 40), st.floats(0, 1e6, allow_subnormal=False)), max_size=60)


@KINDS
@given(steps=records, length=st.integers(1, 30), granularity=st.integers(1, 5), new_length=st.integers(1, 30))
def test_averages_are_finite_and_never_negative(
    kind: type[LinearWindow], steps: list[tuple[int, float]], length: int, granularity: int, new_length: int
) -> None:
    window = kind(length, granularity)
    now = BEGIN
    for passed, value in steps:
        now += passed
        window.record(now, value)
        for moment in (now - 7, now, now + 3):
            assert 0 <= window.average(moment) < math.inf
    window.resize(now, new_length)
    assert window.window == new_length
    assert 0 <= window.average(now) < math.inf


@KINDS
@given(value=st.floats(0, 1e5, allow_subnormal=False), length=st.integers(1, 60))
def test_a_steady_value_is_its_own_average(kind: type[LinearWindow], value: float, length: int) -> None:
    window = kind(length)
    for second in range(2 * length):
        window.record(BEGIN + second, value)
    exact = kind is LinearWindow
    assert window.average(BEGIN + 2 * length - 1) == pytest.approx(value, rel=0 if exact else 1e-3, abs=1e-6)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.integers(1, 20))
def test_load_that_is_over_leaves_nothing_behind(loads: list[float], length: int) -> None:
    window = LinearWindow(length)
    for second, load in enumerate(loads):
        window.record(BEGIN + second, load)
    end = BEGIN + len(loads)
    for second in range(3 * length):
        window.record(end + second, 0.0)
    assert window.average(end + 3 * length - 1) == 0.0


def test_a_window_nothing_was_written_to_is_empty_whatever_its_length() -> None:
    for window in (LinearWindow(60), WeightedWindow(60)):
        assert window.empty(BEGIN)
        window.resize(BEGIN, 30)
        assert (window.average(BEGIN), window.newest) == (0.0, None)


def test_a_value_from_before_the_window_is_refused() -> None:
    window = LinearWindow(10)
    assert window.record(BEGIN, 1.0)
    assert not window.record(BEGIN - 10, 5.0)
    assert window.record(BEGIN - 9, 5.0)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 50)), min_size=1, max_size=60),
    st.integers(1, 40),
    st.integers(1, 5),
)
def test_the_maximum_is_that_of_the_buckets_in_reach(
    steps: list[tuple[int, int]], duration: int, granularity: int
) -> None:
    window = MaxWindow(duration, granularity)
    now, seen = BEGIN, list[tuple[int, int]]()
    for passed, value in steps:
        now += passed
        window = window.record(now, value)
        seen.append((now // granularity, value))
        oldest = now // granularity - math.ceil(duration / granularity)
        assert window.current == max(value for bucket, value in seen if bucket > oldest)
        assert len(window.peaks) <= math.ceil(duration / granularity)


def test_a_maximum_of_nothing_is_zero() -> None:
    assert MaxWindow(10, 2).current == 0
