"""Only a few functions are imported at a time, those that are called first; what is lost is made good."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.cluster import LocalWorld, in_cluster, revision, settle
from upwell.functions.errors import Unavailable
from upwell.runtime.cluster.backoff import LOST_SECONDS, MOST_LOST
from upwell.runtime.cluster.interface import Manifest, ObjectKey, ReplicaState
from upwell.runtime.cluster.proofs import MOST_KNOWN, Proofs
from upwell.runtime.cluster.templates import PATIENCE_SECONDS, SLOW_FACTOR
from upwell.runtime.control.resources import deployment
from upwell.runtime.host.source import FunctionSource, ProgramSource, Source
from upwell.runtime.host.templates import TemplateState
from upwell.runtime.testing.launcher import FakeLauncher, FakeTemplate

STARTING = ReplicaState.STARTING
EVENTS = ["deploy", "scale up", "scale down", "load", "fail", "lose", "wait"]


def unloaded() -> FakeLauncher:
    return FakeLauncher(load_seconds=None)


def importing(world: LocalWorld) -> list[str]:
    return [t.source.revision for t in world.launcher.templates if t.state is TemplateState.LOADING]


def template(world: LocalWorld, revision: str) -> FakeTemplate:
    """The latest of a revision."""
    return [t for t in world.launcher.templates if t.source.revision == revision][-1]


async def deploy(world: LocalWorld, count: int) -> list[str]:
    return [await world.deploy(f"f{number:03}-00001") for number in range(count)]


async def is_available(world: LocalWorld, revision: str) -> bool:
    manifest = await world.deployment(revision.partition("/")[2])
    conditions = manifest.get("status", {}).get("conditions", [])
    return [(c["type"], c["status"]) for c in conditions] == [("Available", "True")]


# How many, and which first


def test_of_many_that_are_deployed_a_few_are_imported_at_a_time_until_all_are_available() -> None:
    async def scenario(world: LocalWorld) -> None:
        revisions = await deploy(world, 50)
        while loading := importing(world):
            assert len(loading) <= 3
            template(world, loading[0]).load()
            await settle()
        await asyncio.sleep(1)
        assert [await is_available(world, revision) for revision in revisions] == [True] * 50
        assert len(world.launcher.templates) == 50

    in_cluster(scenario, unloaded, loads=3)


def test_what_a_request_waits_for_does_not_wait_for_what_is_only_deployed() -> None:
    async def scenario(world: LocalWorld) -> None:
        *_, last = await deploy(world, 20)
        world.scale(1, last)
        assert last in importing(world)
        assert world.states(last) == [STARTING]

    in_cluster(scenario, unloaded, loads=2)


def test_when_many_are_called_at_once_they_are_imported_in_turn_and_then_their_replicas_start() -> None:
    async def scenario(world: LocalWorld) -> None:
        proof, one, two, three, *_ = await deploy(world, 8)
        for each in (three, two, one):
            world.scale(2, each)
        demanded = [each for each in importing(world) if each != proof]
        assert demanded == [three]
        assert world.states(two) == []
        template(world, three).load()
        await settle()
        assert two in importing(world)
        assert world.states(two) == [STARTING, STARTING]
        template(world, two).load()
        await settle()
        assert world.states(one) == [STARTING, STARTING]

    in_cluster(scenario, unloaded, loads=1)


def test_of_many_that_are_proven_in_a_row_those_beyond_the_capacity_are_let_go_at_once() -> None:
    async def scenario(world: LocalWorld) -> None:
        await deploy(world, 6)
        states = []
        while loading := importing(world):
            proven = template(world, loading[0])
            proven.load()
            await settle()
            states.append(proven.state)
        loaded, evicted = TemplateState.LOADED, TemplateState.EVICTED
        assert states == [loaded, loaded, evicted, evicted, evicted, loaded]  # who deploys calls what came last
        assert [t.state for t in world.launcher.templates] == [evicted, loaded, evicted, evicted, evicted, loaded]

    in_cluster(scenario, unloaded, loads=1, templates=2)


def test_imports_that_hang_do_not_hold_up_those_that_come_after_them() -> None:
    async def scenario(world: LocalWorld) -> None:
        *hanging, called, proof = await deploy(world, 6)
        for each in hanging:
            world.scale(1, each)
        world.scale(1, called)
        assert called not in importing(world)
        await asyncio.sleep(2 * PATIENCE_SECONDS)
        assert called in importing(world)
        await asyncio.sleep(PATIENCE_SECONDS)
        assert proof in importing(world)

    in_cluster(scenario, unloaded, loads=2)


def test_however_many_imports_hang_their_number_is_bounded() -> None:
    async def scenario(world: LocalWorld) -> None:
        revisions = await deploy(world, 40)
        for each in revisions:
            world.scale(1, each)
        await asyncio.sleep(20 * PATIENCE_SECONDS)
        most = len(importing(world))
        assert 2 + 2 * SLOW_FACTOR <= most <= 4 + 2 * SLOW_FACTOR
        for each in list(importing(world)):
            template(world, each).load()
        await settle()
        assert len(importing(world)) <= 4
        await asyncio.sleep(20 * PATIENCE_SECONDS)
        assert len(importing(world)) <= most

    in_cluster(scenario, unloaded, loads=2)


def test_one_that_is_not_called_any_more_before_its_turn_is_still_proven() -> None:
    async def scenario(world: LocalWorld) -> None:
        revisions = await deploy(world, 4)
        for each in revisions:
            world.scale(1, each)
        for each in revisions:
            world.scale(0, each)
        while loading := importing(world):
            template(world, loading[0]).load()
            await settle()
        await asyncio.sleep(1)
        assert [await is_available(world, each) for each in revisions] == [True] * 4

    in_cluster(scenario, unloaded, loads=1)


def test_one_that_is_deleted_before_its_turn_is_not_imported() -> None:
    async def scenario(world: LocalWorld) -> None:
        revisions = await deploy(world, 5)
        for manifest in await world.objects.list("Deployment.apps"):
            if manifest["metadata"]["name"] != "f000-00001-deployment":
                await world.objects.delete(ObjectKey.of(manifest))
        await settle()
        template(world, revisions[0]).load()
        await asyncio.sleep(1)
        assert [t.source.revision for t in world.launcher.templates] == revisions[:1]

    in_cluster(scenario, unloaded, loads=1)


def test_an_import_that_fails_gives_its_place_to_the_next() -> None:
    async def scenario(world: LocalWorld) -> None:
        one, two, _ = await deploy(world, 3)
        template(world, one).fail()
        await settle()
        assert importing(world) == [two]

    in_cluster(scenario, unloaded, loads=1)


class Exhausted(FakeLauncher):
    """Can start nothing until the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.is_exhausted = True

    def load(self, source: Source) -> FakeTemplate:
        if self.is_exhausted:
            raise Unavailable("too many commands wait")
        return super().load(source)


