"""What was saved of a revision goes on after a restart while it says something yet, and is ignored otherwise."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.autoscaler import bounds, kpa
from upwell.autoscaler.bounds import RequestPath
from upwell.autoscaler.columns import StateColumns
from upwell.autoscaler.decision import Activity, Bound, Decision, Inputs, Missing, Panic, State, Status
from upwell.autoscaler.saved import MOST_PEAKS, SavedRevision, resume
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.window import MaxWindow

NOW = 1_700_000_000.0
SETTINGS = RevisionSettings()
DELAYED = RevisionSettings(scale_down_delay=120.0)


def saved(**changes: Any) -> SavedRevision:
    values: dict[str, Any] = {
        "status": Status.ACTIVE,
        "since": NOW - 500,
        "initialized": True,
        "timed_out": False,
        "panic_since": None,
        "max_panic_replicas": 0,
        "delay_peaks": (),
        "excess_burst_capacity": -4,
        "saved_at": NOW - 5,
    }
    return SavedRevision(**{**values, **changes})


def resumed(
    revision: SavedRevision, settings: RevisionSettings = SETTINGS, ready: int = 0, now: float = NOW
) -> tuple[State, Activity]:
    found = resume(revision, kpa.start(settings, ready, now), settings, ready, now)
    assert found is not None
    return found


def decided(settings: RevisionSettings, at: tuple[State, Activity], inputs: Inputs, now: float = NOW) -> Decision:
    decision = kpa.decide(settings, at[0], inputs, now)
    return bounds.bound(settings, at[1], decision, RequestPath(), now)


whole = st.integers(min_value=0, max_value=2**31 - 1)
moments = st.floats(min_value=0, max_value=4e9)


def falling(pairs: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Ever later and ever smaller."""
    seconds, values = sorted({pair[0] for pair in pairs}), sorted({pair[1] for pair in pairs}, reverse=True)
    return tuple(zip(seconds, values, strict=False))


peaks = st.lists(st.tuples(whole, whole), max_size=20).map(falling)
revisions = st.builds(
    lambda panic_since, max_panic_replicas, **fields: SavedRevision(
        panic_since=panic_since, max_panic_replicas=0 if panic_since is None else max_panic_replicas, **fields
    ),
    status=st.sampled_from(Status),
    since=moments,
    initialized=st.booleans(),
    timed_out=st.booleans(),
    panic_since=st.none() | moments,
    max_panic_replicas=whole,
    delay_peaks=peaks,
    excess_burst_capacity=st.integers(min_value=-(2**40), max_value=2**40),
    saved_at=moments,
)
anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(revisions)
def test_what_is_written_is_read_as_it_was(revision: SavedRevision) -> None:
    assert SavedRevision.from_json(json.loads(json.dumps(revision.to_json()))) == revision


@given(anything)
def test_whatever_else_is_read_counts_for_nothing(data: Any) -> None:
    assert SavedRevision.from_json(data) is None


@given(revisions, st.data())
def test_a_field_that_is_not_what_it_should_be_spoils_its_revision_alone(
    revision: SavedRevision, data: st.DataObject
) -> None:
    written = revision.to_json()
    name = data.draw(st.sampled_from(sorted(written)))
    wrong: Any = data.draw(st.sampled_from([None, "x", {}, [1], -1.5, math.nan, math.inf, [[1]], [["a", 1]]]))
    assert SavedRevision.from_json({**written, name: wrong}) is None


@pytest.mark.parametrize("name", ["status", "since", "excessBurstCapacity", "savedAt"])
def test_a_field_that_is_missing_spoils_its_revision(name: str) -> None:
    written = saved().to_json()
    del written[name]
    assert SavedRevision.from_json(written) is None


def test_more_wishes_than_the_longest_delay_has_are_not_read() -> None:
    many = [[2 * second, 10_000 - second] for second in range(MOST_PEAKS + 1)]
    assert SavedRevision.from_json({**saved().to_json(), "delayPeaks": many}) is None
    assert SavedRevision.from_json({**saved().to_json(), "delayPeaks": many[:-1]}) is not None


