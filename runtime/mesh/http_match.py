"""Which requests a VirtualService's route is for: what is known of a request beforehand is decided beforehand.

Of an entry's conditions all must hold. Those on the gateway itself (its names, its port, the labels and namespace
of who sends, which for a gateway are its own) are settled when the rule is read: what cannot match is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from upwell.functions.api.http_routes import HTTPMatchRequest
from upwell.functions.api.http_values import StringMatch
from upwell.runtime.mesh.naming import is_service_port, selects
from upwell.runtime.mesh.request import PolicyRequest
from upwell.runtime.mesh.settings import GATEWAY_LABELS
from upwell.runtime.mesh.string_match import Matches, string_match

Condition = Callable[[PolicyRequest], bool]


@dataclass(frozen=True, slots=True)
class Sender:
    """Whom Istio would take the gateway for."""

    gateways: frozenset[str] | None = None
    """`NAMESPACE/NAME` of the Gateways that it is, `mesh` among them where it stands for sidecars; None: all."""
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: GATEWAY_LABELS)
    """Its labels, by namespace."""


ANY_GATEWAY: Final = Sender()


def is_for(match: HTTPMatchRequest, sender: Sender, namespace: str) -> bool:
    """Whether an entry of a rule in `namespace` is for this gateway at all."""
    if not is_service_port(match.port):
        return False
    if match.gateways:
        return is_bound_to(match.gateways, sender, namespace)
    wanted = match.source_labels or {}
    if not match.source_namespace:
        return not wanted or any(selects(wanted, labels) for labels in sender.labels.values())
    labels = sender.labels.get(match.source_namespace)
    return labels is not None and selects(wanted, labels)


def is_bound_to(gateways: list[str], sender: Sender, namespace: str) -> bool:
    """Whether one of the gateways that a rule in `namespace` names is this one."""
    if sender.gateways is None:
        return True
    full = (name if "/" in name or name == "mesh" else f"{namespace}/{name}" for name in gateways)
    return not sender.gateways.isdisjoint(full)


def conditions(match: HTTPMatchRequest) -> tuple[Condition, ...]:
    """What an entry asks of a request, the cheapest first."""
    found: list[Condition] = []
    if match.method is not None:
        found.append(_pseudo(":method", match.method))
    if match.uri is not None:
        found.append(_path(string_match(match.uri, ignore_case=bool(match.ignore_uri_case))))
    if match.authority is not None:
        found.append(_authority(string_match(match.authority, ignore_case=True)))
    if match.scheme is not None:
        found.append(_pseudo(":scheme", match.scheme))
    found.extend(_header(name.lower(), rule) for name, rule in (match.headers or {}).items())
    found.extend(_without(name.lower(), rule) for name, rule in (match.without_headers or {}).items())
    found.extend(_query(name, string_match(rule)) for name, rule in (match.query_params or {}).items())
    return tuple(found)


def _path(matches: Matches) -> Condition:
    return lambda request: matches(path_of(request))


def path_of(request: PolicyRequest) -> str:
    """The request's path without its query, as it was sent."""
    return request.head.origin_target.partition(b"?")[0].decode("latin-1")


def authority_of(request: PolicyRequest) -> str:
    """The request's host as it was sent, with its port."""
    head = request.head
    if not head.target.startswith(b"/") and b"://" in head.target:
        return head.target.partition(b"://")[2].partition(b"/")[0].partition(b"?")[0].decode("latin-1")
    return (head.header(b"host") or head.host).decode("latin-1")


def _authority(matches: Matches) -> Condition:
    # A rule may name the port, which is the gateway's own affair, or leave it out.
    return lambda request: matches(request.head.host.decode("latin-1")) or matches(authority_of(request))


def _pseudo(name: str, rule: StringMatch) -> Condition:
    matches = string_match(rule)
    return lambda request: any(map(matches, request.values(name)))


def _header(name: str, rule: StringMatch) -> Condition:
    matches = string_match(rule)
    return lambda request: any(map(matches, request.values(name)))


def _without(name: str, rule: StringMatch) -> Condition:
    matches = string_match(rule)
    if rule.is_presence:
        return lambda request: not request.values(name)
    # Envoy takes a field that is not there for an empty one here.
    return lambda request: not any(map(matches, request.values(name) or ("",)))


def _query(name: str, matches: Matches) -> Condition:
    def holds(request: PolicyRequest) -> bool:
        value = request.query.get(name)
        return value is not None and matches(value)

    return holds
