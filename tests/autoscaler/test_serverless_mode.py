"""Whether requests pass the activator, for each thing a decision may say and whatever is ready."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.autoscaler import bounds, kpa
from upwell.autoscaler.bounds import RequestPath
from upwell.autoscaler.decision import Activity, Decision, Inputs, Missing, Status
from upwell.autoscaler.path import ALL_ACTIVATORS, Mode, PathReason, ServingPath, effective, intended
from upwell.autoscaler.spec import RevisionSettings

BEGIN = 1_700_000_000.0
SETTINGS = RevisionSettings()


def decision(
    inputs: Inputs, settings: RevisionSettings = SETTINGS, status: Status = Status.ACTIVE, passed: float = 0.0
) -> Decision:
    """The decision on a revision that came to `status` so many seconds ago."""
    wished = kpa.decide(settings, kpa.start(settings, 0, BEGIN), inputs, BEGIN)
    return bounds.bound(settings, Activity(status, BEGIN - passed, True), wished, RequestPath(), BEGIN)


def made(wanted: int | None, excess: int, activators: int = 4) -> Decision:
    base = decision(Inputs(70.0, 70.0, 1))
    state = replace(base.state, excess_burst_capacity=excess)
    return base._replace(wanted=wanted, state=state, activators=activators)


@pytest.mark.parametrize(
    ("wanted", "excess", "mode", "reasons"),
    [
        (0, 5, Mode.PROXY, {PathReason.ZERO_WANTED}),
        (0, -5, Mode.PROXY, {PathReason.ZERO_WANTED, PathReason.BURST_CAPACITY_SHORT}),
        (None, 5, Mode.PROXY, {PathReason.WANT_UNKNOWN}),
        (None, -5, Mode.PROXY, {PathReason.WANT_UNKNOWN, PathReason.BURST_CAPACITY_SHORT}),
        (3, -1, Mode.PROXY, {PathReason.BURST_CAPACITY_SHORT}),
        (3, 0, Mode.SERVE, {PathReason.BURST_CAPACITY_AMPLE}),
        (1, 9, Mode.SERVE, {PathReason.BURST_CAPACITY_AMPLE}),
    ],
)
def test_requests_go_straight_only_where_replicas_are_wanted_and_the_burst_fits(
    wanted: int | None, excess: int, mode: Mode, reasons: set[PathReason]
) -> None:
    path = intended(made(wanted, excess))
    assert (path.mode, set(path.reasons), path.activators) == (mode, reasons, 4)


def test_a_fresh_service_with_default_settings_is_behind_activators() -> None:
    path = intended(decision(Inputs(0, 0, 0, missing=Missing.NO_DATA, in_flight=1), status=Status.INACTIVE))
    assert path == ServingPath(Mode.PROXY, 3, (PathReason.BURST_CAPACITY_SHORT,))
    unasked = intended(decision(Inputs(0, 0, 0, missing=Missing.NO_DATA), status=Status.INACTIVE))
    assert unasked.reasons == (PathReason.WANT_UNKNOWN, PathReason.BURST_CAPACITY_SHORT)


@pytest.mark.parametrize(("ready", "mode"), [(2, Mode.PROXY), (3, Mode.SERVE)])
def test_the_activator_leaves_the_path_when_replicas_can_take_the_target_burst(ready: int, mode: Mode) -> None:
    assert intended(decision(Inputs(30.0, 30.0, ready))).mode is mode


@pytest.mark.parametrize(("burst", "mode"), [(0.0, Mode.SERVE), (-1.0, Mode.PROXY)])
def test_a_target_burst_capacity_of_zero_keeps_the_activator_out_and_minus_one_keeps_it_in(
    burst: float, mode: Mode
) -> None:
    settings = replace(SETTINGS, target_burst_capacity=burst)
    assert intended(decision(Inputs(70.0, 70.0, 1), settings)).mode is mode
    assert intended(decision(Inputs(7e5, 7e5, 1), settings)).mode is mode


def test_a_revision_found_inactive_is_proxied_before_its_last_replica_goes() -> None:
    settings = replace(SETTINGS, target_burst_capacity=0.0)
    idle = Inputs(0.0, 0.0, 1)
    assert intended(decision(idle, settings, passed=59.0)).mode is Mode.SERVE
    found = decision(idle, settings, passed=60.0)
    assert (found.scale, intended(found).mode) == (None, Mode.PROXY)


@pytest.mark.parametrize(
    ("ready", "burst", "activators"),
    [(0, 211.0, 3), (1, 211.0, 4), (9, 211.0, 12), (9, 0.0, 2), (9, -1.0, 9), (1, -1.0, 2), (0, 10.0, 2)],
)
def test_activators_are_as_many_as_hold_the_burst_beside_what_replicas_take_and_two_at_least(
    ready: int, burst: float, activators: int
) -> None:
    settings = replace(SETTINGS, target_burst_capacity=burst)
    assert intended(decision(Inputs(70.0, 70.0, ready), settings)).activators == activators


def test_a_greater_activator_capacity_asks_for_fewer_activators() -> None:
    settings = replace(SETTINGS, activator_capacity=500.0)
    assert intended(decision(Inputs(70.0, 70.0, 9), settings)).activators == 3


SERVE = ServingPath(Mode.SERVE, 4, (PathReason.BURST_CAPACITY_AMPLE,))
PROXY = ServingPath(Mode.PROXY, 4, (PathReason.BURST_CAPACITY_SHORT,))


@pytest.mark.parametrize(
    ("path", "ready_replicas", "ready_activators", "expected"),
    [
        (SERVE, 1, 9, SERVE),
        (PROXY, 1, 9, PROXY),
        (SERVE, 0, 9, ServingPath(Mode.PROXY, 4, (PathReason.NO_READY_REPLICA,))),
        (PROXY, 0, 9, PROXY._replace(reasons=(PathReason.BURST_CAPACITY_SHORT, PathReason.NO_READY_REPLICA))),
        (SERVE, 1, 0, ServingPath(Mode.SERVE, 0, (PathReason.NO_READY_ACTIVATOR,))),
        (PROXY, 1, 0, ServingPath(Mode.SERVE, 0, (PathReason.NO_READY_ACTIVATOR,))),
        (PROXY, 0, 0, ServingPath(Mode.SERVE, 0, (PathReason.NO_READY_ACTIVATOR,))),
        (PROXY, 1, 3, PROXY._replace(activators=3)),
        (PROXY._replace(activators=ALL_ACTIVATORS), 1, 7, PROXY._replace(activators=7)),
    ],
)
def test_requests_are_sent_where_something_is_ready(
    path: ServingPath, ready_replicas: int, ready_activators: int, expected: ServingPath
) -> None:
    assert effective(path, ready_replicas=ready_replicas, ready_activators=ready_activators) == expected


@given(
    st.one_of(st.none(), st.integers(0, 9)),
    st.integers(-500, 500),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 9),
)
def test_a_path_always_leads_somewhere_and_says_why(
    wanted: int | None, excess: int, activators: int, ready_replicas: int, ready_activators: int
) -> None:
    path = effective(
        intended(made(wanted, excess, activators)),
        ready_replicas=ready_replicas,
        ready_activators=ready_activators,
    )
    assert path.activators <= ready_activators
    if path.mode is Mode.PROXY:
        assert path.activators > 0
        assert PathReason.BURST_CAPACITY_AMPLE not in path.reasons
    elif ready_activators:
        assert ready_replicas > 0
        assert wanted
        assert excess >= 0
    assert len(path.sentence().split("; ")) == len(path.reasons) >= 1


def test_a_path_explains_itself() -> None:
    assert SERVE.sentence().startswith("requests go straight to replicas: replicas are wanted, ")
    assert PROXY.sentence().startswith("requests pass one of 4 activators: there is less capacity")
    everywhere = PROXY._replace(activators=ALL_ACTIVATORS, reasons=(PathReason.ZERO_WANTED,))
    assert everywhere.sentence() == "requests pass an activator: no replica is wanted"
