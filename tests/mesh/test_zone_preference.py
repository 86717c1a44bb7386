"""Requests stay in the gateway's own zone, and leave it when it is short."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.replicas import ARTICLE, Revision, balancing, replicas, spaced, under
from upwell.functions.api.traffic_policy import LocalityLbSetting
from upwell.runtime.mesh.locality import Locality, Placement, Standpoint, tier_loads
from upwell.runtime.mesh.outlier_detection import OutlierRule

ALL = {"maxEjectionPercent": 100, "consecutive5xxErrors": 1}
OUTLIER = {"outlierDetection": ALL}
HERE = "eu/a"


def locality(setting: dict[str, Any], *localities: str, zone: str = HERE, **options: Any) -> Revision:
    policy = {**OUTLIER, "loadBalancer": {"localityLbSetting": setting}}
    return Revision(balancing(policy, zone=zone, random=spaced(100), **options), replicas(*localities))


def percentages(revision: Revision) -> dict[str, float]:
    return {share.name: share.percent for share in revision.balancing.spread(revision.hosts).shares}


def zones(revision: Revision, names: list[str | None]) -> Counter[str]:
    where = {host.name: host.locality for host in revision.hosts}
    return Counter(where[name] for name in names if name is not None)


# Preference


def test_all_requests_stay_in_the_own_zone() -> None:
    revision = under(ARTICLE, "eu/a", "eu/b", "us/c", zone=HERE)
    assert zones(revision, revision.picks(50)) == {"eu/a": 50}


def test_the_nearest_take_over_zone_by_zone_when_replicas_are_out() -> None:
    revision = under(ALL, "eu/a/rack1", "eu/a/rack2", "eu/b", "us/a", zone="eu/a/rack1")
    for expected in ("a", "b", "c", "d"):
        assert set(revision.picks(20)) == {expected}
        revision.answer(expected, 500)
    assert revision.is_unhealthy


def test_part_of_the_traffic_leaves_once_1_4_times_what_is_left_is_not_enough() -> None:
    revision = under(ALL, *["eu/a"] * 4, *["eu/b"] * 4, zone=HERE)
    revision.answer("a", 500)
    assert percentages(revision) == {"own locality": 100, "own region": 0}
    revision.answer("b", 500)
    assert percentages(revision) == {"own locality": 70, "own region": 30}
    assert zones(revision, revision.picks(1000))["eu/b"] == pytest.approx(300, abs=60)
    revision.answer("c", 500)
    assert percentages(revision) == {"own locality": 35, "own region": 65}


def test_replicas_that_come_back_bring_the_traffic_back() -> None:
    revision = under(ARTICLE, "eu/a", "eu/b", zone=HERE)
    revision.answer("a", 503, 503, 503)
    assert set(revision.picks(5)) == {"b"}
    revision.wait(20)
    assert set(revision.picks(5)) == {"a"}


@pytest.mark.parametrize(
    ("policy", "zone"),
    [
        ({"loadBalancer": {"localityLbSetting": {"enabled": True}}}, HERE),
        ({**OUTLIER, "loadBalancer": {"localityLbSetting": {"enabled": False}}}, HERE),
        (OUTLIER, ""),
    ],
    ids=["without outlierDetection", "not enabled", "the gateway has no zone"],
)
def test_zones_are_alike_where_nothing_prefers_one(policy: dict[str, Any], zone: str) -> None:
    revision = Revision(balancing(policy, zone=zone), replicas("eu/a", "eu/b"))
    assert percentages(revision) == {"all replicas": 100}
    assert set(revision.picks(50)) == {"a", "b"}


# Short of room


def test_full_slots_spill_over_and_the_rest_waits() -> None:
    revision = under(ARTICLE, "eu/a", "eu/b", "us/c", zone=HERE)
    taken = []
    for _ in range(6):
        name = revision.pick(concurrency=2)
        taken.append(name)
        next(host for host in revision.hosts if host.name == name).in_flight += 1
    assert taken == ["a", "a", "b", "b", "c", "c"]
    assert revision.pick(concurrency=2) is None
    revision.hosts[0].in_flight -= 1
    assert revision.pick(concurrency=2) == "a"


def test_without_containerconcurrency_the_own_zone_is_short_at_the_capacity() -> None:
    revision = under(ARTICLE, "eu/a", "eu/b", zone=HERE, capacity=10)
    revision.hosts[0].in_flight = 9
    assert revision.pick() == "a"
    revision.hosts[0].in_flight = 10
    assert revision.pick() == "b"
    revision.hosts[1].in_flight = 10
    assert revision.pick() == "a"


def test_a_replica_that_pauses_is_passed_over() -> None:
    revision = under(ARTICLE, "eu/a", "eu/b", zone=HERE)
    revision.hosts[0].suspensions = 1
    assert revision.pick() == "b"


# What a rule says of zones


def test_distribute_shares_the_traffic_as_it_says_and_gives_others_none() -> None:
    setting = {"distribute": [{"from": "eu/a/*", "to": {"eu/a/*": 80, "eu/b/*": 20}}]}
    revision = locality(setting, "eu/a", "eu/b", "us/c")
    assert percentages(revision) == {"eu/a": 80, "eu/b": 20}
    assert zones(revision, revision.picks(500))["us/c"] == 0


def test_distribute_needs_no_outlier_detection() -> None:
    setting = {"distribute": [{"from": "*", "to": {"eu/b": 100}}]}
    policy = {"loadBalancer": {"localityLbSetting": setting}}
    revision = Revision(balancing(policy, zone=HERE), replicas("eu/a", "eu/b"))
    assert set(revision.picks(20)) == {"b"}


def test_a_weight_is_divided_among_the_zones_that_it_means_by_their_size() -> None:
    setting = {"distribute": [{"from": "*", "to": {"eu/*": 60, "us/*": 40}}]}
    revision = locality(setting, "eu/a", "eu/b", "eu/b", "us/a")
    assert percentages(revision) == {"eu/b": 40, "us/a": 40, "eu/a": 20}


def test_what_a_weighted_zone_lacks_goes_to_the_others() -> None:
    setting = {"distribute": [{"from": "*", "to": {"eu/a": 50, "eu/b": 50}}]}
    revision = locality(setting, *["eu/a"] * 4, *["eu/b"] * 4)
    for name in "abc":
        revision.answer(name, 500)
    share = percentages(revision)
    assert share["eu/a"] == pytest.approx(100 * 0.35 / 1.35)
    revision.answer("d", 500)
    assert percentages(revision) == {"eu/b": 100}


def test_replicas_outside_of_all_weighted_zones_answer_while_they_are_alone() -> None:
    setting = {"distribute": [{"from": "*", "to": {"eu/a": 100}}]}
    assert locality(setting, "us/c").pick() == "a"


def test_a_distribution_from_elsewhere_says_nothing() -> None:
    setting = {"distribute": [{"from": "us/*", "to": {"us/*": 100}}]}
    assert percentages(locality(setting, "eu/a", "us/c")) == {"all replicas": 100}


def test_failover_prefers_the_region_that_it_names() -> None:
    revision = locality({"failover": [{"from": "eu", "to": "asia"}]}, "eu/a", "us/a", "asia/a")
    order = []
    for _ in range(3):
        name = revision.pick()
        assert name is not None
        order.append(name)
        revision.answer(name, 500)
    assert order == ["a", "c", "b"]


def test_failover_priority_compares_labels_until_one_differs() -> None:
    labels = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"]
    revision = locality({"failoverPriority": labels}, "us/a/1", "eu/b/1", "eu/a/2", "eu/a/1", zone="eu/a/1")
    assert list(percentages(revision)) == [f"failover priority {tier}" for tier in range(4)]
    assert [share.hosts[0].name for share in revision.balancing.spread(revision.hosts).shares] == list("dcba")


def test_failover_priority_may_name_a_value() -> None:
    setting = {"failoverPriority": ["version=v1", "topology.kubernetes.io/zone=b"]}
    revision = locality(setting, "eu/a", "eu/b", labels={"version": "v1"})
    assert set(revision.picks(10)) == {"b"}
    other = locality(setting, "eu/a", "eu/b", labels={"version": "v2"})
    assert percentages(other) == {"failover priority 2": 100}


# Panic


def test_below_the_minimum_of_health_those_that_are_out_get_requests_too() -> None:
    revision = under({**ALL, "minHealthPercent": 50}, "", "", "")
    revision.answer("a", 500)
    assert set(revision.picks(60)) == {"b", "c"}
    revision.answer("b", 500)
    assert set(revision.picks(60)) == {"a", "b", "c"}
    assert revision.balancing.spread(revision.hosts).shares[0].is_panic


def test_no_zone_panics_while_another_makes_up_for_it() -> None:
    revision = under({**ALL, "minHealthPercent": 50}, "eu/a", "eu/a", "eu/b", "eu/b", zone=HERE)
    revision.answer("a", 500)
    revision.answer("b", 500)
    assert set(revision.picks(60)) == {"c", "d"}


# The computation of loads, beside Envoy's documented examples


@pytest.mark.parametrize(
    ("healthy", "loads"),
    [
        ((100, 100), (100, 0)),
        ((72, 72), (100, 0)),
        ((71, 71), (99, 1)),
        ((50, 50), (70, 30)),
        ((25, 100), (35, 65)),
        ((25, 25), (50, 50)),
    ],
)
def test_two_tiers_share_the_load_as_envoy_documents_it(healthy: tuple[int, int], loads: tuple[int, int]) -> None:
    found = tier_loads([(each, 100) for each in healthy], 0)
    assert found is not None
    assert tuple(load.percent for load in found) == loads


def test_with_nothing_healthy_and_no_minimum_there_is_no_load_to_give() -> None:
    assert tier_loads([(0, 3), (0, 1)], 0) is None


def test_in_total_panic_tiers_count_by_their_size() -> None:
    found = tier_loads([(0, 3), (0, 1)], 10)
    assert found is not None
    assert [(load.percent, load.is_panic) for load in found] == [(75, True), (25, True)]


tiers = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 12)).map(lambda t: (min(t), t[1])), min_size=1, max_size=5
)


@given(tiers, st.integers(0, 100))
def test_loads_are_100_percent_together_and_an_empty_tier_gets_none(
    counts: list[tuple[int, int]], minimum: int
) -> None:
    loads = tier_loads(counts, minimum)
    if loads is None:
        assert minimum == 0
        assert all(healthy * 140 // total == 0 for healthy, total in counts)
        return
    assert sum(load.percent for load in loads) == 100
    for load, (healthy, _) in zip(loads, counts, strict=True):
        assert load.is_panic or healthy or load.percent == 0


names = st.sampled_from(["eu/a", "eu/b", "eu/a/1", "us/a", "us", ""])
settings = st.sampled_from(
    [
        {},
        {"enabled": False},
        {"distribute": [{"from": "*", "to": {"eu/a": 70, "us": 30}}]},
        {"failover": [{"from": "eu", "to": "us"}]},
        {"failoverPriority": ["topology.kubernetes.io/zone"]},
    ]
)


@given(st.lists(names, max_size=8), st.data(), names, settings, st.integers(0, 100), st.integers(1, 100))
def test_a_spread_is_whole_or_says_why_it_is_empty(
    localities: list[str], data: st.DataObject, here: str, setting: dict[str, Any], minimum: int, most: int
) -> None:
    hosts = replicas(*localities)
    out = data.draw(st.sets(st.sampled_from([host.name for host in hosts]))) if hosts else set()
    rule = OutlierRule(5, 0, 0, False, 10.0, 30.0, most, minimum, None)
    place = Placement(rule, LocalityLbSetting.model_validate(setting), Standpoint(Locality.read(here)), {})
    spread = place.spread(hosts, out)
    assert spread.reason
    if not spread.shares:
        assert not hosts or (spread.is_unhealthy and rule.may_eject_all)
        return
    assert sum(share.percent for share in spread.shares) == pytest.approx(100)
    chosen = [host.name for share in spread.shares for host in share.hosts]
    assert len(chosen) == len(set(chosen))
    for share in spread.shares:
        assert share.hosts
        assert share.is_panic or not out & {host.name for host in share.hosts}
