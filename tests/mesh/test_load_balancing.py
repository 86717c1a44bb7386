"""Which replica gets a request, by the algorithm that a rule names."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.replicas import Draws, Revision, StandIn, balancing, replicas, request, spaced
from upwell.runtime.mesh.consistent_hash import MaglevTable, Ring, hash_of
from upwell.runtime.mesh.load_balancing import Algorithm, WarmUp


def simple(algorithm: str, count: int = 3, *, random: Draws | None = None, **options: Any) -> Revision:
    policy = {"loadBalancer": {"simple": algorithm, **options}}
    return Revision(balancing(policy, random=random), replicas(*[""] * count))


def hashing(count: int = 5, **consistent_hash: Any) -> Revision:
    policy = {"loadBalancer": {"consistentHash": consistent_hash}}
    return Revision(balancing(policy), replicas(*[""] * count))


# Algorithms


def test_round_robin_takes_each_in_turn() -> None:
    assert simple("ROUND_ROBIN").picks(6) == ["a", "b", "c", "a", "b", "c"]


def test_round_robin_shares_evenly_among_those_with_room() -> None:
    revision = simple("ROUND_ROBIN")
    revision.hosts[1].in_flight = 1
    assert Counter(revision.picks(10, concurrency=1)) == {"a": 5, "c": 5}


def test_least_request_takes_the_better_of_two() -> None:
    revision = simple("LEAST_REQUEST", random=Draws([0.0, 0.0]))
    revision.hosts[0].in_flight = 3
    assert revision.pick() == "b"
    revision.hosts[1].in_flight = 4
    assert revision.pick() == "a"


def test_of_two_replicas_least_request_always_takes_the_one_with_fewer() -> None:
    revision = simple("LEAST_REQUEST", 2, random=spaced(13))
    revision.hosts[0].in_flight = 1
    assert set(revision.picks(40)) == {"b"}


def test_random_takes_any() -> None:
    assert Counter(simple("RANDOM", random=spaced(3)).picks(9)) == {"a": 3, "b": 3, "c": 3}


@pytest.mark.parametrize(
    ("balancer", "algorithm"),
    [
        ({}, Algorithm.KNATIVE),
        ({"simple": "UNSPECIFIED"}, Algorithm.KNATIVE),
        ({"simple": "PASSTHROUGH"}, Algorithm.KNATIVE),
        ({"simple": "LEAST_CONN"}, Algorithm.LEAST_REQUEST),
        ({"warmup": {"duration": "10s"}}, Algorithm.LEAST_REQUEST),
    ],
)
def test_what_names_no_algorithm_leaves_it_to_knative(balancer: dict[str, Any], algorithm: Algorithm) -> None:
    assert balancing({"loadBalancer": balancer}).algorithm is algorithm


def test_knatives_choice_is_the_first_with_a_slot_and_round_robin_above_three() -> None:
    revision = Revision(balancing({"connectionPool": {"tcp": {}}}), replicas("", "", ""))
    assert revision.picks(3, concurrency=3) == ["a", "a", "a"]
    assert revision.picks(3, concurrency=4) == ["a", "b", "c"]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), max_size=6),
    st.sampled_from(["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "PASSTHROUGH"]),
    st.integers(0, 3),
    st.floats(0, 0.999),
    st.integers(0, 1000),
)
def test_whoever_has_room_is_found_and_nobody_else(
    states: list[tuple[int, int]], algorithm: str, concurrency: int, number: float, rotation: int
) -> None:
    hosts = [
        StandIn(str(index), in_flight=in_flight, suspensions=suspended)
        for index, (in_flight, suspended) in enumerate(states)
    ]
    found = balancing({"loadBalancer": {"simple": algorithm}}, random=Draws([number])).pick(
        hosts, concurrency, rotation, None, 0.0
    )
    free = [host for host in hosts if not host.suspensions and (not concurrency or host.in_flight < concurrency)]
    assert (found in free) if free else found is None


# Warm-up


def test_a_young_replica_begins_with_a_tenth_and_grows_to_its_full_share() -> None:
    warm_up = WarmUp(100.0)
    assert [warm_up.factor(age) for age in (0, 5, 50, 100, 200)] == [0.1, 0.1, 0.5, 1.0, 1.0]
    assert WarmUp(100.0, minimum=0.2, aggression=2.0).factor(25) == 0.5


@pytest.mark.parametrize("algorithm", ["ROUND_ROBIN", "LEAST_REQUEST"])
def test_requests_follow_the_weights_while_one_warms_up(algorithm: str) -> None:
    revision = simple(algorithm, 2, warmup={"duration": "100s"})
    revision.hosts[1].ready_at, revision.now = 1000.0, 1010.0
    assert Counter(revision.picks(110)) == {"a": 100, "b": 10}
    revision.now = 1050.0
    assert Counter(revision.picks(150))["b"] == pytest.approx(50, abs=1)
    revision.now = 1100.0
    assert set(revision.picks(20)) == {"a", "b"}


def test_the_first_of_a_zone_is_not_warmed_up() -> None:
    policy = {"loadBalancer": {"simple": "ROUND_ROBIN", "warmupDurationSecs": "100s"}}
    revision = Revision(balancing(policy), replicas("eu/a", "eu/b"), now=1000.0)
    revision.hosts[1].ready_at = 1000.0
    assert Counter(revision.picks(10)) == {"a": 5, "b": 5}


def test_a_warming_replica_takes_what_others_have_no_room_for() -> None:
    revision = simple("ROUND_ROBIN", 2, warmup={"duration": "100s"})
    revision.hosts[1].ready_at, revision.now = 1000.0, 1000.0
    revision.hosts[0].in_flight = 1
    assert revision.pick(concurrency=1) == "b"


# Consistent hash


@pytest.mark.parametrize(
    "table", [{}, {"ringHash": {"minimumRingSize": 64}}, {"maglev": {}}, {"maglev": {"tableSize": 101}}]
)
def test_a_key_keeps_its_replica_and_keys_are_spread(table: dict[str, Any]) -> None:
    revision = hashing(httpHeaderName="X-User", **table)
    owners = {str(user): revision.pick(request({"x-user": str(user)})) for user in range(200)}
    assert owners == {user: revision.pick(request({"x-user": user})) for user in owners}
    assert set(owners.values()) == set("abcde")


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        ({"httpHeaderName": "x-user"}, request({"x-user": "1"}), request({"x-user": "2"})),
        ({"httpQueryParameterName": "user"}, request(target="/?user=1"), request(target="/?user=2")),
        ({"useSourceIp": True}, request(client="10.0.0.1"), request(client="10.0.0.4")),
        ({"httpCookie": {"name": "user"}}, request({"cookie": "x=1; user=1"}), request({"cookie": 'user="2"'})),
    ],
)
def test_what_is_hashed_decides(key: dict[str, Any], one: Any, other: Any) -> None:
    revision = hashing(26, **key)
    assert len({revision.pick(one) for _ in range(20)}) == 1
    assert revision.pick(one) != revision.pick(other)


def test_a_request_without_what_is_hashed_may_go_anywhere() -> None:
    revision = hashing(3, httpHeaderName="x-user")
    assert {revision.pick(request()) for _ in range(50)} == set("abc")


def test_a_full_replica_hands_its_keys_on_to_one_other() -> None:
    revision = hashing(httpHeaderName="x-user")
    asked = request({"x-user": "me"})
    owner = revision.pick(asked, concurrency=1)
    next(host for host in revision.hosts if host.name == owner).in_flight = 1
    assert len({revision.pick(asked, concurrency=1) for _ in range(20)} - {owner}) == 1


def test_a_client_without_the_cookie_is_given_one_that_leads_to_the_same_replica() -> None:
    revision = hashing(httpCookie={"name": "user", "ttl": "60s", "path": "/shop"})
    first = request()
    owner = revision.pick(first)
    field = revision.balancing.set_cookie(first)
    assert field is not None
    name, value = field
    pair, *attributes = value.decode().split("; ")
    assert (name, attributes) == (b"set-cookie", ["Max-Age=60", "Path=/shop", "HttpOnly"])
    later = request({"cookie": pair}, client="elsewhere")
    assert revision.pick(later) == owner
    assert revision.balancing.set_cookie(later) is None


def test_a_ttl_of_zero_is_a_cookie_of_the_session_and_none_is_none() -> None:
    session = hashing(httpCookie={"name": "user", "ttl": "0s"}).balancing.set_cookie(request())
    assert session is not None
    assert b"Max-Age" not in session[1]
    assert hashing(httpCookie={"name": "user"}).balancing.set_cookie(request()) is None


many = st.lists(st.text("abcdef0123456789", min_size=1, max_size=6), min_size=2, max_size=12, unique=True)


@given(many, st.data(), st.booleans())
def test_only_keys_of_a_replica_that_left_move_on_a_ring(
    names: list[str], data: st.DataObject, maglev: bool
) -> None:
    gone = data.draw(st.sampled_from(names))
    table = MaglevTable(names, 1021) if maglev else Ring(names, 1024)
    for number in range(50):
        walk = [name for name, _ in zip(table.walk(hash_of(str(number))), range(2000), strict=False)]
        assert set(walk) == set(names)
        left = next(name for name in walk if name != gone)
        assert left == walk[0] or walk[0] == gone


def test_points_of_the_others_stay_when_one_leaves_the_ring() -> None:
    names = [f"replica-{index}" for index in range(8)]
    before, after = Ring(names, 64 * 8), Ring(names[:-1], 64 * 7)
    keys = [hash_of(str(number)) for number in range(500)]
    moved = [(next(before.walk(key)), next(after.walk(key))) for key in keys]
    assert all(old == new for old, new in moved if old != names[-1])


def test_a_maglev_table_gives_each_replica_nearly_the_same_part() -> None:
    table = MaglevTable([f"replica-{index}" for index in range(7)], 1021)
    counts = Counter(name for name, _ in zip(table.walk(0), range(1021), strict=True))
    assert max(counts.values()) - min(counts.values()) <= 1
