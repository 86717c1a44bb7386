"""Replicas on this machine, with a host whose processes do what the test says, in fake time."""

import asyncio

import pytest

from support.cluster import REVISION, LocalWorld, in_cluster, settle
from upwell.runtime.cluster.interface import ObjectKey, Replica, ReplicaState
from upwell.runtime.cluster.kinds import DEPLOYMENT
from upwell.runtime.cluster.local import SHORT_LIFE_PAUSE_MOST_SECONDS
from upwell.runtime.host.source import FunctionSource
from upwell.runtime.testing.launcher import FakeLauncher

STARTING, READY, DRAINING = ReplicaState.STARTING, ReplicaState.READY, ReplicaState.DRAINING


def now() -> float:
    return asyncio.get_running_loop().time()


def unloaded() -> FakeLauncher:
    return FakeLauncher(load_seconds=None)


# Up and down


def test_scale_has_started_replicas_when_it_returns() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        world.scale(3)
        assert len(world.launcher.processes) == 3
        assert world.states() == [STARTING] * 3
        assert len({replica.endpoint.path for replica in world.cluster.replicas(REVISION)}) == 3

    in_cluster(scenario)


def test_a_replica_is_told_of_in_order_from_its_start_to_its_end() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        world.scale(1)
        process = world.launcher.processes[0]
        process.become_ready({"fork": 3.0})
        replica = world.cluster.replicas(REVISION)[0]
        assert (replica.pid, dict(replica.phases)) == (process.pid, {"fork": 3.0})
        world.scale(0)
        assert process.is_draining
        process.exit(0)
        states = [state for _, state in world.told.events]
        assert states == ["starting", "ready", "draining", "gone", "exited"]
        assert world.told.exits[0].expected
        assert world.cluster.replicas(REVISION) == ()
        assert list(world.sockets.iterdir()) == []

    in_cluster(scenario)


def test_scaling_down_ends_what_starts_first_and_then_the_youngest() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        (oldest,) = await world.ready(1)
        await asyncio.sleep(1)
        (younger,) = await world.ready(2)
        await asyncio.sleep(1)
        world.scale(3)
        starting = world.launcher.alive()[-1]
        world.scale(2)
        assert (starting.is_draining, younger.is_draining, oldest.is_draining) == (True, False, False)
        world.scale(1)
        assert (younger.is_draining, oldest.is_draining) == (True, False)

    in_cluster(scenario)


def test_a_draining_replica_counts_no_more_and_another_takes_its_place() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        await world.ready(1)
        world.scale(0)
        world.scale(1)
        assert world.states() == [DRAINING, STARTING]

    in_cluster(scenario)


def test_a_replica_that_does_not_end_is_killed_after_its_timeout_and_a_margin() -> None:
    async def scenario(world: LocalWorld) -> tuple[float, bool]:
        await world.deploy(timeoutSeconds=20)
        (process,) = await world.ready(1)
        started = now()
        world.scale(0)
        while not process.has_ended:
            await asyncio.sleep(0.5)
        return now() - started, process.was_killed

    seconds, was_killed = in_cluster(scenario)
    assert was_killed
    assert seconds == pytest.approx(25, abs=1)


def test_a_replaced_replica_gets_little_time_and_its_successor_starts_at_once() -> None:
    async def scenario(world: LocalWorld) -> float:
        await world.deploy()
        (process,) = await world.ready(1)
        replica = world.cluster.replicas(REVISION)[0]
        started = now()
        world.cluster.replace(replica, reason="a test")
        assert world.states() == [DRAINING, STARTING]
        world.cluster.replace(replica, reason="twice")
        assert world.states() == [DRAINING, STARTING]
        while not process.has_ended:
            await asyncio.sleep(0.5)
        return now() - started

    assert in_cluster(scenario) == pytest.approx(10, abs=1)


def test_a_ready_replica_that_ends_by_itself_is_started_anew_at_once_and_is_no_failed_start() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        world.scale(1)
        for _ in range(5):
            world.launcher.alive()[0].become_ready()
            await asyncio.sleep(5)
            world.launcher.alive()[0].exit(3)
            await settle()
            assert world.states() == [STARTING]
        assert world.told.failures == []
        assert not world.told.exits[0].expected

    in_cluster(scenario)


def test_one_that_ends_as_soon_as_it_is_ready_is_started_after_pauses_that_grow() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        world.scale(1)
        started = now()
        while now() - started < 10:
            for process in world.launcher.alive():
                process.become_ready()
                process.exit(3)
            await asyncio.sleep(0.01)
        assert 5 <= len(world.launcher.processes) <= 8
        assert world.told.failures == []
        await asyncio.sleep(SHORT_LIFE_PAUSE_MOST_SECONDS)
        world.launcher.alive()[0].become_ready()
        await asyncio.sleep(2)
        world.launcher.alive()[0].exit(3)
        await settle()
        assert world.states() == [STARTING]  # at once: this one has lived

    in_cluster(scenario)


