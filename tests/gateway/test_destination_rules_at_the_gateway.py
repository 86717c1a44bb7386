"""DestinationRules at the gateway: limits of what may be under way, zones, hashes, warm-up, connections."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.gateway import Stage
from support.http import OK, eventually, settle
from support.policed import BUSY, Player, answer_fields, ask, head, is_over, logged, rule
from support.policies import HTTPBIN, asking, httpbin, policy, status
from upwell.functions.api.destination_rule import LONGEST_IDLE_SECONDS
from upwell.functions.api.policies import PolicyResource
from upwell.runtime.cluster.interface import ReplicaState
from upwell.runtime.gateway.activator import RevisionLimits
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.mesh.settings import MeshSettings
from upwell.runtime.testing.loop import run_fake

NAME = "DestinationRule default/httpbin"
SLOW = (1.0, OK)


def pool(tcp: dict[str, Any] | None = None, **http: Any) -> PolicyResource:
    return rule(connectionPool={"tcp": tcp or {}, "http": http})


async def burst(on: Stage, count: int) -> list[int]:
    """The statuses of requests that come one right after the other."""
    clients = []
    for _ in range(count):
        clients.append(await on.client(asking()))
        await settle()
    await eventually(lambda: all(b"\r\n\r\n" in client.received for client in clients))
    for client in clients:
        client.close()
    return [status(bytes(client.received)) for client in clients]


# connectionPool


def test_more_requests_than_may_be_under_way_overflow() -> None:
    async def scenario() -> None:
        async with httpbin(pool(http2MaxRequests=2)) as on:
            lines = logged(on)
            await on.replica(Player(otherwise=SLOW), revision=HTTPBIN)
            assert await burst(on, 4) == [200, 200, 503, 503]
            assert lines[0] == (503, "broken", "UO", NAME)
            assert await burst(on, 1) == [200]
            entry = on.gateway.revisions[HTTPBIN]
            assert entry.counters.outcomes == {"succeeded": 3, "broken": 2}
            assert entry.counters.refusals == {(NAME, "broken"): 2}
            await is_over(on)

    run_fake(scenario())


def test_more_requests_than_may_wait_overflow_each_of_them() -> None:
    async def scenario() -> None:
        async with httpbin(pool(http1MaxPendingRequests=2), limits=RevisionLimits(container_concurrency=1)) as on:
            await on.replica(Player(otherwise=SLOW), revision=HTTPBIN)
            assert await burst(on, 6) == [200, 200, 200, 503, 503, 503]
            await is_over(on)

    run_fake(scenario())


def test_requests_that_waited_for_a_cold_start_are_not_refused_for_being_many() -> None:
    async def scenario() -> None:
        async with httpbin(pool(http2MaxRequests=2, http1MaxPendingRequests=1)) as on:
            clients = [await on.client(asking()) for _ in range(10)]
            entry = on.gateway.revisions[HTTPBIN]
            await eventually(lambda: len(entry.activator.waiting) == 10)
            await on.replica(Player(otherwise=SLOW), revision=HTTPBIN)
            await settle()
            assert entry.activator.in_flight == 2
            assert await burst(on, 1) == [503]
            for client in clients:
                assert b" 200 " in await client.answer(b"ok")
            await is_over(on)

    run_fake(scenario())


@pytest.mark.parametrize(
    ("limits", "opened"), [({}, 1), ({"maxRequestsPerConnection": 2}, 3), ({"maxRequestsPerConnection": 1}, 6)]
)
def test_a_connection_serves_no_more_requests_than_the_rule_says(limits: dict[str, Any], opened: int) -> None:
    async def scenario() -> None:
        async with httpbin(pool(**limits)) as on:
            _, backend = await on.replica(Player(), revision=HTTPBIN)
            assert [await ask(on, asking()) for _ in range(6)] == [200] * 6
            assert len(backend.peers) == opened

    run_fake(scenario())


def test_an_idle_connection_is_closed_when_the_rule_says_and_a_longer_time_sets_nothing() -> None:
    async def scenario(seconds: int) -> tuple[bool, bool]:
        async with httpbin(pool(idleTimeout=f"{seconds}s")) as on:
            _, backend = await on.replica(Player(), revision=HTTPBIN)
            assert await ask(on, asking()) == 200
            await asyncio.sleep(5.0)
            early = backend.peers[0].closed
            await asyncio.sleep(HttpSettings().upstream_idle)
            return early, backend.peers[0].closed

    assert run_fake(scenario(3)) == (True, True)
    assert run_fake(scenario(300)) == (False, True)
    assert HttpSettings().upstream_idle == LONGEST_IDLE_SECONDS
    assert any("idleTimeout" in text for text in pool(idleTimeout="300s").warnings())
    assert not pool(idleTimeout="3s").warnings()


def test_a_connection_is_given_up_at_its_age() -> None:
    async def scenario() -> None:
        async with httpbin(pool({"maxConnectionDuration": "10s"})) as on:
            _, backend = await on.replica(Player(), revision=HTTPBIN)
            for _ in range(30):
                assert await ask(on, asking()) == 200
                await asyncio.sleep(1.0)
            assert 2 <= len(backend.peers) <= 4

    run_fake(scenario())


def test_limits_hold_for_replicas_that_were_there_before_and_go_with_the_rule() -> None:
    async def scenario() -> None:
        async with httpbin() as on:
            _, backend = await on.replica(Player(), revision=HTTPBIN)
            on.gateway.set_policies([pool(maxRequestsPerConnection=1)])
            assert [await ask(on, asking()) for _ in range(3)] == [200] * 3
            opened = len(backend.peers)
            assert opened == 3
            on.gateway.set_policies([])
            assert [await ask(on, asking()) for _ in range(3)] == [200] * 3
            assert len(backend.peers) == opened + 1

    run_fake(scenario())


# Choice


OUTLIERS = {"consecutiveGatewayErrors": 1, "baseEjectionTime": "30s", "maxEjectionPercent": 100}


def test_the_own_zone_is_preferred_and_the_other_helps_out() -> None:
    async def scenario() -> None:
        zones = rule(outlierDetection=OUTLIERS, loadBalancer={"localityLbSetting": {"enabled": True}})
        limits = RevisionLimits(container_concurrency=2)
        async with httpbin(zones, limits=limits, mesh=MeshSettings(zone="cn/a")) as on:
            near, far = Player(otherwise=SLOW), Player(otherwise=SLOW)
            replica, _ = await on.replica(near, "near", revision=HTTPBIN, locality="cn/a")
            await on.replica(far, "far", revision=HTTPBIN, locality="cn/b")
            assert await burst(on, 2) == [200, 200]
            assert (len(near.seen), len(far.seen)) == (2, 0)
            # Its two slots are taken.
            assert await burst(on, 4) == [200] * 4
            assert (len(near.seen), len(far.seen)) == (4, 2)
            near.steps.append((BUSY,))
            assert await burst(on, 1) == [503]
            assert await burst(on, 2) == [200, 200]
            assert len(far.seen) == 4
            await asyncio.sleep(45.0)
            assert await burst(on, 1) == [200]
            assert len(near.seen) == 6
            on.move(replica, ReplicaState.DRAINING)
            assert await burst(on, 1) == [200]
            assert len(far.seen) == 5
            await is_over(on)

    run_fake(scenario())


def test_a_cookie_keeps_a_client_at_its_replica() -> None:
    async def scenario() -> None:
        cookie = {"httpCookie": {"name": "stay", "ttl": "60s", "path": "/"}}
        async with httpbin(rule(loadBalancer={"consistentHash": cookie})) as on:
            players = [Player() for _ in range(5)]
            for number, player in enumerate(players):
                await on.replica(player, f"r{number}", revision=HTTPBIN)
            answer = await head(on, asking())
            (given,) = answer_fields(answer, "set-cookie")
            assert given.startswith("stay=")
            assert "Max-Age=60" in given
            first = next(player for player in players if player.seen)
            back = f"Cookie: {given.partition(';')[0]}\r\n".encode()
            for _ in range(10):
                assert answer_fields(await head(on, asking(fields=back)), "set-cookie") == []
            assert len(first.seen) == 11

    run_fake(scenario())


def test_a_young_replica_gets_less_until_it_is_warm() -> None:
    async def scenario() -> None:
        warming = rule(loadBalancer={"simple": "ROUND_ROBIN", "warmup": {"duration": "100s"}})
        async with httpbin(warming) as on:
            old, young = Player(), Player()
            await on.replica(old, "old", revision=HTTPBIN)
            await asyncio.sleep(200.0)
            await on.replica(young, "young", revision=HTTPBIN)
            assert await burst(on, 40) == [200] * 40
            assert len(young.seen) <= 8
            await asyncio.sleep(150.0)
            before = len(young.seen)
            assert await burst(on, 40) == [200] * 40
            assert len(young.seen) - before == 20

    run_fake(scenario())


# What is counted against a replica


def test_a_caller_in_a_hurry_takes_no_replica_out() -> None:
    async def scenario() -> None:
        async with httpbin(rule(outlierDetection=OUTLIERS)) as on:
            await on.replica(Player([(3.0, OK)]), revision=HTTPBIN)
            hurried = b"X-Request-Deadline: %d\r\n" % int((on.clock.now() + 1.0) * 1000)
            assert await ask(on, asking(fields=hurried)) == 504
            assert await ask(on, asking()) == 200

    run_fake(scenario())


def test_a_caller_in_a_hurry_opens_no_circuit() -> None:
    breaker = policy(
        """
