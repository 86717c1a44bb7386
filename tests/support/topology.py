"""Snapshots as tests write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from upwell.runtime.api.topology import Topology, topology
from upwell.runtime.gateway.topology import (
    Ejected,
    GatewayRecord,
    Refused,
    RevisionRecord,
    RouteRecord,
    Share,
    Snapshot,
)

BEGIN = 1_763_800_000.0
LIMITER = "ASMLocalRateLimiter default/limit"
BREAKER = "ASMCircuitBreaker default/circuit"
RULE = "DestinationRule default/outliers"


def revision(
    name: str,
    outcomes: Mapping[str, int] | None = None,
    *,
    refusals: Sequence[Refused] = (),
    seconds: float = 0.0,
    ready: int = 1,
    ejected: Sequence[Ejected] = (),
    waiting: int = 0,
    in_flight: int = 0,
    policies: Sequence[str] = (),
) -> RevisionRecord:
    """A revision of `default`, or of another namespace where NAME says one."""
    full = name if "/" in name else f"default/{name}"
    counts = tuple(refusals)
    return RevisionRecord(
        full, outcomes or {}, counts, seconds, ready, tuple(ejected), waiting, in_flight, tuple(policies)
    )


def route(name: str, *shares: Share, policies: Sequence[tuple[str, str]] = ()) -> RouteRecord:
    """A route of `default` on one host."""
    return RouteRecord(f"default/{name}", (f"{name}.default.example.com",), shares, tuple(policies))


def snapshot(
    *revisions: RevisionRecord, at: float = 0.0, unrouted: int = 0, routes: Sequence[RouteRecord] = ()
) -> Snapshot:
    """As it was `at` seconds after the beginning."""
    return Snapshot(GatewayRecord(BEGIN + at, 100.0 + at, unrouted), tuple(routes), revisions)


def shop() -> Topology:
    """A route that rolls out with policies at work, one that fails, and a revision that is asked by nobody."""
    routes = [
        route(
            "cart",
            Share("default/cart-00001", 90),
            Share("default/cart-00002", 10),
            Share("default/cart-00002", 100, "next"),
            policies=[("", LIMITER)],
        ),
        route("mail", Share("default/mail-00001", 100)),
    ]
    before = [revision(name) for name in ("cart-00001", "cart-00002", "mail-00001", "old-00001")]
    after = [
        revision(
            "cart-00001",
            {"succeeded": 720, "limited": 160, "failed": 20, "left": 2},
            refusals=[Refused(LIMITER, "limited", 160)],
            seconds=36.0,
            ready=3,
            ejected=[Ejected("cart-00001-a", "3 5xx in a row (limit 3): out for 20 s", RULE)],
            in_flight=4,
            policies=[RULE],
        ),
        revision(
            "cart-00002",
            {"succeeded": 60, "broken": 40},
            refusals=[Refused(BREAKER, "broken", 40)],
            seconds=9.0,
            policies=[BREAKER],
        ),
        revision("mail-00001", {"failed": 30, "succeeded": 10}, seconds=0.4, ready=0, waiting=7),
        revision("old-00001", ready=0),
    ]
    return topology(snapshot(*before, routes=routes), snapshot(*after, at=10.0, unrouted=15, routes=routes))
