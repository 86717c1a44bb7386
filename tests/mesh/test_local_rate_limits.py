"""ASMLocalRateLimiter as a filter: bursts, refill, overrides in Envoy's order, connections, answers."""

from __future__ import annotations

import gc
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.asm import LIMITER, Connection, admitted, limit, limiter, override, request
from upwell.runtime.mesh.policy import Cause, Refusal


def refusal(policy: Any, now: float, **of: Any) -> Refusal:
    found = policy.admit(request(**of), now)
    assert isinstance(found, Refusal)
    return found


def test_a_burst_of_the_quota_passes_and_the_next_request_is_refused() -> None:
    policy = limiter(limit(60, 2))
    assert admitted(policy, 61, 100.0) == 60
    assert admitted(policy, 5, 100.0 + 2 / 60) == 1
    assert admitted(policy, 100, 101.0 + 2 / 60) == 30
    assert admitted(policy, 100, 200.0) == 60


def test_stepped_a_bucket_gets_its_tokens_at_the_end_of_the_interval() -> None:
    policy = limiter(limit(2, 60), stepped=True)
    assert admitted(policy, 3, 1000.3) == 2
    assert admitted(policy, 3, 1060.2) == 0
    assert admitted(policy, 3, 1060.3) == 2


def test_the_third_request_within_a_minute_is_refused_with_a_quota_of_two() -> None:
    policy = limiter(limit(2, 60))
    assert [admitted(policy, 1, now) for now in (0.0, 10.0, 20.0, 30.0)] == [1, 1, 0, 1]


def test_a_refusal_answers_as_envoy_and_the_mesh_do() -> None:
    policy = limiter(limit(1, 10))
    admitted(policy, 1, 0.0)
    answer = refusal(policy, 0.0)
    assert answer == Refusal(
        LIMITER,
        Cause.LIMITED,
        "RL",
        "more than 1 requests in 10 s (limit)",
        429,
        [(b"x-local-rate-limit", b"true"), (b"x-envoy-ratelimited", b"true"), (b"content-type", b"text/plain")],
        b"local_rate_limited",
    )


def test_what_is_added_to_a_refusal_does_not_show_in_the_next() -> None:
    policy = limiter(limit(1, 10))
    admitted(policy, 1, 0.0)
    refusal(policy, 0.0).headers.append((b"x-request-id", b"1"))
    assert len(refusal(policy, 0.0).headers) == 3


def test_status_body_and_header_fields_of_both_spellings_are_the_configs_own() -> None:
    policy = limiter(
        limit(
            1,
            custom_response_body='{"error": "slow down"}',
            response_header_to_add={"X-Old": "1", "X-Both": "old"},
            response_headers_to_add={"X-Both": "new", "Content-Type": "application/json"},
            status=503,
        )
    )
    admitted(policy, 1, 0.0)
    answer = refusal(policy, 0.0)
    assert (answer.status, answer.body) == (503, b'{"error": "slow down"}')
    assert dict(answer.headers) == {
        b"x-local-rate-limit": b"true",
        b"x-envoy-ratelimited": b"true",
        b"content-type": b"application/json",
        b"x-old": b"1",
        b"x-both": b"new",
    }


def test_a_status_below_400_becomes_429() -> None:
    policy = limiter(limit(1, status=200))
    admitted(policy, 1, 0.0)
    assert refusal(policy, 0.0).status == 429


HEADERS_PATH = [{"name": ":path", "prefix_match": "/headers"}]


def test_a_path_is_limited_by_an_override_below_a_high_base() -> None:
    policy = limiter(limit(100_000, 60), override(limit(10, 60), header_match=HEADERS_PATH))
    assert admitted(policy, 11, 0.0, request("/headers")) == 10
    assert admitted(policy, 11, 0.0, request("/get")) == 11
    assert (
        refusal(policy, 0.0, path="/headers").reason == "more than 10 requests in 60 s (limit_overrides[0].limit)"
    )


def test_an_override_tightens_a_limit_but_never_loosens_it() -> None:
    policy = limiter(limit(5), override(limit(1000), header_match=HEADERS_PATH))
    assert admitted(policy, 20, 0.0, request("/headers")) == 5


def test_the_slowest_override_is_asked_first_and_what_it_gave_stays_taken() -> None:
    slow = override(limit(2, 10), header_match=HEADERS_PATH)
    fast = override(limit(3, 1), header_match=[{"name": ":method", "exact_match": "GET"}])
    policy = limiter(limit(100), fast, slow)
    gets = request("/get")
    assert admitted(policy, 3, 0.0, gets) == 3
    # The fast one is empty: the slow one is asked first all the same and loses its tokens.
    refused = [refusal(policy, 0.0, path="/headers").reason for _ in range(3)]
    assert [reason.split("(")[1] for reason in refused] == [
        "limit_overrides[0].limit)",
        "limit_overrides[0].limit)",
        "limit_overrides[1].limit)",
    ]


