"""Which revision answers a request: virtual hosts by host, their rules by path and header, targets by percent.

A host is matched in full and in lower case, without its port; a rule by the first of its virtual host's that fits,
as Knative's Ingress says; percentages follow its splits.

A `RouteTable` is a value. A change makes another one, which shares every virtual host that did not change with the
one before: the work is that of the hosts that changed, and two copies of maps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Self

from upwell.runtime.http.messages import Headers, RequestHead

ROOT = b"/"
_SERVICE_SUFFIX = re.compile(rb"\.svc(\.cluster\.local)?$")


@dataclass(frozen=True, slots=True)
class RouteTarget:
    """A share of a rule's traffic."""

    revision: str
    """`namespace/name`."""
    percent: int
    headers: Headers = field(default_factory=list)
    """Set on the request on its way to the replica, the rule's among them: they replace what the client sent."""
    replaced: frozenset[bytes] = field(init=False, repr=False, compare=False)
    """The names of these."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "replaced", frozenset(name for name, _ in self.headers))


@dataclass(frozen=True, slots=True)
class PathRule:
    """What a virtual host does with the requests that fit: of every field that is given."""

    path: bytes
    """A literal prefix of the path; `/` fits all."""
    headers: tuple[tuple[bytes, bytes], ...]
    """Names in lower case and the values that they must have, all of them."""
    targets: tuple[RouteTarget, ...]
    rewrite_host: bytes | None = None
    """What the function gets to see as its host."""

    def fits(self, request: RequestHead) -> bool:
        """Whether the rule is for this request."""
        if not request.path.startswith(self.path):
            return False
        return all(request.header(name) == value for name, value in self.headers)

    def pick(self, percentile: float) -> RouteTarget | None:
        """The target at `percentile` (0 ≤ p < 100) of the traffic; None when the targets do not reach it."""
        for target in self.targets:
            percentile -= target.percent
            if percentile < 0:
                return target
        return None


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class VirtualHost:
    """Hosts of one route, and one of its tags, that lead to the same. Compared by identity: it is the same object
    for as long as its Ingress is the same."""

    name: str
    """`namespace/name` of the Ingress behind it, which is that of its Route where there is one."""
    hosts: tuple[str, ...]
    rules: tuple[PathRule, ...]
    tag: str = ""
    """Of the traffic target that these hosts stand for; empty for the route's own hosts."""
    is_private: bool = False
    """Whether only callers inside may know of it."""
    redirects: bool = False
    """Whether a request in plain HTTP is sent to https."""
    since: str = ""
    """When its Ingress was created, in RFC 3339 and UTC."""
    only: PathRule | None = field(init=False)
    """The rule, where there is one that fits every request and no other."""
    keeps_tag: bool = field(init=False)
    """Whether its rules read the caller's `Knative-Serving-Tag`."""

    def __post_init__(self) -> None:
        rules = self.rules
        alone = len(rules) == 1 and rules[0].path == ROOT and not rules[0].headers
        object.__setattr__(self, "only", rules[0] if alone else None)
        names = {name for rule in rules for name, _ in rule.headers}
        object.__setattr__(self, "keeps_tag", b"knative-serving-tag" in names)

    def find(self, request: RequestHead) -> PathRule | None:
        """The first rule that fits the request."""
        if self.only is not None:
            return self.only
        return next((rule for rule in self.rules if rule.fits(request)), None)


