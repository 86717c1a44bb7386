"""VirtualServices at the gateway: what a client, a replica and the log see of each of their fields."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.policed import (
    BUSY,
    Player,
    answer_fields,
    ask,
    fields,
    head,
    is_over,
    logged,
    service,
    to_httpbin,
    with_other_route,
)
from support.policies import HTTPBIN, asking, httpbin, policy, status
from upwell.functions.api.policies import PolicyResource
from upwell.runtime.gateway.activator import RevisionLimits
from upwell.runtime.gateway.routes import PathRule, RouteTable, RouteTarget, VirtualHost
from upwell.runtime.mesh.settings import MeshSettings
from upwell.runtime.testing.loop import run_fake

NAME = "VirtualService default/httpbin"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LATE = (5.0, OK)


# Timeout


def test_a_route_times_out_with_envoys_words_and_is_told_in_the_log() -> None:
    async def scenario() -> None:
        async with httpbin(service(to_httpbin(timeout="0.5s"))) as on:
            lines = logged(on)
            await on.replica(Player(otherwise=LATE), revision=HTTPBIN)
            started = on.clock.monotonic()
            answer = await head(on, asking())
            assert 0.5 <= on.clock.monotonic() - started < 0.6
            assert status(answer) == 504
            assert answer.endswith(b"upstream request timeout")
            assert lines == [(504, "timeout_route", "UT", NAME)]
            assert on.gateway.revisions[HTTPBIN].counters.outcomes == {"failed": 1}
            await is_over(on)

    run_fake(scenario())


def test_a_wait_for_the_first_replica_is_not_in_the_routes_time() -> None:
    async def scenario() -> None:
        async with httpbin(service(to_httpbin(timeout="0.5s"))) as on:
            client = await on.client(asking())
            await asyncio.sleep(20.0)
            await on.replica(Player(otherwise=(0.3, OK)), revision=HTTPBIN)
            assert b" 200 " in await client.answer(b"ok")
            client.close()
            await is_over(on)

    run_fake(scenario())


def test_a_timeout_within_an_answer_breaks_it_off_and_counts_as_failed() -> None:
    async def scenario() -> None:
        async with httpbin(service(to_httpbin(timeout="1s"))) as on:
            begun = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"
            await on.replica(Player(otherwise=(begun, 9.0, b"again")), revision=HTTPBIN)
            client = await on.client(asking())
            received = await client.to_the_end()
            assert received.endswith(b"half")
            assert on.gateway.revisions[HTTPBIN].counters.outcomes == {"failed": 1}
            await is_over(on)

    run_fake(scenario())


def test_the_time_covers_retries_and_their_pauses() -> None:
    async def scenario() -> None:
        text = to_httpbin(timeout="1s", retries={"attempts": 50, "retryOn": "5xx", "backoff": "200ms"})
        async with httpbin(service(text)) as on:
            busy = Player(otherwise=(0.2, BUSY))
            await on.replica(busy, revision=HTTPBIN)
            started = on.clock.monotonic()
            assert await ask(on, asking()) == 504
            assert 1.0 <= on.clock.monotonic() - started < 1.2
            assert 1 < len(busy.seen) <= 5
            await is_over(on)

    run_fake(scenario())


def test_a_slow_request_that_times_out_counts_as_slow() -> None:
    breaker = policy(
        """
apiVersion: istio.alibabacloud.com/v1
kind: ASMCircuitBreaker
metadata: {name: slow, namespace: istio-system}
spec:
  workloadSelector: {labels: {istio: ingressgateway}}
  applyToTraffic: gateway
  configs:
  - match: {vhost: {name: httpbin.default.example.com, port: 80}}
    breaker_config: {window_size: 10s, break_duration: 60s, slow_request_rt: 0.4s, max_slow_requests: 0,
                     custom_response: {status_code: 498}}