def test_wishes_that_could_not_have_been_kept_are_not_read() -> None:
    wrongs: list[list[list[Any]]] = [[[10, 5], [8, 4]], [[10, 5], [12, 5]], [[10, -5]], [[10.5, 5]], [[True, 5]]]
    for wrong in wrongs:
        assert SavedRevision.from_json({**saved().to_json(), "delayPeaks": wrong}) is None


def test_the_state_that_comes_back_is_the_state_that_was_saved() -> None:
    delay = MaxWindow(120.0, kpa.TICK).record(NOW - 60, 9).record(NOW - 30, 4)
    state = State(NOW - 20, 7, delay, -11)
    activity = Activity(Status.ACTIVE, NOW - 300, True)
    revision = SavedRevision.of(state, activity, NOW)
    assert resumed(revision, DELAYED, ready=1) == (state, activity)


def test_times_that_an_engine_counts_ahead_of_the_clock_are_saved_by_the_clock() -> None:
    ahead = 3601
    delay = MaxWindow(120.0, kpa.TICK).record(NOW + ahead - 30, 4)
    activity = Activity(Status.ACTIVE, NOW + ahead - 300, True)
    revision = SavedRevision.of(State(NOW + ahead - 20, 7, delay, 0), activity, NOW, shift=ahead)
    state, activity = resumed(revision, DELAYED, ready=1)
    assert (state.panic_since, activity.since) == (NOW - 20, NOW - 300)
    assert state.delay is not None
    assert state.delay.current == 4
    assert state.delay.record(NOW + 80, 1).current == 4
    assert state.delay.record(NOW + 95, 1).current == 1


def test_what_is_older_than_the_stable_window_or_from_the_future_says_nothing() -> None:
    def says_something(saved_at: float, settings: RevisionSettings = SETTINGS) -> bool:
        return resume(saved(saved_at=saved_at), kpa.start(settings, 0, NOW), settings, 0, NOW) is not None

    assert [says_something(NOW - age) for age in (60.5, 60, -0.5, -1.5)] == [False, True, True, False]
    assert says_something(NOW - 60.5, RevisionSettings(stable_window=90.0))


def test_no_time_that_is_resumed_lies_in_the_future() -> None:
    state, activity = resumed(saved(saved_at=NOW + 0.5, since=NOW + 0.5, panic_since=NOW + 0.5), ready=1)
    assert (state.panic_since, activity.since) == (NOW, NOW)


def test_a_panic_goes_on_and_ends_when_it_would_have() -> None:
    at = resumed(saved(panic_since=NOW - 40, max_panic_replicas=6), ready=1)
    quiet = Inputs(1.0, 1.0, ready=1)
    held = decided(SETTINGS, at, quiet, NOW + 20)
    assert (held.panic, held.desired) == (Panic.HELD, 6)
    assert decided(SETTINGS, at, quiet, NOW + 21).panic is Panic.LEFT


def test_many_replicas_are_held_for_a_window_since_nothing_is_known_of_their_load() -> None:
    state, _ = resumed(saved(), ready=8)
    assert (state.panic_since, state.max_panic_replicas) == (NOW, 8)
    state, _ = resumed(saved(panic_since=NOW - 50, max_panic_replicas=12), ready=8)
    assert (state.panic_since, state.max_panic_replicas) == (NOW, 12)


def test_a_scale_down_delay_goes_on_and_wishes_that_it_is_over_for_are_dropped() -> None:
    revision = saved(delay_peaks=((int(NOW) - 200, 30), (int(NOW) - 100, 20), (int(NOW) - 50, 10)))
    state, _ = resumed(revision, DELAYED, ready=1)
    assert state.delay is not None
    assert state.delay.current == 20
    assert state.delay.record(NOW + 30, 1).current == 10
    assert resumed(revision, SETTINGS, ready=1)[0].delay is None


def test_what_a_class_of_ones_own_begins_with_stays() -> None:
    begun = State(None, 0, None, 0, memory="its own")
    found = resume(saved(delay_peaks=((int(NOW), 9),)), begun, DELAYED, 8, NOW)
    assert found is not None
    assert found[0] == replace(begun, excess_burst_capacity=-4)


