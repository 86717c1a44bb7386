"""Copies of requests for other services: which are made, and the Host that they carry."""

from __future__ import annotations

from typing import NamedTuple

from upwell.functions.api.http_routes import HTTPRoute
from upwell.functions.api.http_values import Destination, Percent
from upwell.runtime.mesh.percentage import WHOLE, Random, happens, share_of


class Mirror(NamedTuple):
    """One service that gets copies of a share of the requests, in millionths."""

    destination: Destination
    share: int


def mirrors_of(route: HTTPRoute) -> tuple[Mirror, ...]:
    """The mirrors of a route that get any copies."""
    found = [Mirror(each.destination, share_of(each.percentage, 100.0)) for each in route.mirrors or []]
    if route.mirror is not None:
        percentage = route.mirror_percentage
        if percentage is None and route.mirror_percent is not None:
            percentage = Percent(value=route.mirror_percent)
        found.append(Mirror(route.mirror, share_of(percentage, 100.0)))
    return tuple(mirror for mirror in found if 0 < mirror.share <= WHOLE)


def chosen(mirrors: tuple[Mirror, ...], random: Random) -> tuple[Destination, ...]:
    """Those that get a copy of one request."""
    return tuple(mirror.destination for mirror in mirrors if happens(mirror.share, random))


def shadow_authority(authority: bytes) -> bytes:
    """The Host of a copy: `-shadow` after the host's name, before its port, so that logs tell the two apart."""
    host, colon, port = authority.rpartition(b":")
    if colon and port.isdigit():
        return b"%b-shadow:%b" % (host, port)
    return authority + b"-shadow"
