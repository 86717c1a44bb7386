"""Each rule around the wish on its own: minimum and maximum, the initial scale, and every step toward zero."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from upwell.autoscaler import bounds, kpa
from upwell.autoscaler.bounds import ACTIVATION_MARGIN, RequestPath
from upwell.autoscaler.decision import Activity, Bound, Decision, Inputs, Missing, State, Status
from upwell.autoscaler.spec import AutoscalerConfig, RevisionSettings

BEGIN = 1_700_000_000.0
SETTINGS = RevisionSettings()
REST = State(panic_since=None, max_panic_replicas=0, delay=None, excess_burst_capacity=0)
UNKNOWN = None
"""Replicas wanted while demand is unknown."""
ACTIVATING, ACTIVE, INACTIVE = Status.ACTIVATING, Status.ACTIVE, Status.INACTIVE


def decide(
    settings: RevisionSettings = SETTINGS,
    *,
    wish: int | None,
    ready: int = 1,
    starting: int = 0,
    status: Status = ACTIVE,
    lasted: float = 1000.0,
    initialized: bool = True,
    path: RequestPath | None = None,
) -> Decision:
    """The decision on a revision that came to `status` so many seconds ago and that demand wants `wish` of."""
    load = (wish or 0) * settings.target_value
    missing = Missing.METRICS_FAILED if wish is None else None
    inputs = Inputs(load, load, ready, starting, missing)
    wished = kpa.decide(replace(settings, max_scale_down_rate=1000.0), REST, inputs, BEGIN)
    assert wished.desired == wish
    activity = Activity(status, BEGIN - lasted, initialized)
    return bounds.bound(settings, activity, wished, path or RequestPath(), BEGIN)


def status_after(decision: Decision) -> tuple[Status, str]:
    assert decision.activity is not None
    return decision.activity.status, bounds.active_condition(decision.activity).reason


# Knative's table of the condition Active, with the reasons that it gives


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize(
    ("wish", "ready", "expected"),
    [(3, 0, (ACTIVATING, "Queued")), (3, 1, (ACTIVATING, "Queued")), (3, 2, (ACTIVE, "")), (3, 5, (ACTIVE, ""))],
)
def test_a_revision_that_is_wanted_is_active_from_its_minimum_on(
    status: Status, wish: int, ready: int, expected: tuple[Status, str]
) -> None:
    settings = replace(SETTINGS, min_scale=2)
    assert status_after(decide(settings, wish=wish, ready=ready, status=status)) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (INACTIVE, (INACTIVE, "NoTraffic")),
        (ACTIVE, (INACTIVE, "NoTraffic")),
        (ACTIVATING, (INACTIVE, "TimedOut")),
    ],
)
@pytest.mark.parametrize("ready", [0, 1])
def test_a_revision_that_is_wanted_no_more_is_inactive(
    status: Status, ready: int, expected: tuple[Status, str]
) -> None:
    assert status_after(decide(wish=0, ready=ready, status=status)) == expected


@pytest.mark.parametrize(
    ("status", "ready", "expected"),
    [
        (INACTIVE, 0, (INACTIVE, "NoTraffic")),
        (ACTIVATING, 0, (ACTIVATING, "Queued")),
        (ACTIVE, 0, (ACTIVATING, "Queued")),
        (INACTIVE, 1, (INACTIVE, "NoTraffic")),
        (ACTIVATING, 1, (ACTIVE, "")),
        (ACTIVE, 1, (ACTIVE, "")),
    ],
)
def test_while_demand_is_unknown_only_ready_replicas_tell_whether_a_revision_is_active(
    status: Status, ready: int, expected: tuple[Status, str]
) -> None:
    assert status_after(decide(wish=UNKNOWN, ready=ready, status=status, lasted=10)) == expected


def test_a_revision_that_begins_at_zero_is_inactive_and_initialized_from_the_start() -> None:
    settings = replace(SETTINGS, initial_scale=0)
    decision = decide(settings, wish=UNKNOWN, ready=0, status=ACTIVATING, initialized=False, lasted=1)
    assert status_after(decision) == (INACTIVE, "NoTraffic")
    assert decision.activity is not None
    assert decision.activity.initialized


def test_the_condition_of_each_status_is_named_as_knative_names_it() -> None:
    statuses = [bounds.active_condition(Activity(status, BEGIN, True)).status for status in Status]
    assert dict(zip(Status, statuses, strict=True)) == {ACTIVATING: "Unknown", ACTIVE: "True", INACTIVE: "False"}


def test_that_a_revision_timed_out_is_told_until_it_is_asked_for_again() -> None:
    timed_out = decide(wish=0, ready=0, status=ACTIVATING)
    assert timed_out.activity is not None
    rests = bounds.bound(SETTINGS, timed_out.activity, timed_out, RequestPath(), BEGIN + 100)
    assert status_after(rests) == (INACTIVE, "TimedOut")
    asked = decide(wish=1, ready=0, status=INACTIVE)
    assert rests.activity is not None
    again = bounds.bound(SETTINGS, rests.activity, asked, RequestPath(), BEGIN + 200)
    assert status_after(again) == (ACTIVATING, "Queued")
    assert again.activity is not None
    assert not again.activity.timed_out


# Minimum, maximum, initial scale


@pytest.mark.parametrize(
    ("settings", "wish", "scale", "reasons"),
    [
        (replace(SETTINGS, min_scale=2), 1, 2, (Bound.MIN_SCALE,)),
        (replace(SETTINGS, min_scale=2), 0, 2, (Bound.MIN_SCALE,)),
        (replace(SETTINGS, min_scale=2), 2, 2, ()),
        (replace(SETTINGS, max_scale=3), 3, 3, ()),
        (replace(SETTINGS, max_scale=3), 4, 3, (Bound.MAX_SCALE,)),
        (replace(SETTINGS, min_scale=5, max_scale=3), 1, 3, (Bound.MIN_SCALE,)),
        (replace(SETTINGS, min_scale=5, max_scale=3), 9, 3, (Bound.MAX_SCALE,)),
        (replace(SETTINGS, max_scale_limit=4), 9, 4, (Bound.MAX_SCALE_LIMIT,)),
        (replace(SETTINGS, max_scale=9, max_scale_limit=4), 9, 4, (Bound.MAX_SCALE_LIMIT,)),
        (replace(SETTINGS, max_scale=3, max_scale_limit=4), 9, 3, (Bound.MAX_SCALE,)),
        (replace(SETTINGS, max_scale=4, max_scale_limit=4), 9, 4, (Bound.MAX_SCALE,)),
        (replace(SETTINGS, min_scale=7, max_scale_limit=4), 1, 4, (Bound.MIN_SCALE,)),
        (replace(SETTINGS, activation_scale=6), 1, 6, ()),
        (replace(SETTINGS, activation_scale=6, max_scale=5), 1, 5, (Bound.MAX_SCALE,)),
    ],
)
def test_a_wish_is_brought_between_minimum_and_maximum_and_the_maximum_holds(
    settings: RevisionSettings, wish: int, scale: int, reasons: tuple[Bound, ...]
) -> None:
    load = wish * settings.target_value
    wished = kpa.decide(settings, REST, Inputs(load, load, 1), BEGIN)
    decision = bounds.bound(settings, Activity(ACTIVE, BEGIN - 1000, True), wished, RequestPath(), BEGIN)
    assert (decision.scale, decision.bounds) == (scale, reasons)


@pytest.mark.parametrize(
    ("changes", "initialized", "wish", "scale", "reasons"),
    [
        ({}, False, 1, 4, (Bound.INITIAL_SCALE,)),
        ({}, False, 6, 6, ()),
        ({}, True, 1, 1, ()),
        ({"reachable": False}, False, 1, 1, ()),
        ({"min_scale": 5}, False, 1, 5, (Bound.MIN_SCALE,)),
        ({"max_scale": 3}, False, 1, 3, (Bound.INITIAL_SCALE,)),
        ({"max_scale": 3}, False, 6, 3, (Bound.MAX_SCALE,)),
        ({"max_scale_limit": 2}, False, 1, 2, (Bound.INITIAL_SCALE,)),
        ({}, False, 0, 4, (Bound.INITIAL_SCALE,)),
        ({}, False, UNKNOWN, 4, (Bound.NO_DEMAND_KNOWN, Bound.INITIAL_SCALE)),
    ],
)
def test_the_initial_scale_counts_until_it_was_reached_while_a_route_refers_to_the_revision(
    changes: dict[str, Any], initialized: bool, wish: int | None, scale: int, reasons: tuple[Bound, ...]
) -> None:
    settings = replace(SETTINGS, initial_scale=4, **changes)
    decision = decide(settings, wish=wish, ready=1, status=ACTIVATING, lasted=10, initialized=initialized)
    assert (decision.scale, decision.bounds) == (scale, reasons)


@pytest.mark.parametrize(
    ("settings", "enough"),
    [
        (replace(SETTINGS, initial_scale=5), 5),
        (replace(SETTINGS, initial_scale=5, min_scale=6), 6),
        (replace(SETTINGS, initial_scale=5, max_scale=3), 3),
        (replace(SETTINGS, initial_scale=5, max_scale_limit=2), 2),
        (replace(SETTINGS, min_scale=5, max_scale=3), 3),
    ],
)
def test_a_revision_is_initialized_at_its_initial_scale_or_at_the_most_that_may_be(
    settings: RevisionSettings, enough: int
) -> None:
    for ready in range(8):
        decision = decide(settings, wish=1, ready=ready, status=ACTIVATING, initialized=False, lasted=10)
        assert decision.activity is not None
        assert decision.activity.initialized == (ready >= enough)
        assert (decision.activity.status is ACTIVE) == (ready >= enough)
        begun = bounds.begin(settings, ready, BEGIN, initialized=False)
        assert (begun.status is ACTIVE) == (ready >= enough)


def test_a_revision_that_never_reached_its_initial_scale_goes_to_zero_and_comes_back_at_it() -> None:
    settings = replace(SETTINGS, initial_scale=4)
    late = SETTINGS.progress_deadline + ACTIVATION_MARGIN
    waits = decide(settings, wish=0, ready=1, status=ACTIVATING, initialized=False, lasted=late)
    assert (waits.scale, waits.bounds) == (4, (Bound.INITIAL_SCALE,))
    gone = decide(settings, wish=0, ready=1, status=ACTIVATING, initialized=False, lasted=late + 1)
    assert (gone.scale, gone.bounds) == (0, (Bound.ACTIVATION_TIMED_OUT,))
    rests = decide(settings, wish=0, ready=0, status=INACTIVE, initialized=False)
    assert (rests.scale, rests.bounds) == (0, ())
    asked = decide(settings, wish=1, ready=0, status=INACTIVE, initialized=False)
    assert (asked.scale, asked.bounds) == (4, (Bound.INITIAL_SCALE,))


# Demand that is unknown


@pytest.mark.parametrize("status", [ACTIVE, INACTIVE])
@pytest.mark.parametrize("ready", [0, 1, 7])
def test_unknown_demand_leaves_everything_as_it_is(status: Status, ready: int) -> None:
    decision = decide(wish=UNKNOWN, ready=ready, status=status)
    assert (decision.scale, decision.wanted, decision.bounds) == (None, None, (Bound.NO_DEMAND_KNOWN,))


def test_unknown_demand_brings_a_minimum_about_and_never_takes_away_what_is_above_it() -> None:
    settings = replace(SETTINGS, min_scale=3)
    for status in Status:
        scales = [decide(settings, wish=UNKNOWN, ready=ready, status=status).scale for ready in (0, 2, 3, 9)]
        assert scales == [3, 3, None, None]
    assert decide(settings, wish=UNKNOWN, ready=1, starting=2).scale is None


@pytest.mark.parametrize(("lasted", "scale"), [(630.0, None), (630.5, 0)])
def test_a_revision_whose_demand_is_unknown_is_given_up_when_it_cannot_be_activated(
    lasted: float, scale: int | None
) -> None:
    decision = decide(wish=UNKNOWN, ready=0, starting=1, status=ACTIVATING, lasted=lasted)
    assert (decision.scale, decision.wanted) == (scale, scale)


# Toward zero


def test_a_cluster_without_scale_to_zero_keeps_one_replica_of_every_revision() -> None:
    config = AutoscalerConfig(enable_scale_to_zero=False)
    unreachable = config.resolve({"autoscaling.knative.dev/min-scale": "3"}, reachability="Unreachable")
    assert unreachable.min_scale == 0
    for settings in (replace(SETTINGS, enable_scale_to_zero=False), unreachable):
        for status in Status:
            decision = decide(settings, wish=0, ready=4, status=status)
            assert (decision.scale, decision.bounds) == (1, (Bound.SCALE_TO_ZERO_DISABLED,))
            assert decide(settings, wish=UNKNOWN, ready=0, status=status).scale == 1
            assert decide(settings, wish=UNKNOWN, ready=1, status=status).scale is None


@pytest.mark.parametrize(
    ("lasted", "scale", "wanted", "reason"),
    [
        (0.0, 1, 1, Bound.ACTIVE_TOO_BRIEFLY),
        (59.9, 1, 1, Bound.ACTIVE_TOO_BRIEFLY),
        (60.0, None, 0, Bound.FOUND_INACTIVE),
    ],
)
def test_an_active_revision_is_found_inactive_after_its_stable_window(
    lasted: float, scale: int | None, wanted: int, reason: Bound
) -> None:
    for ready in (1, 4):
        decision = decide(wish=0, ready=ready, lasted=lasted)
        assert (decision.scale, decision.wanted, decision.bounds) == (scale, wanted, (reason,))


@pytest.mark.parametrize(
    ("deadline", "lasted", "timed_out"),
    [(600.0, 630.0, False), (600.0, 630.001, True), (45.0, 75.0, False), (45.0, 75.001, True)],
)
def test_activation_is_given_thirty_seconds_beyond_the_progress_deadline(
    deadline: float, lasted: float, timed_out: bool
) -> None:
    settings = AutoscalerConfig().resolve({}, progress_deadline=deadline)
    decision = decide(settings, wish=0, ready=0, starting=1, status=ACTIVATING, lasted=lasted)
    expected = (0, 0, (Bound.ACTIVATION_TIMED_OUT,)) if timed_out else (None, None, (Bound.ACTIVATING,))
    assert (decision.scale, decision.wanted, decision.bounds) == expected


WAITS = None
GOES = 0


@pytest.mark.parametrize(
    ("inactive", "grace", "retention", "proxying", "scale", "reason"),
    [
        (29.9, 30, 0, None, WAITS, Bound.GRACE_PERIOD),
        (30.0, 30, 0, None, GOES, None),
        (50.0, 30, 100, None, WAITS, Bound.RETENTION_PERIOD),
        (100.0, 30, 100, None, GOES, None),
        (15.0, 30, 10, None, WAITS, Bound.GRACE_PERIOD),
        (5.0, 30, 0, 29.9, WAITS, Bound.GRACE_PERIOD),
        (5.0, 30, 0, 30.0, GOES, None),
        (5.0, 30, 10, 99.0, WAITS, Bound.RETENTION_PERIOD),
        (10.0, 30, 10, 99.0, GOES, None),
        (30.0, 30, 0, 5.0, GOES, None),
    ],
)
def test_the_last_replica_stays_for_the_grace_period_and_for_its_retention(
    inactive: float,
    grace: float,
    retention: float,
    proxying: float | None,
    scale: int | None,
    reason: Bound | None,
) -> None:
    settings = replace(SETTINGS, scale_to_zero_grace_period=grace, scale_to_zero_pod_retention_period=retention)
    path = RequestPath(proxying_since=None if proxying is None else BEGIN - proxying)
    decision = decide(settings, wish=0, status=INACTIVE, lasted=inactive, path=path)
    assert (decision.scale, decision.wanted) == (scale, 0)
    assert decision.bounds == (() if reason is None else (reason,))


def test_no_replica_goes_while_the_activator_does_not_answer_unless_it_is_always_in_the_path() -> None:
    unanswered = RequestPath(activator_answers=False, proxying_since=BEGIN - 1e6)
    waits = decide(wish=0, status=INACTIVE, path=unanswered)
    assert (waits.scale, waits.bounds, waits.next_check) == (None, (Bound.ACTIVATOR_NOT_IN_PATH,), None)
    always = replace(SETTINGS, target_burst_capacity=-1.0)
    assert decide(always, wish=0, status=INACTIVE, path=unanswered).scale == 0


def test_an_unreachable_revision_sheds_all_at_once_and_knows_no_delay_and_no_retention() -> None:
    annotations = {
        "autoscaling.knative.dev/min-scale": "3",
        "autoscaling.knative.dev/scale-down-delay": "10m",
        "autoscaling.knative.dev/scale-to-zero-pod-retention-period": "10m",
    }
    routed = AutoscalerConfig().resolve(annotations)
    unreachable = AutoscalerConfig().resolve(annotations, reachability="Unreachable")

    def idle_for(settings: RevisionSettings, ready: int, status: Status) -> Decision:
        state = kpa.decide(settings, kpa.start(settings, 1, BEGIN), Inputs(7000.0, 0, ready), BEGIN - 10).state
        wished = kpa.decide(settings, state, Inputs(0.0, 0.0, ready), BEGIN)
        return bounds.bound(settings, Activity(status, BEGIN - 100, True), wished, RequestPath(), BEGIN)

    assert [idle_for(routed, 100, status).scale for status in (ACTIVE, INACTIVE)] == [100, 100]
    assert [idle_for(unreachable, 100, status).scale for status in (ACTIVE, INACTIVE)] == [None, 0]
    assert idle_for(unreachable, 100, ACTIVE).bounds == (Bound.FOUND_INACTIVE,)


# Pokes


@pytest.mark.parametrize("status", Status)
def test_a_poke_brings_one_replica_whatever_stands_between_the_revision_and_zero(status: Status) -> None:
    settings = replace(SETTINGS, target_value=1e9)
    wished = kpa.decide(settings, REST, Inputs(0, 0, 0, missing=Missing.NO_DATA, in_flight=1.0), BEGIN)
    decision = bounds.bound(settings, Activity(status, BEGIN - 1000, True), wished, RequestPath(), BEGIN)
    assert (decision.scale, decision.wanted) == (1, 1)
    assert status_after(decision) == (ACTIVATING, "Queued")


@pytest.mark.parametrize(
    ("ready", "starting", "reasons", "status"),
    [
        (2, 0, (Bound.POKE_ONLY_RAISES,), ACTIVE),
        (1, 0, (Bound.POKE_NEEDS_ONE, Bound.POKE_ONLY_RAISES), ACTIVE),
        (0, 1, (Bound.POKE_NEEDS_ONE, Bound.POKE_ONLY_RAISES), ACTIVATING),
    ],
)
def test_a_poke_that_finds_enough_takes_the_revision_off_its_way_to_zero_and_sets_no_scale(
    ready: int, starting: int, reasons: tuple[Bound, ...], status: Status
) -> None:
    wished = kpa.decide(SETTINGS, REST, Inputs(0.0, 0.0, ready, starting, in_flight=1.0), BEGIN)
    decision = bounds.bound(SETTINGS, Activity(INACTIVE, BEGIN - 1000, True), wished, RequestPath(), BEGIN)
    assert (decision.scale, decision.wanted, decision.bounds) == (None, 1, reasons)
    assert decision.activity == Activity(status, BEGIN, True)


def test_a_revision_that_is_poked_before_its_start_at_zero_was_noted_is_activating() -> None:
    settings = replace(SETTINGS, initial_scale=0)
    decision = decide(settings, wish=1, ready=0, status=INACTIVE, initialized=False)
    assert (decision.scale, decision.activity) == (1, Activity(ACTIVATING, BEGIN, True))


def test_a_revision_that_comes_up_after_it_was_given_up_is_initialized_and_inactive_as_long_as_before() -> None:
    decision = decide(wish=UNKNOWN, ready=1, status=INACTIVE, initialized=False, lasted=500)
    assert decision.activity == Activity(INACTIVE, BEGIN - 500, True)
