"""When replicas that do not start are tried again, and which replicas go first."""

from hypothesis import given
from hypothesis import strategies as st

from upwell.runtime.cluster.backoff import (
    LONGEST_RETRY_SECONDS,
    LOST_SECONDS,
    MOST_LOST,
    StartBackoff,
    start_delay,
)
from upwell.runtime.cluster.deployed import victims
from upwell.runtime.cluster.interface import Replica, ReplicaState
from upwell.runtime.http.connect import Endpoint

FAILURES = st.integers(min_value=0, max_value=10_000)


def test_the_first_failure_is_tried_again_at_once_and_then_after_growing_delays() -> None:
    assert [start_delay(failures) for failures in range(10)] == [0, 0, 1, 2, 4, 8, 16, 32, 60, 60]


@given(FAILURES)
def test_delays_never_shrink_and_have_a_bound(failures: int) -> None:
    assert 0 <= start_delay(failures) <= start_delay(failures + 1) <= LONGEST_RETRY_SECONDS


@given(st.integers(min_value=1, max_value=50), st.integers(min_value=1, max_value=12))
def test_an_attempt_fails_once_however_many_replicas_it_started(replicas: int, attempts: int) -> None:
    backoff, now = StartBackoff(), 100.0
    for number in range(1, attempts + 1):
        now = max(now, backoff.next_try)
        attempt = backoff.attempt
        for _ in range(replicas):
            backoff = backoff.failed(attempt, now)
        assert backoff.failures == number
        assert backoff.wait(now) == start_delay(number)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=40))
def test_whatever_happens_the_wait_is_that_of_the_failures_in_a_row(
    events: list[tuple[int, bool, bool]],
) -> None:
    backoff, now = StartBackoff(), 0.0
    for age, certain, succeeds in events:
        before = backoff
        if succeeds:
            backoff = backoff.succeeded()
            assert backoff.failures == 0
            assert backoff.wait(now) == 0
        else:
            backoff = backoff.failed(max(0, backoff.attempt - age), now, certain=certain)
            assert before.failures <= backoff.failures <= before.failures + (2 if certain else 1)
            assert backoff.wait(now) <= start_delay(backoff.failures)
        assert backoff.attempt >= before.attempt
        now += 0.5


def test_a_failure_that_is_certain_counts_as_two_once() -> None:
    failed = StartBackoff().failed(0, 10.0, certain=True)
    assert (failed.failures, failed.wait(10.0)) == (2, 1.0)
    replica_told_first = StartBackoff().failed(0, 10.0).failed(0, 10.0, certain=True)
    assert (replica_told_first.failures, replica_told_first.attempt) == (2, 1)
    again = failed.failed(1, 11.0, certain=True)
    assert (again.failures, again.wait(11.0)) == (3, 2.0)


def test_stragglers_of_a_failed_attempt_say_nothing_new() -> None:
    failed = StartBackoff().failed(0, 1.0)
    assert failed.failed(0, 2.0) is failed
    assert failed.succeeded().failed(0, 3.0).failures == 0


def test_a_few_attempts_that_are_lost_within_a_moment_are_no_failure_and_the_next_is() -> None:
    backoff, now, waits = StartBackoff(), 50.0, []
    for _ in range(MOST_LOST):
        backoff = backoff.interrupted(backoff.attempt, now)
        assert backoff.failures == 0
        waits.append(round(backoff.wait(now), 3))
        now += backoff.wait(now)
    assert waits == [0, 0.1, 0.2, 0.4, 0.8]
    assert now - 50.0 <= LOST_SECONDS
    backoff = backoff.interrupted(backoff.attempt, now)
    assert (backoff.failures, backoff.wait(now)) == (2, 1.0), "it is told at once"


def test_attempts_that_are_lost_one_after_the_other_for_longer_are_a_failure() -> None:
    backoff = StartBackoff().interrupted(0, 0.0)
    assert backoff.interrupted(1, LOST_SECONDS).failures == 0
    assert backoff.interrupted(1, LOST_SECONDS + 0.1).failures == 2


@given(st.lists(st.sampled_from(["lost", "failed", "straggler", "succeeded"]), max_size=40), st.floats(0, 3))
def test_whatever_is_lost_the_number_of_attempts_without_a_failure_is_bounded(
    events: list[str], pause: float
) -> None:
    backoff, now, in_a_row = StartBackoff(), 0.0, 0
    for event in events:
        before = backoff
        if event == "lost":
            backoff, in_a_row = backoff.interrupted(backoff.attempt, now), in_a_row + 1
        elif event == "failed":
            backoff = backoff.failed(backoff.attempt, now)
        elif event == "straggler":
            backoff = backoff.interrupted(backoff.attempt - 1, now)
            assert backoff is before
        else:
            backoff, in_a_row = backoff.succeeded(), 0
            assert backoff.failures == backoff.lost == 0
        assert in_a_row <= MOST_LOST or backoff.failures
        assert backoff.attempt >= before.attempt
        now += pause


def replica(number: int, state: ReplicaState, started_at: float) -> Replica:
    return Replica(f"r{number}", "default/r", Endpoint(path="/s"), state, started_at)


REPLICAS = st.lists(
    st.tuples(st.sampled_from([ReplicaState.STARTING, ReplicaState.READY]), st.integers(0, 100)), max_size=20
).map(lambda made: [replica(n, state, float(at)) for n, (state, at) in enumerate(made)])


@given(REPLICAS, st.integers(min_value=-3, max_value=25))
def test_those_that_start_go_first_and_of_equals_the_youngest(replicas: list[Replica], surplus: int) -> None:
    chosen = victims(replicas, surplus)
    kept = [replica for replica in replicas if replica not in chosen]
    assert len(chosen) == min(max(0, surplus), len(replicas))
    if any(r.state is ReplicaState.READY for r in chosen):
        assert all(r.state is ReplicaState.READY for r in kept)
    for state in (ReplicaState.STARTING, ReplicaState.READY):
        gone = [r.started_at for r in chosen if r.state is state]
        left = [r.started_at for r in kept if r.state is state]
        assert not gone or not left or min(gone) >= max(left)
