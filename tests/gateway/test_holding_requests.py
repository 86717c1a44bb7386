"""A request without a free slot waits: bounded in number, by its deadline, and only while there is hope."""

import asyncio
from pathlib import Path

import pytest

from support.gateway import REVISION, request, stage
from support.http import answering, eventually, settle, silent
from upwell.runtime.cluster.interface import Replica, ReplicaState
from upwell.runtime.gateway.activator import RevisionLimits
from upwell.runtime.gateway.settings import GatewaySettings
from upwell.runtime.http.connect import Endpoint
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.testing.loop import run_fake

CLOSING = b"connection: close\r\n"


def test_it_pokes_once_waits_and_is_sent_when_a_replica_is_ready() -> None:
    async def scenario() -> None:
        async with stage() as on:
            client = await on.client()
            await eventually(lambda: len(on.activator.waiting) == 1)
            assert on.told.pokes == [(REVISION, 1)]
            _, made = await on.replica()
            answer = await client.answer(b"ok")
            assert b"200 OK" in answer
            assert b"server-timing: queue;dur=" in answer
            assert b"fork;dur=1.0, start;dur=2.5" in answer
            assert b"k-proxy-request: activator" in made.seen
            assert on.activator.statistics().in_flight == 0

    run_fake(scenario())


def test_a_burst_pokes_as_it_grows_and_not_for_each_request() -> None:
    async def scenario() -> list[int]:
        async with stage() as on:
            for _ in range(200):
                await on.client()
            await eventually(lambda: len(on.activator.waiting) == 200)
            await on.replica()
            await eventually(lambda: on.activator.statistics().in_flight == 0)
            return [in_flight for _, in_flight in on.told.pokes]

    pokes = run_fake(scenario())
    assert pokes[0] == 1
    assert pokes == sorted(pokes)
    assert pokes[-1] >= 160
    assert len(pokes) < 30


def test_beyond_the_queue_it_is_refused_with_retry_after_and_the_others_keep_their_place() -> None:
    async def scenario() -> None:
        async with stage(RevisionLimits(queue_depth=2)) as on:
            waiting = [await on.client(), await on.client()]
            await eventually(lambda: len(on.activator.waiting) == 2)
            refused = await on.ask(ending=b"full\n")
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1\r\n" in refused
            assert b"x-upwell-rejected-by: queue_full\r\n" in refused
            await on.replica()
            for client in waiting:
                assert b"200 OK" in await client.answer(b"ok")

    run_fake(scenario())


def test_at_its_deadline_it_is_told_so_and_leaves_the_queue() -> None:
    async def scenario() -> None:
        async with stage(RevisionLimits(timeout_seconds=10)) as on:
            started = on.clock.monotonic()
            answer = await on.ask(ending=b"timeout\n")
            assert answer.startswith(b"HTTP/1.1 504 ")
            assert answer.endswith(b"activator request timeout\n")
            assert 10.0 <= on.clock.monotonic() - started < 10.2
            assert len(on.activator.waiting) == 0
            assert on.entry.stats.in_flight == 0

    run_fake(scenario())


def test_a_client_that_leaves_gives_up_its_place() -> None:
    async def scenario() -> None:
        async with stage() as on:
            client = await on.client()
            await eventually(lambda: len(on.activator.waiting) == 1)
            client.close()
            await eventually(lambda: len(on.activator.waiting) == 0)
            assert on.entry.counters.statuses == {499: 1}
            assert on.entry.stats.in_flight == 0
            _, made = await on.replica()
            await settle()
            assert made.seen == b""

    run_fake(scenario())


def test_a_hard_limit_sends_no_more_than_there_are_slots_in_order_of_arrival() -> None:
    async def scenario() -> None:
        async with stage(RevisionLimits(container_concurrency=1, burst_threshold=1)) as on:
            _, made = await on.replica(silent)
            clients = []
            for path in (b"/1", b"/2", b"/3"):
                clients.append(await on.client(request(path=path)))
                await settle()
            assert made.seen.count(b"GET ") == 1
            for number in (1, 2, 3):
                await eventually(lambda n=number: made.seen.count(b"GET ") == n)  # type: ignore[misc]
                assert b"GET /%d HTTP/1.1" % number in made.seen
                made.peers[-1].send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                await clients[number - 1].answer(b"ok")

    run_fake(scenario())


def test_when_nothing_can_start_the_waiting_are_answered_at_once_and_the_next_try_is_awaited() -> None:
    async def scenario() -> None:
        async with stage() as on:
            waiting = await on.client()
            await eventually(lambda: len(on.activator.waiting) == 1)
            on.fail(seconds=2.0)
            answer = await waiting.answer(b"start\n")
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 2\r\n" in answer
            assert b"code 3" not in answer, "the reason is for the log"
            assert (await on.ask(ending=b"start\n")).startswith(b"HTTP/1.1 503 ")
            await asyncio.sleep(2.1)
            pokes = len(on.told.pokes)
            hopeful = await on.client()
            await eventually(lambda: len(on.activator.waiting) == 1)
            assert len(on.told.pokes) == pokes + 1
            await on.replica()
            assert b"200 OK" in await hopeful.answer(b"ok")
            assert b"200 OK" in await on.ask()

    run_fake(scenario())


