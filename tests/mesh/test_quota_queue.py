"""Requests before one bucket of tokens, in virtual time."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upwell.runtime.mesh.fair_queue import Flow, Workload
from upwell.runtime.mesh.quota_bucket import QuotaBucket
from upwell.runtime.mesh.quota_queue import (
    CATCH_UP,
    Decision,
    Outcome,
    QuotaQueue,
    QuotaRequest,
    WaitingRoom,
)

GUEST = Workload("guest", 50.0, Flow("guest"), 1.0)
SUBSCRIBER = Workload("subscriber", 200.0, Flow("subscriber"), 1.0)


def queue_of(capacity: float = 10, fill: float = 10, interval: float = 1.0, room: int = 1000) -> QuotaQueue:
    return QuotaQueue(QuotaBucket(capacity, fill, interval, 0.0), WaitingRoom(room))


def a_request(workload: Workload = GUEST, now: float = 0.0, patience: float = 60.0) -> QuotaRequest:
    return QuotaRequest(workload, now + patience, now)


def drained(queue: QuotaQueue, until: float) -> list[Decision]:
    """Decisions as they come when the queue is advanced whenever it is due."""
    decisions: list[Decision] = []
    while (due_at := queue.due_at) is not None and due_at <= until:
        decisions += queue.advance(due_at)
    return decisions


def outcome_of(decision: Decision | None) -> Outcome:
    assert decision is not None
    return decision.outcome


def test_requests_go_on_at_once_while_there_are_tokens_and_wait_afterwards() -> None:
    queue = queue_of()
    requests = [a_request() for _ in range(12)]
    decisions = [queue.offer(request, 0.0) for request in requests]
    assert [outcome_of(decision) for decision in decisions[:10]] == [Outcome.AT_ONCE] * 10
    assert decisions[10:] == [None, None]
    assert queue.advance(0.05) == []
    assert [(each.request, each.outcome, round(each.at, 6)) for each in drained(queue, 1.0)] == [
        (requests[10], Outcome.IN_TURN, 0.1),
        (requests[11], Outcome.IN_TURN, 0.2),
    ]
    assert (len(queue), queue.due_at) == (0, None)


def test_turns_come_by_priority_four_to_one() -> None:
    queue = queue_of(capacity=10, fill=100)
    for _ in range(10):
        queue.offer(a_request(), 0.0)
    for _ in range(500):
        for workload in (GUEST, SUBSCRIBER):
            assert queue.offer(a_request(workload), 0.0) is None
    counted = Counter(each.request.workload.name for each in drained(queue, 3.0))
    assert sum(counted.values()) == pytest.approx(300, abs=1)
    assert counted["subscriber"] / counted["guest"] == pytest.approx(4, rel=0.05)


def test_a_request_that_has_its_turn_is_not_overtaken_by_a_higher_priority() -> None:
    queue = queue_of(capacity=1, fill=1)
    queue.offer(a_request(), 0.0)
    guest, subscriber = a_request(GUEST), a_request(SUBSCRIBER)
    queue.offer(guest, 0.0)
    queue.offer(subscriber, 0.5)
    assert [each.request for each in drained(queue, 5.0)] == [guest, subscriber]


def test_a_request_that_cannot_have_a_token_in_time_is_refused_at_once() -> None:
    queue = queue_of(capacity=1, fill=1)
    queue.offer(a_request(), 0.0)
    assert outcome_of(queue.offer(a_request(patience=0.5), 0.0)) is Outcome.NO_TIME
    assert len(queue) == 0
    assert queue.bucket.take(1, 1.0)


def test_no_patience_means_a_token_now_or_none() -> None:
    queue = queue_of(capacity=1, fill=1)
    assert outcome_of(queue.offer(a_request(patience=0.0), 0.0)) is Outcome.AT_ONCE
    assert outcome_of(queue.offer(a_request(patience=0.0), 0.0)) is Outcome.NO_TIME
    assert queue.offer(a_request(), 0.0) is None
    assert outcome_of(queue.offer(a_request(patience=0.0), 0.0)) is Outcome.NO_TIME


def test_whoever_waits_in_vain_is_refused_at_its_deadline() -> None:
    queue = queue_of(capacity=1, fill=1)
    for _ in range(3):
        queue.offer(a_request(), 0.0)
    hurried = a_request(SUBSCRIBER, patience=0.25)
    queue.offer(hurried, 0.0)
    assert queue.due_at == 0.25
    assert queue.advance(0.25) == [Decision(hurried, Outcome.WAITED, 0.25)]
    assert [each.at for each in drained(queue, 10.0)] == pytest.approx([1.0, 2.0])


def test_one_refused_in_its_turn_gives_it_to_the_next_and_pays_nothing() -> None:
    queue = queue_of(capacity=1, fill=1)
    for _ in range(2):
        queue.offer(a_request(), 0.0)
    dear = a_request(Workload("dear", 1000.0, Flow("dear"), 5.0), patience=3.0)
    cheap = a_request()
    queue.offer(dear, 0.0)
    queue.offer(cheap, 0.0)
    decisions = drained(queue, 10.0)
    assert [(each.outcome, round(each.at, 6)) for each in decisions] == [
        (Outcome.IN_TURN, 1.0),
        (Outcome.NO_TIME, 1.0),
        (Outcome.IN_TURN, 2.0),
    ]
    assert [each.request for each in decisions[1:]] == [dear, cheap]


def test_a_bucket_that_is_never_filled_lets_nobody_wait() -> None:
    queue = queue_of(capacity=1, fill=0)
    assert outcome_of(queue.offer(a_request(), 0.0)) is Outcome.AT_ONCE
    assert outcome_of(queue.offer(a_request(), 0.0)) is Outcome.NO_TIME


def test_what_costs_nothing_never_waits() -> None:
    queue = queue_of(capacity=0, fill=1)
    assert queue.offer(a_request(), 0.0) is None
    free = Workload("free", 1.0, Flow("free"), 0.0)
    assert outcome_of(queue.offer(a_request(free), 0.0)) is Outcome.AT_ONCE


def test_the_room_is_bounded_and_shared() -> None:
    room = WaitingRoom(3)
    queues = [QuotaQueue(QuotaBucket(1, 1, 1.0, 0.0), room) for _ in range(2)]
    decisions = [queue.offer(a_request(), 0.0) for queue in queues for _ in range(3)]
    assert [each if each is None else each.outcome for each in decisions] == [
        Outcome.AT_ONCE,
        None,
        None,
        Outcome.AT_ONCE,
        None,
        Outcome.FULL,
    ]
    assert room.waiting == 3
    for queue in queues:
        drained(queue, 100.0)
    assert room.waiting == 0


def test_the_one_whose_turn_it_is_gives_its_tokens_back_when_it_leaves() -> None:
    queue = queue_of(capacity=1, fill=1)
    queue.offer(a_request(), 0.0)
    leaving, staying = a_request(), a_request()
    queue.offer(leaving, 0.0)
    queue.offer(staying, 0.0)
    assert queue.cancel(leaving, 0.5)
    assert not queue.cancel(leaving, 0.5)
    assert queue.due_at == 0.5
    assert queue.advance(0.5) == []
    assert drained(queue, 5.0) == [Decision(staying, Outcome.IN_TURN, 1.0)]


def test_a_late_timer_costs_no_throughput() -> None:
    queue = queue_of(capacity=1, fill=1000)
    for _ in range(200):
        queue.offer(a_request(), 0.0)
    released = queue.advance(0.05)
    assert len(released) == 50
    assert [each.at for each in released] == pytest.approx([number / 1000 for number in range(1, 51)])


def test_a_stall_does_not_end_in_a_burst() -> None:
    queue = queue_of(capacity=1, fill=1000)
    for _ in range(900):
        queue.offer(a_request(), 0.0)
    assert len(queue.advance(10.0)) <= 1000 * CATCH_UP + 2


def test_after_a_stall_whoever_is_past_the_deadline_is_refused() -> None:
    queue = queue_of(capacity=1, fill=1)
    queue.offer(a_request(), 0.0)
    for patience in (2.0, 2.0, 60.0):
        queue.offer(a_request(patience=patience), 0.0)
    assert [each.outcome for each in queue.advance(10.0)] == [Outcome.WAITED, Outcome.NO_TIME, Outcome.IN_TURN]


WORKLOADS = [GUEST, SUBSCRIBER, Workload("dear", 1.0, Flow("dear", 3), 2.5)]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["offer", "offer", "offer", "cancel"]),
        st.floats(0, 0.4),
        st.sampled_from(WORKLOADS),
        st.sampled_from([0.0, 0.3, 1.0, 60.0]),
        st.integers(0, 100),
    ),
    max_size=80,
)


@settings(max_examples=200)
@given(STEPS, st.sampled_from([0.0, 1.0, 4.0]), st.sampled_from([1.0, 5.0]), st.booleans())
def test_the_rules_hold_whoever_comes_and_goes(
    steps: list[tuple[str, float, Workload, float, int]], capacity: float, fill: float, continuous: bool
) -> None:
    room = WaitingRoom(20)
    bucket = QuotaBucket(capacity, fill, 1.0, 0.0, continuous=continuous)
    queue = QuotaQueue(bucket, room)
    now = 0.0
    waiting: list[QuotaRequest] = []
    arrived: list[QuotaRequest] = []
    decisions: list[Decision] = []

    def note(new: list[Decision]) -> None:
        decisions.extend(new)
        for each in new:
            if each.request in waiting:
                waiting.remove(each.request)

    for operation, wait, workload, patience, index in steps:
        now += wait
        note(drained(queue, now))
        if operation == "cancel" and waiting:
            assert queue.cancel(waiting.pop(index % len(waiting)), now)
        elif operation == "offer":
            request = a_request(workload, now, patience)
            arrived.append(request)
            decision = queue.offer(request, now)
            if decision is None:
                waiting.append(request)
            else:
                note([decision])
        note(drained(queue, now))
        assert len(queue) == room.waiting == len(waiting) <= 20
        assert all(each.deadline >= now for each in waiting), "nobody waits past the deadline"
        if waiting:
            assert bucket.available <= max(each.workload.cost for each in waiting), "no token lies about"
    note(drained(queue, now + 1000.0))

    assert (len(queue), room.waiting, queue.due_at, waiting) == (0, 0, None, [])
    assert len({id(each.request) for each in decisions}) == len(decisions), "one decision each"
    assert all(each.at <= each.request.deadline for each in decisions if each.admits)
    in_flow = defaultdict(list)
    for each in decisions:
        if each.outcome is Outcome.IN_TURN:
            in_flow[each.request.workload.flow].append(arrived.index(each.request))
    assert all(order == sorted(order) for order in in_flow.values()), "first come, first served"
    admitted = [(each.at, each.request.workload.cost) for each in decisions if each.admits]
    most = max((capacity, *(cost for _, cost in admitted)))
    for first, (start, _) in enumerate(admitted):
        total = 0.0
        for end, cost in admitted[first:]:
            total += cost
            came = fill * (end - start) + (0 if continuous else fill)
            assert total <= most + came + 1e-3, "no token is issued twice"


@given(st.integers(1, 50), st.integers(1, 50), st.floats(0.5, 8.0))
def test_while_requests_wait_every_token_is_used(first: int, second: int, fill: float) -> None:
    queue = queue_of(capacity=1, fill=fill)
    for number, workload in ((first, GUEST), (second, SUBSCRIBER)):
        for _ in range(number):
            queue.offer(a_request(workload, patience=1e6), 0.0)
    decisions = drained(queue, 1e6)
    assert len(decisions) == first + second - 1
    assert decisions == sorted(decisions, key=lambda each: each.at)
    assert [each.at for each in decisions] == pytest.approx([number / fill for number in range(1, first + second)])
