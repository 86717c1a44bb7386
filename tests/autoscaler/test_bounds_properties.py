"""What no demand, no settings and no order of events can bring the bounds to do."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import settings as settings_of_test
from hypothesis import strategies as st

from support.decisions import BEGIN, Round, some_inputs, some_rounds, some_settings, story
from support.decisions import numbers as numbers_in
from upwell.autoscaler import bounds, kpa
from upwell.autoscaler.bounds import RequestPath
from upwell.autoscaler.decision import Activity, Bound, Decision, Inputs, Missing, Panic, State, Status
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.window import LinearWindow, WeightedWindow

REST = State(panic_since=None, max_panic_replicas=0, delay=None, excess_burst_capacity=0)
"""Nothing that time alone would change."""


@given(some_settings(), st.integers(0, 20), some_rounds())
def test_a_scale_lies_between_its_bounds(settings: RevisionSettings, ready: int, rounds: list[Round]) -> None:
    limits = [limit for limit in (settings.max_scale, settings.max_scale_limit) if limit]
    most = min(limits, default=math.inf)
    least = min(settings.min_scale, most)
    for decision in story(settings, ready, rounds):
        if decision.scale is not None:
            assert least <= decision.scale <= most
            assert decision.scale >= (0 if settings.enable_scale_to_zero else 1)


@given(some_settings(), st.integers(0, 20), some_rounds(), st.booleans())
def test_no_number_of_a_decision_is_negative_or_none_at_all(
    settings: RevisionSettings, ready: int, rounds: list[Round], initialized: bool
) -> None:
    for decision in story(settings, ready, rounds, initialized=initialized):
        found = numbers_in(decision)
        assert {"at", "stable_value", "since", "max_panic_replicas"} <= {name for name, _ in found}
        for name, number in found:
            assert math.isfinite(number), name
            assert number >= 0 or name == "excess_burst_capacity", name
        if decision.next_check is not None:
            assert decision.next_check > decision.at


@given(some_settings(), st.integers(0, 20), some_rounds(), st.booleans())
def test_equal_inputs_come_to_equal_decisions(
    settings: RevisionSettings, ready: int, rounds: list[Round], initialized: bool
) -> None:
    copy = [Round(passed, Inputs(*inputs), answers) for passed, inputs, answers in rounds]
    once = story(settings, ready, rounds, initialized=initialized)
    assert once == story(replace(settings), ready, copy, initialized=initialized)


@given(some_settings(), st.integers(0, 20), some_rounds())
def test_zero_comes_of_an_inactive_revision_or_of_one_that_did_not_start(
    settings: RevisionSettings, ready: int, rounds: list[Round]
) -> None:
    status = bounds.begin(settings, ready, BEGIN, initialized=False).status
    initialized = False
    for decision in story(settings, ready, rounds):
        if decision.scale == 0:
            assert status is Status.INACTIVE or Bound.ACTIVATION_TIMED_OUT in decision.bounds
            assert decision.in_flight is None
        assert decision.activity is not None
        assert decision.activity.initialized >= initialized
        assert decision.activity.timed_out <= (decision.activity.status is Status.INACTIVE)
        status, initialized = decision.activity.status, decision.activity.initialized


@given(some_settings(), st.integers(0, 12))
def test_a_scale_that_is_obeyed_makes_a_revision_active_and_initialized(
    settings: RevisionSettings, ready: int
) -> None:
    settings = replace(settings, reachable=True)
    state, now = kpa.start(settings, ready, BEGIN), BEGIN
    activity = bounds.begin(settings, ready, now, initialized=False)
    for _ in range(4):
        now += 2
        wished = kpa.decide(settings, state, Inputs(1.0, 1.0, ready), now)
        decision = bounds.bound(settings, activity, wished, RequestPath(), now)
        assert decision.activity is not None
        state, activity = decision.state, decision.activity
        ready = ready if decision.scale is None else decision.scale
    assert (activity.status, activity.initialized) == (Status.ACTIVE, True)


@given(
    some_settings(),
    st.integers(0, 20),
    st.lists(st.tuples(st.sampled_from([0.5, 2.0, 30.0, 61.0]), some_inputs()), min_size=1, max_size=16),
)
def test_panic_never_lowers_what_is_wanted_and_ends_a_stable_window_after_its_last_cause(
    settings: RevisionSettings, ready: int, steps: list[tuple[float, Inputs]]
) -> None:
    settings = replace(settings, scale_down_delay=0.0)
    state, now = kpa.start(settings, ready, BEGIN), BEGIN
    cause, floor = now, ready if ready > 1 else 0
    for passed, inputs in steps:
        now += passed
        before = state.panic_since is not None
        decision = kpa.decide(settings, state, inputs, now)
        state = decision.state
        if decision.desired is None:
            assert decision.panicking == before
            continue
        if decision.panic in (Panic.ENTERED, Panic.RENEWED):
            cause = now
        if before:
            assert decision.panicking == (now - cause <= settings.stable_window)
        if decision.panicking:
            assert decision.desired >= floor
            assert decision.desired >= max(decision.stable_want, decision.panic_want)
            floor = decision.desired
        else:
            floor = 0


@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.01, 5.0, 900.0]), min_size=1, max_size=30),
    st.sampled_from([LinearWindow, WeightedWindow]),
    st.sampled_from([6.0, 20.0]),
    st.sampled_from([3.0, 9.5]),
    st.sampled_from([0.0, 15.0]),
    st.booleans(),
    st.integers(0, 40),
)
def test_the_last_replica_stays_for_the_stable_window_and_the_grace_period_after_the_last_request(
    loads: list[float],
    kind: type[LinearWindow],
    window: float,
    grace: float,
    retention: float,
    reachable: bool,
    ready: int,
) -> None:
    settings = RevisionSettings(
        stable_window=window,
        reachable=reachable,
        scale_to_zero_grace_period=grace,
        scale_to_zero_pod_retention_period=retention,
    )
    stable, panic = kind(window), kind(2)
    state = kpa.start(settings, ready, BEGIN)
    activity = bounds.begin(settings, ready, BEGIN, initialized=True)
    busy_until = BEGIN if ready else -math.inf
    for second, load in enumerate([*loads, *([0.0] * 90)]):
        now = BEGIN + second
        stable.record(now, load)
        panic.record(now, load)
        if load:
            busy_until = now + 1
        inputs = Inputs(stable.average(now), panic.average(now), ready)
        decision = bounds.bound(
            settings, activity, kpa.decide(settings, state, inputs, now + 1), RequestPath(), now + 1
        )
        assert decision.activity is not None
        state, activity = decision.state, decision.activity
        if decision.scale == 0 and ready:
            waited = window + max(grace, retention if reachable else 0.0)
            assert now + 1 >= busy_until + waited
        ready = ready if decision.scale is None else decision.scale
    assert ready == 0


def at_rest(
    settings: RevisionSettings, activity: Activity, inputs: Inputs, path: RequestPath, now: float
) -> Decision:
    return bounds.bound(settings, activity, kpa.decide(settings, REST, inputs, now), path, now)


def result(decision: Decision) -> tuple[object, ...]:
    return decision.scale, decision.wanted, decision.bounds


@settings_of_test(max_examples=300)
@given(
    some_settings(),
    st.sampled_from(Status),
    st.one_of(st.floats(0, 0.1), st.floats(0, 130)),
    st.integers(0, 2),
    st.booleans(),
    st.builds(RequestPath, st.booleans(), st.one_of(st.none(), st.floats(BEGIN - 100, BEGIN))),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=5),
)
def test_time_alone_changes_a_decision_at_its_next_check_and_at_no_other_time(
    settings: RevisionSettings,
    status: Status,
    lasted: float,
    ready: int,
    known: bool,
    path: RequestPath,
    shares: list[float],
) -> None:
    settings = replace(settings, scale_down_delay=0.0, min_scale=0)
    activity = Activity(status, BEGIN - lasted, True)
    inputs = Inputs(0.0, 0.0, ready, missing=None if known else Missing.NO_DATA)
    decision = at_rest(settings, activity, inputs, path, BEGIN)
    while decision.activity is not None and decision.activity != activity:
        activity = decision.activity
        decision = at_rest(settings, activity, inputs, path, BEGIN)
    check = decision.next_check
    end = BEGIN + 1e6 if check is None else math.nextafter(check, 0)
    for moment in (*(BEGIN + (end - BEGIN) * share for share in shares), end):
        assert result(at_rest(settings, activity, inputs, path, moment)) == result(decision)
    if check is not None:
        assert result(at_rest(settings, activity, inputs, path, check)) != result(decision)