def test_a_deleted_revision_answers_those_who_wait_for_it() -> None:
    async def scenario() -> None:
        async with stage() as on:
            waiting = await on.client()
            await eventually(lambda: len(on.activator.waiting) == 1)
            on.gateway.remove_revision(REVISION)
            assert (await waiting.answer(b"deleted\n")).startswith(b"HTTP/1.1 503 ")
            assert (await on.ask(ending=b"ready\n")).startswith(b"HTTP/1.1 503 ")

    run_fake(scenario())


def test_a_draining_replica_gets_nothing_more_and_finishes_what_it_has() -> None:
    async def scenario() -> None:
        async with stage() as on:
            first, old = await on.replica(silent, "old")
            under_way = await on.client(request(path=b"/old"))
            await eventually(lambda: old.seen.count(b"GET ") == 1)
            on.move(first, ReplicaState.DRAINING)
            later = await on.client(request(path=b"/new"))
            await eventually(lambda: len(on.activator.waiting) == 1)
            assert on.told.pokes[-1][0] == REVISION
            _, new = await on.replica(answering(), "new")
            assert b"200 OK" in await later.answer(b"ok")
            assert b"/new" in new.seen
            assert b"/new" not in old.seen
            old.peers[0].send(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nold")
            assert (await under_way.answer(b"old")).startswith(b"HTTP/1.1 200 OK")
            await eventually(lambda: old.peers[0].closed)

    run_fake(scenario())


def test_a_young_replica_that_takes_no_connection_is_passed_over_until_another_does(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(settings=GatewaySettings(suspend_seconds=1.0, doubt_seconds=1.0)) as on:
            on.rise(Endpoint(path=str(tmp_path / "nobody-listens")), "absent")
            waiting = await on.client()
            await eventually(lambda: len(on.activator.waiting) == 1)
            await on.replica(name="present")
            assert b"200 OK" in await waiting.answer(b"ok")

    run_fake(scenario())


def test_replicas_that_never_take_a_connection_are_a_502_in_the_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = HttpSettings(connect_timeout=0.2)
        async with stage(settings=GatewaySettings(connect_attempts=2), http=settings) as on:
            on.rise(Endpoint(path=str(tmp_path / "nobody-listens")))
            answer = await on.ask(ending=b"answered\n")
            assert answer.startswith(b"HTTP/1.1 502 ")
            assert b"x-upwell-rejected-by: connect_failed\r\n" in answer
            assert str(tmp_path).encode() not in answer

    run_fake(scenario())


@pytest.mark.parametrize(("method", "sent"), [(b"GET", 2), (b"PUT", 2), (b"POST", 1), (b"BREW", 1)])
def test_only_the_idempotent_is_sent_again_when_a_used_connection_breaks(method: bytes, sent: int) -> None:
    async def scenario() -> int:
        async with stage() as on:
            _, made = await on.replica(silent)
            first = await on.client()
            await eventually(lambda: made.seen.count(b" HTTP/1.1") == 1)
            made.peers[0].send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            await first.answer(b"ok")
            second = await on.client(request(method, body=b"x" if method != b"GET" else b""))
            await eventually(lambda: made.seen.count(b" HTTP/1.1") == 2)
            made.peers[0].transport.abort()
            if sent == 2:
                await eventually(lambda: len(made.peers) == 2 and b" HTTP/1.1" in made.peers[1].received)
                made.peers[1].send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                assert b"200 OK" in await second.answer(b"ok")
            else:
                assert (await second.answer(b"answered\n")).startswith(b"HTTP/1.1 502 ")
            return made.seen.count(b" HTTP/1.1") - 1

    assert run_fake(scenario()) == sent


def test_a_replica_that_lets_its_deadline_pass_is_cut_off_and_replaced() -> None:
    async def scenario() -> None:
        async with stage(RevisionLimits(timeout_seconds=10), GatewaySettings(replica_margin_seconds=5)) as on:
            _, made = await on.replica(silent)
            started = on.clock.monotonic()
            answer = await on.ask(ending=b"timeout\n")
            assert answer.startswith(b"HTTP/1.1 504 ")
            assert b"x-upwell-rejected-by: timeout_replica\r\n" in answer
            assert 15.0 <= on.clock.monotonic() - started < 15.2
            assert on.told.replaced == ["r1"]
            await eventually(lambda: made.peers[0].closed)
            assert on.activator.statistics().in_flight == 0

    run_fake(scenario())


def test_the_wait_for_a_slot_counts_into_the_deadline_and_the_replica_is_not_blamed() -> None:
    async def scenario() -> None:
        async with stage(RevisionLimits(timeout_seconds=10), GatewaySettings(replica_margin_seconds=5)) as on:
            started = on.clock.monotonic()
            client = await on.client()
            await asyncio.sleep(8)
            await on.replica(silent)
            assert (await client.answer(b"timeout\n")).startswith(b"HTTP/1.1 504 ")
            assert 15.0 <= on.clock.monotonic() - started < 15.2
            assert on.told.replaced == []

    run_fake(scenario())


def test_an_answer_cut_off_at_the_deadline_is_counted_with_the_status_that_was_sent() -> None:
    async def scenario() -> None:
        async with stage(RevisionLimits(timeout_seconds=10)) as on:
            _, made = await on.replica(silent)
            client = await on.client()
            await eventually(lambda: made.seen != b"")
            made.peers[0].send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
            await client.to_the_end()
            assert on.entry.counters.statuses == {200: 1}
            assert on.entry.counters.reasons == {"timeout_replica": 1}
            assert on.told.replaced == ["r1"]

    run_fake(scenario())


def test_what_a_replica_wrote_before_it_ended_still_reaches_a_slow_client() -> None:
    size = 400_000

    async def scenario() -> None:
        async with stage() as on:
            replica, made = await on.replica(silent)
            client = await on.client()
            client.transport.pause_reading()
            await eventually(lambda: made.seen != b"")
            made.peers[0].send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
            await asyncio.sleep(1)
            on.move(replica, ReplicaState.DRAINING)
            on.move(replica, ReplicaState.GONE)
            await asyncio.sleep(1)
            client.transport.resume_reading()
            answer = await client.answer(b"x" * 10)
            await client.until(lambda: len(client.received) >= size)
            assert answer.startswith(b"HTTP/1.1 200 OK")
            assert on.entry.counters.reasons == {}

    run_fake(scenario())


def test_a_client_that_does_not_read_has_no_replica_replaced() -> None:
    async def scenario() -> None:
        async with stage(RevisionLimits(timeout_seconds=10)) as on:
            _, made = await on.replica(silent)
            client = await on.client()
            client.transport.pause_reading()
            await eventually(lambda: made.seen != b"")
            made.peers[0].send(b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n" + b"x" * 8_000_000)
            await asyncio.sleep(30)
            assert on.entry.counters.reasons == {"timeout_replica": 1}
            assert on.told.replaced == []
            assert on.activator.statistics().in_flight == 0

    run_fake(scenario())


def test_a_connection_that_outlives_its_replica_is_cut_off() -> None:
    async def scenario() -> None:
        async with stage(settings=GatewaySettings(gone_seconds=0.5)) as on:
            replica, made = await on.replica(silent)
            client = await on.client()
            await eventually(lambda: made.seen != b"")
            on.move(replica, ReplicaState.GONE)
            started = on.clock.monotonic()
            assert (await client.answer(b"answered\n")).startswith(b"HTTP/1.1 502 ")
            assert on.clock.monotonic() - started < 1
            assert on.entry.stats.in_flight == 0

    run_fake(scenario())


def test_the_only_replica_that_lost_a_request_is_asked_again_soon() -> None:
    async def scenario() -> float:
        async with stage(settings=GatewaySettings(doubt_seconds=0.05)) as on:
            _, made = await on.replica(silent)
            first = await on.client(request(b"POST", body=b"x"))
            await eventually(lambda: made.seen != b"")
            made.peers[0].transport.abort()
            assert (await first.answer(b"answered\n")).startswith(b"HTTP/1.1 502 ")
            started = on.clock.monotonic()
            await on.client()
            await eventually(lambda: b"GET " in made.seen)
            return on.clock.monotonic() - started

    assert run_fake(scenario()) < 0.2


def test_an_autoscaler_that_fails_does_not_fail_the_request(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with stage() as on:

            def fail(revision: str, in_flight: int) -> None:
                raise RuntimeError("no descriptors")

            on.told.poke = fail  # type: ignore[method-assign]
            client = await on.client()
            await eventually(lambda: len(on.activator.waiting) == 1)
            await on.replica()
            assert b"200 OK" in await client.answer(b"ok")

    run_fake(scenario())
    assert "the autoscaler could not be poked" in [record.getMessage() for record in caplog.records]


def test_a_starting_replica_that_is_taken_away_from_a_waiting_request_is_asked_for_again() -> None:
    async def scenario() -> None:
        async with stage() as on:
            await on.client()
            await eventually(lambda: len(on.activator.waiting) == 1)
            young = Replica("young", REVISION, Endpoint(path="/nowhere"), ReplicaState.STARTING, 0.0)
            pokes = len(on.told.pokes)
            on.move(young, ReplicaState.DRAINING)
            assert len(on.told.pokes) == pokes + 1

    run_fake(scenario())