apiVersion: istio.alibabacloud.com/v1
kind: ASMCircuitBreaker
metadata: {name: errors, namespace: knative-serving}
spec:
  workloadSelector: {labels: {app: activator}}
  configs:
  - match: {vhost: {name: httpbin-00001-private.default.svc.cluster.local, port: 8012}}
    breaker_config: {window_size: 10s, break_duration: 60s, error_percent: {value: 1}, min_request_amount: 1}
"""
    )

    async def scenario() -> None:
        async with httpbin(breaker) as on:
            await on.replica(Player([(3.0, OK), (OK,), (BUSY,)]), revision=HTTPBIN)
            hurried = b"X-Request-Deadline: %d\r\n" % int((on.clock.now() + 1.0) * 1000)
            assert await ask(on, asking(fields=hurried)) == 504
            assert await ask(on, asking()) == 200
            assert await ask(on, asking()) == 503
            assert (await head(on, asking())).endswith(b"circuit breaker open")

    run_fake(scenario())


def test_an_answer_that_never_comes_counts_as_a_failure_of_the_replica() -> None:
    async def scenario() -> None:
        ejecting = rule(outlierDetection=OUTLIERS)
        async with httpbin(ejecting, limits=RevisionLimits(timeout_seconds=2.0)) as on:
            await on.replica(Player([(1e6,)]), revision=HTTPBIN)
            assert await ask(on, asking()) == 504
            assert (await head(on, asking())).endswith(b"no healthy upstream")

    run_fake(scenario())
