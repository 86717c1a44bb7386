"""From stored policies to the gateway and back to their statuses."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from support.cluster import settle
from support.http import eventually
from support.policed import Player, ask
from support.policies import HTTPBIN, article, asking, httpbin
from upwell.functions.api.policies import PolicyResource
from upwell.runtime.cluster.interface import Manifest, ObjectKey
from upwell.runtime.cluster.memory import MemoryStore
from upwell.runtime.control.conditions import READY, find
from upwell.runtime.control.policies import PolicyFollower
from upwell.runtime.gateway.activator import RevisionLimits
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.loop import run_fake


def manifest(name: str) -> Manifest:
    """One of the article's, as it is stored."""
    return article(name).to_manifest()


RULE = manifest("destination-rule")
QUOTA = manifest("quota-scheduling-policy")
BREAKER = manifest("asm-circuit-breaker")


@dataclass
class Recording:
    """Plays the gateway: keeps what it was told at once."""

    told: list[list[str]] = field(default_factory=list)
    places: dict[str, list[str]] = field(default_factory=dict)
    policies_resolved: asyncio.Event = field(default_factory=asyncio.Event)
    fails: bool = False

    def set_policies(self, resources: Iterable[PolicyResource]) -> None:
        if self.fails:
            raise RuntimeError("not now")
        self.told.append(sorted(f"{each.kind} {each.metadata.name}" for each in resources))

    def policy_matches(self) -> Mapping[str, Sequence[str]]:
        return self.places


@contextlib.asynccontextmanager
async def following(objects: MemoryStore, gateway: Any) -> AsyncIterator[PolicyFollower]:
    clock = FakeClock(loop=asyncio.get_running_loop())
    follower = PolicyFollower(objects, gateway, clock)
    running = asyncio.create_task(follower.run())
    try:
        await follower.is_programmed.wait()
        yield follower
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def store() -> MemoryStore:
    return MemoryStore(FakeClock(loop=asyncio.get_running_loop()))


async def said(objects: MemoryStore, of: Manifest) -> tuple[str, str, str]:
    """Status, reason and message of its condition, once all is quiet."""
    await asyncio.sleep(2.0)
    stored = await objects.get(ObjectKey.of(of))
    assert stored is not None
    condition = find(stored, READY)
    assert condition is not None
    return condition.status, condition.reason, condition.message


def test_all_that_is_stored_is_put_in_force_at_once_and_no_policies_are_too() -> None:
    async def scenario() -> None:
        objects, gateway = store(), Recording()
        async with following(objects, gateway):
            assert gateway.told == [[]]
        for each in (RULE, QUOTA, BREAKER):
            await objects.create(copy.deepcopy(each))
        gateway = Recording()
        async with following(objects, gateway):
            assert gateway.told == [
                [
                    "ASMCircuitBreaker httpbin-delay",
                    "DestinationRule httpbin",
                    "QuotaSchedulingPolicy quotascheduling",
                ]
            ]

    run_fake(scenario())


def test_many_changes_in_a_row_are_put_in_force_together() -> None:
    async def scenario() -> None:
        objects, gateway = store(), Recording()
        async with following(objects, gateway):
            for number in range(200):
                each = copy.deepcopy(RULE)
                each["metadata"]["name"] = f"rule-{number}"
                await objects.create(each)
            await asyncio.sleep(1.0)
            assert len(gateway.told[-1]) == 200
            assert len(gateway.told) <= 5

    run_fake(scenario())


def test_a_status_alone_changes_nothing_in_force() -> None:
    async def scenario() -> None:
        objects, gateway = store(), Recording()
        async with following(objects, gateway):
            await objects.create(copy.deepcopy(RULE))
            await said(objects, RULE)
            before = len(gateway.told)
            gateway.places["DestinationRule default/httpbin"] = ["revision default/a"]
            gateway.policies_resolved.set()
            assert await said(objects, RULE) == ("True", "", "acts on revision default/a")
            assert len(gateway.told) == before

    run_fake(scenario())