def test_a_request_does_not_wait_for_that_pause() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        world.scale(1)
        world.launcher.alive()[0].become_ready()
        world.launcher.alive()[0].exit(3)
        await settle()
        assert world.states() == []
        world.scale(1)
        assert world.states() == [STARTING]

    in_cluster(scenario)


def test_what_an_observer_asks_for_while_it_is_told_is_done_before_the_call_returns() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        await world.ready(3)

        def poke(replica: Replica) -> None:
            if replica.state is DRAINING:
                world.scale(3)

        world.told.on_change = poke
        world.scale(0)
        states = world.states()
        assert states.count(DRAINING) == 1, "the first was let go before anybody asked"
        assert states.count(READY) + states.count(STARTING) == 3

    in_cluster(scenario)


def test_no_more_replicas_are_started_than_are_wanted_when_starts_fail_within_a_round() -> None:
    async def scenario(world: LocalWorld) -> int:
        await world.deploy()

        def die(replica: Replica) -> None:
            if replica.state is STARTING and len(world.launcher.processes) == 3:
                world.launcher.processes[0].exit(1)

        world.told.on_change = die
        world.scale(5)
        await settle()
        return len(world.launcher.alive())

    assert in_cluster(scenario) == 5


# Failing starts


def test_a_socket_that_cannot_be_opened_once_is_tried_again_at_once() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        world.sockets.rmdir()
        world.scale(2)
        assert world.states() == []
        world.sockets.mkdir()
        await settle()
        assert world.states() == [STARTING, STARTING]
        assert world.told.failures == []

    in_cluster(scenario)


def test_a_socket_that_cannot_be_opened_for_long_is_tried_until_it_can_be() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        world.sockets.rmdir()
        world.scale(2)
        await asyncio.sleep(20)
        assert [failure.attempts for failure in world.told.failures] == [2, 3, 4, 5, 6]
        assert "no socket" in world.told.failures[0].reason
        world.sockets.mkdir()
        await asyncio.sleep(16)
        assert world.states() == [STARTING, STARTING]

    in_cluster(scenario)


def test_a_burst_that_dies_is_one_failed_attempt() -> None:
    async def scenario(world: LocalWorld) -> list[tuple[int, float]]:
        await world.deploy()
        world.scale(15)
        started = now()
        told: list[tuple[int, float]] = []
        for _ in range(4):
            assert len(world.launcher.alive()) == 15
            told.append((len(world.launcher.processes), round(now() - started, 3)))
            for process in world.launcher.alive():
                process.exit(1, "no memory")
            await settle()
            while not world.launcher.alive():
                await asyncio.sleep(0.1)
        return told

    attempts = in_cluster(scenario)
    assert [processes for processes, _ in attempts] == [15, 30, 45, 60]
    assert [when for _, when in attempts] == pytest.approx([0, 0, 1, 3], abs=0.3)


def test_observers_are_told_from_the_second_failure_on_when_the_next_attempt_is() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        world.scale(1)
        world.launcher.alive()[0].exit(1, "bad configuration")
        await settle()
        assert world.told.failures == []
        world.launcher.alive()[0].exit(1, "bad configuration")
        (failure,) = world.told.failures
        assert (failure.revision, failure.attempts) == (REVISION, 2)
        assert "bad configuration" in failure.reason
        assert failure.retry_at == pytest.approx(1_700_000_001)

    in_cluster(scenario)


def test_one_that_starts_after_all_ends_the_waiting() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        world.scale(3)
        straggler = world.launcher.alive()[0]
        for _ in range(2):
            for process in [p for p in world.launcher.alive() if p is not straggler]:
                process.exit(1)
            await settle()
        assert world.states() == [STARTING]
        straggler.become_ready()
        await settle()
        assert world.states() == [READY, STARTING, STARTING]

    in_cluster(scenario)


def test_nothing_is_tried_again_once_nothing_is_wanted_and_the_next_wish_is_met_at_once() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        world.scale(1)
        for _ in range(2):
            world.launcher.alive()[0].exit(1)
            await settle()
        world.scale(0)
        await asyncio.sleep(5)
        assert len(world.launcher.processes) == 2
        world.scale(1)
        assert len(world.launcher.alive()) == 1

    in_cluster(scenario)


# Loading


def test_a_deployed_function_is_imported_though_nothing_is_wanted_and_told_available() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        (template,) = world.launcher.templates
        assert isinstance(template.source, FunctionSource)
        assert isinstance(template.source, FunctionSource)
        assert str(template.source.root) == "/bundles/bundle-of-hello-00001"
        await asyncio.sleep(1)
        status = (await world.deployment())["status"]
        assert status["conditions"][0]["status"] == "True"
        assert (status["replicas"], status["readyReplicas"]) == (0, 0)

    in_cluster(scenario)


