"""Rates are what the counters say: between two snapshots, and where counters began anew meanwhile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.topology import BREAKER, LIMITER, RULE, revision, route, shop, snapshot
from upwell.runtime.api.topology import CLIENT, GATEWAY, OUTCOMES, UNROUTED, topology
from upwell.runtime.gateway.topology import Refused, RevisionRecord, Share

COUNTED = [name for name in OUTCOMES if name != UNROUTED]
COUNTS = st.dictionaries(st.sampled_from(COUNTED), st.integers(0, 10**9))
NAMES = st.sampled_from(["a-00001", "b-00001", "c-00001"])
SPANS = st.floats(0.01, 1e5)


def refused(counts: dict[str, int]) -> list[Refused]:
    return [Refused(LIMITER, "limited", counts["limited"])] if counts.get("limited") else []


def made(of: dict[str, dict[str, int]]) -> list[RevisionRecord]:
    return [
        revision(name, counts, refusals=refused(counts), seconds=float(sum(counts.values())))
        for name, counts in of.items()
    ]


def grown(before: dict[str, dict[str, int]], more: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    names = {*before, *more}
    counts = {name: (before.get(name, {}), more.get(name, {})) for name in names}
    return {
        name: {each: one.get(each, 0) + other.get(each, 0) for each in {*one, *other}}
        for name, (one, other) in counts.items()
    }


BY_REVISION = st.dictionaries(NAMES, COUNTS)


@given(
    before=BY_REVISION, more=BY_REVISION, unrouted=st.integers(0, 10**6), extra=st.integers(0, 10**6), span=SPANS
)
def test_what_counters_grew_by_is_what_came_in_that_time(
    before: dict[str, dict[str, int]], more: dict[str, dict[str, int]], unrouted: int, extra: int, span: float
) -> None:
    found = topology(
        snapshot(*made(before), unrouted=unrouted),
        snapshot(*made(grown(before, more)), at=span, unrouted=unrouted + extra),
    )
    elapsed = found.seconds
    for edge in found.edges[1:]:
        expected = more.get(edge.target.rpartition("/")[2], {})
        for outcome in COUNTED:
            assert edge.flow.rates.get(outcome, 0.0) * elapsed == pytest.approx(expected.get(outcome, 0))
        if sum(expected.values()):
            assert edge.flow.mean_seconds == pytest.approx(1.0)
        else:
            assert edge.flow.mean_seconds is None
    assert found.whole.flow.rates.get(UNROUTED, 0.0) * elapsed == pytest.approx(extra)


@given(before=BY_REVISION, after=BY_REVISION, span=SPANS)
def test_whatever_was_removed_or_began_anew_no_rate_is_below_zero_and_sums_hold(
    before: dict[str, dict[str, int]], after: dict[str, dict[str, int]], span: float
) -> None:
    found = topology(snapshot(*made(before), unrouted=9), snapshot(*made(after), at=span, unrouted=4))
    whole, *others = (edge.flow for edge in found.edges)
    assert len(others) == len(after), "what is gone has no edge"
    for flow in (whole, *others):
        assert all(rate > 0 for rate in flow.rates.values())
        assert all(each.rate >= 0 for each in flow.refusing)
        assert flow.spent >= 0
    assert whole.rates.get(UNROUTED, 0.0) * found.seconds == pytest.approx(4)
    for outcome in COUNTED:
        assert whole.rates.get(outcome, 0.0) == pytest.approx(sum(each.rates.get(outcome, 0.0) for each in others))
        assert whole.totals.get(outcome, 0) == sum(each.totals.get(outcome, 0) for each in others)


@given(counts=st.dictionaries(st.sampled_from(COUNTED), st.integers(1, 10**6), min_size=1), span=SPANS)
def test_one_counter_that_fell_says_that_all_of_the_revision_began_anew(
    counts: dict[str, int], span: float
) -> None:
    fallen = min(counts)
    before = {**counts, fallen: counts[fallen] + 1}
    found = topology(snapshot(*made({"a-00001": before})), snapshot(*made({"a-00001": counts}), at=span))
    rates = found.edges[1].flow.rates
    assert {name: rate * found.seconds for name, rate in rates.items()} == pytest.approx(counts)


@pytest.mark.parametrize("at", [0.0, -5.0])
def test_without_time_between_them_nothing_flowed(at: float) -> None:
    before, after = made({"a-00001": {"succeeded": 3}}), made({"a-00001": {"succeeded": 5, "limited": 1}})
    found = topology(snapshot(*before), snapshot(*after, at=at, unrouted=2))
    assert found.seconds == 0
    assert found.whole.flow.rate == 0
    assert found.whole.flow.totals == {"succeeded": 5, "limited": 1, UNROUTED: 2}


def test_edges_say_what_flows_where_and_which_policies_are_on_the_way() -> None:
    found = shop()
    assert [(edge.source, edge.target) for edge in found.edges] == [
        (CLIENT, GATEWAY),
        (GATEWAY, "revision default/cart-00001"),
        (GATEWAY, "revision default/cart-00002"),
        (GATEWAY, "revision default/mail-00001"),
        (GATEWAY, "revision default/old-00001"),
    ]
    cart = found.to("revision default/cart-00001")
    assert cart.flow.rates == {"succeeded": 72.0, "limited": 16.0, "failed": 2.0, "left": 0.2}
    assert cart.policies == ((LIMITER, "route default/cart"), (RULE, "revision default/cart-00001"))
    assert found.whole.flow.rates == pytest.approx(
        {"succeeded": 79.0, "limited": 16.0, "broken": 4.0, "failed": 5.0, "left": 0.2, UNROUTED: 1.5}
    )
    assert [(each.policy, each.cause, each.rate) for each in found.whole.flow.refusing] == [
        (BREAKER, "broken", 4.0),
        (LIMITER, "limited", 16.0),
    ]


def test_a_revision_is_shown_with_the_route_that_sends_it_most() -> None:
    routes = [
        route("a", Share("default/x", 0), Share("default/x", 100, "next"), Share("default/y", 100)),
        route("b", Share("default/x", 60)),
        route("c", Share("default/x", 40)),
    ]
    found = topology(snapshot(), snapshot(revision("x"), revision("y"), revision("z"), at=1, routes=routes))
    homes = {node.name: node.home for node in found.nodes[2:]}
    assert homes == {"default/x": "default/b", "default/y": "default/a", "default/z": ""}


def test_a_share_on_condition_of_a_header_is_told_where_there_is_no_other() -> None:
    asked = ("knative-serving-tag: next",)
    shares = (Share("default/x", 100, conditions=asked), Share("default/x", 100, "next"), Share("default/y", 100))
    alone = (Share("default/z", 100, conditions=("user: ada",)),)
    records = (revision("x"), revision("y"), revision("z"))
    found = topology(snapshot(), snapshot(*records, at=1, routes=[route("a", *shares, *alone)]))
    told = {node.name: [each.share for each in node.routes] for node in found.nodes[2:]}
    assert told == {"default/x": [shares[1]], "default/y": [shares[2]], "default/z": [alone[0]]}


def test_a_policy_on_the_hosts_of_a_tag_is_on_the_way_to_what_has_the_tag_alone() -> None:
    shares = (Share("default/x", 100), Share("default/y", 100, "next"))
    tagged = route("a", *shares, policies=[("next", LIMITER)])
    found = topology(snapshot(), snapshot(revision("x"), revision("y"), at=1, routes=[tagged]))
    assert found.to("revision default/x").policies == ()
    assert found.to("revision default/y").policies == ((LIMITER, "route default/a:next"),)


def test_what_is_idle_and_led_to_by_no_route_can_be_left_out() -> None:
    shown = shop().active()
    assert [node.name for node in shown.nodes] == [
        "client",
        "gateway",
        "default/cart-00001",
        "default/cart-00002",
        "default/mail-00001",
    ]
    assert [edge.target for edge in shown.edges[1:]] == [node.id for node in shown.nodes[2:]]


def test_one_namespace_has_its_own_sums_and_nothing_unrouted() -> None:
    before = snapshot(revision("one/a"), revision("two/b"), unrouted=1)
    after = snapshot(revision("one/a", {"succeeded": 4}), revision("two/b", {"failed": 8}), at=2.0, unrouted=9)
    found = topology(before.within("one"), after.within("one"))
    assert found.whole.flow.rates == {"succeeded": 2.0}
    assert [node.name for node in found.nodes[2:]] == ["one/a"]
