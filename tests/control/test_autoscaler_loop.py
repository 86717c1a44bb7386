"""The loop brings decisions to the cluster: at ticks, at once for pokes, and for each revision by itself."""

import asyncio
from dataclasses import dataclass, field

import pytest

from support.cluster import LocalWorld, in_cluster, revision, settle
from upwell.autoscaler.decision import Decision, Reading
from upwell.autoscaler.metric_targets import MetricTarget
from upwell.autoscaler.spec import AutoscalerConfig
from upwell.autoscaler.stats import Report, Reporter
from upwell.runtime.cluster.interface import ReplicaState
from upwell.runtime.control.autoscaler import TICK_SECONDS, AutoscalerLoop, burst_threshold
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.launcher import FakeLauncher

CONFIG = AutoscalerConfig.from_config_map({"allow-zero-initial-scale": "true", "initial-scale": "0"})
ONE, OTHER = "default/one-00001", "default/other-00001"


@dataclass
class Decided:
    decisions: list[Decision] = field(default_factory=list)

    def __call__(self, decision: Decision) -> None:
        self.decisions.append(decision)


def looping(world: LocalWorld, decided: Decided | None = None) -> AutoscalerLoop:
    clock = FakeClock(loop=asyncio.get_running_loop())
    loop = AutoscalerLoop(CONFIG, world.cluster, clock, decided=decided or Decided())
    world.cluster.observe(loop)
    return loop


def ready_soon() -> FakeLauncher:
    return FakeLauncher(start_seconds=0.01)


def test_a_poke_has_started_a_replica_when_it_returns() -> None:
    async def scenario(world: LocalWorld) -> None:
        decided = Decided()
        loop = looping(world, decided)
        await world.deploy("one-00001")
        loop.set_revision(ONE, revision("one-00001"))
        assert world.launcher.processes == []
        loop.poke(ONE, 1)
        assert len(world.launcher.processes) == 1
        assert decided.decisions[-1].scale == 1
        assert decided.decisions[-1].revision == ONE

    in_cluster(scenario)


def test_a_poke_for_a_revision_that_is_not_known_does_nothing() -> None:
    async def scenario(world: LocalWorld) -> None:
        loop = looping(world)
        loop.poke(ONE, 1)
        loop.set_revision(ONE, revision("one-00001"))
        loop.remove_revision(ONE)
        loop.poke(ONE, 1)
        assert world.launcher.processes == []

    in_cluster(scenario)


def test_replicas_go_when_ticks_have_seen_no_request_for_long_enough() -> None:
    async def scenario(world: LocalWorld) -> float:
        loop = looping(world)
        clock = FakeClock(loop=asyncio.get_running_loop())
        await world.deploy("one-00001")
        loop.set_revision(ONE, revision("one-00001"))
        running = asyncio.create_task(loop.run())
        reporter = Reporter(ONE, "gateway", clock.now())
        loop.poke(ONE, 1)
        await asyncio.sleep(1)
        assert world.states(ONE) == [ReplicaState.READY]
        began = clock.now()
        while world.states(ONE) == [ReplicaState.READY]:
            report: Report = reporter.report(clock.now())
            loop.report(report)
            await asyncio.sleep(1)
            assert clock.now() - began < 300
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return clock.now() - began

    seconds = in_cluster(scenario, ready_soon)
    assert 60 <= seconds <= 100, "a stable window and a grace period"


def test_the_loop_ticks_every_two_seconds() -> None:
    async def scenario(world: LocalWorld) -> int:
        loop = looping(world)
        running = asyncio.create_task(loop.run())
        await asyncio.sleep(TICK_SECONDS * 10)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return loop.engine.statistics().ticks

    assert in_cluster(scenario) == 10


def test_trouble_with_one_revision_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(world: LocalWorld) -> None:
        class Refusing(Decided):
            def __call__(self, decision: Decision) -> None:
                super().__call__(decision)
                if decision.revision == ONE:
                    raise RuntimeError("a defect")

        decided = Refusing()
        loop = looping(world, decided)
        for name in ("one-00001", "other-00001"):
            await world.deploy(name)
            manifest = revision(name)
            manifest["metadata"]["annotations"]["autoscaling.knative.dev/min-scale"] = "1"
            loop.set_revision(f"default/{name}", manifest)
        for _ in range(3):
            loop.tick()
            await asyncio.sleep(TICK_SECONDS)
        assert world.states(OTHER) == [ReplicaState.READY]
        assert world.states(ONE) == [ReplicaState.READY], "whom a decision is told to is no condition of it"
        assert {decision.revision for decision in decided.decisions} == {ONE, OTHER}

    in_cluster(scenario, ready_soon)
    assert "a decision could not be followed" in {record.getMessage() for record in caplog.records}


