"""Requests, answers, policies, replicas, revisions in any order: every request ends once, and nothing is left."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from support.gateway import Stage
from support.http import OK, Peer, settle
from support.policed import (
    BUSY,
    Player,
    is_over,
    logged,
    no_errors_logged,
    rule,
    service,
    to_httpbin,
    with_other_route,
)
from support.policies import HTTPBIN, article, asking, httpbin, policy
from upwell.functions.api.policies import PolicyResource
from upwell.runtime.cluster.interface import ReplicaState
from upwell.runtime.gateway.activator import RevisionLimits
from upwell.runtime.gateway.routes import RouteTable
from upwell.runtime.testing.loop import run_fake

LIMITS = RevisionLimits(container_concurrency=2, timeout_seconds=20.0)
SOMETIMES = {"percentage": {"value": 40}}
FAULT: dict[str, dict[str, Any]] = {"delay": {"fixedDelay": "2s"}, "abort": {"httpStatus": 418}}
UNFLAGGED = frozenset({"", "answered", "no_revision", "no_destination", "client_gone", "no_path"})


def on_httpbin(name: str) -> PolicyResource:
    """An article's policy, moved to the gateway of the route."""
    text = (
        json.dumps(article(name).to_manifest())
        .replace("helloworld-go.default.example.com", "httpbin.default.example.com")
        .replace('"helloworld-go"', '"httpbin"')
    )
    return policy(text)


EVENTS = policy(
    """
apiVersion: istio.alibabacloud.com/v1
kind: ASMLocalRateLimiter
metadata: {name: events, namespace: istio-system}
spec:
  workloadSelector: {labels: {istio: ingressgateway}}
  isGateway: true
  configs:
  - match: {vhost: {name: httpbin.default.example.com, port: 80}}
    limit: {fill_interval: {seconds: 1}, quota: 50}
    limit_overrides:
    - request_match: {header_match: [{name: ce-type, exact_match: test}]}
      limit: {fill_interval: {seconds: 10}, quota: 1}
"""
)
POLICIES: list[PolicyResource] = [
    on_httpbin("asm-circuit-breaker"),
    article("destination-rule"),
    on_httpbin("quota-scheduling-policy"),
    EVENTS,
    rule(
        loadBalancer={"simple": "ROUND_ROBIN"},
        connectionPool={
            "tcp": {"maxConnections": 2, "connectTimeout": "1s"},
            "http": {
                "http1MaxPendingRequests": 2,
                "http2MaxRequests": 3,
                "maxRetries": 1,
                "maxRequestsPerConnection": 2,
                "idleTimeout": "2s",
            },
        },
    ),
    service(
        to_httpbin(
            timeout="3s",
            retries={"attempts": 3, "retryOn": "5xx,reset", "perTryTimeout": "1s", "backoff": "0.5s"},
            mirror={"host": "other"},
        )
    ),
    service(
        to_httpbin(fault={"delay": {"fixedDelay": "2s", **SOMETIMES}, "abort": {"httpStatus": 418, **SOMETIMES}})
    ),
    service({"match": [{"uri": {"prefix": "/other"}}], "route": [{"destination": {"host": "other"}}]}),
]
ASKS_FOR_REPEATS = 5

Answer = tuple[bytes | float | str, ...]
ANSWERS: list[Answer] = [
    (OK,),
    (OK,),
    (0.3, OK),
    (4.0, OK),
    (BUSY,),
    ("reset",),
    ("close",),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", 1.0, "reset"),
    (1e6,),
]
STRUCTURED = b"Content-Type: application/cloudevents+json\r\n"

REQUEST = st.fixed_dictionaries(
    {
        "do": st.just("request"),
        "method": st.sampled_from([b"GET", b"POST"]),
        "path": st.sampled_from([b"/", b"/other"]),
        "kind": st.sampled_from([b"guest", b"subscriber"]),
        "body": st.sampled_from([b"", b"data", b'{"type":"test"}']),
        "cut": st.sampled_from([0, 0, 3]),
        "hurry": st.sampled_from([None, None, 1.0, 5.0]),
        "leaves": st.sampled_from([None, None, None, 0.0, 1.5]),
    }
)
STEP = st.one_of(
    REQUEST,
    REQUEST,
    REQUEST,
    st.fixed_dictionaries({"do": st.just("wait"), "seconds": st.sampled_from([0.0, 0.01, 0.7, 2.5, 11.0])}),
    st.fixed_dictionaries({"do": st.just("policies"), "which": st.sets(st.integers(0, len(POLICIES) - 1))}),
    st.fixed_dictionaries({"do": st.just("replica"), "answers": st.lists(st.sampled_from(ANSWERS), max_size=5)}),
    st.fixed_dictionaries({"do": st.sampled_from(["drain", "forget", "know", "label", "routes", "fail"])}),
)


