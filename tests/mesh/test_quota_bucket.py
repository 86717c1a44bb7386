"""Tokens that come at a rate, and may be drawn ahead of time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.runtime.mesh.quota_bucket import QuotaBucket

NEVER = float("inf")


def test_a_bucket_starts_full_and_is_filled_continuously() -> None:
    bucket = QuotaBucket(10, 10, 1.0, 100.0)
    assert [bucket.take(1, 100.0) for _ in range(11)] == [True] * 10 + [False]
    assert not bucket.take(1, 100.09)
    assert bucket.take(1, 100.1)
    assert not bucket.take(1, 100.1)


def test_what_is_beyond_the_capacity_is_lost() -> None:
    bucket = QuotaBucket(10, 10, 1.0, 0.0)
    assert bucket.is_full(500.0)
    assert [bucket.take(5, 500.0) for _ in range(3)] == [True, True, False]


def test_a_stepped_bucket_gets_all_at_once_on_the_edge_of_its_interval() -> None:
    bucket = QuotaBucket(10, 4, 1.0, 0.0, continuous=False)
    assert bucket.take(10, 0.5)
    assert not bucket.take(1, 0.99)
    assert [bucket.take(1, 1.0) for _ in range(5)] == [True] * 4 + [False]
    assert not bucket.take(4, 1.9)
    assert bucket.take(8, 3.5)
    assert bucket.take(4, 4.0)


def test_tokens_drawn_ahead_of_time_say_when_they_will_have_come() -> None:
    bucket = QuotaBucket(10, 10, 1.0, 0.0)
    assert bucket.draw(10, 0.0, NEVER) == 0.0
    assert bucket.draw(1, 0.0, NEVER) == pytest.approx(0.1)
    assert bucket.draw(2, 0.0, NEVER) == pytest.approx(0.3)
    assert bucket.available == pytest.approx(-3)
    assert not bucket.take(1, 0.3)
    assert bucket.take(1, 0.4)


def test_a_stepped_bucket_counts_whole_steps_from_its_last_one() -> None:
    bucket = QuotaBucket(4, 4, 1.0, 0.0, continuous=False)
    assert bucket.draw(4, 0.25, NEVER) == 0.25
    assert bucket.draw(4, 0.25, NEVER) == pytest.approx(1.0)
    assert bucket.draw(1, 0.25, NEVER) == pytest.approx(2.0)


def test_what_would_come_too_late_is_not_drawn() -> None:
    bucket = QuotaBucket(1, 1, 1.0, 0.0)
    assert bucket.take(1, 0.0)
    assert bucket.draw(1, 0.0, 0.5) is None
    assert bucket.available == 0
    assert bucket.draw(1, 0.0, 1.0) == 1.0


def test_a_bucket_that_is_never_filled_is_empty_once() -> None:
    bucket = QuotaBucket(1, 0, 1.0, 0.0)
    assert bucket.draw(1, 0.0, NEVER) == 0.0
    assert bucket.draw(1, 1000.0, 2000.0) is None
    assert not bucket.take(1, 1000.0)


def test_what_is_given_back_never_overfills() -> None:
    bucket = QuotaBucket(10, 10, 1.0, 0.0)
    assert bucket.take(3, 0.0)
    bucket.give_back(3, 5.0)
    assert bucket.available == 10


@pytest.mark.parametrize(("continuous", "at_the_start"), [(True, 0.5), (False, 10)])
def test_filling_may_begin_only_after_the_time_of_a_whole_bucket(continuous: bool, at_the_start: float) -> None:
    bucket = QuotaBucket(20, 10, 1.0, 0.0, continuous=continuous, delays_filling=True)
    assert bucket.take(20, 5.0)
    assert not bucket.take(0.1, 7.0)
    assert bucket.draw(1, 6.0, 6.5) is None
    assert bucket.take(at_the_start, 7.05)
    assert not bucket.take(0.1, 7.05)


def test_rounding_does_not_keep_a_token_that_is_due() -> None:
    bucket = QuotaBucket(1, 3, 1.0, 0.1)
    now = 0.1
    for _ in range(1000):
        assert bucket.take(1, now)
        now += 1 / 3


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "draw", "return"]),
        st.floats(0.001, 12),
        st.floats(0, 3),
        st.floats(0, 5),
    ),
    max_size=40,
)


@given(
    STEPS,
    st.floats(0, 10),
    st.floats(0.1, 10),
    st.floats(0.05, 4),
    st.booleans(),
    st.booleans(),
)
def test_tokens_are_never_over_issued(
    steps: list[tuple[str, float, float, float]],
    capacity: float,
    fill: float,
    interval: float,
    continuous: bool,
    delays: bool,
) -> None:
    """In no span of time do more tokens count than a full bucket, or the dearest request where that is more, and
    what has come meanwhile."""
    bucket = QuotaBucket(capacity, fill, interval, 0.0, continuous=continuous, delays_filling=delays)
    now = 0.0
    issued: list[tuple[float, float]] = []
    for operation, tokens, wait, patience in steps:
        now += wait
        if operation == "take" and bucket.take(tokens, now):
            issued.append((now, tokens))
        elif operation == "draw":
            ready_at = bucket.draw(tokens, now, now + patience)
            if ready_at is not None:
                assert now <= ready_at <= now + patience
                issued.append((ready_at, tokens))
        elif operation == "return" and issued and issued[-1][0] >= now:
            bucket.give_back(issued.pop()[1], now)
        assert bucket.available <= capacity
    issued.sort()
    most = max((capacity, *(tokens for _, tokens in issued)))
    for first, (start, _) in enumerate(issued):
        total = 0.0
        for end, tokens in issued[first:]:
            total += tokens
            came = fill * (end - start) / interval + (0 if continuous else fill)
            assert total <= most + came + 1e-3
