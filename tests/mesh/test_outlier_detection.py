"""Replicas that keep failing are taken out and come back, as Envoy does it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.replicas import ARTICLE, RULE, Revision, under
from upwell.functions.api.traffic_policy import OutlierDetection
from upwell.runtime.mesh.outlier_detection import Detector, OutlierDetector, OutlierRule

ALL = {"maxEjectionPercent": 100}


def ejected(revision: Revision, name: str, *statuses: int) -> bool:
    revision.answer(name, *statuses)
    return name in revision.out


# The article's rule


def test_three_503_from_one_replica_take_it_out_for_20_seconds_and_it_is_back() -> None:
    revision = under(ARTICLE, "", "", "")
    assert revision.answer("a", 503, 503) is None
    found = revision.answer("a", 503)
    assert found is not None
    assert (found.enforced, found.until - found.at, found.multiplier) == (True, 20.0, 1)
    assert set(revision.picks(60)) == {"b", "c"}
    revision.wait(19.9)
    assert revision.out == {"a"}
    revision.wait(0.1)
    assert revision.returned == [(20.0, "a")]
    assert revision.out == set()


def test_an_ejection_ends_at_the_sweep_after_its_time_and_not_before() -> None:
    revision = under(ARTICLE, "", "")
    revision.wait(3)
    revision.answer("a", 503, 503, 503)
    revision.wait(30)
    assert revision.returned == [(25.0, "a")]


def test_consecutive_errors_counts_502_503_and_504_and_no_other_status() -> None:
    revision = under(ARTICLE, "", "")
    assert not ejected(revision, "a", *[500] * 10)
    assert not ejected(revision, "a", 503, 503, 500, 503, 503)
    assert ejected(revision, "a", 502, 503, 504)


def test_the_record_says_what_was_counted_and_for_how_long() -> None:
    found = under(ARTICLE, "", "").answer("a", 503, 503, 503)
    assert found is not None
    assert (found.detector, found.value, found.limit) == (Detector.GATEWAY_ERRORS, 3, 3)
    assert found.reason == "3 502, 503 or 504 in a row (limit 3): out for 20 s (1 x), then until the next sweep"


# Counters


@pytest.mark.parametrize("between", [200, 302, 404, 499])
def test_a_success_begins_the_count_anew(between: int) -> None:
    revision = under({"consecutive5xxErrors": 3, **ALL}, "", "")
    assert not ejected(revision, "a", 500, 500, between, 500, 500)
    assert ejected(revision, "a", 500)


def test_five_5xx_in_a_row_eject_by_default() -> None:
    revision = under(ALL, "", "")
    assert not ejected(revision, "a", 500, 501, 502, 503)
    found = revision.answer("a", 504)
    assert found is not None
    assert found.detector is Detector.SERVER_ERRORS


def test_gateway_errors_count_in_both_counters_and_the_lower_limit_comes_first() -> None:
    found = under({"consecutiveGatewayErrors": 2, **ALL}, "", "").answer("a", 503, 503)
    assert found is not None
    assert found.detector is Detector.GATEWAY_ERRORS
    mixed = under({"consecutiveGatewayErrors": 4, **ALL}, "", "").answer("a", 503, 503, 503, 500, 503)
    assert mixed is not None
    assert mixed.detector is Detector.SERVER_ERRORS


def test_a_limit_of_zero_switches_its_counter_off() -> None:
    off = under({"consecutive5xxErrors": 0, "consecutiveGatewayErrors": 0, **ALL}, "", "")
    assert not ejected(off, "a", *[503] * 50)


def test_replicas_are_counted_apart() -> None:
    revision = under({"consecutive5xxErrors": 2, **ALL}, "", "")
    assert not ejected(revision, "a", 500)
    assert not ejected(revision, "b", 500)
    assert ejected(revision, "a", 500)


def test_a_replica_that_cannot_be_reached_counts_as_503() -> None:
    revision = under(ARTICLE, "", "")
    assert revision.fail("a", 2) is None
    found = revision.fail("a")
    assert found is not None
    assert found.detector is Detector.GATEWAY_ERRORS


def test_counted_apart_failures_to_reach_it_and_its_answers_do_not_mix() -> None:
    split = {
        "splitExternalLocalOriginErrors": True,
        "consecutiveLocalOriginFailures": 2,
        "consecutive5xxErrors": 3,
    }
    revision = under({**split, **ALL}, "", "")
    revision.answer("a", 500, 500)
    assert revision.fail("a") is None
    found = revision.fail("a")
    assert found is not None
    assert found.detector is Detector.LOCAL_FAILURES
    assert ejected(under({**split, **ALL}, "", ""), "b", 500, 500, 500)


def test_any_answer_shows_that_it_can_be_reached() -> None:
    revision = under({"splitExternalLocalOriginErrors": True, **ALL}, "", "")
    revision.fail("a", 4)
    revision.answer("a", 500)
    assert revision.fail("a", 4) is None
    assert revision.fail("a") is not None


def test_listed_codes_are_the_errors_and_all_others_successes() -> None:
    revision = under({"outlierDetectionHttpErrorCodes": [429, 503], "consecutive5xxErrors": 2, **ALL}, "", "")
    assert not ejected(revision, "a", 500, 500, 500)
    assert not ejected(revision, "a", 429, 500, 429)
    assert ejected(revision, "a", 503)


def test_what_a_client_gave_up_counts_for_nothing() -> None:
    revision = under({"consecutive5xxErrors": 2, **ALL}, "", "")
    revision.answer("a", 500)
    assert revision.balancing.answered("a", None, False, 0.0) is None
    assert ejected(revision, "a", 500)


# How long


def test_each_further_ejection_is_longer_up_to_300_seconds() -> None:
    revision = under({**ARTICLE, "baseEjectionTime": "120s"}, "", "")
    seconds = []
    for _ in range(4):
        found = revision.answer("a", 503, 503, 503)
        assert found is not None
        seconds.append(found.until - found.at)
        revision.wait(found.until - found.at)
    assert seconds == [120, 240, 300, 300]


def test_a_base_time_above_300_seconds_is_the_longest() -> None:
    revision = under({**ARTICLE, "baseEjectionTime": "10m"}, "", "")
    for _ in range(2):
        found = revision.answer("a", 503, 503, 503)
        assert found is not None
        assert found.until - found.at == 600
        revision.wait(600)


def test_the_multiplier_falls_by_one_at_each_sweep_that_finds_it_back() -> None:
    revision = under(ARTICLE, "", "")
    for multiplier in (1, 2, 3):
        found = revision.answer("a", 503, 503, 503)
        assert found is not None
        assert found.multiplier == multiplier
        revision.wait(found.until - found.at)
    revision.wait(10)
    found = revision.answer("a", 503, 503, 503)
    assert found is not None
    assert found.multiplier == 2


def test_a_replica_that_is_back_starts_with_a_clean_count() -> None:
    revision = under(ARTICLE, "", "")
    revision.answer("a", 503, 503, 503)
    revision.answer("a", 503, 503)
    revision.wait(20)
    assert not ejected(revision, "a", 503, 503)


# How many


def test_no_more_are_out_than_the_percentage() -> None:
    revision = under({"consecutive5xxErrors": 1, "maxEjectionPercent": 50}, *[""] * 5)
    assert ejected(revision, "a", 500)
    assert ejected(revision, "b", 500)
    kept = revision.answer("c", 500)
    assert kept is not None
    assert not kept.enforced
    assert (
        kept.reason == "1 5xx in a row (limit 1): kept in, since 3 of 5 would be out and maxEjectionPercent is 50"
    )
    assert revision.out == {"a", "b"}


def test_the_default_of_ten_percent_ejects_none_of_fewer_than_ten() -> None:
    assert not ejected(under({"consecutive5xxErrors": 1}, *[""] * 9), "a", 500)
    assert ejected(under({"consecutive5xxErrors": 1}, *[""] * 10), "a", 500)


@pytest.mark.parametrize("percent", [0, 10, 50, 99])
def test_the_only_replica_stays_unless_the_rule_says_100_percent(percent: int) -> None:
    revision = under({"consecutive5xxErrors": 1, "maxEjectionPercent": percent}, "")
    assert not ejected(revision, "a", 500)
    assert revision.pick() == "a"


def test_the_only_replica_stays_where_a_minimum_of_health_is_asked_for() -> None:
    revision = under({"consecutive5xxErrors": 1, "minHealthPercent": 1, **ALL}, "")
    found = revision.answer("a", 500)
    assert found is not None
    assert not found.enforced
    assert "minHealthPercent" in found.reason
    assert (revision.pick(), revision.is_unhealthy) == ("a", False)


@pytest.mark.parametrize("minimum", [{}, {"minHealthPercent": 0}])
def test_the_only_replica_goes_where_the_rule_says_so_and_requests_fail(minimum: dict[str, int]) -> None:
    revision = under({"consecutive5xxErrors": 1, **minimum, **ALL}, "")
    assert ejected(revision, "a", 500)
    assert (revision.pick(), revision.is_unhealthy) == (None, True)
    refusal = revision.balancing.no_healthy_replica()
    assert (refusal.policy, refusal.flag, refusal.status, refusal.body) == (
        RULE,
        "UH",
        503,
        b"no healthy upstream",
    )


def test_no_replica_at_all_is_a_cold_start_and_not_unhealthy() -> None:
    revision = under(ARTICLE)
    assert (revision.pick(), revision.is_unhealthy) == (None, False)


def test_one_left_over_by_scaling_down_answers_although_it_is_out() -> None:
    revision = under({"consecutive5xxErrors": 1, "maxEjectionPercent": 50}, "", "")
    assert ejected(revision, "a", 500)
    del revision.hosts[1]
    revision.balancing.forget("b")
    assert (revision.pick(), revision.is_unhealthy) == ("a", False)


# Replicas come and go


def test_a_replica_that_is_gone_is_forgotten_and_its_late_answers_with_it() -> None:
    revision = under({"consecutive5xxErrors": 1, "maxEjectionPercent": 50}, "", "")
    revision.answer("a", 500)
    revision.balancing.forget("a")
    assert revision.out == set()
    assert revision.balancing.answered("a", 500, False, 0.0) is None
    assert revision.balancing.sweep(1000.0) == []


# Against a plain account of Envoy's rules


@dataclass
class PlainReplica:
    errors: int = 0
    until: float | None = None
    multiplier: int = 0
    back: float | None = None


@dataclass
class PlainDetector:
    """Consecutive 5xx alone, as the rules read: everything is looked at anew at each event."""

    limit: int
    percent: int
    replicas: dict[str, PlainReplica] = field(default_factory=dict)

    def answered(self, name: str, status: int, now: float) -> None:
        replica = self.replicas[name]
        if replica.until is not None:
            return
        replica.errors = replica.errors + 1 if status >= 500 else 0
        if replica.errors < self.limit:
            return
        replica.errors = 0
        out = sum(each.until is not None for each in self.replicas.values())
        if (out + 1) / len(self.replicas) * 100 <= self.percent + 1e-9:
            replica.multiplier = min(replica.multiplier + 1, 300 // 30 + 1)
            replica.until = now + min(30 * replica.multiplier, 300)

    def sweep(self, now: float) -> None:
        for replica in self.replicas.values():
            if replica.until is not None and replica.until <= now:
                replica.until, replica.errors, replica.back = None, 0, now
            elif replica.until is None and replica.back is not None and now - replica.back >= 10:
                replica.multiplier = max(0, replica.multiplier - 1)


events = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abcde"), st.sampled_from([200, 500, 500, 503])),
        st.tuples(st.just("sweep"), st.just(0)),
    ),
    max_size=120,
)


@given(events, st.integers(1, 4), st.sampled_from([10, 20, 40, 50, 100]), st.integers(1, 5))
def test_it_ejects_and_returns_the_same_replicas_as_a_plain_account(
    events: list[tuple[str, int]], limit: int, percent: int, count: int
) -> None:
    names = "abcde"[:count]
    outlier = OutlierDetection.model_validate({"consecutive5xxErrors": limit, "maxEjectionPercent": percent})
    detector, plain = OutlierDetector(OutlierRule.of(outlier)), PlainDetector(limit, percent)
    plain.replicas = {name: PlainReplica() for name in names}
    now = 0.0
    for name, status in events:
        if name == "sweep":
            now += 10
            detector.sweep(now)
            plain.sweep(now)
        elif name in names:
            detector.answered(name, status, False, count, now)
            plain.answered(name, status, now)
        out = {name: each.until for name, each in plain.replicas.items() if each.until is not None}
        assert {name: ejection.until for name, ejection in detector.ejected.items()} == out
        assert 100 * len(out) <= percent * count


@given(st.lists(st.sampled_from([200, 500, 503]), max_size=60), st.integers(1, 99))
def test_a_single_replica_is_never_taken_out_below_100_percent(statuses: list[int], percent: int) -> None:
    revision = under({"consecutive5xxErrors": 1, "maxEjectionPercent": percent}, "")
    revision.answer("a", *statuses)
    assert revision.pick() == "a"