"""
    )

    async def scenario() -> None:
        async with httpbin(service(to_httpbin(timeout="0.5s")), breaker) as on:
            await on.replica(Player(otherwise=LATE), revision=HTTPBIN)
            assert await ask(on, asking()) == 504
            assert await ask(on, asking()) == 498

    run_fake(scenario())


# Faults, CORS, answers of the gateway's own


def fault(**parts: Any) -> dict[str, Any]:
    return {name: {**part, "percentage": {"value": 100}} for name, part in parts.items()}


def test_a_fault_is_waited_for_and_then_answered_and_is_no_load() -> None:
    async def scenario() -> None:
        faults = fault(delay={"fixedDelay": "2s"}, abort={"httpStatus": 418})
        async with httpbin(service(to_httpbin(fault=faults))) as on:
            lines = logged(on)
            client = await on.client(asking())
            await asyncio.sleep(1.9)
            assert not client.received
            assert on.gateway.revisions[HTTPBIN].stats.in_flight == 0
            assert b" 418 " in await client.answer(b"abort")
            assert lines == [(418, "failed", "FI", NAME)]
            assert on.told.pokes == []
            await is_over(on)

    run_fake(scenario())


def test_the_log_says_that_a_request_was_delayed_on_purpose() -> None:
    async def scenario() -> None:
        delayed = service(to_httpbin(fault=fault(delay={"fixedDelay": "2s"})))
        async with httpbin(delayed) as on:
            lines = logged(on)
            await on.replica(Player(), revision=HTTPBIN)
            assert await ask(on, asking()) == 200
            await is_over(on)
            assert lines == [(200, "", "DI", "")]

    run_fake(scenario())


def test_a_client_may_leave_while_its_request_is_delayed() -> None:
    async def scenario() -> None:
        async with httpbin(service(to_httpbin(fault=fault(delay={"fixedDelay": "20s"})))) as on:
            player = Player()
            await on.replica(player, revision=HTTPBIN)
            client = await on.client(asking())
            await asyncio.sleep(1.0)
            client.close()
            await is_over(on)
            assert player.seen == []
            assert on.gateway.revisions[HTTPBIN].counters.outcomes == {"left": 1}

    run_fake(scenario())


def test_a_deadline_ends_a_delay() -> None:
    async def scenario() -> None:
        limits = RevisionLimits(timeout_seconds=2.0)
        delayed = service(to_httpbin(fault=fault(delay={"fixedDelay": "20s"})))
        async with httpbin(delayed, limits=limits) as on:
            await on.replica(Player(), revision=HTTPBIN)
            began = on.clock.monotonic()
            assert await ask(on, asking()) == 504
            assert on.clock.monotonic() < began + 3.0
            await is_over(on)

    run_fake(scenario())


CORS: dict[str, Any] = {
    "allowOrigins": [{"exact": "https://a.example"}],
    "allowMethods": ["GET", "PUT"],
    "maxAge": "60s",
}
ORIGIN = b"Origin: https://a.example\r\n"


def test_a_preflight_is_answered_without_the_function() -> None:
    async def scenario() -> None:
        async with httpbin(service(to_httpbin(corsPolicy=CORS))) as on:
            asked = asking(method=b"OPTIONS", fields=ORIGIN + b"Access-Control-Request-Method: PUT\r\n")
            answer = await head(on, asked)
            assert status(answer) == 200
            assert answer_fields(answer, "access-control-allow-origin") == ["https://a.example"]
            assert answer_fields(answer, "access-control-allow-methods") == ["GET,PUT"]
            assert on.told.pokes == []
            assert on.gateway.revisions[HTTPBIN].counters.outcomes == {"succeeded": 1}
            await is_over(on)

    run_fake(scenario())


@pytest.mark.parametrize("kind", ["answer", "fault", "timeout", "no replica"])
def test_every_answer_to_an_allowed_origin_names_it(kind: str) -> None:
    async def scenario() -> None:
        parts: dict[str, Any] = {"corsPolicy": CORS, "timeout": "1s"}
        if kind == "fault":
            parts["fault"] = fault(abort={"httpStatus": 503})
        async with httpbin(service(to_httpbin(**parts)), limits=RevisionLimits(timeout_seconds=5.0)) as on:
            if kind != "no replica":
                steps = LATE if kind == "timeout" else (OK,)
                await on.replica(Player(otherwise=steps), revision=HTTPBIN)
            answer = await head(on, asking(fields=ORIGIN))
            assert status(answer) == {"answer": 200, "fault": 503}.get(kind, 504)
            assert answer_fields(answer, "access-control-allow-origin") == ["https://a.example"]

    run_fake(scenario())


def test_a_redirect_and_a_direct_response_are_answered_at_the_gateway() -> None:
    async def scenario() -> None:
        away = {"match": [{"uri": {"prefix": "/old"}}], "redirect": {"uri": "/new", "redirectCode": 308}}
        direct = {"directResponse": {"status": 203, "body": {"string": "here"}}}
        async with httpbin(service(away, direct)) as on:
            moved = await head(on, asking(b"/old?q=1"))
            assert status(moved) == 308
            assert answer_fields(moved, "location") == ["http://httpbin.default.example.com/new?q=1"]
            said = await head(on, asking(b"/"))
            assert status(said) == 203
            assert said.endswith(b"here")
            assert on.told.pokes == []
            await is_over(on)

    run_fake(scenario())


# What the function and the client see


def test_path_and_host_are_rewritten_and_the_old_path_is_told() -> None:
    async def scenario() -> None:
        parts = {
            "match": [{"uri": {"prefix": "/api/"}}],
            "rewrite": {"uri": "/v1/", "authority": "inside.example"},
        }
        async with httpbin(service(to_httpbin(**parts))) as on:
            player = Player()
            await on.replica(player, revision=HTTPBIN)
            assert await ask(on, asking(b"/api/get?x=1")) == 200
            seen = player.only
            assert seen.target == b"/v1/get?x=1"
            assert fields(seen, "host") == ["inside.example"]
            assert fields(seen, "x-envoy-original-path") == ["/api/get?x=1"]

    run_fake(scenario())


def test_a_paths_expression_never_breaks_out_of_the_request_line() -> None:
    async def scenario() -> None:
        parts = {"rewrite": {"uriRegexRewrite": {"match": "/(.*)", "rewrite": "/a b\\1"}}}
        try:
            spaced = service(to_httpbin(**parts))
        except ValueError:
            return  # refused where it is written
        async with httpbin(spaced) as on:
            player = Player()
            await on.replica(player, revision=HTTPBIN)
            assert await ask(on, asking(b"/x")) >= 400
            await is_over(on)

    run_fake(scenario())


def test_headers_are_removed_set_and_added_on_both_ways() -> None:
    async def scenario() -> None:
        headers = {
            "request": {"remove": ["x-gone"], "set": {"X-Set": "ours"}, "add": {"x-added": "more"}},
            "response": {"remove": ["server"], "set": {"x-by": "gateway"}, "add": {"x-kept": "2"}},
        }
        async with httpbin(service(to_httpbin(headers=headers))) as on:
            answer = b"HTTP/1.1 200 OK\r\nserver: a\r\nx-by: b\r\nx-kept: 1\r\ncontent-length: 2\r\n\r\nok"
            player = Player(otherwise=(answer,))
            await on.replica(player, revision=HTTPBIN)
            got = await head(on, asking(fields=b"x-gone: 1\r\nx-set: theirs\r\nx-added: first\r\n"))
            seen = player.only
            assert fields(seen, "x-gone") == []
            assert fields(seen, "x-set") == ["ours"]
            assert fields(seen, "x-added") == ["first", "more"]
            assert answer_fields(got, "server") == []
            assert answer_fields(got, "x-by") == ["gateway"]
            assert answer_fields(got, "x-kept") == ["1", "2"]

    run_fake(scenario())


def test_what_the_platform_says_is_neither_removed_nor_forged() -> None:
    names = ["K-Proxy-Request", "Knative-Serving-Revision", "X-Forwarded-For", "Via", "Forwarded"]

    async def scenario(**operations: Any) -> dict[str, list[str]]:
        async with httpbin(service(to_httpbin(headers={"request": operations}))) as on:
            player = Player()
            await on.replica(player, revision=HTTPBIN)
            assert await ask(on, asking()) == 200
            return {name: fields(player.only, name.lower()) for name in names}

    plain = run_fake(scenario(set={"x-other": "1"}))
    assert plain["K-Proxy-Request"] == ["activator"]
    assert run_fake(scenario(remove=names)) == plain
    assert run_fake(scenario(set=dict.fromkeys(names, "forged"))) == plain
    assert run_fake(scenario(add=dict.fromkeys(names, "forged"))) == plain


# Where it goes


def test_requests_go_to_revisions_by_weight_and_by_name() -> None:
    async def scenario() -> None:
        def to(number: int, weight: int) -> dict[str, Any]:
            return {"destination": {"host": f"httpbin-0000{number}"}, "weight": weight}

        async with httpbin(service({"route": [to(1, 20), to(2, 80)]}), revisions=2) as on:
            players = [Player(), Player()]
            for number, player in enumerate(players, 1):
                await on.replica(player, f"r{number}", revision=f"default/httpbin-0000{number}")
            assert [await ask(on, asking()) for _ in range(200)] == [200] * 200
            first, second = (len(player.seen) for player in players)
            assert first + second == 200
            assert 20 <= first <= 65
            assert {fields(seen, "knative-serving-revision")[0] for seen in players[1].seen} == {"httpbin-00002"}
            await is_over(on)

    run_fake(scenario())


def test_a_path_may_lead_to_another_route() -> None:
    async def scenario() -> None:
        away = {"match": [{"uri": {"prefix": "/other"}}], "route": [{"destination": {"host": "other"}}]}
        async with httpbin(service(away)) as on:
            own, other = Player(), Player()
            await on.replica(own, revision=HTTPBIN)
            await with_other_route(on, other)
            assert await ask(on, asking(b"/other/x")) == 200
            assert await ask(on, asking(b"/mine")) == 200
            assert other.only.target == b"/other/x"
            # No rule was for it, so the route's own targets had it.
            assert own.only.target == b"/mine"
            await is_over(on)

    run_fake(scenario())


@pytest.mark.parametrize(
    ("host", "is_private", "answer"),
    [
        ("vault.safe.svc.cluster.local", True, 503),
        ("vault.safe.svc.cluster.local", False, 200),
        ("vault-00001.safe", True, 503),
        ("vault-00001-private.safe", False, 503),
    ],
)
def test_a_tenants_rule_reaches_of_another_namespace_what_everybody_may_call(
    host: str, is_private: bool, answer: int
) -> None:
    async def scenario() -> None:
        async with httpbin(service({"route": [{"destination": {"host": host}}]})) as on:
            target = RouteTarget("safe/vault-00001", 100)
            rule = PathRule(b"/", (), (target,))
            hosts = [VirtualHost("safe/vault", ("vault.safe", "vault.safe.svc"), (rule,), is_private=True)]
            if not is_private:
                hosts.append(VirtualHost("safe/vault", ("vault.example.com",), (rule,)))
            on.gateway.set_routes(RouteTable([*on.gateway.routes.vhosts, *hosts]))
            on.gateway.set_revision(target.revision, RevisionLimits(), {"serving.knative.dev/service": "vault"})
            await on.replica(Player(), revision=target.revision)
            assert await ask(on, asking()) == answer

    run_fake(scenario())


def test_a_destination_that_nobody_is_named_is_unavailable() -> None:
    async def scenario() -> None:
        async with httpbin(service({"route": [{"destination": {"host": "nobody"}}]})) as on:
            lines = logged(on)
            await on.replica(Player(), revision=HTTPBIN)
            assert await ask(on, asking()) == 503
            assert lines == [(503, "no_destination", "", "")]

    run_fake(scenario())


def test_a_subset_is_the_revisions_with_its_labels() -> None:
    subsets = policy(
        """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: httpbin, namespace: default}
