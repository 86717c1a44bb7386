"""Configurations, Routes and what they share: splits, tags, rollbacks, rollouts, and what stands in the way."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

from support.control import SETTINGS, ControlWorld, control_plane, run, service
from upwell.autoscaler.spec import AutoscalerConfig
from upwell.runtime.cluster.interface import Manifest, ObjectKey
from upwell.runtime.cluster.kinds import CONFIGURATION, DEPLOYMENT, INGRESS, REVISION, ROUTE, SERVICE
from upwell.runtime.control.conditions import find
from upwell.runtime.control.gc import RetentionSettings
from upwell.runtime.control.revision import revision_settings
from upwell.runtime.testing.launcher import FakeLauncher

LATEST = {"latestRevision": True, "percent": 100}


def scenario(body: Callable[[ControlWorld], Awaitable[None]], launcher: FakeLauncher | None = None) -> None:
    async def within() -> None:
        async with control_plane(launcher) as world:
            await body(world)

    run(within())


def sharing(digest: str, *traffic: dict[str, Any], annotations: dict[str, str] | None = None) -> Manifest:
    manifest = service(digest=digest)
    manifest["spec"]["traffic"] = list(traffic)
    manifest["metadata"]["annotations"] = annotations or {}
    return manifest


def configuration(name: str = "app", digest: str = "d1") -> Manifest:
    manifest = service(name, digest)
    return manifest | {"kind": "Configuration"}


def route(name: str, *traffic: dict[str, Any]) -> Manifest:
    metadata = {"name": name, "namespace": "default"}
    spec = {"traffic": list(traffic)}
    return {"apiVersion": "serving.knative.dev/v1", "kind": "Route", "metadata": metadata, "spec": spec}


async def applied(world: ControlWorld, *manifests: Manifest) -> None:
    for manifest in manifests:
        await world.apply(manifest)
    await asyncio.sleep(1)


async def condition(world: ControlWorld, kind: str, name: str, type: str = "Ready") -> tuple[str, str]:
    found = find(await world.find(kind, name), type)
    assert found is not None
    return found.status, found.reason


def shares(world: ControlWorld, host: str) -> dict[str, int]:
    vhost = world.told.tables[-1].find(host.encode())
    if vhost is None:
        return {}
    return {target.revision.partition("/")[2]: target.percent for target in vhost.rules[-1].targets}


async def states(world: ControlWorld) -> dict[str, str]:
    revisions = await world.local.objects.list(REVISION)
    return {r["metadata"]["name"]: r["metadata"]["labels"]["serving.knative.dev/routingState"] for r in revisions}


def test_a_service_stands_for_a_configuration_and_a_route_with_its_labels_and_theirs_are_the_revisions() -> None:
    async def body(world: ControlWorld) -> None:
        manifest = service()
        manifest["metadata"] |= {
            "labels": {"team": "a"},
            "annotations": {"serving.knative.dev/creator": "me", "serving.knative.dev/lastModifier": "you"},
        }
        await applied(world, manifest)
        made = await world.find(SERVICE, "hello")
        for kind in (CONFIGURATION, ROUTE):
            child = await world.find(kind, "hello")
            (owner,) = child["metadata"]["ownerReferences"]
            assert (owner["kind"], owner["uid"]) == ("Service", made["metadata"]["uid"])
            assert (
                child["metadata"]["labels"].items()
                >= {"team": "a", "serving.knative.dev/service": "hello"}.items()
            )
            assert child["metadata"]["annotations"]["serving.knative.dev/creator"] == "me"
            assert await condition(world, kind, "hello") == ("True", "")
        kept = await world.find(CONFIGURATION, "hello")
        revision = await world.find(REVISION, "hello-00001")
        labels = revision["metadata"]["labels"]
        assert labels == {
            "serving.knative.dev/service": "hello",
            "serving.knative.dev/serviceUID": made["metadata"]["uid"],
            "serving.knative.dev/configuration": "hello",
            "serving.knative.dev/configurationUID": kept["metadata"]["uid"],
            "serving.knative.dev/configurationGeneration": "1",
            "serving.knative.dev/routingState": "active",
        }
        assert revision["metadata"]["ownerReferences"][0]["kind"] == "Configuration"
        assert revision["metadata"]["annotations"]["serving.knative.dev/creator"] == "you"
        assert revision["metadata"]["annotations"]["serving.knative.dev/routes"] == "hello"

    scenario(body)


def test_traffic_is_shared_tagged_and_rolled_back_by_an_edit() -> None:
    async def body(world: ControlWorld) -> None:
        await applied(world, service())
        old, new = {"revisionName": "hello-00001"}, {"latestRevision": True}
        await applied(world, sharing("d2", old | {"percent": 90, "tag": "old"}, new | {"percent": 10}))
        assert await world.ready() == ("True", "")
        assert shares(world, "hello.default.localhost") == {"hello-00001": 90, "hello-00002": 10}
        assert shares(world, "old-hello.default.localhost") == {"hello-00001": 100}
        told = (await world.find(SERVICE, "hello"))["status"]["traffic"]
        url = "http://old-hello.default.localhost:8080"
        assert told == [
            {"latestRevision": False, "percent": 90, "revisionName": "hello-00001", "tag": "old", "url": url},
            {"latestRevision": True, "percent": 10, "revisionName": "hello-00002"},
        ]
        await applied(world, sharing("d2", old | {"percent": 100}, new | {"percent": 0, "tag": "next"}))
        assert shares(world, "hello.default.localhost") == {"hello-00001": 100}
        assert shares(world, "next-hello.default.localhost") == {"hello-00002": 100}
        assert await states(world) == {"hello-00001": "active", "hello-00002": "active"}
        await applied(world, sharing("d2", new | {"percent": 100}))
        assert shares(world, "hello.default.localhost") == {"hello-00002": 100}
        assert shares(world, "next-hello.default.localhost") == {}
        assert await states(world) == {"hello-00001": "reserve", "hello-00002": "active"}

    scenario(body)


def test_a_revision_that_no_route_refers_to_keeps_no_replicas() -> None:
    async def body(world: ControlWorld) -> None:
        manifest = service()
        manifest["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/min-scale"] = "2"
        await applied(world, manifest)
        config = AutoscalerConfig()
        assert revision_settings(config, await world.find(REVISION, "hello-00001")).min_scale == 2
        await applied(world, service(digest="d2"))
        unused = await world.find(REVISION, "hello-00001")
        assert revision_settings(config, unused).min_scale == 0
        assert unused["metadata"]["annotations"]["serving.knative.dev/routingStateModified"]

    scenario(body)


def test_a_target_that_is_missing_leaves_traffic_where_it_is_and_is_told_of() -> None:
    async def body(world: ControlWorld) -> None:
        await applied(world, service())
        await applied(world, sharing("d1", {"revisionName": "hello-00009", "percent": 100}))
        assert await condition(world, ROUTE, "hello", "AllTrafficAssigned") == ("False", "RevisionMissing")
        assert await world.ready() == ("False", "RevisionMissing")
        assert shares(world, "hello.default.localhost") == {"hello-00001": 100}
        await applied(world, route("other", {"configurationName": "absent", "percent": 100}))
        assert await condition(world, ROUTE, "other") == ("False", "ConfigurationMissing")
        await applied(world, configuration("absent"))
        assert await condition(world, ROUTE, "other") == ("True", "")
        assert shares(world, "other.default.localhost") == {"absent-00001": 100}

    scenario(body)


def test_a_revision_that_fails_and_one_that_is_deleted_are_told_of() -> None:
    async def body(world: ControlWorld) -> None:
        launcher = world.local.launcher
        await world.apply(service())
        await asyncio.sleep(0.1)
        assert await condition(world, ROUTE, "hello") == ("Unknown", "RevisionMissing")
        assert await condition(world, ROUTE, "hello", "IngressReady") == ("Unknown", ""), "there is none to be"
        assert "address" not in (await world.find(ROUTE, "hello"))["status"]
        launcher.templates[0].load()
        await asyncio.sleep(1)
        await world.apply(sharing("d2", {"latestRevision": True, "percent": 100}))
        await asyncio.sleep(0.1)
        launcher.templates[1].fail()
        await asyncio.sleep(1)
        assert await condition(world, CONFIGURATION, "hello") == ("False", "RevisionFailed")
        assert await condition(world, ROUTE, "hello") == ("True", "")
        await applied(world, route("pinned", {"revisionName": "hello-00002", "percent": 100}))
        assert await condition(world, ROUTE, "pinned") == ("False", "RevisionMissing")
        await world.local.objects.delete(ObjectKey(REVISION, "default", "hello-00001"))
        await asyncio.sleep(1)
        assert await condition(world, CONFIGURATION, "hello") == ("False", "RevisionDeleted")
        assert await condition(world, ROUTE, "hello") == ("False", "RevisionMissing")

    scenario(body, FakeLauncher(load_seconds=None))


def test_a_configuration_and_a_route_stand_by_themselves_and_leave_nothing_behind() -> None:
    async def body(world: ControlWorld) -> None:
        await applied(world, configuration(), route("front", {"configurationName": "app", "percent": 100}))
        assert await condition(world, CONFIGURATION, "app") == ("True", "")
        assert await condition(world, ROUTE, "front") == ("True", "")
        assert shares(world, "front.default.localhost") == {"app-00001": 100}
        kept = await world.find(CONFIGURATION, "app")
        assert kept["metadata"]["annotations"]["serving.knative.dev/routes"] == "front"
        await applied(world, configuration(digest="d2"))
        assert shares(world, "front.default.localhost") == {"app-00002": 100}
        assert await states(world) == {"app-00001": "reserve", "app-00002": "active"}
        await world.local.objects.delete(ObjectKey(ROUTE, "default", "front"))
        await asyncio.sleep(1)
        assert shares(world, "front.default.localhost") == {}
        assert set((await states(world)).values()) == {"reserve"}
        kept = await world.find(CONFIGURATION, "app")
        assert "serving.knative.dev/routes" not in kept["metadata"]["annotations"]
        await world.local.objects.delete(ObjectKey(CONFIGURATION, "default", "app"))
        await asyncio.sleep(1)
        assert repr(world.local.objects).startswith("<MemoryStore 0 objects")

    scenario(body)


def test_a_route_of_its_own_keeps_another_services_revision_reachable() -> None:
    async def body(world: ControlWorld) -> None:
        await applied(world, service())
        await applied(world, route("pinned", {"revisionName": "hello-00001", "percent": 100}))
        await applied(world, service(digest="d2"))
        assert await states(world) == {"hello-00001": "active", "hello-00002": "active"}
        assert shares(world, "pinned.default.localhost") == {"hello-00001": 100}
        await world.local.objects.delete(ObjectKey(ROUTE, "default", "pinned"))
        await asyncio.sleep(1)
        assert await states(world) == {"hello-00001": "reserve", "hello-00002": "active"}

    scenario(body)


def test_what_somebody_else_has_is_left_alone_and_told_of() -> None:
    async def body(world: ControlWorld) -> None:
        await applied(world, configuration("hello"))
        before = await world.find(CONFIGURATION, "hello")
        await applied(world, service(digest="d2"))
        assert await world.ready() == ("False", "NotOwned")
        assert await condition(world, SERVICE, "hello", "RoutesReady") == ("Unknown", "")
        assert await world.find(CONFIGURATION, "hello") == before
        status = (await world.find(SERVICE, "hello"))["status"]
        assert "latestReadyRevisionName" not in status, "what another has is not the service's"

    scenario(body)


def test_a_gradual_rollout_moves_step_by_step_and_is_ready_at_its_end() -> None:
    async def body(world: ControlWorld) -> None:
        slowly = {"serving.knative.dev/rollout-duration": "100s"}
        await applied(world, sharing("d1", LATEST, annotations=slowly))
        assert shares(world, "hello.default.localhost") == {"hello-00001": 100}
        await applied(world, sharing("d2", LATEST, annotations=slowly))
        assert await condition(world, ROUTE, "hello") == ("Unknown", "RolloutInProgress")
        assert await world.ready() == ("Unknown", "RolloutInProgress")
        seen = []
        while len(found := shares(world, "hello.default.localhost")) > 1:
            told = (await world.find(ROUTE, "hello"))["status"]["traffic"]
            assert {each["revisionName"]: each["percent"] for each in told} == found
            seen.append(found["hello-00002"])
            await asyncio.sleep(5)
        assert seen[0] < 10
        assert seen == sorted(seen)
        assert 15 < len(seen) < 25
        await asyncio.sleep(1)
        assert await world.ready() == ("True", "")
        assert await states(world) == {"hello-00001": "reserve", "hello-00002": "active"}

    scenario(body)


def test_revisions_that_are_not_in_use_go_with_their_deployments() -> None:
    async def body(world: ControlWorld) -> None:
        retention = RetentionSettings(None, None, min_non_active=0, max_non_active=2)
        await world.serving.configure(dataclasses.replace(SETTINGS, retention=retention))
        for number in range(1, 6):
            await applied(world, service(digest=f"d{number}"))
        assert sorted(await states(world)) == ["hello-00003", "hello-00004", "hello-00005"]
        deployments = await world.local.objects.list(DEPLOYMENT)
        assert len(deployments) == 3
        retention = RetentionSettings(None, 60.0, min_non_active=0, max_non_active=None)
        await world.serving.configure(dataclasses.replace(SETTINGS, retention=retention))
        await asyncio.sleep(30)
        assert len(await states(world)) == 3
        await asyncio.sleep(60)
        assert sorted(await states(world)) == ["hello-00005"]

    scenario(body)


def test_what_an_earlier_version_stored_as_the_services_becomes_its_childrens() -> None:
    async def body(world: ControlWorld) -> None:
        await applied(world, service())
        former = (await world.find(ROUTE, "hello"))["metadata"]["ownerReferences"]
        for kind, name, owner in ((INGRESS, "hello", "Route"), (REVISION, "hello-00001", "Configuration")):
            stored = await world.find(kind, name)
            metadata = stored["metadata"] | {"ownerReferences": former}
            await world.local.objects.update(stored | {"metadata": metadata})
            await world.serving.configure(SETTINGS)
            await asyncio.sleep(1)
            adopted = await world.find(kind, name)
            assert adopted["metadata"]["uid"] == stored["metadata"]["uid"]
            assert adopted["metadata"]["ownerReferences"][0]["kind"] == owner
        assert await world.ready() == ("True", "")

    scenario(body)
