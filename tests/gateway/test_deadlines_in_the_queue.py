"""A deadline holds while a request waits, and one that cannot be made is told at once, with when to come again."""

from hypothesis import given
from hypothesis import strategies as st

from support.gateway import REVISION, Stage, request, stage
from support.http import eventually, silent
from support.torture import Echo
from upwell.runtime.cluster.interface import Replica, ReplicaState
from upwell.runtime.gateway.activator import RevisionLimits
from upwell.runtime.gateway.prediction import Pace
from upwell.runtime.http.connect import Endpoint
from upwell.runtime.testing.loop import run_fake


def asked_by(on: Stage, seconds: float) -> bytes:
    """A request whose caller wants the answer in so many seconds."""
    return request(fields=b"X-Request-Deadline: %d\r\n" % round((on.clock.now() + seconds) * 1000))


async def started_before(on: Stage, seconds: float) -> None:
    """The revision had a replica, which took so long to start, and is at zero again."""
    replica = Replica(
        "r0", REVISION, Endpoint(host="127.0.0.1", port=1), ReplicaState.READY, on.clock.now() - seconds
    )
    replica.ready_at = on.clock.now()
    on.gateway.replica_changed(replica)
    on.move(replica, ReplicaState.GONE)


def test_the_callers_deadline_ends_the_wait_when_it_is_the_earlier() -> None:
    async def scenario() -> None:
        async with stage(RevisionLimits(timeout_seconds=300)) as on:
            began = on.clock.monotonic()
            answer = await on.ask(asked_by(on, 2.0), ending=b"timeout\n")
            assert answer.startswith(b"HTTP/1.1 504 ")
            assert 1.99 <= on.clock.monotonic() - began < 2.2
            assert on.entry.counters.reasons == {"timeout_waiting": 1}

    run_fake(scenario())


def test_it_never_makes_the_revisions_own_timeout_longer() -> None:
    async def scenario() -> None:
        async with stage(RevisionLimits(timeout_seconds=3)) as on:
            began = on.clock.monotonic()
            await on.ask(asked_by(on, 60.0), ending=b"timeout\n")
            assert on.clock.monotonic() - began < 3.2

    run_fake(scenario())


def test_a_deadline_that_is_no_number_counts_for_nothing() -> None:
    async def scenario() -> None:
        async with stage(RevisionLimits(timeout_seconds=4)) as on:
            for value in (b"soon", b"-1", b"1e3", b"9" * 40, b"\xb2"):
                began = on.clock.monotonic()
                await on.ask(request(fields=b"X-Request-Deadline: " + value + b"\r\n"), ending=b"timeout\n")
                assert 4.0 <= on.clock.monotonic() - began < 4.3

    run_fake(scenario())


def test_at_a_replica_the_callers_deadline_is_cut_without_blaming_the_replica() -> None:
    async def scenario() -> None:
        async with stage(RevisionLimits(timeout_seconds=300)) as on:
            await on.replica(silent)
            answer = await on.ask(asked_by(on, 2.0), ending=b"timeout\n")
            assert answer.startswith(b"HTTP/1.1 504 ")
            assert on.told.replaced == []

    run_fake(scenario())


def test_a_deadline_that_has_passed_is_answered_at_once_and_no_replica_is_asked() -> None:
    async def scenario() -> None:
        async with stage(RevisionLimits(timeout_seconds=300)) as on:
            echo = Echo()
            await on.replica(echo.script)
            for ago in (0.001, 5.0, on.clock.now()):
                answer = await on.ask(asked_by(on, -ago), ending=b"answer\n")
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert b"retry-after: 1\r\n" in answer
            assert echo.seen == []
            assert on.entry.stats.in_flight == 0
            assert on.entry.counters.reasons == {"deadline": 3}
            assert on.told.pokes == []

    run_fake(scenario())


def test_before_the_first_replica_it_is_refused_when_no_start_was_ever_that_quick() -> None:
    async def scenario() -> None:
        async with stage() as on:
            await started_before(on, 8.0)
            began = on.clock.monotonic()
            answer = await on.ask(asked_by(on, 2.0), ending=b"answer\n")
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"x-upwell-rejected-by: deadline\r\n" in answer
            assert b"retry-after: 8\r\n" in answer
            assert on.clock.monotonic() - began < 0.5
            assert len(on.activator.waiting) == 0
            assert on.entry.stats.in_flight == 0
            # It asked for a replica all the same: whoever comes again finds it.
            assert on.told.pokes == [(REVISION, 1)]

    run_fake(scenario())


def test_the_time_to_come_again_counts_from_the_start_that_is_under_way() -> None:
    async def scenario() -> None:
        async with stage() as on:
            await started_before(on, 8.0)
            rising = Replica(
                "r1", REVISION, Endpoint(host="127.0.0.1", port=1), ReplicaState.STARTING, on.clock.now() - 5.0
            )
            on.told.running.append(rising)
            answer = await on.ask(asked_by(on, 1.0), ending=b"answer\n")
            assert b"retry-after: 3\r\n" in answer
            waiting = await on.client(asked_by(on, 4.0))
            await eventually(lambda: len(on.activator.waiting) == 1)
            waiting.close()

    run_fake(scenario())


def test_behind_a_long_queue_it_is_refused_and_a_short_one_is_waited_for() -> None:
    async def scenario() -> None:
        async with stage(RevisionLimits(container_concurrency=1)) as on:
            await on.replica(silent)
            on.entry.pace.served(2.0)
            for _ in range(6):
                await on.client()
            await eventually(lambda: len(on.activator.waiting) == 5)
            refused = await on.ask(asked_by(on, 3.0), ending=b"answer\n")
            assert b"x-upwell-rejected-by: deadline\r\n" in refused
            assert b"retry-after: 12\r\n" in refused
            await on.client(asked_by(on, 30.0))
            await eventually(lambda: len(on.activator.waiting) == 6)

    run_fake(scenario())


@given(st.lists(st.floats(0, 600), min_size=1, max_size=20), st.floats(0, 600))
def test_a_forecast_of_a_start_lies_within_what_was_seen(starts: list[float], since: float) -> None:
    pace = Pace()
    for seconds in starts:
        pace.started(seconds)
    forecast = pace.until_start(since)
    assert forecast is not None
    assert 0.0 <= forecast.earliest <= forecast.likely <= max(starts)


@given(st.floats(0.001, 100), st.integers(0, 10_000), st.integers(1, 1000))
def test_a_forecast_of_a_slot_grows_with_those_ahead(service: float, ahead: int, slots: int) -> None:
    pace = Pace()
    pace.served(service)
    near, far = pace.until_slot(ahead, slots), pace.until_slot(ahead + slots, slots)
    assert near is not None
    assert far is not None
    assert near.earliest <= near.likely
    assert near.earliest < far.earliest
    assert near.likely < far.likely


def test_nothing_is_foretold_of_what_was_never_seen() -> None:
    assert Pace().until_start(1.0) is None
    assert Pace().until_slot(0, 1) is None