spec:
  host: httpbin
  subsets: [{name: second, labels: {serving.knative.dev/revision: httpbin-00002}}, {name: none, labels: {a: b}}]
"""
    )

    async def scenario(subset: str) -> list[int]:
        route = service({"route": [{"destination": {"host": "httpbin", "subset": subset}}]})
        async with httpbin(route, subsets, revisions=2) as on:
            labels = {"serving.knative.dev/service": "httpbin", "serving.knative.dev/revision": "httpbin-00002"}
            on.gateway.set_revision("default/httpbin-00002", RevisionLimits(), labels)
            players = [Player(), Player()]
            for number, player in enumerate(players, 1):
                await on.replica(player, f"r{number}", revision=f"default/httpbin-0000{number}")
            found = {await ask(on, asking()) for _ in range(20)}
            return [*found, *(len(player.seen) for player in players)]

    assert run_fake(scenario("second")) == [200, 0, 20]
    assert run_fake(scenario("none")) == [503, 0, 0]
    assert run_fake(scenario("unknown")) == [503, 0, 0]


def test_the_closest_host_decides_which_virtual_service_holds() -> None:
    def answering(code: int, name: str, *hosts: str) -> PolicyResource:
        return service({"directResponse": {"status": code}}, name=name, hosts=list(hosts), gateways=["outside"])

    async def scenario(*policies: PolicyResource) -> int:
        async with httpbin(*policies) as on:
            return await ask(on, asking())

    everyone = answering(201, "a", "*")
    domain = answering(202, "b", "*.example.com")
    own = answering(203, "c", "httpbin.default.example.com")
    assert run_fake(scenario(everyone, domain, own)) == 203
    assert run_fake(scenario(everyone, domain)) == 202
    assert run_fake(scenario(everyone)) == 201


# Upgraded connections


def test_a_connection_that_changes_its_protocol_passes_the_rules_once_and_then_flows() -> None:
    switching = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\nx-by: a\r\n\r\n"

    async def scenario() -> None:
        parts = {
            "headers": {"response": {"set": {"x-by": "gateway"}}},
            "retries": {"attempts": 3, "retryOn": "5xx", "perTryTimeout": "1s"},
        }
        async with httpbin(service(to_httpbin(**parts)), mesh=MeshSettings(name_policies=True)) as on:
            await on.replica(Player(otherwise=(switching, 5.0, b"later")), revision=HTTPBIN)
            upgrade = b"Connection: upgrade\r\nUpgrade: echo\r\n"
            client = await on.client(asking(fields=upgrade))
            received = await client.answer(b"later")
            assert status(received) == 101
            assert answer_fields(received, "x-by") == ["gateway"]
            client.close()
            await is_over(on)

    run_fake(scenario())


def test_an_upgrade_may_be_refused_as_any_request() -> None:
    async def scenario() -> None:
        async with httpbin(service(to_httpbin(fault=fault(abort={"httpStatus": 418})))) as on:
            answer = await head(on, asking(fields=b"Connection: upgrade\r\nUpgrade: websocket\r\n"))
            assert status(answer) == 418
            await is_over(on)

    run_fake(scenario())
