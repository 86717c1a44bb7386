"""Traffic over several revisions, as its callers see it: splits, tags, rollbacks, an Ingress of one's own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from support.platform import Function, deploy, platform, run, until
from upwell.runtime.cluster.interface import Manifest, ObjectKey
from upwell.runtime.cluster.kinds import INGRESS, REVISION, ROUTE, SERVICE
from upwell.runtime.control.admission import Refused
from upwell.runtime.roles.up import Platform

KEY = ObjectKey(SERVICE, "default", "hello")
SOURCE = "def main(request):\n    return '{}'\n"


async def shared(on: Platform, *traffic: dict[str, Any]) -> Manifest:
    """The Service with this traffic, once it is ready."""
    manifest = await on.objects.get(KEY)
    assert manifest is not None
    manifest["spec"]["traffic"] = list(traffic)
    await on.apply([manifest])
    return await on.wait_ready(KEY, 20)


async def answers(function: Function, host: str, count: int = 1) -> Counter[str]:
    return Counter([(await function.ask(host=host)).text for _ in range(count)])


def ingress(revision: str, host: str) -> Manifest:
    split = {"serviceNamespace": "default", "serviceName": revision, "servicePort": 80}
    return {
        "apiVersion": "networking.internal.knative.dev/v1alpha1",
        "kind": "Ingress",
        "metadata": {"name": "own", "namespace": "default"},
        "spec": {"rules": [{"hosts": [host], "http": {"paths": [{"splits": [split]}]}}]},
    }


def test_two_revisions_share_traffic_by_percent_and_by_tag_and_a_rollback_is_an_edit(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            await deploy(on, SOURCE.format("one"))
            function = await deploy(on, SOURCE.format("two"))
            old, new = {"revisionName": "hello-00001"}, {"latestRevision": True}
            await shared(on, old | {"percent": 50, "tag": "old"}, new | {"percent": 50})
            found = await answers(function, "hello.default.localhost", 60)
            assert set(found) == {"one", "two"}
            assert await answers(function, "old-hello.default.localhost", 5) == {"one": 5}
            await shared(on, old | {"percent": 100}, new | {"percent": 0, "tag": "next"})
            assert await answers(function, "hello.default.localhost", 10) == {"one": 10}
            assert await answers(function, "next-hello.default.localhost") == {"two": 1}
            await shared(on, new | {"percent": 100})
            assert await answers(function, "hello.default.localhost", 10) == {"two": 10}
            assert (await function.ask(host="next-hello.default.localhost")).status == 404

    run(scenario())


def test_a_route_and_an_ingress_of_ones_own_answer_until_they_are_deleted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            function = await deploy(on, SOURCE.format("one"))
            target = {"configurationName": "hello", "percent": 100}
            route = {
                "apiVersion": "serving.knative.dev/v1",
                "kind": "Route",
                "metadata": {"name": "front"},
                "spec": {"traffic": [target]},
            }
            applied = await on.apply([route, ingress("hello-00001", "mine.example.com")])
            for each in applied:
                await on.wait_ready(each.key, 20)
            for host in ("front.default.localhost", "mine.example.com"):
                assert await answers(function, host) == {"one": 1}
            for kind, name in ((ROUTE, "front"), (INGRESS, "own")):
                await on.delete(ObjectKey(kind, "default", name))
            await until(lambda: on.gateway.routes.find(b"mine.example.com") is None)
            await until(lambda: on.gateway.routes.find(b"front.default.localhost") is None)
            revision = await on.objects.get(ObjectKey(REVISION, "default", "hello-00001"))
            assert revision is not None
            assert revision["metadata"]["annotations"]["serving.knative.dev/routes"] == "hello"

    run(scenario())


def test_an_ingress_that_knative_refuses_is_refused_by_its_field(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            elsewhere = ingress("hello-00001", "mine.example.com")
            path = elsewhere["spec"]["rules"][0]["http"]["paths"][0]
            path["splits"][0]["serviceNamespace"] = "other"
            with pytest.raises(Refused, match="must be the Ingress' own"):
                await on.apply([elsewhere])
            path["splits"] = [path["splits"][0] | {"serviceNamespace": "default", "percent": 40}] * 2
            with pytest.raises(Refused) as raised:
                await on.apply([elsewhere])
            assert raised.value.faults[0].field.startswith("spec.rules[0].http.paths[0].splits")
            assert await on.objects.get(ObjectKey(INGRESS, "default", "own")) is None

    run(scenario())
