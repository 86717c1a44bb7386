"""What is said to change a decision does, and what is said not to does not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.autoscaler import bounds, kpa
from upwell.autoscaler.annotations import HPA
from upwell.autoscaler.bounds import RequestPath
from upwell.autoscaler.combined import Combined
from upwell.autoscaler.decision import (
    Activity,
    Bound,
    Clamp,
    Decision,
    Inputs,
    Missing,
    Reading,
    ReplicaReading,
    SignalWant,
    State,
    Status,
)
from upwell.autoscaler.hpa import HorizontalPodAutoscaler
from upwell.autoscaler.metric_targets import BACKLOG, CPU, MetricTarget
from upwell.autoscaler.outlook import Held, Moment, Outlook, Threshold, Turn, outlook
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.window import MaxWindow

BEGIN = 1_700_000_000.0
SETTINGS = RevisionSettings()
ACTIVE = Activity(Status.ACTIVE, BEGIN - 1000, True)


def decided(
    settings: RevisionSettings,
    inputs: Inputs,
    state: State | None = None,
    activity: Activity = ACTIVE,
    now: float = BEGIN,
) -> Decision:
    """A decision as the engine makes it."""
    state = state or kpa.start(settings, 0, now)
    wished = Combined().decide(settings, state, inputs, now)
    return bounds.bound(settings, activity, wished, RequestPath(), now, revision="default/hello-00001")


def seen(
    settings: RevisionSettings, inputs: Inputs, state: State | None = None, activity: Activity = ACTIVE
) -> Outlook:
    found = outlook(settings, decided(settings, inputs, state, activity))
    assert found is not None
    return found


def following(
    settings: RevisionSettings,
    decision: Decision,
    *,
    stable: float | None = None,
    panic: float | None = None,
    readings: tuple[Reading, ...] = (),
    now: float,
) -> Decision:
    """The decision after `decision`."""
    assert decision.activity is not None
    inputs = Inputs(
        decision.stable_value if stable is None else stable,
        decision.panic_value if panic is None else panic,
        decision.ready,
        decision.starting,
        readings=readings,
    )
    return decided(settings, inputs, decision.state, decision.activity, now)


def panicking(held: int, since: float = BEGIN - 10) -> State:
    return State(panic_since=since, max_panic_replicas=held, delay=None, excess_burst_capacity=0)


# Told in numbers


def test_steady_load_changes_the_scale_at_whole_replicas_of_the_target() -> None:
    found = seen(SETTINGS, Inputs(100.0, 100.0, 2))
    assert found == Outlook(
        scale=2,
        more=Threshold(60.0, 140.0, 3),
        fewer=Threshold(60.0, 70.0, 1),
        panic=Threshold(6.0, 210.0, 4),
    )


def test_in_panic_the_short_window_raises_and_time_alone_lowers() -> None:
    found = seen(SETTINGS, Inputs(100.0, 100.0, 2), panicking(3))
    assert found.more == Threshold(6.0, 210.0, 4)
    assert (found.fewer, found.no_fewer) == (None, Held.PANIC)
    assert found.moments == (Moment(BEGIN + 50, Turn.PANIC_ENDS, 2),)


def test_while_demand_renews_panic_no_end_is_told() -> None:
    found = seen(SETTINGS, Inputs(100.0, 300.0, 2))
    assert found.scale == 5
    assert found.moments == ()


def test_limits_are_named_where_load_changes_nothing() -> None:
    bounded = replace(SETTINGS, min_scale=2, max_scale=2)
    found = seen(bounded, Inputs(100.0, 100.0, 2))
    assert (found.more, found.no_more) == (None, Bound.MAX_SCALE)
    assert (found.fewer, found.no_fewer) == (None, Bound.MIN_SCALE)


def test_rates_are_named_where_they_hold() -> None:
    slow = replace(SETTINGS, max_scale_up_rate=1.5, max_scale_down_rate=2.0, panic_threshold=100.0)
    assert seen(slow, Inputs(1000.0, 1000.0, 4)).no_more is Clamp.SCALE_UP_RATE
    assert seen(slow, Inputs(10.0, 10.0, 4)).no_fewer is Clamp.SCALE_DOWN_RATE


def test_a_scale_down_delay_tells_when_it_is_over() -> None:
    delayed = replace(SETTINGS, scale_down_delay=30.0)
    state = replace(kpa.start(delayed, 0, BEGIN), delay=MaxWindow(30.0, kpa.TICK).record(BEGIN - 10, 4))
    found = seen(delayed, Inputs(100.0, 100.0, 4), state)
    assert (found.scale, found.no_fewer) == (4, Held.DELAY)
    assert found.moments == (Moment(BEGIN + 20, Turn.DELAY_ENDS, 2),)


def test_the_activation_scale_is_what_the_first_load_raises_to() -> None:
    found = seen(replace(SETTINGS, activation_scale=5), Inputs(0.0, 0.0, 1), activity=ACTIVE)
    assert found.more == Threshold(60.0, 0.0, 5)


def test_from_nothing_the_first_request_raises() -> None:
    inactive = Activity(Status.INACTIVE, BEGIN - 1000, True)
    for missing in (None, Missing.NO_DATA):
        found = seen(SETTINGS, Inputs(0.0, 0.0, 0, missing=missing), activity=inactive)
        assert found == Outlook(scale=0, more=Threshold(0.0, 0.0, 1))


def test_without_load_the_time_of_zero_is_told_all_along_the_way() -> None:
    recent = Activity(Status.ACTIVE, BEGIN - 20, True)
    found = seen(SETTINGS, Inputs(0.0, 0.0, 1), activity=recent)
    assert found.no_fewer is Bound.ACTIVE_TOO_BRIEFLY
    assert found.moments == (Moment(BEGIN + 70, Turn.ZERO, 0),)
    assert seen(SETTINGS, Inputs(0.0, 0.0, 1)).moments == (Moment(BEGIN + 30, Turn.ZERO, 0),)
    retained = replace(SETTINGS, scale_to_zero_pod_retention_period=100.0)
    assert seen(retained, Inputs(0.0, 0.0, 1)).moments == (Moment(BEGIN + 100, Turn.ZERO, 0),)
    inactive = Activity(Status.INACTIVE, BEGIN - 12, True)
    assert seen(SETTINGS, Inputs(0.0, 0.0, 1), activity=inactive).moments == (Moment(BEGIN + 18, Turn.ZERO, 0),)


def test_a_disabled_zero_is_named() -> None:
    found = seen(replace(SETTINGS, enable_scale_to_zero=False), Inputs(0.0, 0.0, 1))
    assert (found.no_fewer, found.moments) == (Bound.SCALE_TO_ZERO_DISABLED, ())


def test_another_metric_that_asks_for_as_many_keeps_them() -> None:
    decision = decided(SETTINGS, Inputs(100.0, 100.0, 2))
    signals = (SignalWant("concurrency", 100.0, 70.0, 2, 2), SignalWant("cpu", 300.0, 80.0, 4, 4))
    found = outlook(SETTINGS, decision._replace(signals=signals, binding="cpu", desired=4, scale=4, wanted=4))
    assert found is not None
    assert (found.scale, found.fewer, found.no_fewer) == (4, None, Held.SIGNAL)
    assert found.more == Threshold(60.0, 280.0, 5)


def test_nothing_is_told_where_it_is_not_known() -> None:
    assert outlook(SETTINGS, decided(SETTINGS, Inputs(0.0, 0.0, 2, missing=Missing.NO_DATA))) is None
    unknown = decided(SETTINGS, Inputs(1.0, 1.0, 2, missing=Missing.METRICS_FAILED))
    assert outlook(replace(SETTINGS, autoscaler_class=HPA), unknown) is None


# And for whatever there may be

scales = st.integers(0, 12)
demands = st.one_of(st.just(0.0), st.floats(0, 5000, allow_subnormal=False))


@st.composite
def settings_of_all_kinds(draw: st.DrawFn) -> RevisionSettings:
    return RevisionSettings(
        target_value=draw(st.floats(0.01, 200)),
        max_scale_up_rate=draw(st.floats(1.01, 1000)),
        max_scale_down_rate=draw(st.floats(1.01, 10)),
        panic_threshold=draw(st.floats(1.1, 10)),
        scale_down_delay=draw(st.sampled_from([0.0, 1.0, 30.0])),
        reachable=draw(st.booleans()),
        initial_scale=draw(scales),
        activation_scale=draw(scales),
        min_scale=draw(scales),
        max_scale=draw(scales),
        max_scale_limit=draw(scales),
        enable_scale_to_zero=draw(st.booleans()),
        scale_to_zero_pod_retention_period=draw(st.sampled_from([0.0, 100.0])),
    )


@st.composite
def decisions(draw: st.DrawFn) -> tuple[RevisionSettings, Decision]:
    """The last of a few decisions, with settings."""
    settings = draw(settings_of_all_kinds())
    ready, now = draw(st.integers(0, 40)), BEGIN
    state = kpa.start(settings, ready, now)
    activity = bounds.begin(settings, ready, now, initialized=draw(st.booleans()))
    decision: Decision | None = None
    for passed in draw(st.lists(st.sampled_from([2.0, 30.0, 61.0, 700.0]), min_size=1, max_size=4)):
        now += passed
        inputs = Inputs(draw(demands), draw(demands), draw(st.integers(0, 40)), draw(st.integers(0, 3)))
        decision = decided(settings, inputs, state, activity, now)
        state = decision.state
        assert decision.activity is not None
        activity = decision.activity
    assert decision is not None
    return settings, decision


def above(value: float) -> float:
    """The least load more: of what is nearly nothing, one that is not lost when it is divided."""
    return max(math.nextafter(value, math.inf), 1e-300)


@given(decisions())
def test_the_least_load_more_raises_the_scale_and_the_threshold_itself_does_not(
    given_one: tuple[RevisionSettings, Decision],
) -> None:
    settings, decision = given_one
    found = outlook(settings, decision)
    assert found is not None
    if found.more is None or found.more.window == 0:
        return
    at, over = (
        following(settings, decision, panic=value, now=decision.at)
        if found.more.window == settings.panic_window
        else following(settings, decision, stable=value, now=decision.at)
        for value in (found.more.value, above(found.more.value))
    )
    assert (over.wanted or 0) == found.more.scale > found.scale
    assert (at.wanted or 0) <= found.scale


@given(decisions())
def test_a_threshold_lowers_the_scale_and_the_least_load_more_does_not(
    given_one: tuple[RevisionSettings, Decision],
) -> None:
    settings, decision = given_one
    found = outlook(settings, decision)
    assert found is not None
    if found.fewer is None:
        return
    at = following(settings, decision, stable=found.fewer.value, now=decision.at)
    over = following(settings, decision, stable=above(found.fewer.value), now=decision.at)
    assert (at.wanted or 0) == found.fewer.scale < found.scale
    assert (over.wanted or 0) >= found.scale


@given(decisions(), demands)
def test_where_a_limit_is_named_no_load_changes_the_scale(
    given_one: tuple[RevisionSettings, Decision], load: float
) -> None:
    settings, decision = given_one
    found = outlook(settings, decision)
    assert found is not None
    if decision.ready + decision.starting == 0:
        return
    loaded = following(settings, decision, stable=load, now=decision.at).wanted or 0
    if found.more is None and found.fewer is None:
        assert loaded == found.scale
    elif found.more is None:
        assert loaded <= found.scale
    elif found.fewer is None and found.more.window == settings.stable_window:
        assert loaded >= found.scale
    assert (found.more is None) is (found.no_more is not None)
    assert (found.fewer is None and found.scale > 0) is (found.no_fewer is not None)


@given(decisions())
def test_panic_begins_above_its_threshold_and_not_at_it(given_one: tuple[RevisionSettings, Decision]) -> None:
    settings, decision = given_one
    found = outlook(settings, decision)
    assert found is not None
    if decision.ready + decision.starting == 0:
        return
    assert found.panic is not None
    over = following(settings, decision, panic=above(found.panic.value), now=decision.at)
    assert over.state.panic_since == decision.at
    assert (over.wanted or 0) == found.panic.scale
    at = following(settings, decision, panic=found.panic.value, now=decision.at)
    assert at.panic.value in ("off", "held", "left")


@given(decisions())
def test_a_moment_brings_what_it_says_and_not_before(given_one: tuple[RevisionSettings, Decision]) -> None:
    settings, decision = given_one
    found = outlook(settings, decision)
    assert found is not None
    for moment in found.moments:
        assert moment.at >= decision.at
        if moment.turn is Turn.PANIC_ENDS:
            assert following(settings, decision, now=max(decision.at, moment.at)).panicking
            after = following(settings, decision, now=moment.at + 1e-5)
            assert not after.panicking
            assert (after.wanted or 0) == moment.scale
        if moment.turn is Turn.DELAY_ENDS:
            assert (following(settings, decision, now=moment.at).wanted or 0) == moment.scale


FURTHER = (MetricTarget(CPU, 80.0), MetricTarget(BACKLOG, 10.0))


@st.composite
def readings(draw: st.DrawFn, ready: int) -> tuple[Reading, ...]:
    used = draw(st.floats(0.0, 3.0))
    of_cpu = tuple(ReplicaReading(str(each), used, True, BEGIN - 4000, BEGIN - 3900) for each in range(ready))
    backlog = draw(
        st.one_of(st.just(Reading(missing=Missing.METRICS_FAILED)), st.builds(Reading, st.floats(0, 300)))
    )
    return (Reading(used * ready, replicas=of_cpu), backlog)


@given(st.data(), settings_of_all_kinds(), demands, demands, st.integers(1, 12))
def test_what_further_metrics_ask_for_counts(
    data: st.DataObject, settings: RevisionSettings, stable: float, panic: float, ready: int
) -> None:
    settings = replace(settings, metrics=FURTHER)
    further = data.draw(readings(ready))
    decision = decided(settings, Inputs(stable, panic, ready, readings=further))
    found = outlook(settings, decision)
    assert found is not None
    assert found.scale == (decision.wanted or 0)

    by_panic = found.more is not None and found.more.window == settings.panic_window

    def wanted(load: float) -> int:
        if by_panic:
            return following(settings, decision, panic=load, readings=further, now=BEGIN).wanted or 0
        return following(settings, decision, stable=load, readings=further, now=BEGIN).wanted or 0

    if found.more is not None:
        assert wanted(found.more.value) <= found.scale < wanted(above(found.more.value)) == found.more.scale
    if found.fewer is not None:
        at = following(settings, decision, stable=found.fewer.value, readings=further, now=BEGIN)
        over = following(settings, decision, stable=above(found.fewer.value), readings=further, now=BEGIN)
        assert (at.wanted or 0) == found.fewer.scale < found.scale <= (over.wanted or 0)
    else:
        assert (following(settings, decision, stable=0.0, readings=further, now=BEGIN).wanted or 0) >= found.scale


def by_use(settings: RevisionSettings, ready: int, value: float) -> Decision:
    """A decision of the other class whose metric, a sum over replicas, is this."""
    autoscaler, now = HorizontalPodAutoscaler(), BEGIN
    state = autoscaler.start(settings, ready, now - 1000)
    wished = autoscaler.decide(settings, state, Inputs(0.0, 0.0, ready, readings=(Reading(value),)), now)
    return bounds.bound(settings, ACTIVE, wished, RequestPath(), now)


@given(st.floats(0.5, 200), st.integers(1, 30), st.floats(0, 3000))
def test_a_metric_of_the_other_class_raises_above_its_threshold(target: float, ready: int, value: float) -> None:
    settings = replace(SETTINGS, autoscaler_class=HPA, metrics=(MetricTarget(BACKLOG, target),))
    decision = by_use(settings, ready, value)
    found = outlook(settings, decision)
    assert found is not None
    (threshold,) = found.signals
    before, after = (by_use(settings, ready, threshold.value * share) for share in (1 - 1e-4, 1 + 1e-4))
    assert before.signals[0].want <= found.scale
    assert after.signals[0].want > found.scale


def test_what_holds_a_revision_of_the_other_class_is_named() -> None:
    settings = replace(SETTINGS, autoscaler_class=HPA, metrics=(MetricTarget(BACKLOG, 10.0),))
    for bounded, value, told in (
        (replace(settings, max_scale=3), 90.0, (Bound.MAX_SCALE, None)),
        (settings, 10_000.0, (Bound.SCALE_UP_POLICY, None)),
        (settings, 0.0, (None, Bound.CLASS_KEEPS_ONE)),
        (settings, 41.0, (None, Bound.TOLERANCE)),
    ):
        found = outlook(bounded, by_use(bounded, 4, value))
        assert found is not None
        assert (found.no_more, found.no_fewer) == told


@given(st.floats(0.01, 200), st.integers(1, 60))
def test_a_replicas_demand_divides_to_the_last_digit(target: float, ready: int) -> None:
    settings = replace(SETTINGS, target_value=target, panic_threshold=1e6)
    found = seen(settings, Inputs(ready * target, 0.0, ready))
    assert found.more is not None
    assert found.more.value == pytest.approx(found.scale * target, rel=1e-12)
