"""Services in a store, reconciled over a cluster without processes until they are ready."""

import asyncio

import pytest

from support.cluster import local_cluster, settle
from support.control import SETTINGS, Told, control_plane, run, service
from upwell.functions.errors import Conflict
from upwell.runtime.cluster.interface import Manifest, ObjectKey, ReplicaState
from upwell.runtime.cluster.kinds import DEPLOYMENT, INGRESS, REVISION, SERVICE
from upwell.runtime.control.config import ConfigLayers, PlatformConfig, platform_config
from upwell.runtime.control.configmaps import ConfigMapFollower
from upwell.runtime.control.domains import Domain, Domains
from upwell.runtime.control.follow import Follower
from upwell.runtime.control.kingress import LAST_APPLIED_ANNOTATION, IngressSettings
from upwell.runtime.control.planning import ServingSettings
from upwell.runtime.control.serving import ServingController
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.launcher import FakeLauncher


def test_ready_means_that_the_gateway_has_the_route() -> None:
    async def scenario() -> None:
        async with control_plane() as world:
            await world.apply(service())
            await asyncio.sleep(1)
            assert await world.ready() == ("True", "")
            assert world.told.target("hello.default.localhost") == "default/hello-00001"
            assert world.told.target("localhost") == "default/hello-00001"
            assert world.told.limits["default/hello-00001"].burst_threshold == 7
            ingress = await world.find(INGRESS, "hello")
            assert ingress["status"]["observedGeneration"] == ingress["metadata"]["generation"]

    run(scenario())


def test_whenever_a_generation_is_ready_the_gateway_answers_with_its_revision() -> None:
    async def scenario() -> None:
        async with control_plane() as world:
            for number in range(1, 6):
                await world.apply(service(digest=f"d{number}"))
                while (await world.ready())[0] != "True":
                    await asyncio.sleep(0.0001)
                assert world.told.target("hello.default.localhost") == f"default/hello-{number:05d}"

    run(scenario())


def test_a_failing_generation_is_told_of_and_the_old_one_serves_on() -> None:
    async def scenario() -> None:
        launcher = FakeLauncher(load_seconds=None)
        async with control_plane(launcher) as world:
            await world.apply(service())
            await settle()
            launcher.templates[0].load()
            await asyncio.sleep(1)
            assert await world.ready() == ("True", "")
            await world.apply(service(digest="d2"))
            assert await world.ready() == ("", ""), "what was said is of the generation before"
            await settle()
            launcher.templates[1].fail()
            await asyncio.sleep(1)
            assert await world.ready() == ("False", "RevisionFailed")
            assert world.told.target("hello.default.localhost") == "default/hello-00001"

    run(scenario())


def test_a_name_that_is_taken_is_a_condition_and_is_taken_up_once_it_is_free() -> None:
    async def scenario() -> None:
        async with control_plane() as world:
            other = await world.apply(service("other", revision="other-blue"))
            await asyncio.sleep(1)
            foreign = await world.find(REVISION, "other-blue")
            foreign["metadata"] |= {"name": "hello-blue"}
            foreign["metadata"]["labels"] = {}
            created = await world.local.objects.create(foreign)
            await world.apply(service(revision="hello-blue"))
            await asyncio.sleep(1)
            assert await world.ready() == ("False", "RevisionNameTaken")
            assert await world.ready("other") == ("True", "")
            assert (await world.find(REVISION, "hello-blue"))["metadata"]["uid"] == created["metadata"]["uid"]
            await world.local.objects.delete(ObjectKey.of(created))
            await asyncio.sleep(60)
            assert await world.ready() == ("True", "")
            assert other["metadata"]["name"] == "other"

    run(scenario())


def test_what_is_deleted_by_hand_is_made_anew() -> None:
    async def scenario() -> None:
        async with control_plane() as world:
            await world.apply(service())
            await asyncio.sleep(1)
            objects = world.local.objects
            for key in (
                ObjectKey(INGRESS, "default", "hello"),
                ObjectKey(DEPLOYMENT, "default", "hello-00001-deployment"),
            ):
                before = (await world.find(key.kind, key.name))["metadata"]["uid"]
                await objects.delete(key)
                await asyncio.sleep(1)
                assert (await world.find(key.kind, key.name))["metadata"]["uid"] != before
            assert await world.ready() == ("True", "")
            assert world.told.target("hello.default.localhost") == "default/hello-00001"

    run(scenario())


def test_a_stale_read_is_raised_so_that_the_queue_looks_again() -> None:
    async def scenario() -> None:
        async with local_cluster() as local:
            objects = local.objects
            clock = FakeClock(loop=asyncio.get_running_loop())
            serving = ServingController(objects, clock, SETTINGS)
            key = ObjectKey.of(await objects.create(service()))
            get = objects.get

            async def stale(wanted: ObjectKey) -> Manifest | None:
                found = await get(wanted)
                if wanted == key and found is not None:
                    annotations = {LAST_APPLIED_ANNOTATION: found["metadata"]["resourceVersion"]}
                    await objects.update(found | {"metadata": found["metadata"] | {"annotations": annotations}})
                return found

            objects.get = stale  # type: ignore[method-assign,assignment]
            with pytest.raises(Conflict):
                await serving.reconcile(key)
            objects.get = get  # type: ignore[method-assign]
            assert await serving.reconcile(key) is None

    run(scenario())