@pytest.mark.parametrize("replicas", [0, 2])
def test_an_import_that_cannot_begin_is_tried_again(replicas: int) -> None:
    launcher = Exhausted()

    async def scenario(world: LocalWorld) -> None:
        revisions = await deploy(world, 3)
        for each in revisions:
            world.scale(replicas, each)
        await asyncio.sleep(10)
        launcher.is_exhausted = False
        await asyncio.sleep(60)
        assert [await is_available(world, each) for each in revisions] == [True] * 3
        assert [len(world.states(each)) for each in revisions] == [replicas] * 3

    in_cluster(scenario, lambda: launcher)


def test_the_same_code_under_many_names_is_available_at_once_and_imported_while_there_is_room() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy("first-00001", bundle="d1")
        await asyncio.sleep(1)
        for number in range(20):
            await world.deploy(f"late-{number:02}-00001", bundle="d1")
        await asyncio.sleep(1)
        late = [f"default/late-{number:02}-00001" for number in range(20)]
        assert [await is_available(world, each) for each in late] == [True] * 20
        assert [t.source.revision for t in world.launcher.templates[1:]] == late[:4]
        assert len(world.launcher.open()) == 5

    in_cluster(scenario, templates=5, loads=2)


def test_of_the_same_code_one_that_cannot_be_imported_after_all_is_told_and_proves_nothing_more() -> None:
    async def scenario(world: LocalWorld) -> None:
        first = await world.deploy("a-00001", bundle="d1")
        template(world, first).load()
        await settle()
        second = await world.deploy("b-00001", bundle="d1")
        assert await is_available(world, second)
        template(world, second).fail()
        await asyncio.sleep(1)
        assert not await is_available(world, second)
        third = await world.deploy("c-00001", bundle="d1")
        assert not await is_available(world, third)

    in_cluster(scenario, unloaded)