class Scene:
    """Carries out steps, and knows what was asked."""

    def __init__(self, on: Stage) -> None:
        self.on = on
        self.clients: list[Peer] = []
        self.players: list[Player] = []
        self.posts: set[bytes] = set()
        self.may_repeat = False
        self.requests = 0

    async def act(self, step: dict[str, Any]) -> None:
        await getattr(self, step["do"])(**{name: value for name, value in step.items() if name != "do"})
        await settle()

    async def request(
        self,
        method: bytes,
        path: bytes,
        kind: bytes,
        body: bytes,
        cut: int,
        hurry: float | None,
        leaves: float | None,
    ) -> None:
        self.requests += 1
        number = b"x-number: %d\r\n" % self.requests
        fields = number + b"user_type: " + kind + b"\r\n" + (STRUCTURED if body else b"")
        if hurry is not None:
            fields += b"X-Request-Deadline: %d\r\n" % int((self.on.clock.now() + hurry) * 1000)
        data = asking(path, fields, method=method, body=body)
        client = await self.on.client(data[: len(data) - cut] if body else data)
        self.clients.append(client)
        if method == b"POST":
            self.posts.add(b"%d" % self.requests)
        loop = asyncio.get_running_loop()
        if leaves is not None:
            loop.call_later(leaves, client.transport.abort)
        elif cut and body:
            loop.call_later(1.0, client.send, data[len(data) - cut :])

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def policies(self, which: set[int]) -> None:
        self.may_repeat = self.may_repeat or ASKS_FOR_REPEATS in which
        self.on.gateway.set_policies([POLICIES[number] for number in sorted(which)])

    async def replica(self, answers: list[Answer]) -> None:
        player = Player(list(answers))
        self.players.append(player)
        await self.on.replica(player, f"r{len(self.players)}", revision=HTTPBIN)

    async def drain(self) -> None:
        for replica in self.on.told.running:
            if replica.revision == HTTPBIN and replica.state is ReplicaState.READY:
                self.on.move(replica, ReplicaState.DRAINING)
                self.on.told.running.remove(replica)
                return

    async def forget(self) -> None:
        self.on.gateway.remove_revision(HTTPBIN)

    async def know(self) -> None:
        labels = {"serving.knative.dev/service": "httpbin"}
        self.on.gateway.set_revision(HTTPBIN, LIMITS, labels)

    async def label(self) -> None:
        if HTTPBIN in self.on.gateway.revisions:
            self.on.gateway.set_revision(HTTPBIN, LIMITS, {"serving.knative.dev/service": "httpbin", "a": "b"})

    async def routes(self) -> None:
        self.on.gateway.set_routes(RouteTable(self.on.gateway.routes.vhosts))

    async def fail(self) -> None:
        self.on.fail(1.0)


def play(steps: list[dict[str, Any]]) -> None:
    async def scenario() -> None:
        async with httpbin(limits=LIMITS) as on:
            await with_other_route(on, Player())
            lines = logged(on)
            scene = Scene(on)
            for step in steps:
                await scene.act(step)
            await asyncio.sleep(200.0)
            assert len(lines) == scene.requests, "every request ended once"
            assert all(client.closed or b"\r\n\r\n" in client.received for client in scene.clients)
            assert all(client.received.count(b"HTTP/1.1 ") <= 1 for client in scene.clients)
            for _, reason, flag, named in lines:
                assert flag or reason in (
                    "",
                    "answered",
                    "no_revision",
                    "no_destination",
                    "client_gone",
                    "no_path",
                )
                assert flag or not named
            for replica in list(on.told.running):
                on.move(replica, ReplicaState.DRAINING)
            await is_over(on)
            assert on.gateway.timers.statistics().pending == 0
            if not scene.may_repeat:
                seen = Counter(dict(each.headers)[b"x-number"] for player in scene.players for each in player.seen)
                assert all(count == 1 for number, count in seen.items() if number in scene.posts)

    with no_errors_logged():
        run_fake(scenario())


@settings(max_examples=60)
@given(st.lists(STEP, min_size=1, max_size=25))
def test_every_request_ends_once_and_nothing_is_left(steps: list[dict[str, Any]]) -> None:
    play(steps)
