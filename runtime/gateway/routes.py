"""Which revision answers a host: an immutable table, replaced whole when routes change.

A host is matched in full and in lower case, without its port. Percentages follow Knative's traffic blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from upwell.runtime.http.messages import Headers


@dataclass(frozen=True, slots=True)
class RouteTarget:
    """A share of a route's traffic."""

    revision: str
    """`namespace/name`."""
    percent: int
    headers: Headers = field(default_factory=list)
    """Added to the request on its way to the replica."""


@dataclass(frozen=True, slots=True)
class Route:
    """Hosts that lead to the same targets."""

    name: str
    """`namespace/name` of the object behind it."""
    hosts: tuple[str, ...]
    targets: tuple[RouteTarget, ...]

    def pick(self, percentile: float) -> RouteTarget | None:
        """The target at `percentile` (0 ≤ p < 100) of the traffic; None when the targets do not reach it."""
        for target in self.targets:
            percentile -= target.percent
            if percentile < 0:
                return target
        return None


class RouteTable:
    """All routes by host. Of two routes that claim a host, the first by name has it."""

    __slots__ = ("_by_host", "routes")

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self.routes: tuple[Route, ...] = tuple(sorted(routes, key=lambda route: route.name))
        by_host: dict[bytes, Route] = {}
        for route in self.routes:
            for host in route.hosts:
                by_host.setdefault(host.lower().encode("ascii"), route)
        self._by_host: Mapping[bytes, Route] = by_host

    def __repr__(self) -> str:
        return f"<RouteTable {len(self.routes)} routes, {len(self._by_host)} hosts>"

    def find(self, host: bytes) -> Route | None:
        """The route of a host in lower case and without port; the dot of a rooted name may stand at its end."""
        route = self._by_host.get(host)
        return self._by_host.get(host[:-1]) if route is None and host.endswith(b".") else route
