"""Which revisions of a configuration are removed: by config-gc's keys, and never one that is needed."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.control.gc import NO_GC_ANNOTATION, RetentionSettings, collect
from upwell.runtime.control.routing_state import (
    MODIFIED_ANNOTATION,
    ROUTING_STATE_LABEL,
    RoutingState,
    noted,
    referring_routes,
    routing_state,
    time_text,
)

NOW = 1_700_000_000.0
HOUR = 3600.0


def revision(name: str, *, created: float, modified: float | None = None, state: str = "reserve") -> Manifest:
    annotations = {} if modified is None else {MODIFIED_ANNOTATION: time_text(NOW - modified)}
    return {
        "kind": "Revision",
        "metadata": {
            "name": name,
            "creationTimestamp": time_text(NOW - created),
            "labels": {ROUTING_STATE_LABEL: state},
            "annotations": annotations,
        },
    }


def removed(revisions: list[Manifest], *in_use: str, **settings: Any) -> list[str]:
    collection = collect(revisions, in_use, RetentionSettings(**settings), NOW)
    return [each.revision["metadata"]["name"] for each in collection.surplus]


def test_the_longest_unused_go_until_the_least_number_is_left() -> None:
    revisions = [revision(f"r{age}", created=(100 + age) * HOUR, modified=age * HOUR) for age in (30, 50, 40)]
    assert removed(revisions, min_non_active=1) == ["r50", "r40"]
    assert removed(revisions, min_non_active=0) == ["r50", "r40", "r30"]
    assert removed(revisions, "r50", min_non_active=1) == ["r40"]
    assert removed(revisions) == []


def test_both_time_limits_must_have_passed_and_without_any_nothing_is_stale() -> None:
    young = revision("young", created=47 * HOUR, modified=40 * HOUR)
    recent = revision("recent", created=100 * HOUR, modified=14 * HOUR)
    assert removed([young, recent], min_non_active=0) == []
    assert removed([young, recent], min_non_active=0, since_create_time=None) == ["young"]
    assert removed([young, recent], min_non_active=0, since_last_active_time=None) == ["recent"]
    limitless = {"since_create_time": None, "since_last_active_time": None}
    assert removed([young, recent], min_non_active=0, **limitless) == []
    assert removed([young, recent], min_non_active=0, max_non_active=1, **limitless) == ["young"]


def test_what_is_referred_to_or_was_never_or_is_to_be_kept_stays() -> None:
    kept = revision("kept", created=100 * HOUR)
    kept["metadata"]["annotations"][NO_GC_ANNOTATION] = "True"
    others = [revision(state, created=100 * HOUR, state=state) for state in ("active", "pending")]
    assert removed([kept, *others], min_non_active=0, max_non_active=0) == []


def test_it_says_when_the_next_one_will_be_stale() -> None:
    revisions = [revision(f"r{age}", created=100 * HOUR, modified=age * HOUR) for age in (10, 12)]
    settings = RetentionSettings(min_non_active=0)
    assert collect(revisions, (), settings, NOW).again_after == 3 * HOUR
    assert collect(revisions, (), settings, NOW + 3 * HOUR).surplus[0].revision["metadata"]["name"] == "r12"
    assert collect(revisions, (), RetentionSettings(min_non_active=2), NOW).again_after is None


LIMIT = st.none() | st.floats(0, 100 * HOUR)
AGE = st.integers(0, 150)


@given(
    st.lists(st.tuples(AGE, AGE, st.sampled_from(["active", "reserve", "pending"])), max_size=30),
    LIMIT,
    LIMIT,
    st.integers(0, 10),
    st.none() | st.integers(0, 20),
)
def test_whatever_the_settings_only_idle_ones_go_oldest_first_and_the_bounds_hold(
    ages: list[tuple[int, int, str]],
    since_create: float | None,
    since_active: float | None,
    least: int,
    most: int | None,
) -> None:
    revisions = [
        revision(f"r{number}", created=(created + active) * HOUR, modified=active * HOUR, state=state)
        for number, (created, active, state) in enumerate(ages)
    ]
    settings = RetentionSettings(since_create, since_active, least, most)
    collection = collect(revisions, {"r0"}, settings, NOW)
    names = [each.revision["metadata"]["name"] for each in collection.surplus]
    idle = {each["metadata"]["name"] for each in revisions[1:] if routing_state(each) is RoutingState.RESERVE}
    assert len(set(names)) == len(names)
    assert set(names) <= idle
    left = len(idle) - len(names)
    assert left >= min(least, len(idle))
    if most is not None:
        assert left <= max(least, most)
    again = collect([each for each in revisions if each["metadata"]["name"] not in names], {"r0"}, settings, NOW)
    assert not again.surplus, "one look removes all that is to be removed"


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.booleans()), max_size=12))
def test_a_revision_is_active_as_long_as_any_route_refers_to_it(steps: list[tuple[str, bool]]) -> None:
    found = revision("r", created=0.0, state="pending")
    routes: set[str] = set()
    for route, refers in steps:
        before = set(routes)
        routes = routes | {route} if refers else routes - {route}
        changed = noted(found, route, refers=refers, now=NOW)
        assert (changed is None) == (before == routes)
        found = changed or found
        assert set(referring_routes(found)) == routes
        if before != routes:
            assert routing_state(found) is (RoutingState.ACTIVE if routes else RoutingState.RESERVE)