def test_a_source_that_cannot_be_imported_is_told_at_once_and_not_tried_before_a_second_has_passed() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        world.scale(2)
        world.launcher.templates[0].fail("No module named 'absent'")
        await settle()
        (failure,) = world.told.failures
        assert failure.attempts == 2
        assert failure.retry_at == pytest.approx(1_700_000_001)
        assert len(world.launcher.templates) == 1
        condition = (await world.deployment())["status"]["conditions"][0]
        assert (condition["status"], condition["reason"]) == ("False", "ImportFailed")
        assert "absent" in condition["message"]
        await asyncio.sleep(1.1)
        assert len(world.launcher.templates) == 2
        assert world.states() == [STARTING, STARTING]

    in_cluster(scenario, unloaded)


def test_a_process_that_is_lost_while_it_imports_says_nothing_of_the_source() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        world.scale(1)
        world.launcher.templates[0].lose()
        await settle()
        assert world.told.failures == []
        assert len(world.launcher.templates) == 2
        assert world.states() == [STARTING]
        assert "conditions" not in (await world.deployment()).get("status", {})
        world.launcher.templates[1].load()
        await asyncio.sleep(1)
        assert (await world.deployment())["status"]["conditions"][0]["status"] == "True"

    in_cluster(scenario, unloaded)


def test_an_import_that_is_lost_before_anybody_asks_is_begun_again() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        world.launcher.templates[0].lose()
        await settle()
        assert len(world.launcher.templates) == 2
        assert world.launcher.processes == []

    in_cluster(scenario, unloaded)


def test_a_deployment_without_a_source_is_told_so_and_the_others_are_served() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy("other-00001")
        manifest = await world.deployment("other-00001")
        manifest["metadata"]["name"] = "hello-00001-deployment"
        manifest["spec"]["template"]["metadata"]["annotations"] = {}
        await world.objects.apply_all([manifest])
        await asyncio.sleep(1)
        condition = (await world.deployment())["status"]["conditions"][0]
        assert (condition["status"], condition["reason"]) == ("False", "NoSource")
        world.scale(1, "default/other-00001")
        assert len(world.launcher.alive()) == 1

    in_cluster(scenario)


# Forgetting


def test_a_deleted_deployment_takes_its_replicas_and_its_template_along() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        (process,) = await world.ready(1)
        await world.objects.delete(ObjectKey(DEPLOYMENT, "default", "hello-00001-deployment"))
        await settle()
        assert process.is_draining
        assert world.launcher.open() == []
        process.exit(0)
        await asyncio.sleep(5)
        assert len(world.launcher.processes) == 1
        world.scale(1)
        assert len(world.launcher.processes) == 1

    in_cluster(scenario)


def test_what_is_deleted_while_it_starts_is_no_failed_start() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        world.scale(2)
        await world.objects.delete(ObjectKey(DEPLOYMENT, "default", "hello-00001-deployment"))
        await asyncio.sleep(5)
        assert world.launcher.alive() == []
        assert world.told.failures == []
        assert len(world.launcher.processes) == 2
        await world.deploy()
        world.scale(1)
        assert len(world.launcher.alive()) == 1

    in_cluster(scenario, unloaded)


def test_the_end_of_the_cluster_drains_every_replica() -> None:
    async def scenario(world: LocalWorld) -> list[bool]:
        await world.deploy()
        processes = await world.ready(2)
        return [process.is_draining for process in processes] + [p.is_draining for p in world.launcher.alive()]

    launcher = FakeLauncher()
    assert not any(in_cluster(scenario, lambda: launcher))
    assert [process.is_draining for process in launcher.processes] == [True, True]
    assert launcher.open() == []


# Templates


def test_templates_are_kept_to_their_number_the_least_recently_used_goes_first() -> None:
    async def scenario(world: LocalWorld) -> None:
        one, two, three = [await world.deploy(f"f{n}-00001") for n in (1, 2, 3)]
        await asyncio.sleep(1)
        assert [t.source.revision for t in world.launcher.open()] == [two, three]
        await world.ready(1, two)
        await world.ready(1, one)
        assert [t.source.revision for t in world.launcher.open()] == [two, one]
        assert world.states(one) == world.states(two) == [READY]

    in_cluster(scenario, templates=2)


def test_neither_a_loading_template_nor_one_that_a_starting_replica_waits_for_is_evicted() -> None:
    async def scenario(world: LocalWorld) -> None:
        one, two, three = [await world.deploy(f"f{n}-00001") for n in (1, 2, 3)]
        assert [t.source.revision for t in world.launcher.open()] == [one, two, three], "all are loading"
        world.scale(1, one)
        world.scale(1, two)
        for template in world.launcher.templates:
            template.load()
        await settle()
        assert [t.source.revision for t in world.launcher.open()] == [one, two]
        world.launcher.processes[0].become_ready()
        assert [t.source.revision for t in world.launcher.open()] == [two]
        assert world.states(one) == [READY]

    in_cluster(scenario, unloaded, templates=1)
