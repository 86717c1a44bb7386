"""Copies of requests for other services: which are made, and the Host that they carry."""

from __future__ import annotations

from typing import NamedTuple

from upwell.functions.api.http_routes import HTTPRoute
from upwell.functions.api.http_values import Destination, Percent
from upwell.runtime.mesh.naming import canonical
from upwell.runtime.mesh.percentage import WHOLE, Random, happens, share_of


class MirrorTarget(NamedTuple):
    """A service that gets copies."""

    host: str
    """Canonical: `NAME.NAMESPACE` for a service, see `naming`."""
    subset: str | None
    port: int | None


class Mirror(NamedTuple):
    """One target, and its share of the requests, in millionths."""

    target: MirrorTarget
    share: int


def mirrors_of(route: HTTPRoute, namespace: str) -> tuple[Mirror, ...]:
    """The mirrors of a route in `namespace` that get any copies."""
    found = [
        Mirror(_target(each.destination, namespace), share_of(each.percentage, 100.0))
        for each in route.mirrors or []
    ]
    if route.mirror is not None:
        percentage = route.mirror_percentage
        if percentage is None and route.mirror_percent is not None:
            percentage = Percent(value=route.mirror_percent)
        found.append(Mirror(_target(route.mirror, namespace), share_of(percentage, 100.0)))
    return tuple(mirror for mirror in found if 0 < mirror.share <= WHOLE)


def _target(destination: Destination, namespace: str) -> MirrorTarget:
    port = destination.port.number if destination.port is not None else None
    return MirrorTarget(canonical(destination.host, namespace), destination.subset, port)


def chosen(mirrors: tuple[Mirror, ...], random: Random) -> tuple[MirrorTarget, ...]:
    """Those that get a copy of one request."""
    return tuple(mirror.target for mirror in mirrors if happens(mirror.share, random))


def shadow_authority(authority: bytes) -> bytes:
    """The Host of a copy: `-shadow` after the host's name, before its port, so that logs tell the two apart."""
    host, colon, port = authority.rpartition(b":")
    if colon and port.isdigit():
        return b"%b-shadow:%b" % (host, port)
    return authority + b"-shadow"