def test_a_tick_that_fails_is_told_of_once_and_the_next_ones_go_on(caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        """A source of readings with a defect, until it is mended."""

        reads = 0

        def read(self, revision: str, metric: MetricTarget, now: float) -> Reading:
            self.reads += 1
            if self.reads <= 3:
                raise RuntimeError("a defect")
            return Reading(4.0)

    async def scenario(world: LocalWorld) -> int:
        clock, signals = FakeClock(loop=asyncio.get_running_loop()), Failing()
        loop = AutoscalerLoop(CONFIG, world.cluster, clock, signals=signals)
        await world.deploy("one-00001")
        manifest = revision("one-00001")
        metrics = "[{metric: backlog, target: 2}]"
        manifest["metadata"]["annotations"]["autoscaling.upwell.dev/metrics"] = metrics
        loop.set_revision(ONE, manifest)
        running = asyncio.create_task(loop.run())
        await asyncio.sleep(TICK_SECONDS * 5)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return len(world.states(ONE))

    assert in_cluster(scenario) == 2
    failures = [record for record in caplog.records if record.getMessage().startswith("a tick failed")]
    assert len(failures) == 1


def test_the_engine_knows_at_once_what_starts_and_what_is_ready() -> None:
    async def scenario(world: LocalWorld) -> None:
        decided = Decided()
        loop = looping(world, decided)
        await world.deploy("one-00001")
        loop.set_revision(ONE, revision("one-00001"))
        loop.poke(ONE, 1)
        loop.tick()
        assert (decided.decisions[-1].ready, decided.decisions[-1].starting) == (0, 1)
        world.launcher.processes[0].become_ready()
        await settle()
        loop.tick()
        assert (decided.decisions[-1].ready, decided.decisions[-1].starting) == (1, 0)

    in_cluster(scenario)


def test_replicas_that_started_before_the_loop_was_told_of_their_revision_count() -> None:
    async def scenario(world: LocalWorld) -> None:
        loop = looping(world)
        await world.deploy("one-00001")
        world.cluster.scale(ONE, 2, reason="by hand")
        world.launcher.processes[0].become_ready()
        await settle()
        loop.set_revision(ONE, revision("one-00001"))
        loop.tick()
        latest = loop.engine.latest(ONE)
        assert latest is not None
        assert (latest.ready, latest.starting) == (1, 1)

    in_cluster(scenario)


def test_nothing_is_kept_of_a_revision_that_was_removed_while_its_replica_started() -> None:
    async def scenario(world: LocalWorld) -> None:
        loop = looping(world)
        await world.deploy("one-00001")
        loop.set_revision(ONE, revision("one-00001"))
        loop.poke(ONE, 1)
        loop.remove_revision(ONE)
        world.launcher.processes[0].become_ready()
        await settle()
        assert world.states(ONE) == [ReplicaState.READY]
        assert loop.starts(ONE) == ()

    in_cluster(scenario)


def test_a_revision_begins_with_its_initial_scale_until_it_says_that_it_has_had_it() -> None:
    """As after a restart: neither being ready nor having failed since tells how many replicas there were."""
    initialized = {"type": "ScaleTargetInitialized", "status": "True"}

    async def scenario(world: LocalWorld) -> list[int]:
        loop = looping(world)
        for name, conditions in (
            ("one-00001", [{"type": "Ready", "status": "True"}]),
            ("other-00001", [{"type": "Ready", "status": "False"}, initialized]),
        ):
            await world.deploy(name)
            manifest = revision(name) | {"status": {"conditions": conditions}}
            manifest["metadata"]["annotations"]["autoscaling.knative.dev/initial-scale"] = "3"
            loop.set_revision(f"default/{name}", manifest)
        loop.tick()
        return [len(world.states(ONE)), len(world.states(OTHER))]

    assert in_cluster(scenario) == [3, 0]


def test_a_replica_takes_what_its_limit_says_before_a_poke_is_due_or_else_what_it_is_meant_to() -> None:
    assert burst_threshold(CONFIG, revision(containerConcurrency=5)) == 5
    assert burst_threshold(CONFIG, revision()) == 100
    manifest = revision()
    manifest["metadata"]["annotations"]["autoscaling.knative.dev/target"] = "20"
    assert burst_threshold(CONFIG, manifest) >= 20
