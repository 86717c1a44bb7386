"""One Ingress or Revision that another version stored does not stop the others from being followed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from upwell.runtime.cluster.interface import Manifest, ObjectKey
from upwell.runtime.cluster.memory import MemoryStore
from upwell.runtime.control.conditions import READY, find
from upwell.runtime.control.follow import Follower
from upwell.runtime.gateway.routes import RouteTable
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.loop import run_fake

UNREADABLE: list[Any] = [
    {},
    None,
    {"rules": [{"http": {}}]},
    {"rules": [{"http": {"paths": [{"splits": [{"serviceName": "a", "percent": "most"}]}]}}]},
    {"rules": [{"hosts": ["caf\u00e9.example.com"], "http": {"paths": [{"splits": [{"serviceName": "a"}]}]}}]},
]


@dataclass
class Told:
    """Plays gateway and autoscaler."""

    routes: RouteTable = field(default_factory=RouteTable)
    revisions: set[str] = field(default_factory=set)

    def set_routes(self, routes: RouteTable) -> None:
        self.routes = routes

    def set_revision(self, revision: str, *told: Any) -> None:
        self.revisions.add(revision)

    def remove_revision(self, revision: str) -> None:
        self.revisions.discard(revision)


@contextlib.asynccontextmanager
async def following(objects: MemoryStore, gateway: Told) -> AsyncIterator[None]:
    clock = FakeClock(loop=asyncio.get_running_loop())
    follower = Follower(objects, gateway, Told(), clock, burst_threshold=lambda revision: 1)
    running = asyncio.create_task(follower.run())
    try:
        async with asyncio.timeout(10):
            await follower.is_programmed.wait()
        yield
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def ingress(name: str, spec: Any = None) -> Manifest:
    split = {"serviceName": name, "serviceNamespace": "default", "servicePort": 80, "percent": 100}
    good = {"rules": [{"hosts": [f"{name}.example.com"], "http": {"paths": [{"splits": [split]}]}}]}
    return {
        "apiVersion": "networking.internal.knative.dev/v1alpha1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": "default"},
        "spec": good if spec is None else spec,
    }


async def said(objects: MemoryStore, of: Manifest) -> tuple[str, str]:
    await asyncio.sleep(1.0)
    stored = await objects.get(ObjectKey.of(of))
    assert stored is not None
    condition = find(stored, READY)
    assert condition is not None
    return condition.status, condition.reason


@pytest.mark.parametrize("spec", UNREADABLE)
def test_an_ingress_that_cannot_be_read_says_so_and_the_others_answer(spec: Any) -> None:
    async def scenario() -> None:
        objects, told = MemoryStore(FakeClock(loop=asyncio.get_running_loop())), Told()
        bad = ingress("bad", spec) | {"spec": spec}
        for each in (ingress("a"), bad, ingress("z")):
            await objects.create(each)
        async with following(objects, told):
            assert {vhost.name for vhost in told.routes.vhosts} == {"default/a", "default/z"}
            assert await said(objects, bad) == ("False", "Invalid")
            assert await said(objects, ingress("z")) == ("True", "")
            await objects.update(ingress("bad"))
            assert await said(objects, bad) == ("True", "")
            assert told.routes.find(b"bad.example.com") is not None

    run_fake(scenario())


def test_an_ingress_that_becomes_unreadable_keeps_what_the_gateway_had_of_it() -> None:
    async def scenario() -> None:
        objects, told = MemoryStore(FakeClock(loop=asyncio.get_running_loop())), Told()
        await objects.create(ingress("a"))
        async with following(objects, told):
            before = told.routes.find(b"a.example.com")
            assert before is not None
            await objects.update(ingress("a", {"rules": "none"}))
            assert await said(objects, ingress("a")) == ("False", "Invalid")
            assert told.routes.find(b"a.example.com") is before

    run_fake(scenario())


def test_a_revision_that_cannot_be_read_leaves_the_others() -> None:
    async def scenario() -> None:
        objects, told = MemoryStore(FakeClock(loop=asyncio.get_running_loop())), Told()
        for name, spec in (("bad", {"timeoutSeconds": "long"}), ("good", {"timeoutSeconds": 5})):
            metadata = {"name": name, "namespace": "default"}
            kind = {"apiVersion": "serving.knative.dev/v1", "kind": "Revision"}
            await objects.create({**kind, "metadata": metadata, "spec": spec})
        async with following(objects, told):
            assert told.revisions == {"default/good"}

    run_fake(scenario())


def test_an_ingress_whose_host_another_has_says_so_until_it_gets_it() -> None:
    async def scenario() -> None:
        clock = FakeClock(loop=asyncio.get_running_loop())
        objects, told = MemoryStore(clock), Told()
        await objects.create(ingress("first"))
        await asyncio.sleep(2.0)
        late = ingress("late", ingress("first")["spec"])
        await objects.create(late)
        async with following(objects, told):
            assert await said(objects, ingress("first")) == ("True", "")
            assert await said(objects, late) == ("False", "HostTaken")
            stored = await objects.get(ObjectKey.of(late))
            assert stored is not None
            message = stored["status"]["conditions"][0]["message"]
            assert message == "first.example.com belongs to the Ingress default/first"
            await objects.delete(ObjectKey.of(ingress("first")))
            assert await said(objects, late) == ("True", "")

    run_fake(scenario())
