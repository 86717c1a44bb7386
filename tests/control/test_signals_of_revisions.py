"""What sources say of further metrics is read from the board, as long as it is young enough to count."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from support.cluster import LocalWorld, in_cluster
from upwell.autoscaler.decision import Missing, Reading, ReplicaReading
from upwell.autoscaler.metric_targets import MetricTarget
from upwell.runtime.cluster.interface import Replica
from upwell.runtime.cluster.usage import Usage
from upwell.runtime.control.signals import (
    BACKLOG_SECONDS,
    INTEREST_SECONDS,
    LASTING,
    SignalBoard,
    SignalPoller,
    Tell,
    UsageSource,
    Wanted,
)
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.loop import run_fake

ONE, OTHER = "default/one-00001", "default/other-00001"
CPU, MEMORY = MetricTarget("cpu", 80.0), MetricTarget("memory", 200.0)
BACKLOG = MetricTarget("backlog", 10.0)
QUEUE = MetricTarget("prometheus", 5.0, "queue")
FAILED = Reading(missing=Missing.METRICS_FAILED)
INTERVAL = 5.0


def read(board: SignalBoard, metric: MetricTarget = CPU, revision: str = ONE) -> Reading:
    return board.read(revision, metric, 0.0)


@dataclass
class Source:
    """Says `value` of everything, or that it cannot, and keeps what it was asked for."""

    metrics: frozenset[str] = frozenset({"cpu"})
    interval: float = INTERVAL
    value: float | None = 1.5
    defect: Exception | None = None
    asked: list[list[Wanted]] = field(default_factory=list)

    async def poll(self, wanted: Sequence[Wanted], tell: Tell) -> None:
        self.asked.append(sorted(wanted))
        if self.defect is not None:
            raise self.defect
        for each in wanted:
            if self.value is None:
                tell(each, FAILED, "out of order")
            else:
                tell(each, Reading(self.value))


def test_what_nobody_has_told_is_missing() -> None:
    board = SignalBoard(FakeClock())
    assert read(board) == FAILED


def test_a_reading_counts_until_it_is_too_old() -> None:
    clock = FakeClock()
    board = SignalBoard(clock)
    board.tell(Wanted(ONE, "cpu"), Reading(0.5), lasts=15.0)
    clock.advance(14.9)
    assert read(board) == Reading(0.5)
    clock.advance(0.2)
    assert read(board) == FAILED


def test_a_wall_clock_that_is_set_makes_nothing_older_or_younger() -> None:
    clock = FakeClock()
    board = SignalBoard(clock)
    board.tell(Wanted(ONE, "cpu"), Reading(0.5), lasts=15.0)
    clock.set_unix(clock.now() + 86_400)
    assert read(board) == Reading(0.5)
    clock.advance(20)
    clock.set_unix(clock.now() - 2 * 86_400)
    assert read(board) == FAILED


def test_metrics_revisions_and_queries_are_told_apart() -> None:
    board = SignalBoard(FakeClock())
    board.tell(Wanted(ONE, "prometheus", "queue"), Reading(3.0), lasts=15.0)
    assert read(board, QUEUE) == Reading(3.0)
    assert read(board, MetricTarget("prometheus", 5.0, "another")) == FAILED
    assert read(board, QUEUE, OTHER) == FAILED


def test_a_backlog_is_told_by_whoever_holds_the_events() -> None:
    clock = FakeClock()
    board = SignalBoard(clock)
    board.set_backlog(ONE, 120)
    assert read(board, BACKLOG) == Reading(120.0)
    board.set_backlog(ONE, 0)
    assert read(board, BACKLOG) == Reading(0.0)
    clock.advance(BACKLOG_SECONDS + 0.1)
    assert read(board, BACKLOG) == FAILED, "a broker that is away does not mean that nothing waits"


def test_only_what_was_read_lately_is_wanted_and_the_rest_is_forgotten() -> None:
    clock = FakeClock()
    board = SignalBoard(clock)
    for metric in (CPU, QUEUE, BACKLOG):
        read(board, metric)
    assert board.wanted({"cpu", "memory"}) == [Wanted(ONE, "cpu")]
    assert board.wanted({"prometheus"}) == [Wanted(ONE, "prometheus", "queue")]
    clock.advance(INTEREST_SECONDS / 2)
    read(board, CPU, OTHER)
    clock.advance(INTEREST_SECONDS / 2 + 0.1)
    assert board.wanted({"cpu", "prometheus"}) == [Wanted(OTHER, "cpu")]
    assert repr(board) == "<SignalBoard 1 metrics>"


def polled(source: Source, read_until: float, seconds: float) -> list[tuple[float, Reading]]:
    """What is read every second, up to a moment, and a last time at the end."""

    async def scenario() -> list[tuple[float, Reading]]:
        loop = asyncio.get_running_loop()
        clock = FakeClock(loop=loop)
        board = SignalBoard(clock)
        poller = asyncio.create_task(SignalPoller(board, source, clock).run())
        began, readings = loop.time(), []
        while (now := loop.time() - began) < seconds:
            if now < read_until:
                readings.append((now, read(board)))
            await asyncio.sleep(1.0)
        readings.append((now, read(board)))
        poller.cancel()
        await asyncio.gather(poller, return_exceptions=True)
        return readings

    return run_fake(scenario())


def test_a_source_is_asked_soon_and_then_every_interval_and_not_for_ever() -> None:
    source = Source()
    readings = polled(source, read_until=21.0, seconds=100.0)
    assert readings[0] == (0.0, FAILED)
    assert {reading for now, reading in readings if 1 <= now <= 20} == {Reading(1.5)}
    assert source.asked[0] == [Wanted(ONE, "cpu")]
    assert 21 / INTERVAL <= len(source.asked) <= (21 + INTEREST_SECONDS) / INTERVAL + 1
    assert readings[-1][1] == FAILED


def test_a_source_that_nobody_wants_is_never_asked() -> None:
    source = Source(metrics=frozenset({"prometheus"}))
    polled(source, read_until=50.0, seconds=50.0)
    assert source.asked == []


def test_what_a_source_cannot_tell_is_missing_at_once_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "upwell.autoscaler")
    clock = FakeClock()
    board, source = SignalBoard(clock), Source()
    poller = SignalPoller(board, source, clock)

    async def scenario() -> list[Reading]:
        readings = []
        for value in (1.5, None, None, 2.5, None):
            source.value = value
            read(board)
            clock.advance(INTERVAL)
            await poller.step()
            readings.append(read(board))
        return readings

    assert asyncio.run(scenario()) == [Reading(1.5), FAILED, FAILED, Reading(2.5), FAILED]
    said = [(record.levelname, record.__dict__["reason"]) for record in caplog.records]
    assert said == [("WARNING", "out of order"), ("INFO", ""), ("WARNING", "out of order")]


def test_a_failure_that_concerns_many_revisions_is_said_once_and_so_is_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "upwell.autoscaler")
    board = SignalBoard(FakeClock())
    many = [Wanted(f"default/many-{number}", "prometheus", "queue") for number in range(50)]

    def told(reason: str) -> list[str]:
        caplog.clear()
        for wanted in many:
            board.tell(wanted, FAILED if reason else Reading(1.0), 30.0, reason)
        return [record.__dict__["reason"] for record in caplog.records]

    assert told("refused") == ["refused"]
    assert told("refused") == []
    assert told("slow") == ["slow"]
    assert told("") == [""]
    assert told("") == []
    assert told("refused") == ["refused"], "it had ended"


def test_a_failure_of_a_revision_that_is_gone_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    board = SignalBoard(clock)
    for revision in (ONE, OTHER):
        board.tell(Wanted(revision, CPU.metric), FAILED, 5.0, "no /proc")
        clock.advance(INTEREST_SECONDS + 5.0)
        assert board.wanted({CPU.metric}) == []
    assert [record.__dict__["revision"] for record in caplog.records] == [ONE, OTHER]


def test_a_defect_of_a_source_is_logged_once_and_what_it_told_ends_in_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    board, source = SignalBoard(clock), Source()
    poller = SignalPoller(board, source, clock)

    async def scenario() -> list[Reading]:
        readings = []
        for _ in range(LASTING + 2):
            read(board)
            clock.advance(INTERVAL)
            await poller.step()
            readings.append(read(board))
            source.defect = RuntimeError("a defect")
        return readings

    readings = asyncio.run(scenario())
    assert readings == [*[Reading(1.5)] * LASTING, FAILED, FAILED]
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def usage_readings(
    world: LocalWorld, usages: dict[int, Usage], *metrics: MetricTarget
) -> tuple[list[Reading], list[int]]:
    """What the board says after one poll where processes use this, and which were looked at."""
    clock = FakeClock(loop=asyncio.get_running_loop())
    board = SignalBoard(clock)
    looked_at: list[int] = []

    def measure(pids: Collection[int], now: float) -> Mapping[int, Usage]:
        looked_at.extend(pids)
        return {pid: usages[pid] for pid in pids if pid in usages}

    for metric in metrics:
        read(board, metric)
    await SignalPoller(board, UsageSource(world.cluster, measure, clock), clock).step()
    return [read(board, metric) for metric in metrics], looked_at


def ready_replicas(world: LocalWorld) -> list[Replica]:
    return list(world.cluster.replicas(ONE))


def test_usage_is_summed_over_replicas_and_said_of_each() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy("one-00001")
        await world.ready(2, ONE)
        first, second = ready_replicas(world)
        assert first.pid is not None
        assert second.pid is not None
        world.scale(3, ONE)
        third = ready_replicas(world)[2]
        usages = {first.pid: Usage(0.25, 1000), second.pid: Usage(None, 3000)}
        (cpu, memory), looked_at = await usage_readings(world, usages, CPU, MEMORY)
        assert sorted(looked_at) == sorted([first.pid, second.pid]), "the third has no process that is known"
        assert (cpu.value, cpu.missing) == (0.25, None)
        assert (memory.value, memory.missing) == (4000, None)
        assert [each.value for each in cpu.replicas] == [0.25, None, None]
        assert first.ready_at is not None
        assert cpu.replicas[0] == ReplicaReading(first.name, 0.25, True, first.started_at, first.ready_at)
        assert cpu.replicas[2] == ReplicaReading(third.name, None, False, third.started_at, third.started_at)

    in_cluster(scenario)


def test_replicas_that_drain_are_not_looked_at() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy("one-00001")
        await world.ready(2, ONE)
        world.scale(1, ONE)
        (cpu,), looked_at = await usage_readings(world, {}, CPU)
        assert len(looked_at) == 1
        assert len(cpu.replicas) == 1

    in_cluster(scenario)


def test_usage_of_no_replica_is_nothing_and_usage_of_unknown_ones_is_missing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy("one-00001")
        (cpu,), _ = await usage_readings(world, {}, CPU)
        assert cpu == Reading(0.0)
        await world.ready(1, ONE)
        (replica,) = ready_replicas(world)
        assert replica.pid is not None
        (cpu,), _ = await usage_readings(world, {replica.pid: Usage(None, 5)}, CPU)
        assert cpu.missing is Missing.METRICS_FAILED
        assert caplog.records == [], "a first look is no trouble"
        (cpu,), _ = await usage_readings(world, {}, CPU)
        assert cpu.missing is Missing.METRICS_FAILED
        assert [record.levelname for record in caplog.records] == ["WARNING"]

    in_cluster(scenario)
