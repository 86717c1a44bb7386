"""The kinds that the platform's interface serves, with the names that kubectl and Knative give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from upwell.functions.errors import NotFound
from upwell.runtime.cluster.kinds import (
    CONFIG_MAP,
    CONFIGURATION,
    DEPLOYMENT,
    INGRESS,
    NAMESPACE,
    REVISION,
    ROUTE,
    SERVICE,
)

RATE_LIMITER: Final = "ASMLocalRateLimiter.istio.alibabacloud.com"
CIRCUIT_BREAKER: Final = "ASMCircuitBreaker.istio.alibabacloud.com"
QUOTA_SCHEDULING: Final = "QuotaSchedulingPolicy.istio.alibabacloud.com"
DESTINATION_RULE: Final = "DestinationRule.networking.istio.io"
VIRTUAL_SERVICE: Final = "VirtualService.networking.istio.io"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind and what it is called."""

    type: str
    """With its group, as `Service.serving.knative.dev`."""
    plural: str
    short: tuple[str, ...] = ()
    has_namespace: bool = True

    @property
    def group(self) -> str:
        """Empty for Kubernetes' core group."""
        return self.type.partition(".")[2]

    @property
    def singular(self) -> str:
        """As in `service`."""
        return self.type.partition(".")[0].lower()

    @property
    def qualified(self) -> str:
        """As in `services.serving.knative.dev`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def told(self, name: str) -> str:
        """An object as commands print it: `service.serving.knative.dev/hello`."""
        return f"{self.type.lower()}/{name}"

    def missing(self, namespace: str, name: str) -> NotFound:
        """What to raise where there is no such object; `namespace` is empty for a kind that has none."""
        listing = f"`upwell get {(*self.short, self.plural)[0]}"
        if not self.has_namespace:
            return NotFound("not found", where=self.told(name), hint=f"{listing}` lists what there is.")
        what, hint = f"not found in the namespace {namespace}", f"{listing} -A` lists those of all namespaces."
        return NotFound(what, where=self.told(name), hint=hint)

    @property
    def names(self) -> frozenset[str]:
        """Everything that a person may call it, in lower case."""
        return frozenset({self.plural, self.singular, self.qualified, self.type.lower(), *self.short})


RESOURCES: Final[Sequence[Resource]] = (
    Resource(SERVICE, "services", ("ksvc", "kservice", "kservices")),
    Resource(REVISION, "revisions", ("rev",)),
    Resource(CONFIGURATION, "configurations", ("cfg", "config")),
    Resource(ROUTE, "routes", ("rt",)),
    Resource(DEPLOYMENT, "deployments", ("deploy",)),
    Resource(INGRESS, "ingresses", ("king", "kingress", "kingresses")),
    Resource(RATE_LIMITER, "asmlocalratelimiters"),
    Resource(CIRCUIT_BREAKER, "asmcircuitbreakers"),
    Resource(QUOTA_SCHEDULING, "quotaschedulingpolicies"),
    Resource(DESTINATION_RULE, "destinationrules", ("dr",)),
    Resource(VIRTUAL_SERVICE, "virtualservices", ("vs",)),
    Resource(CONFIG_MAP, "configmaps", ("cm",)),
    Resource(NAMESPACE, "namespaces", ("ns",), has_namespace=False),
)


def missing(type: str, namespace: str, name: str) -> NotFound:
    """What to raise where there is no object of a type, which need not be one of RESOURCES."""
    resource = resource_of(type) or Resource(type, type.lower())
    return resource.missing(namespace, name)


def resource_of(type: str) -> Resource | None:
    """The resource of a type such as `Service.serving.knative.dev`."""
    return next((each for each in RESOURCES if each.type == type), None)


def resource_called(name: str) -> Resource | None:
    """The resource that a person means by `ksvc`, `services` or `services.serving.knative.dev`."""
    return next((each for each in RESOURCES if name.lower() in each.names), None)
