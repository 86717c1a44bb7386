"""Who is next among those that wait."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.runtime.mesh.fair_queue import FairQueue, Flow

GUEST, SUBSCRIBER = Flow("guest"), Flow("subscriber")


def test_without_a_policy_the_first_come_is_the_first_served() -> None:
    queue: FairQueue[int] = FairQueue()
    for item in range(5):
        queue.push(item)
    assert list(queue) == [0, 1, 2, 3, 4]
    assert queue.first() == 0
    assert [queue.pop() for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(queue) == 0
    with pytest.raises(IndexError):
        queue.pop()
    with pytest.raises(IndexError):
        queue.first()


def served_of(queue: FairQueue[tuple[str, int]], turns: int) -> Counter[str]:
    return Counter(queue.pop()[0] for _ in range(turns))


def test_flows_that_always_wait_are_served_by_their_priority() -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for number in range(400):
        queue.push(("guest", number), 50.0, GUEST)
        queue.push(("subscriber", number), 200.0, SUBSCRIBER)
    assert served_of(queue, 100) == {"subscriber": 80, "guest": 20}


def test_costs_count_in_tokens() -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for number in range(400):
        queue.push(("small", number), 1.0, GUEST, 1.0)
        queue.push(("large", number), 1.0, SUBSCRIBER, 4.0)
    served = served_of(queue, 100)
    assert served == {"small": 80, "large": 20}


def test_fair_queues_within_a_workload_share_what_it_gets() -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for number in range(400):
        queue.push(("alone", number), 1.0, Flow("other"))
        for each in range(4):
            queue.push((f"shared {each}", number), 1.0, Flow("workload", each))
    # Costs are those at the time of the push: of the first of a queue, before the others of its workload came.
    served_of(queue, 100)
    served = served_of(queue, 160)
    assert served["alone"] == 80
    assert {served[f"shared {each}"] for each in range(4)} == {20}


def test_a_flow_that_comes_back_has_saved_nothing_up() -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for number in range(100):
        queue.push(("guest", number), 1.0, GUEST)
    served_of(queue, 50)
    for number in range(100):
        queue.push(("subscriber", number), 1.0, SUBSCRIBER)
    assert served_of(queue, 40) == {"guest": 20, "subscriber": 20}


def test_an_item_of_a_flow_that_is_being_served_does_not_overtake_those_before_it() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("one", "two", "three"):
        queue.push(item)
    taken = queue.take()
    queue.push("four")
    queue.served(taken)
    assert [queue.pop() for _ in range(3)] == ["two", "three", "four"]


def test_a_turn_that_was_given_up_costs_nothing() -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for number in range(20):
        queue.push(("guest", number), 1.0, GUEST)
        queue.push(("subscriber", number), 1.0, SUBSCRIBER)
    given_up = 0
    while given_up < 10:
        taken = queue.take()
        if taken.item[0] == "guest":
            given_up += 1
            queue.passed_over(taken)
        else:
            queue.served(taken)
    assert served_of(queue, 10)["guest"] >= 5


def test_nobody_starves_beside_the_highest_priority() -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    queue.push(("guest", 0), 1.0, GUEST)
    for number in range(2000):
        queue.push(("subscriber", number), 1000.0, SUBSCRIBER)
        queue.push(("subscriber", number + 10_000), 1000.0, SUBSCRIBER)
        if queue.pop()[0] == "guest":
            assert number <= 1001
            return
    pytest.fail("was never served")


class PlainQueue:
    """The same rules without a heap: every choice looks at everything."""

    def __init__(self) -> None:
        self.time = 0.0
        self.times: dict[tuple[Flow, float], float] = {}
        self.entered: dict[tuple[Flow, float], int] = {}
        self.waiting: list[tuple[int, tuple[Flow, float], float]] = []
        self.count = 0

    def push(self, item: int, priority: float, flow: Flow, cost: float) -> None:
        key = (flow, priority)
        if not self.waiting:
            self.time = 0.0
        if key not in self.times:
            self.times[key] = self.time
            self._enters(key)
        siblings = sum(each[0].workload == flow.workload and each[1] == priority for each in self.times)
        self.waiting.append((item, key, cost / priority * siblings))

    def pop(self) -> int:
        firsts: dict[tuple[Flow, float], tuple[float, int, int]] = {}
        for item, key, cost in self.waiting:
            firsts.setdefault(key, (self.times[key] + cost, self.entered[key], item))
        finish, _, item = min(firsts.values())
        key = next(each[1] for each in self.waiting if each[0] == item)
        self.times[key] = self.time = finish
        self.remove(item)
        if key in self.times:
            self._enters(key)
        return item

    def remove(self, item: int) -> None:
        key = next(each[1] for each in self.waiting if each[0] == item)
        was_first = next(each[0] for each in self.waiting if each[1] == key) == item
        self.waiting = [each for each in self.waiting if each[0] != item]
        if all(each[1] != key for each in self.waiting):
            del self.times[key]
        elif was_first:
            self._enters(key)

    def _enters(self, key: tuple[Flow, float]) -> None:
        self.count += 1
        self.entered[key] = self.count


FLOWS = [Flow("a"), Flow("b"), Flow("a", 1), Flow("a", 2)]
PUSHES = st.tuples(
    st.just("push"), st.sampled_from([0.5, 1.0, 4.0]), st.sampled_from(FLOWS), st.sampled_from([0.5, 1.0, 3.0])
)
OTHERS = st.tuples(st.sampled_from(["pop", "remove"]), st.integers(0, 100))


@given(st.lists(PUSHES | OTHERS, max_size=60))
def test_it_chooses_as_the_rules_say_whoever_leaves(steps: list[tuple[object, ...]]) -> None:
    queue: FairQueue[int] = FairQueue()
    plain = PlainQueue()
    number = 0
    for step in steps:
        match step:
            case ("push", float(priority), Flow() as flow, float(cost)):
                number += 1
                for push in (queue.push, plain.push):
                    push(number, priority, flow, cost)
            case ("pop", _) if queue:
                assert queue.first() == plain.pop()
                queue.pop()
            case ("remove", int(index)) if queue:
                item = list(queue)[index % len(queue)]
                queue.remove(item)
                plain.remove(item)
        assert list(queue) == [each[0] for each in plain.waiting]
        assert queue.flows == len(plain.times)


@given(st.lists(st.sampled_from(FLOWS), max_size=50), st.randoms(use_true_random=False))
def test_whoever_leaves_leaves_no_trace(flows: list[Flow], random: Random) -> None:
    queue: FairQueue[int] = FairQueue()
    for item, flow in enumerate(flows):
        queue.push(item, 1.0, flow)
    leaving = list(queue)
    random.shuffle(leaving)
    for item in leaving:
        queue.remove(item)
    assert (len(queue), queue.flows, list(queue)) == (0, 0, [])
    for item in (1, 2):
        queue.push(item, 1.0, FLOWS[item])
    assert [queue.pop(), queue.pop()] == [1, 2]


def test_what_is_outdated_is_let_go_of() -> None:
    queue: FairQueue[int] = FairQueue()
    queue.push(0, 1.0, GUEST)
    for item in range(1, 10_000):
        queue.push(item, 1.0, GUEST)
        queue.remove(item - 1)
    assert len(queue._candidates) <= 2 * queue.flows + 17
    assert queue.pop() == 9999
