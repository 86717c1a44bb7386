"""ASMCircuitBreaker: what opens a circuit, what is answered meanwhile, how it closes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.asm import BREAKER, VHOST, admitted, breaker, request
from upwell.functions.api.asm import BreakerConfig, CircuitBreakerConfig
from upwell.runtime.mesh.circuit_breaker import (
    MOST_TRANSITIONS,
    WINDOW_STEPS,
    Circuit,
    CircuitBreaker,
    SlidingCounts,
    Transition,
)
from upwell.runtime.mesh.policy import Cause, Refusal

ARTICLE: dict[str, Any] = {
    "break_duration": "60s",
    "custom_response": {"body": "delay break!", "header_to_add": {"x-envoy-overload": "true"}, "status_code": 498},
    "max_slow_requests": 5,
    "min_request_amount": 2,
    "slow_request_rt": "0.5s",
    "window_size": "10s",
}


def circuit(**settings: Any) -> Circuit:
    return Circuit(BreakerConfig.model_validate(settings))


def answers(policy: CircuitBreaker, *statuses: int, now: float, seconds: float = 0.0) -> bool:
    """Give these answers; whether the circuit is open after them."""
    for status in statuses:
        policy.answered(request(), status, seconds, now)
    return policy.is_open(now)


def test_the_articles_breaker_opens_after_more_than_five_slow_requests_and_recovers_after_a_minute() -> None:
    policy = breaker(**ARTICLE)
    for index in range(6):
        now = 100.0 + index
        assert admitted(policy, 1, now) == 1
        policy.answered(request(), 200, 0.8, now + 0.8)
    refused = policy.admit(request(), 106.0)
    assert refused == Refusal(
        BREAKER,
        Cause.BROKEN,
        "UO",
        "circuit open: 6 requests over 0.5 s in 10 s, 5 are allowed",
        498,
        [(b"content-type", b"text/plain"), (b"x-envoy-overload", b"true")],
        b"delay break!",
    )
    assert admitted(policy, 1, 165.79) == 0
    assert admitted(policy, 1, 165.8) == 1
    assert policy.transitions == (
        Transition(True, 105.8, 165.8, "6 requests over 0.5 s in 10 s, 5 are allowed"),
        Transition(False, 165.8, None, "60 s are over"),
    )


def test_a_request_that_takes_exactly_the_time_is_not_slow() -> None:
    policy = breaker(slow_request_rt="0.5s", max_slow_requests=0)
    assert not answers(policy, 200, now=1.0, seconds=0.5)
    assert answers(policy, 200, now=1.0, seconds=0.5001)


def test_slow_requests_count_within_the_window_alone() -> None:
    policy = breaker(slow_request_rt="0.5s", max_slow_requests=1, window_size="10s")
    assert not answers(policy, 200, now=0.0, seconds=1)
    assert not answers(policy, 200, now=10.0, seconds=1)
    assert answers(policy, 200, now=19.99, seconds=1)


def test_slow_requests_need_no_least_number_of_requests() -> None:
    policy = breaker(slow_request_rt="0.5s", max_slow_requests=0, min_request_amount=100)
    assert answers(policy, 200, now=1.0, seconds=1)


def test_a_share_of_errors_must_be_above_the_percentage() -> None:
    policy = breaker(error_percent={"value": 50})
    assert not answers(policy, 200, 500, now=1.0)
    assert answers(policy, 599, now=1.0)
    assert policy.transitions[0].reason == "2 of 3 requests in 10 s were answered 5xx, 50 % are allowed"


def test_the_percentage_waits_for_the_least_number_of_requests() -> None:
    policy = breaker(error_percent={"value": 60}, min_request_amount=3)
    assert not answers(policy, 500, 500, now=1.0)
    assert answers(policy, 500, now=1.0)


def test_errors_of_the_caller_are_no_errors() -> None:
    policy = breaker(error_percent={"value": 0})
    assert not answers(policy, 400, 404, 429, 499, 101, now=1.0)
    assert answers(policy, 500, now=1.0)


def test_gateway_errors_are_502_503_and_504() -> None:
    policy = breaker(gateway_error_percent={"value": 50}, min_request_amount=2)
    assert not answers(policy, 500, 501, 505, 502, 503, now=1.0)
    assert answers(policy, 504, 504, 504, 504, now=1.0)
    assert "502, 503 or 504" in policy.transitions[0].reason


def test_a_circuit_may_open_when_successes_leave_the_window() -> None:
    policy = breaker(error_percent={"value": 60}, window_size="10s")
    answers(policy, 200, 200, 200, now=0.0)
    assert not answers(policy, 500, 500, now=8.0)
    assert admitted(policy, 1, 9.9) == 1
    assert admitted(policy, 1, 10.1) == 0


def test_the_usual_time_of_a_service_breaks_nothing() -> None:
    policy = breaker(average_request_rt="0.01s")
    assert not answers(policy, 200, 500, now=1.0, seconds=9)


def test_answers_while_it_is_open_count_nowhere_and_it_begins_anew_when_closed() -> None:
    policy = breaker(error_percent={"value": 50}, min_request_amount=2, break_duration="5s")
    assert answers(policy, 500, 500, now=10.0)
    answers(policy, *[500] * 9, now=14.0)
    assert not policy.is_open(15.0)
    assert not answers(policy, 500, now=15.0)
    assert answers(policy, 500, now=15.0)
    assert [each.is_open for each in policy.transitions] == [True, False, True]


def test_a_late_answer_that_finds_the_time_over_closes_the_circuit_first() -> None:
    subject = circuit(error_percent={"value": 0}, break_duration="5s")
    assert [each.is_open for each in subject.answered(500, 0, 1.0)] == [True]
    assert [each.is_open for each in subject.answered(500, 0, 6.5)] == [False, True]
    assert subject.until == 11.5


def test_the_default_answer_says_what_it_is() -> None:
    policy = breaker(error_percent={"value": 0})
    answers(policy, 500, now=1.0)
    refused = policy.admit(request(), 1.0)
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.headers) == (503, [(b"content-type", b"text/plain")])
    assert refused.body == b"circuit breaker open"
    assert policy.is_open(30.99)
    assert not policy.is_open(31.0)


def test_parts_of_an_answer_that_are_not_given_are_the_defaults() -> None:
    policy = breaker(error_percent={"value": 0}, custom_response={"header_to_add": {"Content-Type": "text/html"}})
    answers(policy, 500, now=1.0)
    refused = policy.admit(request(), 1.0)
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.headers) == (503, [(b"content-type", b"text/html")])


def test_a_route_with_header_matches_counts_and_refuses_these_requests_alone() -> None:
    route = {"header_match": [{"name": "x-user-type", "exact_match": "guest"}]}
    match = {"vhost": {**VHOST["vhost"], "route": route}}
    config = CircuitBreakerConfig.model_validate(
        {"match": match, "breaker_config": {"error_percent": {"value": 0}}}
    )
    policy = CircuitBreaker(BREAKER, config)
    guest = request(headers={"x-user-type": "guest"})
    assert not answers(policy, 500, now=1.0)
    policy.answered(guest, 500, 0.0, 1.0)
    assert admitted(policy, 1, 1.0, guest) == 0
    assert admitted(policy, 1, 1.0) == 1


def test_transitions_are_told_and_the_last_ones_kept() -> None:
    told: list[Transition] = []
    settings = {"error_percent": {"value": 0}, "break_duration": "1s"}
    config = CircuitBreakerConfig.model_validate({"match": VHOST, "breaker_config": settings})
    policy = CircuitBreaker(BREAKER, config, told.append)
    for second in range(100):
        answers(policy, 500, now=float(second))
    assert len(told) == 199
    assert policy.transitions == tuple(told[-MOST_TRANSITIONS:])


def test_a_window_keeps_a_bounded_number_of_counts_however_many_answers_come() -> None:
    subject = circuit(error_percent={"value": 50}, window_size="12s")
    counts = SlidingCounts(12.0)
    for index in range(50_000):
        subject.answered(200, 0.0, index / 1000)
        counts.advance(index / 1000)
        counts.add(False, False, False, index / 1000)
    assert len(counts) <= WINDOW_STEPS
    assert subject.counts.requests == counts.total.requests == pytest.approx(12_000, abs=15)


ANSWERS = st.tuples(
    st.integers(0, 4000),
    st.sampled_from([200, 200, 404, 500, 502, 504]),
    st.sampled_from([0.1, 0.5, 0.6]),
    st.booleans(),
)


@given(
    st.none() | st.integers(0, 4),
    st.none() | st.integers(0, 100),
    st.none() | st.integers(0, 100),
    st.integers(0, 5),
    st.sampled_from([1, 5, 10, 12]),
    st.lists(ANSWERS, max_size=60),
)
def test_a_circuit_follows_a_list_of_all_answers(
    most_slow: int | None,
    errors: int | None,
    gateway_errors: int | None,
    least: int,
    window: int,
    visits: list[tuple[int, int, float, bool]],
) -> None:
    """Times are whole steps of the window, where the sliding counts are exact."""
    settings: dict[str, Any] = {
        "window_size": f"{window}s",
        "min_request_amount": least,
        "slow_request_rt": "0.5s",
    }
    if most_slow is not None:
        settings["max_slow_requests"] = most_slow
    if errors is not None:
        settings["error_percent"] = {"value": errors}
    if gateway_errors is not None:
        settings["gateway_error_percent"] = {"value": gateway_errors}
    settings["break_duration"] = "2s"
    subject = circuit(**settings)
    known: list[tuple[int, int, float]] = []
    step, until = 0, -1.0

    def exceeded() -> bool:
        recent = [each for each in known if step - each[0] < WINDOW_STEPS]
        slow = sum(seconds > 0.5 for _, _, seconds in recent)
        failed = sum(status >= 500 for _, status, _ in recent)
        gateway = sum(status in (502, 503, 504) for _, status, _ in recent)
        if most_slow is not None and slow > most_slow:
            return True
        if len(recent) < least or not recent:
            return False
        shares = ((errors, failed), (gateway_errors, gateway))
        return any(percent is not None and count / len(recent) > percent / 100 for percent, count in shares)

    for pause, status, seconds, is_answer in visits:
        step += pause
        now = step * window / WINDOW_STEPS
        if now >= until and exceeded():
            until = now + 2
            known.clear()
        if is_answer:
            subject.answered(status, seconds, now)
            if now >= until:
                known.append((step, status, seconds))
                if exceeded():
                    until = now + 2
                    known.clear()
        else:
            subject.advance(now)
        assert subject.is_open == (now < until)
