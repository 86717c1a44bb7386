"""A replica that is replaced finishes its requests, unless it hangs and so cannot."""

from __future__ import annotations

import asyncio

import pytest

from support.cluster import REVISION, LocalWorld, in_cluster, settle
from upwell.runtime.cluster.interface import ReplicaState
from upwell.runtime.cluster.local import DRAIN_MARGIN_SECONDS, SILENCE_SECONDS
from upwell.runtime.testing.launcher import FakeLauncher

TIMEOUT = 60.0


async def replaced(world: LocalWorld) -> None:
    await world.deploy(timeoutSeconds=int(TIMEOUT))
    (process,) = await world.ready(1)
    process.be_unhealthy("its liveness probe failed 3 times in a row")
    await settle()
    assert process.is_draining
    assert world.states() == [ReplicaState.DRAINING, ReplicaState.STARTING]


def test_one_that_reports_keeps_the_whole_time_of_its_requests() -> None:
    async def scenario(world: LocalWorld) -> None:
        await replaced(world)
        process = world.launcher.processes[0]
        for _ in range(int(TIMEOUT + DRAIN_MARGIN_SECONDS) - 1):
            process.report()
            await asyncio.sleep(1.0)
            assert not process.was_killed
        process.report()
        await asyncio.sleep(2.0)
        assert process.was_killed

    in_cluster(scenario)


def test_one_that_is_silent_is_killed_soon() -> None:
    async def scenario(world: LocalWorld) -> None:
        await replaced(world)
        process = world.launcher.processes[0]
        await asyncio.sleep(SILENCE_SECONDS - 1)
        assert not process.was_killed
        await asyncio.sleep(2.0)
        assert process.was_killed

    in_cluster(scenario)


def test_one_that_falls_silent_later_is_killed_then() -> None:
    async def scenario(world: LocalWorld) -> None:
        await replaced(world)
        process = world.launcher.processes[0]
        for _ in range(20):
            process.report()
            await asyncio.sleep(1.0)
        await asyncio.sleep(2 * SILENCE_SECONDS)
        assert process.was_killed

    in_cluster(scenario)


@pytest.mark.parametrize("cause", ["ExitCode3", "ProgressDeadlineExceeded", "OOMKilled"])
def test_why_a_program_cannot_serve_is_the_reason_of_its_deployment_s_condition(cause: str) -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        world.launcher.templates[0].fail("the program cannot serve", cause)
        await settle()
        (condition,) = (await world.deployment())["status"]["conditions"]
        assert (condition["status"], condition["reason"]) == ("False", cause)
        assert REVISION in world.told.failures[0].revision

    in_cluster(scenario, lambda: FakeLauncher(load_seconds=None))