def test_code_is_the_same_when_only_the_platforms_names_differ() -> None:
    proofs = Proofs()
    names = {"K_SERVICE": "a", "K_REVISION": "a-00001", "MODE": "x"}
    source = FunctionSource("default/a-00001", root=Path("/bundles/d1"), module="main", environment=names)
    proofs.add(source)
    renamed = replace(source, revision="default/b-00001", environment=names | {"K_SERVICE": "b"})
    assert proofs.cover(renamed)
    assert not proofs.cover(replace(source, environment=names | {"MODE": "y"}))
    assert not proofs.cover(replace(source, root=Path("/bundles/d2")))
    assert not proofs.cover(replace(source, attribute="other"))
    program = ProgramSource("default/p-00001", command=("./serve",))
    proofs.add(program)
    assert not proofs.cover(program)
    for number in range(MOST_KNOWN):
        proofs.add(replace(source, module=f"m{number}"))
    assert not proofs.cover(source)
    assert repr(proofs) == f"<Proofs {MOST_KNOWN} known>"


# What is kept


def test_what_is_deployed_displaces_nothing_that_is_called() -> None:
    async def scenario(world: LocalWorld) -> None:
        called = await deploy(world, 2)
        for each in called:
            await world.ready(1, each)
        for number in range(10):
            await world.deploy(f"late-{number}-00001")
        await asyncio.sleep(1)
        assert [t.source.revision for t in world.launcher.open()] == called
        assert len(world.launcher.templates) == 12

    in_cluster(scenario, templates=2, loads=2)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(EVENTS), st.integers(0, 9)),
        max_size=60,
    )
)
def test_whatever_happens_loads_and_templates_keep_their_bounds_and_everything_is_proven(
    events: list[tuple[str, int]],
) -> None:
    async def scenario(world: LocalWorld) -> None:
        deployed: list[str] = []
        for event, number in events:
            loading = importing(world)
            if event == "deploy":
                deployed.append(await world.deploy(f"f{len(deployed):03}-00001"))
            elif event == "wait":
                await asyncio.sleep(number)
            elif event.startswith("scale") and deployed:
                world.scale(1 if event == "scale up" else 0, deployed[number % len(deployed)])
            elif event in ("load", "fail", "lose") and loading:
                chosen = template(world, loading[number % len(loading)])
                if event == "load":
                    chosen.load()
                elif event == "fail":
                    chosen.fail()
                else:
                    chosen.lose()
            await settle()
            assert len(importing(world)) <= 4
        for _ in range(400):
            for loading_one in importing(world):
                template(world, loading_one).load()
            for process in world.launcher.alive():
                process.become_ready()
            await asyncio.sleep(1)
        assert importing(world) == []
        for each in deployed:
            manifest = await world.deployment(each.partition("/")[2])
            assert manifest["status"]["conditions"][0]["type"] == "Available"
            wanted = manifest["spec"]["replicas"]
            assert len([s for s in world.states(each) if s is ReplicaState.READY]) == wanted
        assert len(world.launcher.open()) <= 3

    in_cluster(scenario, unloaded, templates=3, loads=2)


# What is lost