def test_a_policy_says_where_it_acts_as_soon_as_there_is_something_and_no_longer() -> None:
    async def scenario() -> None:
        async with httpbin() as on:
            objects = store()
            async with following(objects, on.gateway):
                on.gateway.remove_revision(HTTPBIN)
                await objects.create(copy.deepcopy(BREAKER))
                assert (await said(objects, BREAKER))[:2] == ("False", "NothingMatched")
                on.gateway.set_revision(HTTPBIN, RevisionLimits(), {"serving.knative.dev/service": "httpbin"})
                assert await said(objects, BREAKER) == ("True", "", f"acts on revision {HTTPBIN}")
                on.gateway.remove_revision(HTTPBIN)
                assert (await said(objects, BREAKER))[:2] == ("False", "NothingMatched")
                stored = await objects.get(ObjectKey.of(BREAKER))
                assert stored is not None
                assert stored["status"]["status"] == "NothingMatched"
                assert isinstance(stored["status"]["message"], list)
                assert stored["status"]["observedGeneration"] == 1

    run_fake(scenario())


async def spoil(objects: MemoryStore, of: Manifest) -> None:
    """Store it with a field that this version does not take, as another might have."""
    stored = await objects.get(ObjectKey.of(of))
    assert stored is not None
    stored["spec"]["trafficPolicy"]["outlierDetection"]["interval"] = "soon"
    await objects.update(stored)


def test_of_a_policy_that_cannot_be_read_the_last_good_one_stays_in_force() -> None:
    async def scenario() -> None:
        objects, gateway = store(), Recording()
        async with following(objects, gateway):
            await objects.create(copy.deepcopy(RULE))
            await said(objects, RULE)
            await spoil(objects, RULE)
            status, reason, message = await said(objects, RULE)
            assert (status, reason) == ("False", "Invalid")
            assert "spec.trafficPolicy.outlierDetection.interval" in message
            assert message.endswith("what was in force before stays so")
            assert gateway.told[-1] == ["DestinationRule httpbin"]
            stored = await objects.get(ObjectKey.of(RULE))
            assert stored is not None
            stored["spec"] = copy.deepcopy(RULE["spec"])
            await objects.update(stored)
            assert (await said(objects, RULE))[1] == "NothingMatched"
        await spoil(objects, RULE)
        gateway = Recording()
        # Met in a restart there is no last good one, and the others are in force all the same.
        await objects.create(copy.deepcopy(BREAKER))
        async with following(objects, gateway):
            assert gateway.told == [["ASMCircuitBreaker httpbin-delay"]]
            status, reason, message = await said(objects, RULE)
            assert (status, reason) == ("False", "Invalid")
            assert "in force" not in message

    run_fake(scenario())


def test_a_policy_that_is_deleted_is_in_force_no_longer_and_may_come_again() -> None:
    async def scenario() -> None:
        objects, gateway = store(), Recording()
        async with following(objects, gateway) as follower:
            for _ in range(3):
                await objects.create(copy.deepcopy(RULE))
                assert (await said(objects, RULE))[1] == "NothingMatched"
                assert gateway.told[-1] == ["DestinationRule httpbin"]
                await objects.delete(ObjectKey.of(RULE))
                await asyncio.sleep(1.0)
                assert gateway.told[-1] == []
            assert repr(follower) == "<PolicyFollower 0 policies, 0 that cannot be read>"

    run_fake(scenario())


def test_policies_that_cannot_be_put_in_force_do_not_end_the_following() -> None:
    async def scenario() -> None:
        objects, gateway = store(), Recording(fails=True)
        async with following(objects, gateway):
            await objects.create(copy.deepcopy(RULE))
            await asyncio.sleep(1.0)
            assert gateway.told == []
            gateway.fails = False
            await objects.create(copy.deepcopy(BREAKER))
            await asyncio.sleep(1.0)
            assert gateway.told == [["ASMCircuitBreaker httpbin-delay", "DestinationRule httpbin"]]

    run_fake(scenario())


def test_what_is_stored_holds_for_the_next_request() -> None:
    async def scenario() -> None:
        async with httpbin() as on:
            await on.replica(Player(), revision=HTTPBIN)
            objects = store()
            async with following(objects, on.gateway):
                assert await ask(on, asking()) == 200
                service: Manifest = {
                    "apiVersion": "networking.istio.io/v1",
                    "kind": "VirtualService",
                    "metadata": {"name": "httpbin", "namespace": "default"},
                    "spec": {"hosts": ["httpbin"], "http": [{"directResponse": {"status": 204}}]},
                }
                await objects.create(service)
                await settle()
                await eventually(lambda: bool(on.gateway.policy_matches()))
                assert await ask(on, asking()) == 204

    run_fake(scenario())
