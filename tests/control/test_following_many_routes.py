"""A thousand routes of three revisions each: what one change costs does not grow with them."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.cluster.memory import MemoryStore
from upwell.runtime.control.follow import Follower
from upwell.runtime.control.ingress import virtual_hosts
from upwell.runtime.gateway.routes import RouteTable, VirtualHost
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.loop import run_fake

SHARES = (70, 20, 10)


def ingress(number: int, shares: tuple[int, ...] = SHARES) -> Manifest:
    name = f"hello-{number}"
    splits = [
        {
            "appendHeaders": {
                "Knative-Serving-Namespace": "default",
                "Knative-Serving-Revision": f"{name}-0000{n}",
            },
            "percent": share,
            "serviceName": f"{name}-0000{n}",
            "serviceNamespace": "default",
            "servicePort": 80,
        }
        for n, share in enumerate(shares, 1)
    ]
    inside = [f"{name}.default", f"{name}.default.svc", f"{name}.default.svc.cluster.local"]
    return {
        "apiVersion": "networking.internal.knative.dev/v1alpha1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "rules": [
                {"hosts": inside, "http": {"paths": [{"splits": splits}]}, "visibility": "ClusterLocal"},
                {"hosts": [f"{name}.default.example.com"], "http": {"paths": [{"splits": splits}]}},
            ]
        },
    }


class Calls:
    """Counts the calls of Python functions while it is entered."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Calls:
        sys.setprofile(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _called(self, frame: FrameType, event: str, argument: Any) -> None:
        self.count += event in ("call", "c_call")


def table_of(count: int) -> RouteTable:
    return RouteTable().changed({f"default/hello-{n}": virtual_hosts(ingress(n)) for n in range(count)})


def calls_of_a_change(table: RouteTable) -> int:
    new = virtual_hosts(ingress(7, (1, 2, 97)))
    with Calls() as calls:
        table.changed({"default/hello-7": new})
    return calls.count


def test_another_table_is_made_with_the_work_of_what_changed() -> None:
    few, many = calls_of_a_change(table_of(10)), calls_of_a_change(table_of(1000))
    assert few == many
    assert many < 100


def test_what_did_not_change_stays_the_same_object_and_the_table_before_stays_as_it_was() -> None:
    before = table_of(1000)
    after = before.changed({"default/hello-7": virtual_hosts(ingress(7, (100,))), "default/hello-9": ()})
    gone = {id(vhost) for n in (7, 9) for vhost in before.of(f"default/hello-{n}")}
    assert {id(vhost) for vhost in after.vhosts} >= {id(vhost) for vhost in before.vhosts} - gone
    assert len(before.vhosts) == len(after.vhosts) + 2 == 2000
    assert targets(before, 7) == list(SHARES)
    assert targets(after, 7) == [100]
    assert targets(after, 8) == list(SHARES)
    assert targets(before, 9) == list(SHARES)
    assert after.find(b"hello-9.default") is None
    assert repr(after) == "<RouteTable 999 ingresses, 3996 hosts>"


def targets(table: RouteTable, number: int) -> list[int]:
    vhost = table.find(b"hello-%d.default.example.com" % number)
    assert vhost is not None
    assert vhost.only is not None
    return [target.percent for target in vhost.only.targets]


@dataclass
class Told:
    """Plays gateway and autoscaler: keeps the last table, and how many there were."""

    routes: RouteTable = field(default_factory=RouteTable)
    tables: int = 0

    def set_routes(self, routes: RouteTable) -> None:
        self.routes = routes
        self.tables += 1

    def set_revision(self, revision: str, *told: Any, **more: Any) -> None: ...

    def remove_revision(self, revision: str) -> None: ...


def test_a_change_among_a_thousand_is_live_in_20_ms_and_touches_no_other() -> None:
    async def scenario() -> None:
        clock = FakeClock(loop=asyncio.get_running_loop())
        objects, told = MemoryStore(clock), Told()
        for number in range(1000):
            await objects.create(ingress(number))
        follower = Follower(objects, told, told, clock, burst_threshold=lambda revision: 1)
        running = asyncio.create_task(follower.run())
        try:
            await follower.is_programmed.wait()
            assert len(told.routes.vhosts) == 2000
            assert told.tables == 1, "all that is stored is one change"
            await asyncio.sleep(1)
            before = vhosts_by_name(told.routes)
            for number in (7, 8, 9):
                await objects.update(ingress(number, (1, 2, 97)))
                began = clock.monotonic()
                while targets(told.routes, number) != [1, 2, 97]:
                    await asyncio.sleep(0.001)
                    assert clock.monotonic() - began <= 0.02
            after = vhosts_by_name(told.routes)
            assert {name for name in before if after[name] != before[name]} == {
                f"default/hello-{n}" for n in (7, 8, 9)
            }
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run_fake(scenario())


def vhosts_by_name(table: RouteTable) -> dict[str, set[VirtualHost]]:
    found: dict[str, set[VirtualHost]] = {}
    for vhost in table.vhosts:
        found.setdefault(vhost.name, set()).add(vhost)
    return found