class RouteTable:
    """All virtual hosts by host. Of those that claim a host, one of the namespace whose service it names inside
    the cluster has it, then the oldest: no one takes what another has. Of the same age it is the first by name,
    then the first given.

    `fallback_hosts` lead to the only Ingress, as long as there is but one and it answers outside.
    """

    __slots__ = ("_by_host", "_contested", "_fallback_hosts", "_ingresses")

    def __init__(self, vhosts: Iterable[VirtualHost] = (), fallback_hosts: Sequence[str] = ()) -> None:
        self._by_host: dict[bytes, VirtualHost] = {}
        self._contested: dict[bytes, tuple[VirtualHost, ...]] = {}
        self._ingresses: dict[str, tuple[VirtualHost, ...]] = {}
        self._fallback_hosts = frozenset(_key(host) for host in fallback_hosts)
        by_name: dict[str, list[VirtualHost]] = {}
        for vhost in vhosts:
            by_name.setdefault(vhost.name, []).append(vhost)
        self._change(by_name)

    def __repr__(self) -> str:
        return f"<RouteTable {len(self._ingresses)} ingresses, {len(self._by_host)} hosts>"

    @property
    def vhosts(self) -> tuple[VirtualHost, ...]:
        """All of them, in no order that means anything."""
        return tuple(chain.from_iterable(self._ingresses.values()))

    def of(self, ingress: str) -> tuple[VirtualHost, ...]:
        """The virtual hosts of one Ingress, `namespace/name`."""
        return self._ingresses.get(ingress, ())

    def find(self, host: bytes) -> VirtualHost | None:
        """The virtual host of a host in lower case without port; the dot of a rooted name may stand at its end."""
        vhost = self._by_host.get(host)
        return vhost if vhost is not None else self._find_otherwise(host)

    def lost(self) -> Mapping[str, Mapping[str, str]]:
        """The hosts that Ingresses claim and others have: by Ingress, who has each host."""
        found: dict[str, dict[str, str]] = {}
        for host, (winner, *losers) in self._contested.items():
            for loser in losers:
                if loser.name != winner.name:
                    found.setdefault(loser.name, {})[host.decode()] = winner.name
        return found

    def changed(self, ingresses: Mapping[str, Sequence[VirtualHost]]) -> Self:
        """The table with these Ingresses as given, by `namespace/name`; one without virtual hosts is removed."""
        table = self.__class__()
        table._by_host = self._by_host.copy()
        table._contested = self._contested.copy()
        table._ingresses = self._ingresses.copy()
        table._fallback_hosts = self._fallback_hosts
        table._change(ingresses)
        return table

    def _find_otherwise(self, host: bytes) -> VirtualHost | None:
        if host.endswith(b"."):
            host = host[:-1]
            if host in self._by_host:
                return self._by_host[host]
        if host not in self._fallback_hosts or len(self._ingresses) != 1:
            return None
        return next((vhost for vhost in self.vhosts if not vhost.is_private and not vhost.tag), None)

    def _change(self, ingresses: Mapping[str, Sequence[VirtualHost]]) -> None:
        for ingress, vhosts in ingresses.items():
            for vhost in self._ingresses.pop(ingress, ()):
                for host in vhost.hosts:
                    self._release(_key(host), vhost)
            if vhosts:
                self._ingresses[ingress] = tuple(vhosts)
            for vhost in vhosts:
                for host in vhost.hosts:
                    self._claim(_key(host), vhost)

    def _claim(self, host: bytes, vhost: VirtualHost) -> None:
        known = self._by_host.setdefault(host, vhost)
        if known is not vhost:
            claims = self._contested.get(host, (known,))
            self._settle(host, tuple(sorted((*claims, vhost), key=partial(_claim, host))))

    def _release(self, host: bytes, vhost: VirtualHost) -> None:
        claims = self._contested.get(host)
        if claims is not None:
            self._settle(host, tuple(each for each in claims if each is not vhost))
        elif self._by_host.get(host) is vhost:
            del self._by_host[host]

    def _settle(self, host: bytes, claims: tuple[VirtualHost, ...]) -> None:
        self._by_host[host] = claims[0]
        if len(claims) > 1:
            self._contested[host] = claims
        else:
            self._contested.pop(host, None)


def _claim(host: bytes, vhost: VirtualHost) -> tuple[bool, str, str]:
    """The smaller, the better a virtual host's claim to a host."""
    namespace = vhost.name.partition("/")[0].encode()
    return _SERVICE_SUFFIX.sub(b"", host).partition(b".")[2] != namespace, vhost.since, vhost.name


def _key(host: str) -> bytes:
    return host.lower().encode("ascii")
