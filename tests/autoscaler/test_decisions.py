"""What holds for every decision, whatever the demand, and how a decision explains itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.decisions import BEGIN, Round, demands, some_rounds, some_settings, story
from upwell.autoscaler import bounds, kpa
from upwell.autoscaler.bounds import RequestPath
from upwell.autoscaler.decision import (
    Activity,
    Bound,
    Clamp,
    Decision,
    Inputs,
    Missing,
    Panic,
    State,
    Status,
)
from upwell.autoscaler.spec import RevisionSettings

SETTINGS = RevisionSettings()


@given(some_settings(), st.integers(0, 20), some_rounds())
def test_a_poke_never_lowers_and_unknown_demand_lowers_only_what_cannot_start(
    settings: RevisionSettings, ready: int, rounds: list[Round]
) -> None:
    for decision in story(settings, ready, rounds):
        there = decision.ready + decision.starting
        if decision.scale is None or decision.scale > there:
            continue
        assert decision.in_flight is None
        if not decision.valid:
            assert Bound.ACTIVATION_TIMED_OUT in decision.bounds or decision.scale == there


@given(some_settings(), st.integers(0, 20), some_rounds())
def test_every_decision_explains_itself_in_one_line(
    settings: RevisionSettings, ready: int, rounds: list[Round]
) -> None:
    for decision in story(settings, ready, rounds):
        sentence = decision.sentence()
        assert sentence.startswith("ns/r: ")
        assert "\n" not in sentence
        assert ("stay as is" in sentence) == (decision.scale is None)


@given(some_settings(), demands, demands, st.integers(0, 50))
def test_excess_burst_capacity_is_what_is_left_after_the_burst(
    settings: RevisionSettings, stable: float, panic: float, ready: int
) -> None:
    decision = kpa.decide(settings, kpa.start(settings, 0, BEGIN), Inputs(stable, panic, ready), BEGIN)
    if settings.target_burst_capacity == 0:
        assert decision.excess_burst_capacity == 0
    elif settings.target_burst_capacity < 0:
        assert decision.excess_burst_capacity == -1
    else:
        left = ready * settings.total_value - settings.target_burst_capacity - panic
        assert decision.excess_burst_capacity <= left < decision.excess_burst_capacity + 1


@given(some_settings(), demands, demands, st.integers(1, 50))
def test_wants_stay_within_the_rates_but_for_the_activation_scale(
    settings: RevisionSettings, stable: float, panic: float, ready: int
) -> None:
    decision = kpa.decide(settings, kpa.start(settings, 0, BEGIN), Inputs(stable, panic, ready), BEGIN)
    for want, clamp in (
        (decision.stable_want, decision.stable_clamp),
        (decision.panic_want, decision.panic_clamp),
    ):
        if clamp is Clamp.ACTIVATION_SCALE:
            assert want == settings.activation_scale
        else:
            assert decision.rate_floor <= want <= decision.rate_ceiling


def test_a_new_revision_starts_with_the_burst_capacity_of_its_initial_scale() -> None:
    def initial(burst: float) -> int:
        return kpa.start(replace(SETTINGS, target_burst_capacity=burst), 0, BEGIN).excess_burst_capacity

    assert [initial(burst) for burst in (211.0, 0.0, -1.0, 50.0)] == [-111, 0, -1, 50]


def test_unknown_demand_leaves_state_and_burst_capacity_as_they_were() -> None:
    state = kpa.start(SETTINGS, 5, BEGIN)
    decision = kpa.decide(SETTINGS, state, Inputs(0, 0, 5, missing=Missing.METRICS_FAILED), BEGIN + 1000)
    assert decision.state == state
    assert (decision.desired, decision.panic, decision.valid) == (None, Panic.HELD, False)


def decided(inputs: Inputs, settings: RevisionSettings = SETTINGS, state: State | None = None) -> Decision:
    return kpa.decide(settings, state or kpa.start(settings, 0, BEGIN), inputs, BEGIN)


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (decided(Inputs(140.0, 70.0, 2)), "concurrency: 140 over 60 s asks for 2; 70 over 6 s asks for 1, at 70"),
        (decided(Inputs(0.0, 0.0, 10)), "asks for 0, max-scale-down-rate makes that 5"),
        (
            decided(Inputs(900.0, 0.0, 1), replace(SETTINGS, max_scale_up_rate=2.0)),
            "max-scale-up-rate makes that 2",
        ),
        (decided(Inputs(1.0, 0.0, 1), replace(SETTINGS, activation_scale=3)), "activation-scale makes that 3"),
        (decided(Inputs(1.0, 700.0, 2)), "panic entered, 10 is 2 or more times the 2 at hand: at least 10 until"),
        (decided(Inputs(1.0, 1.0, 5), state=kpa.start(SETTINGS, 5, BEGIN)), "panic holds at least 5 until"),
        (decided(Inputs(1.0, 1.0, 5), state=kpa.start(SETTINGS, 5, BEGIN - 61)), "panic is over"),
        (decided(Inputs(0, 0, 0, 1, Missing.NO_DATA, 3)), "(0 ready, 1 starting); concurrency: 0 over 60 s"),
        (decided(Inputs(0, 0, 0, 0, Missing.NO_DATA, 3)), "a poke with 3 in flight asks for 1; a poke with 3"),
        (decided(Inputs(0, 0, 0, 0, Missing.NO_DATA)), "nothing runs and nothing was reported"),
        (decided(Inputs(0, 0, 1, 0, Missing.NO_DATA)), "demand is unknown"),
        (decided(Inputs(0, 0, 0, 0, Missing.REPLICA_COUNT_FAILED)), "could not be counted"),
    ],
)
def test_a_decision_says_in_words_what_shaped_it(decision: Decision, words: str) -> None:
    assert words in decision.sentence()


def test_a_scale_down_delay_is_told_with_the_wish_that_it_put_off() -> None:
    settings = replace(SETTINGS, scale_down_delay=30.0)
    first = kpa.decide(settings, kpa.start(settings, 4, BEGIN - 100), Inputs(280.0, 0.0, 4), BEGIN)
    second = kpa.decide(settings, first.state, Inputs(140.0, 0.0, 4), BEGIN + 2)
    assert (first.delayed, second.delayed, second.desired, second.undelayed) == (False, True, 4, 2)
    assert "the scale-down delay keeps 4 instead of 2" in second.sentence()
    third = kpa.decide(settings, second.state, Inputs(140.0, 0.0, 4), BEGIN + 40)
    assert third.desired == 2


IDLE = Inputs(0.0, 0.0, 1)


def at_rest(settings: RevisionSettings, activity: Activity, path: RequestPath, now: float) -> Decision:
    wished = kpa.decide(settings, kpa.start(settings, 1, BEGIN), IDLE, now)
    return bounds.bound(settings, activity, wished, path, now)


def test_the_end_of_each_step_toward_zero_is_told_in_advance() -> None:
    active = Activity(Status.ACTIVE, BEGIN, True)
    briefly = at_rest(SETTINGS, active, RequestPath(), BEGIN + 20)
    assert (briefly.scale, briefly.bounds, briefly.next_check) == (1, (Bound.ACTIVE_TOO_BRIEFLY,), BEGIN + 60)
    found = at_rest(SETTINGS, active, RequestPath(), BEGIN + 60)
    assert (found.scale, found.bounds, found.next_check) == (None, (Bound.FOUND_INACTIVE,), BEGIN + 90)
    assert found.activity is not None
    grace = at_rest(SETTINGS, found.activity, RequestPath(), BEGIN + 89)
    assert (grace.scale, grace.bounds, grace.next_check) == (None, (Bound.GRACE_PERIOD,), BEGIN + 90)
    assert at_rest(SETTINGS, found.activity, RequestPath(), BEGIN + 90).scale == 0


def test_a_revision_behind_the_activator_for_long_needs_no_further_grace() -> None:
    inactive = Activity(Status.INACTIVE, BEGIN, True)
    assert at_rest(SETTINGS, inactive, RequestPath(proxying_since=BEGIN - 100), BEGIN + 1).scale == 0
    waits = at_rest(SETTINGS, inactive, RequestPath(proxying_since=BEGIN - 10), BEGIN + 1)
    assert (waits.scale, waits.next_check) == (None, BEGIN + 20)


def test_retention_holds_a_routed_revision_and_not_an_unreachable_one() -> None:
    settings = replace(SETTINGS, scale_to_zero_pod_retention_period=300.0)
    inactive = Activity(Status.INACTIVE, BEGIN, True)
    kept = at_rest(settings, inactive, RequestPath(), BEGIN + 100)
    assert (kept.scale, kept.bounds, kept.next_check) == (None, (Bound.RETENTION_PERIOD,), BEGIN + 300)
    assert at_rest(settings, inactive, RequestPath(), BEGIN + 300).scale == 0
    assert at_rest(replace(settings, reachable=False), inactive, RequestPath(), BEGIN + 100).scale == 0


def test_a_target_burst_capacity_of_minus_one_needs_no_probe_of_the_activator() -> None:
    inactive = Activity(Status.INACTIVE, BEGIN, True)
    settings = replace(SETTINGS, target_burst_capacity=-1.0)
    assert at_rest(SETTINGS, inactive, RequestPath(activator_answers=False), BEGIN + 99).scale is None
    assert at_rest(settings, inactive, RequestPath(activator_answers=False), BEGIN + 99).scale == 0


def test_a_revision_known_from_before_is_resumed_where_its_replicas_are() -> None:
    def status(settings: RevisionSettings, ready: int, *, initialized: bool) -> tuple[Status, bool]:
        activity = bounds.begin(settings, ready, BEGIN, initialized=initialized)
        return activity.status, activity.initialized

    three = replace(SETTINGS, initial_scale=3)
    assert status(three, 0, initialized=True) == (Status.INACTIVE, True)
    assert status(three, 1, initialized=True) == (Status.ACTIVE, True)
    assert status(three, 1, initialized=False) == (Status.ACTIVATING, False)
    assert status(three, 3, initialized=False) == (Status.ACTIVE, True)
    assert status(replace(SETTINGS, min_scale=2), 1, initialized=True) == (Status.ACTIVATING, True)
    assert status(replace(SETTINGS, initial_scale=0), 0, initialized=False) == (Status.INACTIVE, True)


def test_a_minimum_is_kept_even_while_demand_is_unknown() -> None:
    settings = replace(SETTINGS, min_scale=2)
    wished = kpa.decide(settings, kpa.start(settings, 0, BEGIN), Inputs(0, 0, 0, missing=Missing.NO_DATA), BEGIN)
    decision = bounds.bound(settings, Activity(Status.INACTIVE, BEGIN, True), wished, RequestPath(), BEGIN)
    assert (decision.scale, decision.bounds) == (2, (Bound.NO_DEMAND_KNOWN, Bound.MIN_SCALE))
