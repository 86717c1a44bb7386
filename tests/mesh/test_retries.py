"""When a request is tried again, after which pause, and when the budget says no."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.functions.api.http_routes import HTTPRetry
from upwell.runtime.mesh.retries import Failure, RetryBudget, RetryPolicy


def policy(**rule: Any) -> RetryPolicy:
    made = RetryPolicy.of(HTTPRetry.model_validate({"attempts": 2, **rule}))
    assert made is not None
    return made


def conditions(retry_on: str, status: int, *fields: tuple[bytes, bytes]) -> bool:
    return policy(retryOn=retry_on).condition_of(status, list(fields)) is not None


def test_istios_defaults_hold_where_a_route_says_nothing() -> None:
    default = RetryPolicy.of(None)
    assert default is not None
    assert default == policy()
    assert (default.attempts, default.per_try_timeout, default.avoids_previous) == (2, None, True)
    assert default.conditions == {"connect-failure", "refused-stream", "unavailable", "cancelled"}
    assert default.condition_of(503, []) is None


@pytest.mark.parametrize("rule", [{}, {"attempts": 0}])
def test_no_attempts_turn_retries_off(rule: dict[str, Any]) -> None:
    assert RetryPolicy.of(HTTPRetry.model_validate(rule)) is None


@pytest.mark.parametrize(
    ("retry_on", "statuses"),
    [
        ("5xx", {500, 502, 503, 504, 599}),
        ("gateway-error", {502, 503, 504}),
        ("retriable-4xx", {409}),
        ("404,409", {404, 409}),
        ("retriable-status-codes, 500", {500}),
        ("retriable-status-codes", set()),
        ("connect-failure,refused-stream,reset", set()),
    ],
)
def test_statuses_are_tried_again_as_envoy_does(retry_on: str, statuses: set[int]) -> None:
    every = {200, 301, 400, 404, 409, 429, 500, 501, 502, 503, 504, 599}
    expected = statuses | ({501} if retry_on == "5xx" else set())
    assert {status for status in every if conditions(retry_on, status)} == expected


def test_an_answer_of_a_limiter_is_only_tried_again_where_that_is_asked_for() -> None:
    limited = (b"x-envoy-ratelimited", b"true")
    assert not conditions("5xx,429", 429, limited)
    assert not conditions("5xx", 503, limited)
    assert conditions("envoy-ratelimited", 429, limited)


def test_grpc_statuses_count_by_their_names() -> None:
    assert conditions("unavailable", 200, (b"grpc-status", b"14"))
    assert not conditions("unavailable", 200, (b"grpc-status", b"1"))
    assert not conditions("unavailable", 200, (b"grpc-status", b"99"))


@pytest.mark.parametrize(
    ("retry_on", "failures"),
    [
        ("connect-failure", {Failure.CONNECT}),
        ("refused-stream", {Failure.REFUSED}),
        ("reset", {Failure.CONNECT, Failure.REFUSED, Failure.RESET, Failure.TIMEOUT}),
        ("5xx", {Failure.CONNECT, Failure.REFUSED, Failure.RESET, Failure.TIMEOUT}),
        ("gateway-error", {Failure.CONNECT, Failure.REFUSED, Failure.RESET, Failure.TIMEOUT}),
        ("retriable-4xx,503", set()),
    ],
)
def test_failures_are_tried_again_but_never_an_overflow(retry_on: str, failures: set[Failure]) -> None:
    made = policy(retryOn=retry_on)
    assert {each for each in Failure if made.condition_of_failure(each) is not None} == failures


def test_a_reset_before_anything_was_sent_has_a_condition_of_its_own() -> None:
    made = policy(retryOn="reset-before-request")
    assert made.condition_of_failure(Failure.RESET, sent=False) is not None
    assert made.condition_of_failure(Failure.RESET) is None


def test_attempts_come_to_an_end_and_each_decision_has_its_reason() -> None:
    made = policy(retryOn="5xx")
    condition = made.condition_of(503, [])
    assert made.decide(1, condition, lambda: 0.5) == (0.025, "5xx: status 503")
    assert made.decide(2, condition, lambda: 0.5) == (None, "5xx: status 503, and all 2 retries were made")
    assert made.decide(0, None, lambda: 0.5) == (None, "no condition for a retry holds")
    held = made.decide(0, condition, lambda: 0.5, replayable=False)
    assert held == (None, "5xx: status 503, but the body is no longer held")


@pytest.mark.parametrize(("made", "longest"), [(0, 0.025), (1, 0.05), (2, 0.1), (3, 0.2), (4, 0.25), (50, 0.25)])
def test_the_longest_pause_doubles_up_to_ten_times_the_first(made: int, longest: float) -> None:
    assert policy().pause(made, lambda: 1.0) == pytest.approx(longest)
    assert policy().pause(made, lambda: 0.0) == 0.0
    assert policy(backoff="2s").pause(made, lambda: 1.0) == pytest.approx(longest * 80)


def test_what_the_route_says_is_kept() -> None:
    made = policy(perTryTimeout="1s", retryIgnorePreviousHosts=False, retryRemoteLocalities=True)
    assert (made.per_try_timeout, made.avoids_previous, made.prefers_other_zones) == (1.0, False, True)


@given(st.floats(0, 100), st.integers(0, 10), st.integers(0, 1000), st.integers(0, 300))
def test_a_budget_is_a_share_of_the_requests_in_flight_but_never_less_than_its_least(
    percent: float, least: int, requests: int, retries: int
) -> None:
    budget = RetryBudget(percent, least)
    budget.requests, budget.retries = requests, retries
    assert budget.limit == max(least, int(percent * requests / 100))
    decision = policy(retryOn="5xx").decide(0, "5xx", lambda: 0.5, budget=budget)
    assert (decision.delay is None) == (retries >= budget.limit)


def test_the_defaults_of_a_budget_are_istios() -> None:
    budget = RetryBudget()
    budget.requests = 100
    assert budget.limit == 20
