"""Policies, replicas, revisions and clients change while requests are in any state: none is lost or left over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.gateway import Stage
from support.http import OK, Peer, eventually, settle
from support.policed import BUSY, Player, ask, is_over, logged, rule, service, to_httpbin
from support.policies import HTTPBIN, article, asking, httpbin, policy, status
from upwell.functions.api.policies import PolicyResource
from upwell.runtime.cluster.interface import ReplicaState
from upwell.runtime.gateway.activator import RevisionLimits
from upwell.runtime.gateway.routes import RouteTable, VirtualHost
from upwell.runtime.testing.loop import run_fake


def limit(quota: int = 2, name: str = "limit") -> PolicyResource:
    return policy(
        f"""
apiVersion: istio.alibabacloud.com/v1
kind: ASMLocalRateLimiter
metadata: {{name: {name}, namespace: istio-system}}
spec:
  workloadSelector: {{labels: {{istio: ingressgateway}}}}
  isGateway: true
  configs:
  - match: {{vhost: {{name: httpbin.default.example.com, port: 80}}}}
    limit: {{fill_interval: {{seconds: 600}}, quota: {quota}}}
"""
    )


def delaying(seconds: int = 5) -> PolicyResource:
    fault = {"delay": {"fixedDelay": f"{seconds}s", "percentage": {"value": 100}}}
    return service(to_httpbin(fault=fault))


def pausing() -> PolicyResource:
    return service(to_httpbin(retries={"attempts": 3, "retryOn": "5xx", "backoff": "5s"}))


# What policies have learnt


async def replica_goes(on: Stage) -> None:
    on.move(on.told.running[0], ReplicaState.DRAINING)
    await on.replica(Player(), "next", revision=HTTPBIN)


async def route_changes(on: Stage) -> None:
    changed = [
        VirtualHost(each.name, (*each.hosts, f"more-{number}.example.com"), each.rules, is_private=each.is_private)
        for number, each in enumerate(on.gateway.routes.of("default/httpbin"))
    ]
    on.gateway.set_routes(on.gateway.routes.changed({"default/httpbin": changed}))


async def revision_changes(on: Stage) -> None:
    labels = {"serving.knative.dev/service": "httpbin", "serving.knative.dev/routingState": "reserve"}
    on.gateway.set_revision(HTTPBIN, RevisionLimits(), labels)


async def other_policy(on: Stage) -> None:
    on.gateway.set_policies([limit(), limit(1000, "another"), rule(loadBalancer={"simple": "RANDOM"})])


@pytest.mark.parametrize("change", [replica_goes, route_changes, revision_changes, other_policy])
def test_tokens_that_were_taken_stay_so_whatever_else_changes(change: Any) -> None:
    async def scenario() -> None:
        async with httpbin(limit()) as on:
            await on.replica(Player(), revision=HTTPBIN)
            assert [await ask(on, asking()) for _ in range(3)] == [200, 200, 429]
            await change(on)
            assert await ask(on, asking()) == 429

    run_fake(scenario())


def test_a_limit_that_is_another_begins_anew() -> None:
    async def scenario() -> None:
        async with httpbin(limit(2)) as on:
            await on.replica(Player(), revision=HTTPBIN)
            assert [await ask(on, asking()) for _ in range(3)] == [200, 200, 429]
            on.gateway.set_policies([limit(3)])
            assert [await ask(on, asking()) for _ in range(4)] == [200, 200, 200, 429]
            on.gateway.set_policies([])
            assert await ask(on, asking()) == 200
            on.gateway.set_policies([limit(3)])
            assert [await ask(on, asking()) for _ in range(4)] == [200, 200, 200, 429]

    run_fake(scenario())


@pytest.mark.parametrize("change", [route_changes, revision_changes])
def test_replicas_that_are_out_stay_out_and_come_back_in_their_time(change: Any) -> None:
    async def scenario() -> None:
        async with httpbin(article("destination-rule")) as on:
            player = Player(otherwise=(BUSY,))
            await on.replica(player, revision=HTTPBIN)
            assert [await ask(on, asking()) for _ in range(4)] == [503] * 4
            assert len(player.seen) == 3
            await change(on)
            on.gateway.set_policies([article("destination-rule"), limit(1000)])
            assert await ask(on, asking()) == 503
            assert len(player.seen) == 3
            await asyncio.sleep(21.0)
            assert await ask(on, asking()) == 503
            assert len(player.seen) == 4

    run_fake(scenario())


def test_replicas_that_a_changed_rule_takes_out_come_back_as_it_says() -> None:
    def ejecting(base: str) -> PolicyResource:
        outlier = {"consecutiveGatewayErrors": 1, "interval": "1s", "baseEjectionTime": base}
        return rule(outlierDetection={**outlier, "maxEjectionPercent": 100, "minHealthPercent": 0})

    async def scenario() -> None:
        async with httpbin(ejecting("100s")) as on:
            player = Player([(BUSY,), (BUSY,)])
            await on.replica(player, revision=HTTPBIN)
            assert [await ask(on, asking()) for _ in range(2)] == [503, 503]
            on.gateway.set_policies([ejecting("5s")])
            assert [await ask(on, asking()) for _ in range(2)] == [503, 503]
            assert len(player.seen) == 2
            await asyncio.sleep(7.0)
            assert await ask(on, asking()) == 200

    run_fake(scenario())


def test_routes_and_revisions_that_are_gone_leave_nothing_behind() -> None:
    async def scenario() -> None:
        everywhere = service(to_httpbin(), name="all", hosts=["*.example.com"], gateways=["outside"])
        async with httpbin(limit(), rule(loadBalancer={"simple": "RANDOM"}), delaying(1), everywhere) as on:
            policing = on.gateway.policing
            vhosts = on.gateway.routes.vhosts
            before = repr(policing), repr(policing._policies)
            for number in range(5):
                name = f"default/more-{number}"
                more = VirtualHost(name, (f"more-{number}.example.com",), vhosts[0].rules)
                on.gateway.set_routes(RouteTable([*vhosts, more]))
                on.gateway.set_revision(f"{name}-00001", RevisionLimits(), {})
                on.gateway.remove_revision(f"{name}-00001")
            on.gateway.set_routes(RouteTable(vhosts))
            assert (repr(policing), repr(policing._policies)) == before

    run_fake(scenario())


# Requests in every state


async def held(on: Stage) -> Peer:
    on.gateway.set_policies([delaying()])
    await on.replica(Player(), revision=HTTPBIN)
    client = await on.client(asking())
    await settle()
    return client


async def in_a_quota(on: Stage) -> Peer:
    text = article("quota-scheduling-policy").to_manifest()
    text["spec"]["quota_scheduler"].update({"bucket_capacity": 1, "fill_amount": 1})
    text["spec"]["quota_scheduler"]["rate_limiter"] = {"interval": "5s"}
    on.gateway.set_policies([policy(str(text))])
    await on.replica(Player(), revision=HTTPBIN)
    assert await ask(on, asking()) == 200
    client = await on.client(asking())
    await settle()
    assert on.gateway.revisions[HTTPBIN].stats.in_flight == 0
    return client


async def queued(on: Stage) -> Peer:
    on.gateway.set_policies([article("quota-scheduling-policy"), rule(loadBalancer={"simple": "RANDOM"})])
    client = await on.client(asking())
    await eventually(lambda: len(on.gateway.revisions[HTTPBIN].activator.waiting) == 1)
    return client


async def in_a_pause(on: Stage) -> Peer:
    on.gateway.set_policies([pausing()])
    await on.replica(Player(otherwise=(BUSY,)), revision=HTTPBIN)
    client = await on.client(asking())
    await eventually(lambda: len(on.gateway.revisions[HTTPBIN].activator.retrying) == 1)
    return client


async def at_a_replica(on: Stage) -> Peer:
    on.gateway.set_policies([rule(loadBalancer={"simple": "RANDOM"}), service(to_httpbin(timeout="100s"))])
    player = Player(otherwise=(5.0, OK))
    await on.replica(player, revision=HTTPBIN)
    client = await on.client(asking())
    await eventually(lambda: len(player.seen) == 1)
    return client


STATES = [held, in_a_quota, queued, in_a_pause, at_a_replica]


@pytest.mark.parametrize("state", STATES)
def test_a_client_may_leave_in_any_state(state: Any) -> None:
    async def scenario() -> None:
        async with httpbin() as on:
            client = await state(on)
            total = on.gateway.revisions[HTTPBIN].counters.total
            client.close()
            await eventually(lambda: on.gateway.revisions[HTTPBIN].counters.total == total + 1)
            assert on.gateway.revisions[HTTPBIN].counters.outcomes["left"] == 1
            await is_over(on)

    run_fake(scenario())


@pytest.mark.parametrize("state", STATES)
def test_the_deadline_holds_in_any_state(state: Any) -> None:
    async def scenario() -> None:
        async with httpbin(limits=RevisionLimits(timeout_seconds=2.0)) as on:
            began = on.clock.monotonic()
            client = await state(on) if state is not in_a_pause else await on.client(asking())
            await eventually(lambda: b"\r\n\r\n" in client.received)
            # A replica has its margin to answer at the deadline by itself.
            assert on.clock.monotonic() - began < 8.0
            assert status(bytes(client.received)) in (503, 504, 200)
            await is_over(on)

    run_fake(scenario())


@pytest.mark.parametrize("state", STATES)
def test_a_revision_may_be_removed_in_any_state(state: Any) -> None:
    async def scenario() -> None:
        async with httpbin() as on:
            lines = logged(on)
            client = await state(on)
            entry = on.gateway.revisions[HTTPBIN]
            pokes = list(on.told.pokes)
            for replica in list(on.told.running):
                on.move(replica, ReplicaState.DRAINING)
            on.gateway.remove_revision(HTTPBIN)
            await eventually(lambda: b"\r\n\r\n" in client.received)
            expected = 200 if state is at_a_replica else 503
            assert status(bytes(client.received)) == expected
            assert lines[-1][0] == expected
            assert lines[-1][1:3] == (("", "") if expected == 200 else ("no_revision", "NC"))
            assert entry.stats.in_flight == 0
            assert not (state is held and entry.reporting)
            assert [each for each in on.told.pokes if each not in pokes] == []
            await is_over(on)

    run_fake(scenario())


@pytest.mark.parametrize("then", ["none", "others", "the same"])
@pytest.mark.parametrize("state", STATES)
def test_policies_may_change_in_any_state_and_none_is_lost(state: Any, then: str) -> None:
    async def scenario() -> None:
        async with httpbin() as on:
            client = await state(on)
            policies: dict[str, list[PolicyResource]] = {
                "none": [],
                "others": [limit(1000), article("quota-scheduling-policy"), article("destination-rule")],
                "the same": [delaying(), article("quota-scheduling-policy")],
            }
            on.gateway.set_policies(policies[then])
            if state is queued:
                await on.replica(Player(), revision=HTTPBIN)
            await eventually(lambda: b"\r\n\r\n" in client.received)
            assert status(bytes(client.received)) == (503 if state is in_a_pause else 200)
            client.close()
            await is_over(on)

    run_fake(scenario())


# The order of those that wait


async def waiting(on: Stage, kinds: list[bytes]) -> list[Peer]:
    """Clients that wait for the first replica, in the order in which they came."""
    clients: list[Peer] = []
    for kind in kinds:
        clients.append(await on.client(asking(fields=b"user_type: " + kind + b"\r\n")))
        await eventually(lambda: len(on.gateway.revisions[HTTPBIN].activator.waiting) == len(clients))
    return clients


def served(player: Player) -> list[str]:
    return [dict(message.headers)[b"user_type"].decode() for message in player.seen]


KINDS = [b"guest"] * 6 + [b"subscriber"] * 6


def generous() -> PolicyResource:
    """The article's priorities, with tokens for all."""
    text = article("quota-scheduling-policy").to_manifest()
    text["spec"]["quota_scheduler"].update({"bucket_capacity": 1000, "fill_amount": 1000})
    return policy(str(text))


