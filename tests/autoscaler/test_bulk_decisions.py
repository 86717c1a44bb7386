"""Deciding for many revisions at once comes to what deciding for each alone comes to, field for field."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import accumulate
from random import Random
from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from support.bulk import Rows, columns_of, decided_alone
from upwell.autoscaler import bounds, kpa
from upwell.autoscaler.bounds import RequestPath
from upwell.autoscaler.bulk import decide
from upwell.autoscaler.decision import (
    GREATEST_COUNT,
    Activity,
    Bound,
    Decision,
    Inputs,
    Missing,
    SignalWant,
    State,
    Status,
)
from upwell.autoscaler.records import decode, details, encode
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.window import MaxWindow

BEGIN = 1_700_000_000.0
SETTINGS = RevisionSettings()
IDLE = Inputs(0.0, 0.0, 1)

scales = st.integers(0, 12)
demands = st.one_of(st.just(0.0), st.floats(0, 1e5, allow_subnormal=False), st.integers(0, 2000).map(float))
beyond_measure = st.just(1e308)
past = st.sampled_from([0.0, 0.5, 29.5, 30.0, 60.0, 60.0000001, 61.0, 99.0, 631.0, 4000.0]).map(
    lambda ago: BEGIN - ago
)


@st.composite
def some_settings(draw: st.DrawFn) -> RevisionSettings:
    return RevisionSettings(
        metric=draw(st.sampled_from(["concurrency", "rps"])),
        target_value=draw(st.one_of(st.just(70.0), st.floats(0.01, 200), beyond_measure)),
        total_value=draw(st.one_of(st.floats(0.01, 300), beyond_measure)),
        target_burst_capacity=draw(st.sampled_from([-1.0, 0.0, 10.5, 211.0, 1e308])),
        max_scale_up_rate=draw(st.one_of(st.floats(1.01, 1000), beyond_measure)),
        max_scale_down_rate=draw(st.one_of(st.just(2.0), st.floats(1.01, 10))),
        panic_threshold=draw(st.one_of(st.just(2.0), st.floats(1.1, 10))),
        stable_window=draw(st.sampled_from([6.0, 60.0, 90.5])),
        panic_window=draw(st.integers(1, 60)),
        scale_down_delay=draw(st.sampled_from([0.0, 0.0, 1.0, 30.0])),
        reachable=draw(st.booleans()),
        initial_scale=draw(scales),
        activation_scale=draw(scales),
        min_scale=draw(st.one_of(st.just(0), scales)),
        max_scale=draw(st.one_of(st.just(0), scales)),
        max_scale_limit=draw(st.one_of(st.just(0), scales)),
        enable_scale_to_zero=draw(st.booleans()),
        scale_to_zero_grace_period=draw(st.sampled_from([0.1, 30.0, 31.5])),
        scale_to_zero_pod_retention_period=draw(st.sampled_from([0.0, 20.0, 100.0])),
        progress_deadline=draw(st.sampled_from([10.0, 600.0])),
        activator_capacity=draw(st.floats(1, 200)),
    )


@st.composite
def some_states(draw: st.DrawFn, settings: RevisionSettings) -> State:
    delay = None
    if settings.scale_down_delay:
        delay = MaxWindow(settings.scale_down_delay, kpa.TICK)
        for ago, wish in ((20, draw(scales)), (10, draw(scales))):
            delay = delay.record(BEGIN - ago, wish)
    return State(
        panic_since=draw(st.one_of(st.none(), past)),
        max_panic_replicas=draw(scales),
        delay=delay,
        excess_burst_capacity=draw(st.integers(-1000, 1000)),
    )


class Round(NamedTuple):
    """What a row sees at a tick; `settings` are new ones that hold from then on."""

    inputs: Inputs
    path: RequestPath
    settings: RevisionSettings | None = None


class Story(NamedTuple):
    settings: RevisionSettings
    state: State
    activity: Activity
    rounds: list[Round]


ROUNDS = 4
some_inputs = st.builds(
    Inputs,
    demands,
    demands,
    st.one_of(st.integers(0, 3), st.integers(0, 5000)),
    st.integers(0, 3),
    st.sampled_from([None, None, None, None, *Missing]),
    st.none(),
    st.just(()),
)
some_paths = st.builds(RequestPath, st.booleans(), st.one_of(st.none(), past))
some_activities = st.builds(Activity, st.sampled_from(Status), past, st.booleans(), st.booleans())


@st.composite
def some_stories(draw: st.DrawFn) -> Story:
    settings = draw(some_settings())
    rounds = [
        Round(
            draw(some_inputs),
            draw(some_paths),
            draw(some_settings()) if draw(st.integers(0, 5)) == 0 else None,
        )
        for _ in range(ROUNDS)
    ]
    return Story(settings, draw(some_states(settings)), draw(some_activities), rounds)


def told_alone(row: int, story: Story, times: list[float]) -> list[Decision]:
    settings, state, activity = story.settings, story.state, story.activity
    decisions = []
    for round_, now in zip(story.rounds, times, strict=True):
        settings = round_.settings or settings
        decision = decided_alone(settings, (state, activity, round_.path), round_.inputs, now, f"ns/{row}")
        assert decision.activity is not None
        state, activity = decision.state, decision.activity
        decisions.append(decision)
    return decisions


def told_in_bulk(order: list[int], stories: list[Story], times: list[float]) -> list[list[Decision]]:
    """What each of `stories`, kept in the rows `order`, comes to."""
    rows = Rows()
    for row, story in zip(order, stories, strict=True):
        rows.settings.set(row, story.settings)
        rows.states.set(row, story.state, story.activity)
    columns: list[list[Decision]] = [[] for _ in stories]
    for number, now in enumerate(times):
        rounds = [story.rounds[number] for story in stories]
        for row, round_ in zip(order, rounds, strict=True):
            rows.states.set_path(row, round_.path)
            if round_.settings:
                rows.settings.set(row, round_.settings)
        decisions = rows.decisions(order, [round_.inputs for round_ in rounds], [now] * len(order))
        for column, row, round_, decision in zip(columns, order, rounds, decisions, strict=True):
            assert rows.states.get(row) == (decision.state, decision.activity, round_.path)
            column.append(decision)
    return columns


@given(
    st.lists(some_stories(), min_size=1, max_size=5),
    st.lists(st.sampled_from([0.0, 0.5, 2.0, 29.5, 61.0, 700.0]), min_size=ROUNDS, max_size=ROUNDS),
    st.randoms(use_true_random=False),
)
def test_many_at_once_come_to_what_each_comes_to_alone(
    stories: list[Story], pauses: list[float], random: Random
) -> None:
    order = random.sample(range(40), len(stories))
    times = [BEGIN + passed for passed in accumulate(pauses)]
    for row, story, decisions in zip(order, stories, told_in_bulk(order, stories, times), strict=True):
        assert decisions == told_alone(row, story, times)


@given(
    st.lists(st.sampled_from([1.0, 3.0, 10.0, 30.0]), min_size=3, max_size=3),
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.5, 2.0, 2.0, 7.0, 40.0]),
            st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=3, max_size=3),
        ),
        max_size=25,
    ),
)
def test_scale_down_delays_hold_past_wishes_as_each_does_alone(
    lengths: list[float], story: list[tuple[float, list[int | None]]]
) -> None:
    rows, delays = Rows(), [MaxWindow(length, kpa.TICK) for length in lengths]
    for row, delay in enumerate(delays):
        settings = replace(SETTINGS, target_value=1.0, panic_threshold=1000.0, scale_down_delay=delay.duration)
        rows.settings.set(row, settings)
        activity = bounds.begin(settings, 1, BEGIN, initialized=True)
        rows.states.set(row, kpa.start(settings, 1, BEGIN), activity)
    now = BEGIN
    for passed, wishes in story:
        now += passed
        inputs = [
            Inputs(float(wish or 0), 0.0, 1, missing=Missing.NO_DATA if wish is None else None) for wish in wishes
        ]
        decisions = rows.decisions([0, 1, 2], inputs, [now] * 3)
        for row, (wish, decision) in enumerate(zip(wishes, decisions, strict=True)):
            if wish is not None:
                delays[row] = delays[row].record(now, wish)
                assert (decision.undelayed, decision.desired) == (wish, delays[row].current)
            assert rows.states.delay(row) == delays[row]
            if passed == 0.5:  # told again, as after a poke
                rows.states.set(row, *rows.states.get(row)[:2])
                assert rows.states.delay(row) == delays[row]


@given(some_stories())
def test_a_decision_survives_its_record(story: Story) -> None:
    poked = [round_._replace(inputs=round_.inputs._replace(in_flight=9.0)) for round_ in story.rounds]
    for decision in told_alone(0, story._replace(rounds=story.rounds + poked), [BEGIN] * 2 * ROUNDS):
        again = decode(
            encode(decision), "ns/0", details(decision), delay=decision.state.delay, memory=decision.state.memory
        )
        assert again == decision
        assert (again.outcome, again.sentence()) == (decision.outcome, decision.sentence())


def test_a_decision_by_several_metrics_survives_its_record_and_details() -> None:
    decision = kpa.decide(SETTINGS, kpa.start(SETTINGS, 0, BEGIN), Inputs(3.0, 4.0, 1, in_flight=7.0), BEGIN)
    decision = decision._replace(
        metric="memory",
        signals=(SignalWant("memory", 1.0, 2.0, 1, 1), SignalWant("cpu", 0.0, 2.0, 0, 0, Missing.METRICS_FAILED)),
        binding="memory",
        bounds=tuple(Bound),
    )
    assert decode(encode(decision), details=details(decision)) == decision


def test_a_plain_decision_has_no_details() -> None:
    assert details(kpa.decide(SETTINGS, kpa.start(SETTINGS, 0, BEGIN), IDLE, BEGIN)) is None


def test_counts_beyond_what_a_record_holds_saturate() -> None:
    rows = Rows()
    rows.settings.set(0, replace(SETTINGS, target_value=0.01, max_scale_up_rate=1e9))
    rows.states.set(0, kpa.start(SETTINGS, 0, BEGIN), bounds.begin(SETTINGS, 0, BEGIN, initialized=True))
    [decision] = rows.decisions([0], [Inputs(1e12, 1e12, 7150)], [BEGIN])
    assert (decision.scale, decision.stable_raw, decision.rate_ceiling) == (GREATEST_COUNT,) * 3
    assert decision.excess_burst_capacity == -GREATEST_COUNT
    assert decode(encode(decision), "ns/0") == decision


def test_what_is_missing_may_be_not_a_number() -> None:
    rows = Rows()
    rows.settings.set(0, SETTINGS)
    rows.states.set(0, kpa.start(SETTINGS, 1, BEGIN), bounds.begin(SETTINGS, 1, BEGIN, initialized=True))
    [decision] = rows.decisions([0], [Inputs(math.nan, math.nan, 1, missing=Missing.NO_DATA)], [BEGIN])
    assert (decision.stable_value, decision.panic_value, decision.scale) == (0.0, 0.0, None)


def test_deciding_changes_nothing_before_it_is_stored() -> None:
    rows = Rows()
    settings = replace(SETTINGS, scale_down_delay=30.0)
    rows.settings.set(3, settings)
    rows.states.set(3, kpa.start(settings, 5, BEGIN), bounds.begin(settings, 5, BEGIN, initialized=False))
    before = rows.states.get(3)
    decide(rows.settings, rows.states, np.array([3]), columns_of([Inputs(900.0, 900.0, 5)]), BEGIN + 70)
    assert rows.states.get(3) == before


def test_thousands_of_rows_in_any_order_each_get_their_own_decision() -> None:
    count = 12_345
    rows = Rows()
    activity = bounds.begin(SETTINGS, 1, BEGIN, initialized=True)
    for row in range(count):
        rows.settings.set(row, SETTINGS)
        rows.states.set(row, kpa.start(SETTINGS, 1, BEGIN), activity)
    in_order = list(range(count))
    for order in (in_order, in_order[5:], in_order[::-1], Random(1).sample(in_order, count)):
        records = rows.decide(order, [Inputs(70.0 * row, 0.0, 1000) for row in order], [BEGIN] * len(order))
        assert records["stable_raw"].tolist() == order


def test_no_rows_are_no_decisions() -> None:
    rows = Rows()
    assert rows.decisions([], [], []) == []


def test_a_cleared_row_begins_like_a_new_one() -> None:
    rows = Rows()
    state, activity = kpa.start(SETTINGS, 0, BEGIN), bounds.begin(SETTINGS, 0, BEGIN, initialized=True)
    delayed = replace(state, delay=MaxWindow(30.0, kpa.TICK), memory="of a class")
    rows.states.set(0, delayed, activity, RequestPath(activator_answers=False, proxying_since=BEGIN))
    assert rows.states.get(0) == (delayed, activity, RequestPath(activator_answers=False, proxying_since=BEGIN))
    rows.states.clear(0)
    rows.states.clear(99)
    rows.states.set(0, state, activity)
    assert rows.states.get(0) == (state, activity, RequestPath())
    assert rows.states.delay(0) is None
