"""Mirrors of VirtualServices: what a copy is like, and that it costs the request nothing."""

from __future__ import annotations

from typing import Any

import pytest

from support.http import eventually, settle
from support.policed import (
    Player,
    ask,
    fields,
    is_over,
    service,
    to_httpbin,
    with_other_route,
)
from support.policies import HTTPBIN, asking, httpbin
from upwell.functions.api.policies import PolicyResource
from upwell.runtime.cluster.interface import ReplicaState
from upwell.runtime.gateway.activator import RevisionLimits
from upwell.runtime.testing.loop import run_fake


def mirrored(**parts: Any) -> PolicyResource:
    return service(to_httpbin(mirror={"host": "other"}, **parts))


def test_a_copy_has_the_body_the_changes_and_a_host_of_its_own() -> None:
    async def scenario() -> None:
        parts = {
            "rewrite": {"uri": "/new"},
            "match": [{"uri": {"prefix": "/old"}}],
            "headers": {"request": {"set": {"x-a": "1"}}},
        }
        async with httpbin(mirrored(**parts)) as on:
            own, copies = Player(), Player()
            await on.replica(own, revision=HTTPBIN)
            await with_other_route(on, copies)
            assert await ask(on, asking(b"/old/x", method=b"POST", body=b"data", fields=b"x-a: 0\r\n")) == 200
            await eventually(lambda: bool(copies.seen))
            copy = copies.only
            assert (copy.method, copy.target, copy.body) == (b"POST", b"/new/x", b"data")
            assert fields(copy, "host") == ["httpbin.default.example.com-shadow"]
            assert fields(copy, "x-a") == fields(own.only, "x-a") == ["1"]
            assert on.gateway.policing.mirroring.sent == 1
            await is_over(on)

    run_fake(scenario())


@pytest.mark.parametrize("trouble", ["slow", "reset", "none", "zero", "gone"])
def test_a_copy_never_slows_or_fails_the_request(trouble: str) -> None:
    async def scenario() -> None:
        async with httpbin(mirrored()) as on:
            await on.replica(Player(), revision=HTTPBIN)
            if trouble != "none":
                await with_other_route(on, Player(otherwise=("reset",) if trouble == "reset" else (1000.0,)))
            for replica in [each for each in on.told.running if each.name == "other"]:
                if trouble == "zero":
                    on.move(replica, ReplicaState.DRAINING)
            if trouble == "gone":
                on.gateway.remove_revision("default/other-00001")
            started = on.clock.monotonic()
            assert [await ask(on, asking()) for _ in range(5)] == [200] * 5
            assert on.clock.monotonic() - started < 0.5
            mirroring = on.gateway.policing.mirroring
            assert mirroring.sent + mirroring.dropped == 5
            assert (mirroring.sent == 5) == (trouble in ("slow", "reset"))
            # A revision at zero is asked to rise for the copies that follow.
            assert on.told.pokes.count(("default/other-00001", 1)) == (trouble == "zero")
            await is_over(on)

    run_fake(scenario())


def test_copies_under_way_are_bounded_and_the_others_are_counted() -> None:
    async def scenario() -> None:
        async with httpbin(mirrored()) as on:
            await on.replica(Player(), revision=HTTPBIN)
            await with_other_route(on, Player(otherwise=(1000.0,)))
            clients = [await on.client(asking()) for _ in range(120)]
            await eventually(lambda: all(b"ok" in client.received for client in clients))
            mirroring = on.gateway.policing.mirroring
            assert (mirroring.sent, mirroring.dropped) == (100, 20)
            for client in clients:
                client.close()
            await is_over(on)

    run_fake(scenario())


def test_what_was_never_sent_to_a_replica_is_not_copied() -> None:
    async def scenario() -> None:
        async with httpbin(mirrored(), limits=RevisionLimits(timeout_seconds=1.0)) as on:
            copies = Player()
            await with_other_route(on, copies)
            assert await ask(on, asking()) == 504
            await settle()
            assert copies.seen == []
            assert on.gateway.policing.mirroring.sent == 0

    run_fake(scenario())