@pytest.mark.parametrize("before", [False, True], ids=["applied while they wait", "there before"])
def test_priority_orders_those_that_wait_for_a_replica(before: bool) -> None:
    async def scenario() -> None:
        async with httpbin(limits=RevisionLimits(container_concurrency=1)) as on:
            # Another policy, so that what they are is known of all.
            on.gateway.set_policies([generous()] if before else [limit(1000)])
            await waiting(on, KINDS)
            if not before:
                on.gateway.set_policies([generous()])
            player = Player(otherwise=(0.1, OK))
            await on.replica(player, revision=HTTPBIN)
            await eventually(lambda: len(player.seen) == 12)
            first = served(player)[:6]
            assert first.count("subscriber") >= 4
            await is_over(on)

    run_fake(scenario())


def test_without_the_priority_they_are_served_as_they_came() -> None:
    async def scenario() -> None:
        async with httpbin(generous(), limits=RevisionLimits(container_concurrency=1)) as on:
            await waiting(on, KINDS)
            on.gateway.set_policies([])
            player = Player(otherwise=(0.1, OK))
            await on.replica(player, revision=HTTPBIN)
            await eventually(lambda: len(player.seen) == 12)
            assert served(player) == [kind.decode() for kind in KINDS]
            await is_over(on)

    run_fake(scenario())


def test_who_has_priority_is_not_refused_for_those_that_it_overtakes() -> None:
    async def scenario() -> None:
        async with httpbin(generous(), limits=RevisionLimits(container_concurrency=1)) as on:
            player = Player(otherwise=(1.0, OK))
            await on.replica(player, revision=HTTPBIN)
            assert await ask(on, asking()) == 200
            guests = [await on.client(asking(fields=b"user_type: guest\r\n")) for _ in range(20)]
            await settle()
            hurried = b"user_type: subscriber\r\nX-Request-Deadline: %d\r\n"
            by = int((on.clock.now() + 4.0) * 1000)
            assert await ask(on, asking(fields=hurried % by)) == 200
            for guest in guests:
                guest.close()
            await is_over(on)

    run_fake(scenario())
