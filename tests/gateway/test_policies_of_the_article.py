"""The article's policies at the gateway, as printed: what is refused, with what answer, and when it is over."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, generate_latest

from support.gateway import Stage
from support.http import Backend, Peer, Script, answering, eventually, settle
from support.policies import HTTPBIN, article, asking, httpbin, policy, status
from upwell.runtime.cluster.interface import Replica, ReplicaState
from upwell.runtime.gateway.activator import RevisionLimits
from upwell.runtime.gateway.metrics import GatewayCollector
from upwell.runtime.gateway.routes import PathRule, RouteTable, RouteTarget, VirtualHost
from upwell.runtime.mesh.settings import MeshSettings
from upwell.runtime.testing.loop import run_fake

HELLO = "default/helloworld-go-00001"
HELLO_HOST = b"helloworld-go.default.example.com"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy"


def after(seconds: float, answer: bytes = OK) -> Script:
    """Answers each head so many seconds later."""

    def script(peer: Peer) -> None:
        while (end := peer.received.find(b"\r\n\r\n", peer.handled)) >= 0:
            peer.handled = end + 4
            asyncio.get_running_loop().call_later(seconds, peer.send, answer)

    return script


async def statuses(on: Stage, count: int, data: bytes) -> list[int]:
    """Of requests on one connection, one after the other."""
    found = []
    for _ in range(count):
        client = await on.client(data)
        await eventually(lambda client=client: b"\r\n\r\n" in client.received)  # type: ignore[misc]
        await settle()
        found.append(status(bytes(client.received)))
        client.close()
    return found


async def burst(on: Stage, count: int, data: bytes) -> list[int]:
    """Of requests that come at once, sorted."""
    clients = [await on.client(data) for _ in range(count)]
    await eventually(lambda: all(b"\r\n\r\n" in client.received for client in clients))
    found = sorted(status(bytes(client.received)) for client in clients)
    for client in clients:
        client.close()
    return found


# ASMLocalRateLimiter


def test_the_limiter_as_printed_lets_sixty_pass_and_refuses_the_next() -> None:
    async def scenario() -> None:
        async with httpbin(article("asm-local-rate-limiter"), name="helloworld-go") as on:
            await on.replica(revision=HELLO)
            asked = asking(host=HELLO_HOST)
            assert await burst(on, 61, asked) == [200] * 60 + [429]
            refused = await on.ask(asked, ending=b"limited")
            assert status(refused) == 429
            assert b"x-local-rate-limit: true\r\n" in refused
            assert refused.endswith(b"\r\n\r\nlocal_rate_limited")
            assert b"x-upwell-rejected-by" not in refused
            # 60 tokens in 2 s: as many again in that time, one after the other.
            await asyncio.sleep(1.0)
            assert 29 <= (await burst(on, 60, asked)).count(200) <= 33

    run_fake(scenario())


def test_every_host_of_the_route_draws_from_the_same_bucket() -> None:
    async def scenario() -> None:
        async with httpbin(article("asm-local-rate-limiter"), name="helloworld-go") as on:
            await on.replica(revision=HELLO)
            assert await burst(on, 30, asking(host=HELLO_HOST)) == [200] * 30
            assert (await burst(on, 40, asking(host=b"helloworld-go.default.svc"))).count(200) <= 33

    run_fake(scenario())


def test_with_a_quota_of_two_in_a_minute_the_third_is_refused() -> None:
    text = article("asm-local-rate-limiter").to_manifest()
    text["spec"]["configs"][0]["limit"] = {"fill_interval": {"seconds": 60}, "quota": 2}

    async def scenario() -> None:
        async with httpbin(policy(str(text)), name="helloworld-go") as on:
            await on.replica(revision=HELLO)
            assert await statuses(on, 3, asking(host=HELLO_HOST)) == [200, 200, 429]
            entry = on.gateway.revisions[HELLO]
            assert entry.counters.refusals == {("ASMLocalRateLimiter istio-system/helloworld", "limited"): 1}
            assert entry.counters.outcomes == {"succeeded": 2, "limited": 1}

    run_fake(scenario())


def test_what_a_limit_refuses_wakes_nobody() -> None:
    async def scenario() -> None:
        text = article("asm-local-rate-limiter").to_manifest()
        text["spec"]["configs"][0]["limit"] = {"fill_interval": {"seconds": 60}, "quota": 1}
        async with httpbin(policy(str(text)), name="helloworld-go") as on:
            waiting = await on.client(asking(host=HELLO_HOST))
            await eventually(lambda: on.told.pokes == [(HELLO, 1)])
            assert await statuses(on, 5, asking(host=HELLO_HOST)) == [429] * 5
            assert on.told.pokes == [(HELLO, 1)]
            assert on.gateway.revisions[HELLO].stats.in_flight == 1
            waiting.close()

    run_fake(scenario())


# ASMCircuitBreaker


def test_the_breaker_opens_after_more_than_five_slow_requests_and_closes_after_its_minute() -> None:
    async def scenario() -> None:
        async with httpbin(article("asm-circuit-breaker")) as on:
            await on.replica(after(0.6), revision=HTTPBIN)
            assert await statuses(on, 6, asking(b"/delay/0.6")) == [200] * 6
            broken = await on.ask(asking(), ending=b"break!")
            assert status(broken) == 498
            assert b"x-envoy-overload: true\r\n" in broken
            assert broken.endswith(b"\r\n\r\ndelay break!")
            await asyncio.sleep(59.0)
            assert await statuses(on, 1, asking()) == [498]
            await asyncio.sleep(1.1)
            assert await statuses(on, 6, asking()) == [200] * 6
            assert await statuses(on, 1, asking()) == [498]

    run_fake(scenario())


def test_a_wait_for_the_first_replica_is_not_the_functions_slowness() -> None:
    async def scenario() -> None:
        async with httpbin(article("asm-circuit-breaker")) as on:
            clients = [await on.client(asking()) for _ in range(20)]
            await eventually(lambda: len(on.gateway.revisions[HTTPBIN].activator.waiting) == 20)
            await asyncio.sleep(5.0)
            await on.replica(revision=HTTPBIN)
            for client in clients:
                assert b" 200 " in await client.answer(b"ok")
            assert await statuses(on, 3, asking()) == [200] * 3

    run_fake(scenario())


# DestinationRule


async def two_replicas(on: Stage) -> tuple[tuple[Replica, Backend], tuple[Replica, Backend]]:
    """One that answers, and one that answers 503."""
    good = await on.replica(answering(), "good", revision=HTTPBIN)
    bad = await on.replica(answering(UNAVAILABLE), "bad", revision=HTTPBIN)
    return good, bad


def test_three_503_in_a_row_put_a_replica_out_for_twenty_seconds_and_then_it_is_back() -> None:
    async def scenario() -> None:
        async with httpbin(article("destination-rule")) as on:
            await two_replicas(on)
            found: list[int] = []
            while found.count(503) < 3:
                found += await statuses(on, 1, asking())
                assert len(found) < 200
            assert await statuses(on, 50, asking()) == [200] * 50
            await asyncio.sleep(19.5)
            assert await statuses(on, 20, asking()) == [200] * 20
            await asyncio.sleep(1.0)
            assert 503 in await statuses(on, 60, asking())

    run_fake(scenario())


def test_when_all_are_out_as_the_rule_allows_the_answer_is_that_none_is_healthy() -> None:
    async def scenario() -> None:
        async with httpbin(article("destination-rule")) as on:
            await on.replica(answering(UNAVAILABLE), revision=HTTPBIN)
            assert await statuses(on, 3, asking()) == [503] * 3
            refused = await on.ask(asking(), ending=b"upstream")
            assert refused.endswith(b"no healthy upstream")
            assert on.gateway.revisions[HTTPBIN].counters.outcomes == {"failed": 3, "broken": 1}
            await asyncio.sleep(20.1)
            assert b"busy" in await on.ask(asking(), ending=b"busy")

    run_fake(scenario())


def test_a_replica_that_leaves_takes_its_record_with_it() -> None:
    async def scenario() -> None:
        async with httpbin(article("destination-rule")) as on:
            gone, _ = await on.replica(answering(UNAVAILABLE), revision=HTTPBIN)
            assert await statuses(on, 3, asking()) == [503] * 3
            on.move(gone, ReplicaState.DRAINING)
            await on.replica(answering(), "next", revision=HTTPBIN)
            assert await statuses(on, 3, asking()) == [200] * 3

    run_fake(scenario())


# QuotaSchedulingPolicy


def test_subscribers_get_four_times_the_share_of_guests_when_both_want_more_than_there_is() -> None:
    async def scenario() -> tuple[int, int]:
        async with httpbin(article("quota-scheduling-policy")) as on:
            await on.replica(revision=HTTPBIN)
            kinds = [b"guest", b"subscriber"]
            clients = {
                kind: [await on.client(asking(fields=b"user_type: " + kind + b"\r\n")) for _ in range(100)]
                for kind in kinds
            }
            await asyncio.sleep(6.05)
            served = [sum(b" 200 " in client.received for client in clients[kind]) for kind in kinds]
            return served[0], served[1]

    guests, subscribers = run_fake(scenario())
    # The bucket's ten at once went to those that came first.
    assert guests + subscribers == 70
    assert abs(subscribers / (guests - 10) - 4.0) <= 0.4


def test_requests_that_a_quota_holds_are_no_load_and_leave_when_their_client_does() -> None:
    async def scenario() -> None:
        async with httpbin(article("quota-scheduling-policy")) as on:
            await on.replica(revision=HTTPBIN)
            clients = [await on.client(asking()) for _ in range(30)]
            await settle(100)
            entry = on.gateway.revisions[HTTPBIN]
            assert entry.stats.in_flight == 0
            for client in clients:
                client.close()
            await eventually(lambda: entry.counters.total == 30)
            assert 10 <= entry.counters.statuses[200] <= 12
            assert entry.counters.statuses[200] + entry.counters.statuses[499] == 30

    run_fake(scenario())


def test_a_quota_queues_no_longer_than_the_request_may_wait() -> None:
    async def scenario() -> None:
        async with httpbin(article("quota-scheduling-policy"), limits=RevisionLimits(timeout_seconds=2)) as on:
            await on.replica(revision=HTTPBIN)
            clients = [await on.client(asking()) for _ in range(60)]
            await asyncio.sleep(2.5)
            found = [status(bytes(client.received)) for client in clients]
            assert found.count(200) == 29
            assert found.count(503) == 31
            assert on.gateway.revisions[HTTPBIN].counters.outcomes == {"succeeded": 29, "limited": 31}

    run_fake(scenario())


# Together


def test_each_policy_acts_where_it_says_and_says_so() -> None:
    async def scenario() -> None:
        names = ("asm-local-rate-limiter", "asm-circuit-breaker", "destination-rule", "quota-scheduling-policy")
        async with httpbin(*(article(name) for name in names)) as on:
            assert on.gateway.policing.matches() == {
                "ASMCircuitBreaker knative-serving/httpbin-delay": ["revision default/httpbin-00001"],
                "DestinationRule default/httpbin": ["revision default/httpbin-00001"],
                "QuotaSchedulingPolicy istio-system/quotascheduling": ["revision default/httpbin-00001"],
            }

    run_fake(scenario())


def test_hosts_of_a_tag_draw_from_the_bucket_of_the_route_that_is_named() -> None:
    async def scenario() -> None:
        text = article("asm-local-rate-limiter").to_manifest()
        text["spec"]["configs"][0]["limit"] = {"fill_interval": {"seconds": 3600}, "quota": 4}
        async with httpbin(policy(str(text)), name="helloworld-go") as on:
            await on.replica(revision=HELLO)
            rule = PathRule(b"/", (), (RouteTarget(HELLO, 100),))
            tagged = VirtualHost("default/helloworld-go", ("blue-helloworld-go.default",), (rule,), tag="blue")
            on.gateway.set_routes(RouteTable([*on.gateway.routes.vhosts, tagged]))
            assert await burst(on, 2, asking(host=HELLO_HOST)) == [200] * 2
            assert await burst(on, 4, asking(host=b"blue-helloworld-go.default")) == [200, 200, 429, 429]
            assert await burst(on, 1, asking(host=HELLO_HOST)) == [429]

    run_fake(scenario())


def test_a_limit_of_a_tags_host_leaves_the_route_alone() -> None:
    async def scenario() -> None:
        text = article("asm-local-rate-limiter").to_manifest()
        config = text["spec"]["configs"][0]
        config["limit"] = {"fill_interval": {"seconds": 3600}, "quota": 1}
        config["match"]["vhost"]["name"] = "blue-helloworld-go.default.svc.cluster.local"
        async with httpbin(policy(str(text)), name="helloworld-go") as on:
            await on.replica(revision=HELLO)
            rule = PathRule(b"/", (), (RouteTarget(HELLO, 100),))
            tagged = VirtualHost("default/helloworld-go", ("blue-helloworld-go.default",), (rule,), tag="blue")
            on.gateway.set_routes(RouteTable([*on.gateway.routes.vhosts, tagged]))
            assert await burst(on, 3, asking(host=b"blue-helloworld-go.default")) == [200, 429, 429]
            assert await burst(on, 3, asking(host=HELLO_HOST)) == [200] * 3

    run_fake(scenario())


def test_nothing_is_kept_of_policies_that_are_no_longer_there() -> None:
    async def scenario() -> None:
        names = ("asm-circuit-breaker", "destination-rule", "quota-scheduling-policy")
        async with httpbin(*(article(name) for name in names)) as on:
            await on.replica(revision=HTTPBIN)
            assert await statuses(on, 3, asking()) == [200] * 3
            on.gateway.set_policies([])
            assert repr(on.gateway.policing) == "<Policing <Policies 0 at 0 places>, acting on 0 virtual hosts>"
            assert await statuses(on, 1, asking()) == [200]

    run_fake(scenario())


def test_what_a_quota_counts_stands_on_the_metrics_page() -> None:
    async def scenario() -> str:
        async with httpbin(article("quota-scheduling-policy")) as on:
            await on.replica(revision=HTTPBIN)
            kinds = [b"guest", b"guest", b"subscriber"]
            for kind in kinds:
                assert b" 200 " in await on.ask(asking(fields=b"user_type: " + kind + b"\r\n"))
            registry = CollectorRegistry()
            registry.register(GatewayCollector(on.gateway))
            return generate_latest(registry).decode()

    page = run_fake(scenario())
    labels = 'policy="QuotaSchedulingPolicy istio-system/quotascheduling",workload='
    assert f'upwell_quota_tokens_total{{outcome="accepted",{labels}"guest"}} 2.0' in page
    assert f'upwell_quota_tokens_total{{outcome="incoming",{labels}"subscriber"}} 1.0' in page
    assert f'upwell_quota_waiting{{{labels}"guest"}} 0.0' in page


def test_rules_know_the_gateway_by_the_labels_that_the_operator_gave_it() -> None:
    text = """
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: httpbin, namespace: default}
        spec:
          hosts: [httpbin]
          http:
          - match: [{sourceLabels: {role: edge}}]
            directResponse: {status: 418}
        """

    async def scenario(mesh: MeshSettings) -> int:
        async with httpbin(policy(text), mesh=mesh) as on:
            await on.replica(revision=HTTPBIN)
            return (await statuses(on, 1, asking()))[0]

    assert run_fake(scenario(MeshSettings(gateway_labels={"edge-system": {"role": "edge"}}))) == 418
    assert run_fake(scenario(MeshSettings())) == 200