def test_a_deleted_service_leaves_no_route_no_revision_and_no_replica() -> None:
    async def scenario() -> None:
        async with control_plane(FakeLauncher(start_seconds=0.0)) as world:
            await world.apply(service())
            await asyncio.sleep(1)
            world.local.cluster.scale("default/hello-00001", 2, reason="a test")
            await asyncio.sleep(1)
            assert world.local.states("default/hello-00001") == [ReplicaState.READY] * 2
            await world.local.objects.delete(ObjectKey(SERVICE, "default", "hello"))
            await asyncio.sleep(1)
            assert all(process.is_draining for process in world.local.launcher.processes)
            assert world.told.target("hello.default.localhost") is None
            assert world.told.revisions == set()
            assert repr(world.local.objects).startswith("<MemoryStore 0 objects")

    run(scenario())


def test_routes_are_programmed_once_for_all_that_is_there_and_not_once_for_each() -> None:
    async def scenario() -> int:
        async with control_plane() as world:
            for number in range(50):
                await world.apply(service(f"f{number}"))
            await asyncio.sleep(2)
            clock = FakeClock(loop=asyncio.get_running_loop())
            told = Told()
            follower = Follower(world.local.objects, told, told, clock, burst_threshold=lambda _: 1)
            running = asyncio.create_task(follower.run())
            await asyncio.sleep(2)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert told.target("f49.default.localhost") == "default/f49-00001"
            return len(told.tables)

    assert run(scenario()) == 1


def test_a_thousand_services_are_ready_soon_and_cost_what_they_are() -> None:
    async def scenario(count: int) -> tuple[float, int]:
        async with control_plane() as world:
            started = asyncio.get_running_loop().time()
            for number in range(count):
                await world.apply(service(f"f{number}"))
            for number in range(count):
                while (await world.ready(f"f{number}"))[0] != "True":
                    await asyncio.sleep(0.01)
            newest = 0
            for kind in (SERVICE, REVISION, DEPLOYMENT, INGRESS):
                found = await world.local.objects.list(kind)
                newest = max(newest, *(int(manifest["metadata"]["resourceVersion"]) for manifest in found))
            return asyncio.get_running_loop().time() - started, newest

    seconds, writes = run(scenario(1000))
    assert seconds < 20
    assert writes / 1000 < 16


def test_other_domains_are_programmed_for_every_service_at_once() -> None:
    async def scenario() -> None:
        async with control_plane() as world:
            for number in range(20):
                await world.apply(service(f"f{number}"))
            await asyncio.sleep(2)
            before = len(world.told.tables)
            domains = Domains((Domain("mine.com", {}),), ("localhost",))
            await world.serving.configure(ServingSettings(IngressSettings(domains), 8080))
            await asyncio.sleep(1)
            for number in range(20):
                assert world.told.target(f"f{number}.default.mine.com") == f"default/f{number}-00001"
                assert await world.ready(f"f{number}") == ("True", "")
            assert len(world.told.tables) - before < 10

    run(scenario())


def test_a_service_inside_only_does_not_answer_to_localhost_though_it_is_alone() -> None:
    async def scenario() -> None:
        async with control_plane() as world:
            manifest = service()
            manifest["metadata"]["labels"] = {"networking.knative.dev/visibility": "cluster-local"}
            await world.apply(manifest)
            await asyncio.sleep(1)
            assert world.told.target("hello.default.svc.cluster.local") == "default/hello-00001"
            assert world.told.target("localhost") is None
            assert world.told.target("hello.default.localhost") is None

    run(scenario())


def test_a_refresh_tells_of_the_revisions_that_are_there_and_of_no_other() -> None:
    async def scenario() -> None:
        async with control_plane() as world:
            await world.apply(service())
            await asyncio.sleep(1)
            world.told.limits.clear()
            await world.follower.refresh()
            assert list(world.told.limits) == ["default/hello-00001"]
            await world.local.objects.delete(ObjectKey(SERVICE, "default", "hello"))
            await asyncio.sleep(1)
            world.told.limits.clear()
            await world.follower.refresh()
            assert world.told.limits == {}

    run(scenario())


def test_it_is_told_when_all_that_was_stored_is_programmed() -> None:
    async def scenario() -> None:
        async with control_plane() as world:
            for number in range(5):
                await world.apply(service(f"f{number}"))
            await asyncio.sleep(2)
            told = Told()
            clock = FakeClock(loop=asyncio.get_running_loop())
            follower = Follower(world.local.objects, told, told, clock, burst_threshold=lambda _: 1)
            running = asyncio.create_task(follower.run())
            await follower.is_programmed.wait()
            assert {told.target(f"f{number}.default.localhost") for number in range(5)} == told.revisions
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run(scenario())


def test_a_config_map_that_changes_or_goes_is_told_once_and_one_that_is_unusable_counts_as_absent() -> None:
    async def scenario() -> None:
        async with local_cluster() as local:
            layers = ConfigLayers(("localhost",))
            found: list[PlatformConfig] = []

            async def changed(config: PlatformConfig) -> None:
                found.append(config)

            follower = ConfigMapFollower(local.objects, layers, platform_config({}, layers), changed)
            running = asyncio.create_task(follower.run())
            await settle()
            assert found == []
            manifest: Manifest = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "config-autoscaler", "namespace": "knative-serving"},
                "data": {"stable-window": "30s"},
            }
            stored = await local.objects.create(manifest)
            await settle()
            await local.objects.create(manifest | {"metadata": manifest["metadata"] | {"name": "config-gc"}})
            await settle()
            assert [config.autoscaler.stable_window for config in found] == [30.0]
            await local.objects.update(stored | {"data": {"stable-window": "1s"}})
            await settle()
            assert [config.autoscaler.stable_window for config in found] == [30.0, 60.0]
            await local.objects.delete(ObjectKey.of(manifest))
            await settle()
            assert len(found) == 2
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run(scenario())
