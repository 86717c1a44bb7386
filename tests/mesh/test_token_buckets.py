"""Token buckets against a plain account in fractions, over short times and long ones."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.runtime.mesh.token_bucket import SLACK, ContinuousBucket, SteppedBucket, TokenBucket

SECOND = 1_000_000_000


class Account:
    """Envoy's rule in fractions, on whole nanoseconds."""

    def __init__(self, quota: int, interval: int, now: int) -> None:
        self.quota = quota
        self.rate = Fraction(quota, interval)
        self.tokens = Fraction(quota)
        self.at = now
        # What floats may fall short of, as the bucket allows it: in tokens, and never a whole one.
        self.slack = min(SLACK * self.rate, 1 - Fraction(1, self.rate.denominator))

    def take(self, now: int) -> bool:
        self.tokens = min(Fraction(self.quota), self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens + self.slack < 1:
            return False
        self.tokens -= 1
        return True


@given(
    st.integers(1, 1000),
    st.integers(50_000_000, 100 * SECOND),
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(0, 3 * SECOND), st.integers(1, 30)), max_size=40),
)
def test_a_continuous_bucket_keeps_the_account_in_fractions(
    quota: int, interval: int, started: int, visits: list[tuple[int, int]]
) -> None:
    # Milliseconds are what a float holds without doubt after this many seconds.
    now = started * SECOND
    bucket = ContinuousBucket(quota, interval, now / 1e9)
    account = Account(quota, interval, int(now / 1e9 * 1e9))
    for pause, times in visits:
        now += pause
        seen = int(now / 1e9 * 1e9)
        for _ in range(times):
            assert bucket.take(now / 1e9) == account.take(seen)


@pytest.mark.parametrize(
    ("quota", "interval"), [(60, 2 * SECOND), (7, 3 * SECOND), (333, SECOND), (2, 7 * SECOND)]
)
def test_a_continuous_bucket_does_not_drift_over_a_million_seconds(quota: int, interval: int) -> None:
    bucket = ContinuousBucket(quota, interval, 0.0)
    step = 2 * interval // quota / 3 / 1e9
    visits = 100_000
    taken = sum(bucket.take(index * step) for index in range(visits))
    span = Fraction((visits - 1) * step)
    assert taken == quota + int(span * 1_000_000_000 * quota / interval)
    late = 1e6 + visits * step
    assert sum(bucket.take(late) for _ in range(2 * quota)) == quota


def test_a_burst_passes_and_then_one_request_for_each_token_that_is_filled() -> None:
    bucket = ContinuousBucket(60, 2 * SECOND, 1000.1)
    assert [bucket.take(1000.1) for _ in range(61)] == [True] * 60 + [False]
    for index in range(1, 120):
        at = 1000.1 + index / 30
        assert not bucket.take(at - 0.001)
        assert bucket.take(at)
        assert not bucket.take(at)


def test_a_refusal_costs_nothing() -> None:
    bucket = ContinuousBucket(1, SECOND, 0.0)
    assert bucket.take(0.0)
    assert not any(bucket.take(index / 100) for index in range(1, 100))
    assert bucket.take(1.0)


@given(
    st.integers(1, 50),
    st.integers(50, 5000),
    st.lists(st.tuples(st.integers(0, 8000), st.integers(1, 60)), max_size=30),
)
def test_a_stepped_bucket_is_full_at_each_edge_and_never_between(
    quota: int, milliseconds: int, visits: list[tuple[int, int]]
) -> None:
    now = 5000
    bucket = SteppedBucket(quota, milliseconds * 1_000_000, now / 1000)
    left = {0: quota}
    for pause, times in visits:
        now += pause
        edge = (now - 5000) // milliseconds
        left = {edge: left.get(edge, quota)}
        for _ in range(times):
            assert bucket.take(now / 1000) == (left[edge] > 0)
            left[edge] = max(0, left[edge] - 1)


@pytest.mark.parametrize("kind", [ContinuousBucket, SteppedBucket])
def test_a_bucket_never_holds_more_than_its_quota(kind: type[ContinuousBucket] | type[SteppedBucket]) -> None:
    bucket: TokenBucket = kind(3, SECOND, 0.0)
    assert sum(bucket.take(3600.0) for _ in range(10)) == 3


def test_the_largest_quota_at_the_shortest_interval_is_no_more_than_its_quota() -> None:
    bucket = ContinuousBucket(2**31 - 1, 50_000_000, 0.0)
    assert all(bucket.take(0.0) for _ in range(1000))
    small = ContinuousBucket(30_000_000, 50_000_000, 0.0)
    assert all(small.take(0.0) for _ in range(1000))
