"""Which replica gets the next request: Knative's three policies, as a pure choice."""

from hypothesis import given
from hypothesis import strategies as st

from upwell.runtime.cluster.interface import Replica, ReplicaState
from upwell.runtime.gateway.activator import FIRST_AVAILABLE_LIMIT, Backend, pick
from upwell.runtime.http.connect import Endpoint
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.http.upstream import UpstreamPool
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.loop import FakeTimeLoop
from upwell.runtime.timers import TimerWheel

LOADS = st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=8)


def backends(loads: list[tuple[int, bool]]) -> list[Backend]:
    loop = FakeTimeLoop()
    wheel = TimerWheel(loop)
    made = []
    for number, (in_flight, suspended) in enumerate(loads):
        endpoint = Endpoint(path=f"/nowhere/{number}")
        replica = Replica(f"r{number}", "default/hello-00001", endpoint, ReplicaState.READY, started_at=0.0)
        backend = Backend(replica, UpstreamPool(endpoint, HttpSettings(), FakeClock(), wheel))
        backend.in_flight = in_flight
        backend.suspensions = int(suspended)
        made.append(backend)
    loop.close()
    return made


@given(LOADS, st.integers(0, 12), st.integers(0, 1000))
def test_a_free_slot_is_found_exactly_when_there_is_one(
    loads: list[tuple[int, bool]], concurrency: int, rotation: int
) -> None:
    candidates = backends(loads)
    usable = [b for b in candidates if not b.suspensions and (concurrency == 0 or b.in_flight < concurrency)]
    chosen = pick(candidates, concurrency, rotation)
    assert (chosen is None) == (not usable)
    assert chosen is None or chosen in usable


@given(LOADS, st.integers(1, FIRST_AVAILABLE_LIMIT), st.integers(0, 1000))
def test_a_small_limit_fills_the_first_replica_first(
    loads: list[tuple[int, bool]], concurrency: int, rotation: int
) -> None:
    candidates = backends(loads)
    usable = [b for b in candidates if not b.suspensions and b.in_flight < concurrency]
    assert pick(candidates, concurrency, rotation) is (usable[0] if usable else None)


def test_a_larger_limit_goes_round() -> None:
    candidates = backends([(0, False)] * 4)
    chosen = [pick(candidates, 10, rotation) for rotation in range(8)]
    assert chosen == candidates * 2


def test_without_a_limit_the_fullest_of_many_is_never_chosen() -> None:
    candidates = backends([(9, False), (1, False), (2, False), (3, False)])
    chosen = [pick(candidates, 0, 0) for _ in range(200)]
    assert candidates[0] not in chosen
    assert set(chosen) <= set(candidates[1:])