def test_the_way_to_zero_goes_on_from_where_it_was() -> None:
    at = resumed(saved(status=Status.INACTIVE, since=NOW - 25), ready=1)
    idle = Inputs(0.0, 0.0, ready=1)
    assert decided(SETTINGS, at, idle, NOW + 4).bounds == (Bound.GRACE_PERIOD,)
    assert decided(SETTINGS, at, idle, NOW + 5).scale == 0


def test_an_active_revision_that_has_a_replica_stays_active_since_it_was() -> None:
    _, activity = resumed(saved(), ready=1)
    assert activity == Activity(Status.ACTIVE, NOW - 500, True)


@given(revisions, st.integers(min_value=0, max_value=59))
def test_with_no_replica_left_nothing_starts_before_it_is_asked_for(revision: SavedRevision, after: int) -> None:
    now = revision.saved_at + 1
    found = resume(revision, kpa.start(DELAYED, 0, now), DELAYED, 0, now, initialized=True)
    assert found is not None
    unknown = Inputs(0.0, 0.0, ready=0, missing=Missing.NO_DATA)
    decision = decided(DELAYED, found, unknown, revision.saved_at + 1 + after)
    assert not decision.scale
    assert decision.activity is not None
    assert decision.activity.status is Status.INACTIVE


def test_replicas_that_were_all_lost_come_back_with_the_first_request_as_many_as_panic_held() -> None:
    at = resumed(saved(panic_since=NOW - 10, max_panic_replicas=5), ready=0)
    assert at[1] == Activity(Status.INACTIVE, NOW, True)
    poked = Inputs(0.0, 0.0, ready=0, missing=Missing.NO_DATA, in_flight=1)
    assert decided(SETTINGS, at, poked).scale == 5
    at = resumed(saved(), ready=0)
    assert decided(SETTINGS, at, poked).scale == 1


def test_a_minimum_is_brought_back_at_once() -> None:
    settings = RevisionSettings(min_scale=2)
    at = resumed(saved(), settings, ready=0)
    assert at[1].status is Status.ACTIVATING
    unknown = Inputs(0.0, 0.0, ready=0, missing=Missing.NO_DATA)
    assert decided(settings, at, unknown).scale == 2


def test_a_restart_gives_no_more_time_to_a_revision_that_cannot_start() -> None:
    first = saved(status=Status.ACTIVATING, since=NOW - 600, initialized=False)
    _, activity = resumed(first, ready=0)
    assert activity == Activity(Status.ACTIVATING, NOW - 600, False)
    unknown = Inputs(0.0, 0.0, ready=0, missing=Missing.NO_DATA)
    decision = decided(SETTINGS, resumed(first, ready=0), unknown, NOW + 31)
    assert (decision.scale, Bound.ACTIVATION_TIMED_OUT in decision.bounds) == (0, True)


def test_what_would_begin_in_the_same_way_need_not_be_saved() -> None:
    inactive = saved(status=Status.INACTIVE)
    assert inactive.is_at_rest
    fresh = bounds.begin(SETTINGS, 0, NOW, initialized=True)
    assert resumed(inactive)[1].status is fresh.status
    for changes in (
        {"status": Status.ACTIVE},
        {"initialized": False},
        {"timed_out": True},
        {"panic_since": NOW - 1},
        {"delay_peaks": ((int(NOW), 1),)},
    ):
        assert not saved(**{"status": Status.INACTIVE, **changes}).is_at_rest


def test_columns_know_the_rows_at_rest_that_need_not_be_saved() -> None:
    states = StateColumns()
    empty, some = MaxWindow(30.0, kpa.TICK), MaxWindow(30.0, kpa.TICK).record(NOW, 1)
    combinations = product(Status, (False, True), (False, True), (None, NOW), (None, empty, some))
    expected = []
    for row, (status, initialized, timed_out, panic_since, delay) in enumerate(combinations):
        state, activity = State(panic_since, 0, delay, 0), Activity(status, NOW, initialized, timed_out)
        states.set(row, State(None, 0, some, 0), activity)  # of which nothing may stay
        states.set(row, state, activity)
        expected.append(SavedRevision.of(state, activity, NOW).is_at_rest)
    assert states.at_rest(np.arange(len(expected))).tolist() == expected
    assert sum(expected) == 2, "without a delay, and with one that nothing waits for"
