"""Whom a policy means: names of hosts and services, made comparable.

Names in policies are logical. A host stands for its whole Route, whatever host of it a client used; a revision is
named by its service `NAME` or its private service `NAME-private`; the suffixes that cluster DNS allows to leave
out are left out here too. Ports are those of the services (80, 8012, ...), whatever the gateway listens on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

CLUSTER_DOMAIN: Final = "cluster.local"
PRIVATE: Final = "-private"
SERVICE_PORTS: Final = frozenset({80, 81, 443, 8012, 8013, 8112})
"""A service's own (HTTP/1, HTTP/2, TLS), and those of the queue-proxy before a container."""
ANY: Final = "*"
SERVICE_LABELS: Final = (
    "serving.knative.dev/service",
    "serving.knative.dev/route",
    "serving.knative.dev/configuration",
)


def canonical(host: str, namespace: str) -> str:
    """`NAME.NAMESPACE` for a service however `namespace` spells it; another host in lower case."""
    host = host.strip().rstrip(".").lower()
    if host == ANY:
        return host
    for suffix in (f".svc.{CLUSTER_DOMAIN}", ".svc"):
        if host.endswith(suffix):
            return host.removesuffix(suffix)
    return host if "." in host else f"{host}.{namespace}"


@dataclass(frozen=True, slots=True, eq=False)
class RoutePlace:
    """A virtual host of the gateway, as policies see it."""

    namespace: str
    route: str
    """`NAMESPACE/ROUTE`."""
    tag: str
    hosts: frozenset[str]
    """Canonical names that mean the whole Route."""
    tag_hosts: frozenset[str]
    """Canonical names that mean this tag alone."""

    @classmethod
    def of(cls, route: str, hosts: Iterable[str], tag: str = "", tag_hosts: Iterable[str] = ()) -> RoutePlace:
        """A virtual host of `NAMESPACE/ROUTE`, whose own hosts are `hosts` whatever the tag."""
        namespace = route.partition("/")[0]
        own, tagged = (frozenset(canonical(host, namespace) for host in each) for each in (hosts, tag_hosts))
        return cls(namespace, route, tag, own, tagged)

    @property
    def name(self) -> str:
        """The route's, and the tag's after a colon."""
        return f"{self.route}:{self.tag}" if self.tag else self.route

    @property
    def every_host(self) -> Iterable[str]:
        """All canonical names by which a policy may mean it."""
        return self.hosts | self.tag_hosts

    def meant_by(self, host: str, namespace: str) -> str | None:
        """What `host`, written in a policy of `namespace`, means of this place: the name of the Route with all
        its tags, of this tag, or nothing."""
        meant = canonical(host, namespace)
        if any(_matches(meant, own) for own in self.hosts):
            return self.route
        return self.name if any(_matches(meant, own) for own in self.tag_hosts) else None

    def is_named(self, host: str, namespace: str) -> bool:
        """Whether `host`, written in a policy of `namespace`, means this place."""
        return self.meant_by(host, namespace) is not None


@dataclass(frozen=True, slots=True, eq=False)
class RevisionPlace:
    """A revision, as policies see it."""

    namespace: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of its replicas."""
    capacity: int = 0
    """Requests that a replica is taken to handle at once; 0 where nothing says so."""

    @classmethod
    def of(cls, revision: str, labels: Mapping[str, str], capacity: int = 0) -> RevisionPlace:
        """The place of the revision `NAMESPACE/NAME` whose object has `labels`."""
        namespace, _, name = revision.partition("/")
        own = {"app": name, "serving.knative.dev/revision": name}
        return cls(namespace, name, {**labels, **own}, capacity)

    @property
    def own_hosts(self) -> tuple[str, str]:
        """The canonical names of its services."""
        return (f"{self.name}.{self.namespace}", f"{self.name}{PRIVATE}.{self.namespace}")

    @property
    def parent_hosts(self) -> Iterator[str]:
        """The canonical names of what it belongs to."""
        return (f"{self.labels[each]}.{self.namespace}" for each in SERVICE_LABELS if each in self.labels)

    @property
    def every_host(self) -> Iterable[str]:
        """All canonical names by which a policy may mean it."""
        return (*self.own_hosts, *self.parent_hosts)

    def is_named(self, host: str, namespace: str) -> bool:
        """Whether `host`, written in a policy of `namespace`, means this revision alone."""
        meant = canonical(host, namespace)
        return meant in self.own_hosts or (
            meant.startswith("*.") and any(_matches(meant, h) for h in self.own_hosts)
        )

    def belongs_to(self, host: str, namespace: str) -> bool:
        """Whether `host` means the service that this revision is one of."""
        return canonical(host, namespace) in self.parent_hosts


def _matches(pattern: str, host: str) -> bool:
    return pattern in (host, ANY) or (pattern.startswith("*.") and host.endswith(pattern[1:]))


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether `labels` have all that `selector` asks for; an empty one asks for nothing."""
    return all(labels.get(name) == value for name, value in selector.items())


def is_service_port(port: int | None) -> bool:
    """Whether a policy's port is one that stands for the service; none and 0 stand for any."""
    return not port or port in SERVICE_PORTS
