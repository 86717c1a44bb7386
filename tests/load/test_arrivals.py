"""When requests are due, and how they are divided."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.runtime.load.arrivals import always, apportioned, constant, limited, poisson


def test_a_constant_rate_does_not_drift() -> None:
    (last,) = itertools.islice(constant(3.0), 3_000_000, 3_000_001)
    assert last == 1_000_000.0


def test_a_phase_shifts_all() -> None:
    assert [*itertools.islice(constant(10.0, 0.05), 3)] == pytest.approx([0.05, 0.15, 0.25])


def test_poisson_arrivals_ascend_and_keep_the_rate() -> None:
    times = [*itertools.takewhile(lambda at: at < 200, poisson(50.0, random.Random(1).random))]
    assert times == sorted(times)
    assert len(times) == pytest.approx(10_000, rel=0.05)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert variance == pytest.approx(mean**2, rel=0.1), "of an exponential distribution"


def test_arrivals_end_by_count_or_before_a_time() -> None:
    assert [*limited(constant(2.0), 3, None)] == [0.0, 0.5, 1.0]
    assert [*limited(constant(2.0), None, 1.0)] == [0.0, 0.5]
    assert [*limited(always(), 2, None)] == [0.0, 0.0]


@given(st.integers(0, 10_000), st.lists(st.floats(0.01, 1000), min_size=1, max_size=8))
def test_parts_add_up_and_are_off_by_less_than_one(whole: int, shares: list[float]) -> None:
    parts = apportioned(whole, shares)
    assert sum(parts) == whole
    assert all(
        abs(part - whole * share / sum(shares)) < 1 + 1e-6 for part, share in zip(parts, shares, strict=True)
    )


def test_every_class_gets_a_connection() -> None:
    assert apportioned(4, [1.0, 99.0], least=1) == [1, 4]