def test_a_template_that_is_killed_a_few_times_in_a_moment_is_made_good_and_nobody_is_told() -> None:
    async def scenario(world: LocalWorld) -> None:
        each = await world.deploy()
        world.scale(1, each)
        for count in range(1, MOST_LOST + 1):
            template(world, each).lose("killed by SIGKILL")
            while len(world.launcher.templates) == count:
                await asyncio.sleep(0.01)
        assert world.told.failures == []
        template(world, each).load()
        await asyncio.sleep(0.1)
        assert world.states(each) == [STARTING]
        assert await is_available(world, each)

    in_cluster(scenario, unloaded)


def test_a_template_that_is_always_killed_is_told_with_its_reason_and_tried_on() -> None:
    async def scenario(world: LocalWorld) -> None:
        each = await world.deploy()
        started = asyncio.get_running_loop().time()
        world.scale(1, each)
        while not world.told.failures:
            if importing(world):
                template(world, each).lose("it was killed while it was imported")
            await asyncio.sleep(0.01)
        assert asyncio.get_running_loop().time() - started <= LOST_SECONDS + 0.5
        assert "killed" in world.told.failures[0].reason
        await asyncio.sleep(0.1)
        (condition,) = (await world.deployment())["status"]["conditions"]
        assert (condition["status"], condition["reason"]) == ("False", "ImportLost")
        await asyncio.sleep(2)
        template(world, each).load()
        await asyncio.sleep(1)
        assert await is_available(world, each)

    in_cluster(scenario, unloaded)


def test_replicas_that_are_killed_before_they_are_ready_are_started_again_and_nobody_is_told() -> None:
    async def scenario(world: LocalWorld) -> None:
        each = await world.deploy()
        world.scale(3, each)
        for _ in range(2):
            for process in world.launcher.alive():
                process.kill()
            await asyncio.sleep(0.3)
            assert world.states(each) == [STARTING] * 3
        assert world.told.failures == []

    in_cluster(scenario)


# After a restart


def stored(name: str, *, available: str, replicas: int = 0) -> Manifest:
    """A Deployment as an earlier platform left it."""
    manifest = deployment(revision(name), name.rpartition("-")[0])
    manifest["spec"]["replicas"] = replicas
    condition = {"type": "Available", "status": available, "reason": "MinimumReplicasAvailable", "message": ""}
    counts = {"replicas": replicas, "readyReplicas": replicas}
    return manifest | {"status": {"observedGeneration": 1, **counts, "conditions": [condition]}}


def test_what_was_available_before_a_restart_is_not_imported_again_until_it_is_called() -> None:
    before = [stored(f"f{number}-00001", available="True") for number in range(5)]

    async def scenario(world: LocalWorld) -> None:
        await asyncio.sleep(5)
        assert world.launcher.templates == []
        manifests = await world.objects.list("Deployment.apps")
        assert all(m["metadata"]["generation"] == 1 for m in manifests), "nothing was written"
        world.scale(1, "default/f3-00001")
        assert world.states("default/f3-00001") == [STARTING]

    in_cluster(scenario, stored=before)


def test_what_could_not_be_imported_before_a_restart_is_tried_again() -> None:
    async def scenario(world: LocalWorld) -> None:
        await asyncio.sleep(1)
        assert await is_available(world, "default/f1-00001")

    in_cluster(scenario, stored=[stored("f1-00001", available="False")])


def test_replicas_of_before_a_restart_are_gone_and_come_back_as_the_autoscaler_says() -> None:
    async def scenario(world: LocalWorld) -> None:
        await asyncio.sleep(1)
        assert world.launcher.processes == []
        manifest = await world.deployment("f1-00001")
        assert manifest["spec"]["replicas"] == 0
        assert (manifest["status"]["replicas"], manifest["status"]["readyReplicas"]) == (0, 0)
        world.scale(2, "default/f1-00001")
        assert world.states("default/f1-00001") == [STARTING, STARTING]

    in_cluster(scenario, stored=[stored("f1-00001", available="True", replicas=3)])
