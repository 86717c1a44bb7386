"""The horizontal pod autoscaler over time: policies and their periods, stabilization, several metrics."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.scaling import BEGIN, UNREAD, Scene, each
from upwell.autoscaler import bounds
from upwell.autoscaler.behavior import DEFAULT_BEHAVIOR, parse_behavior
from upwell.autoscaler.bounds import RequestPath
from upwell.autoscaler.decision import Bound, Decision, Inputs, Missing, Reading
from upwell.autoscaler.hpa import HorizontalPodAutoscaler
from upwell.autoscaler.metric_targets import MetricTarget
from upwell.autoscaler.spec import AutoscalerConfig, RevisionSettings

HPA = "hpa.autoscaling.knative.dev"
CPU = MetricTarget("cpu", 50.0)
QUEUE = MetricTarget("backlog", 10.0)


def settings(*metrics: MetricTarget, **behavior: object) -> RevisionSettings:
    parsed = parse_behavior(json.dumps(behavior), DEFAULT_BEHAVIOR)
    return RevisionSettings(autoscaler_class=HPA, metrics=metrics or (CPU,), behavior=parsed)


def scene(ready: int, *metrics: MetricTarget, **behavior: object) -> Scene:
    return Scene(HorizontalPodAutoscaler(), settings(*metrics, **behavior), ready)


def busy(count: int) -> Reading:
    """Every replica at ten times its target."""
    return each(count, 5.0)


def idle(count: int) -> Reading:
    return each(count, 0.0)


def policy(kind: str, value: int, period: int) -> dict[str, object]:
    return {"type": kind, "value": value, "periodSeconds": period}


def steps(path: list[int]) -> list[tuple[int, int]]:
    """Each change of a path: after how many seconds, to how many replicas."""
    pairs = zip(path, [0, *path], strict=False)
    return [(2 * index, now) for index, (now, before) in enumerate(pairs) if now != before]


# Policies


def test_by_default_four_more_or_twice_as_many_are_allowed_each_fifteen_seconds() -> None:
    path = scene(1).run(60, busy)
    assert steps(path) == [(0, 5), (16, 10), (32, 20), (48, 40)]


def test_a_decision_says_what_the_policies_allow() -> None:
    first = scene(3).decide(busy(3))
    assert (first.desired, first.rate_floor, first.rate_ceiling) == (7, 0, 7)
    assert first.bounds == (Bound.SCALE_UP_POLICY,)
    assert first.stable_want == 30


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"policies": [policy("Pods", 2, 60)]}, [(0, 12), (60, 14)]),
        ({"policies": [policy("Percent", 10, 60)]}, [(0, 11), (60, 13)]),  # rounded up: 12.1
        ({"policies": [policy("Percent", 10, 30), policy("Pods", 3, 60)]}, [(0, 13), (30, 15), (60, 17)]),
        (
            {"policies": [policy("Percent", 10, 60), policy("Pods", 3, 30)], "selectPolicy": "Min"},
            [(0, 11), (60, 13)],
        ),
        ({"selectPolicy": "Disabled"}, [(0, 10)]),
    ],
)
def test_scale_up_policies(rules: dict[str, object], expected: list[tuple[int, int]]) -> None:
    assert steps(scene(10, scaleUp=rules).run(90, busy)) == expected


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"policies": [policy("Pods", 2, 60)]}, [(0, 8), (60, 6)]),
        ({"policies": [policy("Percent", 15, 60)]}, [(0, 8), (60, 6)]),  # truncated: 8.5, 6.8
        ({"policies": [policy("Percent", 10, 30), policy("Pods", 4, 60)]}, [(0, 6), (30, 5), (60, 2)]),
        (
            {"policies": [policy("Percent", 10, 60), policy("Pods", 4, 60)], "selectPolicy": "Min"},
            [(0, 9), (60, 8)],
        ),
        ({"selectPolicy": "Disabled"}, [(0, 10)]),
    ],
)
def test_scale_down_policies(rules: dict[str, object], expected: list[tuple[int, int]]) -> None:
    down = {"stabilizationWindowSeconds": 0, **rules}
    stage = scene(10, scaleDown=down)
    assert steps(stage.run(90, idle)) == expected
    assert Bound.SCALE_DOWN_POLICY in stage.decisions[1].bounds


def test_what_was_taken_away_within_the_period_may_come_back() -> None:
    rules = {"policies": [policy("Pods", 1, 60)]}
    stage = scene(
        10, scaleUp=rules, scaleDown={"stabilizationWindowSeconds": 0, "policies": [policy("Pods", 4, 15)]}
    )
    stage.run(2, idle)
    assert stage.ready == 6
    assert stage.decide(busy(6)).desired == 11  # ten at the beginning of the period, and one


def test_a_change_that_nobody_asked_for_counts_when_it_is_seen() -> None:
    stage = scene(10, scaleUp={"policies": [policy("Pods", 2, 60)]})
    stage.decide(each(10, 0.5))
    stage.now += 2
    stage.ready = 20
    assert stage.decide(busy(20)).desired == 20
    stage.now += 58
    assert stage.decide(busy(20)).desired == 20  # the ten are of this minute
    stage.now += 2
    assert stage.decide(busy(20)).desired == 22


# Stabilization


def test_by_default_replicas_go_five_minutes_after_they_were_last_recommended() -> None:
    stage = scene(10)
    assert steps(stage.run(320, idle)) == [(0, 10), (300, 1)]
    held = stage.decisions[10]
    assert held.bounds == (Bound.STABILIZATION,)
    assert (held.stable_want, held.desired) == (0, 10)


def test_the_greatest_recommendation_of_the_window_counts_on_the_way_down() -> None:
    stage = scene(4, QUEUE, scaleDown={"stabilizationWindowSeconds": 60})
    load = iter([80, 50, 20, *([10] * 60)])
    assert steps(stage.run(70, lambda _: Reading(next(load)))) == [(0, 8), (60, 5), (62, 2), (64, 1)]


def test_the_least_recommendation_of_the_window_counts_on_the_way_up() -> None:
    stage = scene(2, QUEUE, scaleUp={"stabilizationWindowSeconds": 30})
    load = iter([40, 60, 40, *([60] * 60)])
    assert steps(stage.run(40, lambda _: Reading(next(load)))) == [(0, 2), (30, 4), (34, 6)]
    assert stage.decisions[1].bounds == (Bound.STABILIZATION,)


def test_within_both_windows_what_is_there_stays() -> None:
    rules = {"stabilizationWindowSeconds": 60}
    stage = scene(5, QUEUE, scaleUp=rules, scaleDown=rules)
    load = iter([20, 90] * 40)
    assert stage.run(120, lambda _: Reading(next(load))) == [5] * 60


def test_one_that_begins_anew_keeps_what_is_ready_for_the_window() -> None:
    stage = scene(7, scaleDown={"stabilizationWindowSeconds": 30})
    assert steps(stage.run(40, idle)) == [(0, 7), (30, 1)]


# Tolerance, zero, several metrics, missing ones


def test_within_the_tolerance_nothing_changes_and_the_decision_says_so() -> None:
    decision = scene(2).decide(each(2, 0.54))
    assert (decision.desired, decision.bounds) == (2, (Bound.TOLERANCE,))


def test_each_direction_may_have_a_tolerance_of_its_own() -> None:
    rules = {"scaleUp": {"tolerance": 0.5}, "scaleDown": {"tolerance": "50m", "stabilizationWindowSeconds": 0}}
    assert scene(2, **rules).decide(each(2, 0.74)).desired == 2
    assert scene(2, **rules).decide(each(2, 0.76)).desired == 4
    assert scene(4, **rules).decide(each(4, 0.37)).desired == 3


def test_it_never_goes_to_zero_and_says_why() -> None:
    stage = scene(1, scaleDown={"stabilizationWindowSeconds": 0})
    decision = stage.decide(idle(1))
    assert (decision.desired, decision.bounds) == (1, (Bound.CLASS_KEEPS_ONE,))
    assert decision.sentence() == (
        "stay as is (1 ready); cpu: 0% of the requested CPU asks for 0, at 50 a replica;"
        " this class never goes to zero, so one stays"
    )


@pytest.mark.parametrize("reading", [Reading(), UNREAD])
def test_at_zero_it_asks_for_one(reading: Reading) -> None:
    assert scene(0).decide(reading).desired == 1


def test_at_zero_a_backlog_asks_for_as_many_as_the_policies_allow() -> None:
    assert scene(0, QUEUE).decide(Reading(25.0)).desired == 3
    assert scene(0, QUEUE).decide(Reading(250.0)).desired == 4


def test_the_greatest_of_several_metrics_counts() -> None:
    decision = scene(2, CPU, QUEUE).decide(each(2, 0.5), Reading(55.0))
    assert (decision.desired, decision.binding, decision.metric) == (6, "backlog", "backlog")
    assert [(signal.metric, signal.want) for signal in decision.signals] == [("cpu", 2), ("backlog", 6)]
    assert "backlog asks for most" in decision.sentence()


def test_requests_are_a_metric_like_others() -> None:
    stage = scene(2, MetricTarget("concurrency", 10.0))
    assert stage.decide(UNREAD, stable=45.0).desired == 5


def test_a_metric_that_could_not_be_read_takes_nothing_away_and_others_may_add() -> None:
    stage = scene(4, CPU, QUEUE, scaleDown={"stabilizationWindowSeconds": 0})
    held = stage.decide(UNREAD, Reading(5.0))
    assert (held.desired, held.bounds, held.valid) == (4, (Bound.SIGNAL_MISSING,), True)
    assert "cpu could not be read" in held.sentence()
    assert stage.decide(UNREAD, Reading(65.0)).desired == 7
    assert stage.decide(each(4, 0.1), Reading(5.0)).desired == 1


def test_without_any_metric_nothing_is_decided() -> None:
    stage = scene(4)
    before = stage.state
    decision = stage.decide(UNREAD)
    assert (decision.desired, decision.missing, decision.state) == (None, Missing.METRICS_FAILED, before)
    assert decision.sentence() == "stay as is (4 ready); cpu could not be read"


def test_without_a_count_of_replicas_nothing_is_decided() -> None:
    inputs = Inputs(0.0, 0.0, 4, missing=Missing.REPLICA_COUNT_FAILED, readings=(busy(4),))
    scaling = HorizontalPodAutoscaler()
    state = scaling.start(settings(), 4, BEGIN)
    decision = scaling.decide(settings(), state, inputs, BEGIN)
    assert (decision.desired, decision.missing) == (None, Missing.REPLICA_COUNT_FAILED)
    assert (
        decision.sentence() == "stay as is (4 ready); ready replicas could not be counted, so nothing is decided"
    )


def test_replicas_that_start_are_held_while_nothing_is_measured() -> None:
    scaling = HorizontalPodAutoscaler()
    state = scaling.start(settings(), 0, BEGIN)
    decision = scaling.decide(settings(), state, Inputs(0.0, 0.0, 0, 3, readings=(UNREAD,)), BEGIN)
    assert (decision.desired, decision.valid) == (3, True)


# What surrounds it


def bounded(decision: Decision, limits: RevisionSettings, ready: int) -> Decision:
    activity = bounds.begin(limits, ready, BEGIN, initialized=True)
    return bounds.bound(limits, activity, decision, RequestPath(), decision.at, revision="ns/r")


def test_minimum_and_maximum_bound_what_it_asks_for() -> None:
    limits = replace(settings(scaleDown={"stabilizationWindowSeconds": 0}), min_scale=2, max_scale=5)
    stage = Scene(HorizontalPodAutoscaler(), limits, 4)
    most = bounded(stage.decide(busy(4)), limits, 4)
    assert (most.scale, most.bounds) == (5, (Bound.SCALE_UP_POLICY, Bound.MAX_SCALE))
    least = bounded(stage.decide(each(4, 0.01)), limits, 4)
    assert (least.scale, least.bounds) == (2, (Bound.MIN_SCALE,))


rounds = st.lists(
    st.tuples(
        st.sampled_from([0.0, 2.0, 15.0, 61.0, 400.0]),
        st.integers(0, 40),
        st.integers(0, 5),
        st.one_of(st.none(), st.floats(0, 20)),
        st.one_of(st.none(), st.floats(0, 5000)),
        st.sampled_from([None, None, None, 1, 7]),
    ),
    min_size=1,
    max_size=25,
)
policies = st.lists(
    st.builds(policy, st.sampled_from(["Pods", "Percent"]), st.integers(1, 300), st.integers(1, 1800)),
    min_size=1,
    max_size=3,
)
rules = st.fixed_dictionaries(
    {
        "policies": policies,
        "selectPolicy": st.sampled_from(["Max", "Min", "Disabled"]),
        "stabilizationWindowSeconds": st.integers(0, 3600),
    }
)


def play(
    given_settings: RevisionSettings,
    story: list[tuple[float, int, int, float | None, float | None, int | None]],
) -> list[Decision]:
    scaling = HorizontalPodAutoscaler()
    now = BEGIN
    state = scaling.start(given_settings, story[0][1], now)
    decisions = []
    for passed, ready, on_the_way, cores, waiting, in_flight in story:
        now += passed
        readings = (
            UNREAD if cores is None else each(ready, cores),
            UNREAD if waiting is None else Reading(waiting),
        )
        inputs = Inputs(0.0, 0.0, ready, on_the_way, in_flight=in_flight, readings=readings)
        decision = scaling.decide(given_settings, state, inputs, now)
        state = decision.state
        decisions.append(bounded(decision, given_settings, ready))
    return decisions


@given(rounds, rules, rules, st.integers(0, 5), st.integers(0, 30))
def test_whatever_happens_it_stays_within_policies_and_bounds(
    story: list[tuple[float, int, int, float | None, float | None, int | None]],
    up: dict[str, object],
    down: dict[str, object],
    least: int,
    most: int,
) -> None:
    limits = replace(settings(CPU, QUEUE, scaleUp=up, scaleDown=down), min_scale=least, max_scale=most)
    decisions = play(limits, story)
    for decision in decisions:
        assert decision.sentence()
        if decision.scale is not None:
            assert min(max(1, least), most or 2**31) <= decision.scale <= (most or 2**31)
        if decision.desired is None:
            continue
        current = decision.ready + decision.starting
        assert decision.desired >= 1
        assert decision.rate_floor <= current <= decision.rate_ceiling
        assert max(1, min(decision.rate_floor, current)) <= max(1, decision.desired)
        assert decision.desired <= max(1, decision.rate_ceiling)
        if up["selectPolicy"] == "Disabled":
            assert decision.desired <= max(1, current)
        if down["selectPolicy"] == "Disabled":
            assert decision.desired >= current
        if Bound.SIGNAL_MISSING in decision.bounds:
            assert decision.desired == current
    assert decisions == play(limits, story)


@pytest.mark.parametrize("step", [37, -37])
def test_memory_is_bounded_by_windows_and_periods(step: int) -> None:
    rules = {"stabilizationWindowSeconds": 20, "policies": [policy("Pods", 10, 20)]}
    stage = scene(5, QUEUE, scaleUp=rules, scaleDown=rules)
    load = iter(range(50_000, 10**6 if step > 0 else 0, step))
    stage.run(2000, lambda _: Reading(next(load)))
    memory = stage.state.memory
    assert isinstance(memory, tuple)
    assert all(len(kept) <= 11 for kept in memory if isinstance(kept, tuple))


# How Knative's annotations come to it


def resolved(**annotations: str) -> RevisionSettings:
    keyed = {f"autoscaling.knative.dev/{name.replace('_', '-')}": text for name, text in annotations.items()}
    return AutoscalerConfig().resolve({"autoscaling.knative.dev/class": HPA, **keyed})


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({}, MetricTarget("cpu", 80.0)),
        ({"metric": "memory"}, MetricTarget("cpu", 80.0)),
        ({"target": "45.2"}, MetricTarget("cpu", 46.0)),
        ({"metric": "memory", "target": "199.5"}, MetricTarget("memory", 200.0)),
        ({"metric": "queue-depth", "target": "0.5"}, MetricTarget("queue-depth", 0.5)),
        ({"target": "many"}, MetricTarget("cpu", 80.0)),
    ],
)
def test_metric_and_target_are_what_knative_hands_to_kubernetes(
    annotations: dict[str, str], expected: MetricTarget
) -> None:
    assert resolved(**annotations).metrics == (expected,)


def test_a_window_stabilizes_both_ways() -> None:
    behavior = resolved(window="90s").behavior
    assert behavior.scale_up.stabilization_window == behavior.scale_down.stabilization_window == 90
    assert resolved(window="1s").behavior == resolved().behavior == DEFAULT_BEHAVIOR
