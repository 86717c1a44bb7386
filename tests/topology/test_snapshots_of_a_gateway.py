"""A snapshot says what the gateway counted, where policies act and how replicas stand, and survives its way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.api import Served, served
from support.gateway import Stage
from support.http import answering
from support.policies import HTTPBIN, article, asking, httpbin, policy
from upwell.autoscaler.stats import RequestStats
from upwell.runtime.api.topology import topology
from upwell.runtime.gateway.activator import Activator, RevisionLimits
from upwell.runtime.gateway.gateway import RevisionEntry
from upwell.runtime.gateway.policing import Acting
from upwell.runtime.gateway.routes import PathRule, RouteTable, RouteTarget, VirtualHost
from upwell.runtime.gateway.topology import Refused, Share, Snapshot, read_topology, to_line
from upwell.runtime.mesh.chain import Chain
from upwell.runtime.mesh.policy import Cause
from upwell.runtime.testing.loop import run_fake

HELLO = "default/helloworld-go-00001"
LIMITER = "ASMLocalRateLimiter istio-system/helloworld"
EJECTING = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: outliers, namespace: default}
spec:
  host: httpbin.default.svc.cluster.local
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 2, baseEjectionTime: 20s, maxEjectionPercent: 100}
"""
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy"


def read(on: Stage) -> Snapshot:
    """As a client gets it."""
    lines = [json.dumps(to_line(each)) for each in read_topology(on.gateway, on.clock)]
    return Snapshot.from_lines(map(json.loads, lines))


def test_what_a_limiter_refuses_is_on_the_edge_with_the_policys_name() -> None:
    text = article("asm-local-rate-limiter").to_manifest()
    text["spec"]["configs"][0]["limit"] = {"fill_interval": {"seconds": 60}, "quota": 2}

    async def scenario() -> None:
        async with httpbin(policy(str(text)), name="helloworld-go") as on:
            await on.replica(revision=HELLO)
            before = read(on)
            await on.ask(asking(host=b"unknown.example.com"), ending=b"example.com\n")
            for ending in (b"ok", b"ok", b"limited"):
                await on.ask(asking(host=b"helloworld-go.default.example.com"), ending=ending)
            found = topology(before, read(on))
            edge = found.to(f"revision {HELLO}")
            assert edge.flow.totals == {"succeeded": 2, "limited": 1}
            assert [(each.policy, each.cause, each.total) for each in edge.flow.refusing] == [
                (LIMITER, "limited", 1)
            ]
            assert edge.policies == ((LIMITER, "route default/helloworld-go"),)
            assert found.whole.flow.totals == {"succeeded": 2, "limited": 1, "unrouted": 1}
            (told,) = found.routes
            assert (told.name, told.hosts) == ("default/helloworld-go", ("helloworld-go.default.example.com",))
            assert told.shares == (Share(HELLO, 100),)

    run_fake(scenario())


def test_a_replica_that_is_out_is_told_of_with_the_reason_and_the_rule() -> None:
    async def scenario() -> None:
        async with httpbin(policy(EJECTING)) as on:
            await on.replica(answering(BUSY), "r1", revision=HTTPBIN)
            for _ in range(2):
                await on.ask(asking(), ending=b"busy")
            (record,) = (each for each in read(on).revisions if each.name == HTTPBIN)
            assert record.outcomes == {"failed": 2}
            assert record.ready == 1
            (out,) = record.ejected
            assert (out.replica, out.policy) == ("r1", "DestinationRule default/outliers")
            assert out.reason.startswith("2 5xx in a row (limit 2)")
            assert record.policies == ("DestinationRule default/outliers",)

    run_fake(scenario())


@pytest.fixture
def interface(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as running:
        yield running


def test_the_interface_tells_of_every_route_and_revision_however_many(interface: Served) -> None:
    counts = interface.platform.gateway
    vhosts = []
    for at in range(120):
        target = RouteTarget(f"default/f{at:03d}-00001", 100)
        vhosts.append(VirtualHost(f"default/f{at:03d}", (f"f{at}.example.com",), (PathRule(b"/", (), (target,)),)))
        entry = RevisionEntry(Activator(target.revision, RevisionLimits()), RequestStats(0.0))
        for _ in range(at):
            entry.counters.add(429, 0.5, "limited", cold=False, refused=("Limit default/one", Cause.LIMITED))
        counts.revisions[target.revision] = entry
    counts.routes, counts.unrouted = RouteTable(vhosts), 7
    counts.chains[vhosts[3]] = Acting(Chain(policies=frozenset({"Limit default/one"})), False)
    found = Snapshot.from_lines(interface.client.topology())
    assert found.gateway.unrouted == 7
    assert [each.name for each in found.routes] == [f"default/f{at:03d}" for at in range(120)]
    assert found.routes[3].policies == (("", "Limit default/one"),)
    assert [each.outcomes for each in found.revisions] == [{"limited": at} if at else {} for at in range(120)]
    assert found.revisions[5].refusals == (Refused("Limit default/one", "limited", 5),)
    assert found.revisions[5].seconds == 2.5


def test_targets_of_one_revision_are_one_share_and_private_hosts_add_nothing(interface: Served) -> None:
    targets = (RouteTarget("default/x", 30), RouteTarget("default/y", 50), RouteTarget("default/x", 20))
    rules = (PathRule(b"/", (), targets),)
    header = PathRule(b"/api", ((b"user", b"ada"),), targets[1:2])
    interface.platform.gateway.routes = RouteTable(
        [
            VirtualHost("default/a", ("a.default.svc",), rules, is_private=True),
            VirtualHost("default/a", ("a.example.com",), rules),
            VirtualHost("default/a", ("next-a.example.com",), (header,), tag="next"),
        ]
    )
    (found,) = Snapshot.from_lines(interface.client.topology()).routes
    assert found.hosts == ("a.example.com",)
    assert found.shares == (
        Share("default/x", 50),
        Share("default/y", 50),
        Share("default/y", 50, "next", "/api", ("user: ada",)),
    )