def test_an_override_answers_with_its_own_parts_and_the_bases_otherwise() -> None:
    base = limit(9, status=418, custom_response_body="base", response_headers_to_add={"x-a": "1", "x-b": "1"})
    own = limit(1, custom_response_body="own", response_headers_to_add={"x-b": "2"})
    policy = limiter(base, override(own, header_match=HEADERS_PATH))
    admitted(policy, 1, 0.0, request("/headers"))
    answer = refusal(policy, 0.0, path="/headers")
    assert (answer.status, answer.body) == (418, b"own")
    assert [dict(answer.headers)[name] for name in (b"x-a", b"x-b")] == [b"1", b"2"]


@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(1, 8), st.integers(1, 4), st.sampled_from("abc")), max_size=4, unique=True),
    st.lists(st.tuples(st.integers(0, 1500), st.sets(st.sampled_from("abc"))), max_size=60),
)
def test_overrides_and_base_follow_envoys_order(
    quota: int, overrides: list[tuple[int, int, str]], visits: list[tuple[int, set[str]]]
) -> None:
    """Against buckets in fractions, in the order that Envoy documents."""
    overrides = list({name: (tokens, seconds, name) for tokens, seconds, name in overrides}.values())
    configs = [
        override(limit(tokens, seconds), header_match=[{"name": f"x-{name}", "present_match": True}])
        for tokens, seconds, name in overrides
    ]
    policy = limiter(limit(quota), *configs)
    order = sorted(overrides, key=lambda each: Fraction(each[0], each[1]))
    rules = [(tokens, Fraction(tokens, seconds), name) for tokens, seconds, name in order] + [(quota, quota, "")]
    levels = [Fraction(rule[0]) for rule in rules]
    now = Fraction(50)
    for pause, names in visits:
        elapsed = Fraction(pause, 1000)
        now += elapsed
        levels = [
            min(Fraction(rule[0]), level + elapsed * rule[1]) for rule, level in zip(rules, levels, strict=True)
        ]
        passes = True
        for index, (_, _, name) in enumerate(rules):
            if name and name not in names:
                continue
            # A nanosecond or two short of a whole token is whole: see the bucket.
            if levels[index] < 1 - Fraction(1, 10**6):
                passes = False
                break
            levels[index] -= 1
        asked = request(headers={f"x-{name}": "1" for name in names})
        assert (policy.admit(asked, float(now)) is None) == passes


def test_each_connection_has_a_bucket_of_its_own_while_it_lasts() -> None:
    policy = limiter(limit(2, 60, per_downstream_connection=True))
    first, second = Connection(), Connection()
    assert admitted(policy, 3, 0.0, request(connection=first)) == 2
    assert admitted(policy, 3, 0.0, request(connection=second)) == 2
    assert (
        refusal(policy, 0.0, connection=first).reason == "more than 2 requests from one connection in 60 s (limit)"
    )
    assert policy.connections == 2
    del first
    gc.collect()
    assert policy.connections == 1


def test_requests_without_a_connection_share_a_bucket() -> None:
    policy = limiter(limit(2, 60, per_downstream_connection=True))
    assert admitted(policy, 3, 0.0, request()) == 2
    assert policy.connections == 0


def test_an_override_may_count_each_connection_below_a_common_base() -> None:
    own = limit(1, 60, per_downstream_connection=True)
    policy = limiter(limit(3, 60), override(own, header_match=HEADERS_PATH))
    connections = [Connection() for _ in range(5)]
    passed = [admitted(policy, 2, 0.0, request("/headers", connection=each)) for each in connections]
    assert passed == [1, 1, 1, 0, 0]


def test_a_route_with_header_matches_limits_these_requests_alone() -> None:
    route = {"header_match": [{"name": "x-user-type", "exact_match": "guest"}]}
    policy = limiter(limit(1, 60), route=route)
    assert admitted(policy, 3, 0.0, request(headers={"x-user-type": "guest"})) == 1
    assert admitted(policy, 3, 0.0) == 3


@pytest.mark.parametrize("stepped", [False, True])
def test_over_a_long_time_no_more_passes_than_was_filled(stepped: bool) -> None:
    policy = limiter(limit(7, 3), stepped=stepped)
    passed = sum(admitted(policy, 2, 0.29 * index) for index in range(10_000))
    assert passed == 7 + (7 * 0.29 * 9999 // 3 if not stepped else 7 * (0.29 * 9999 // 3))
