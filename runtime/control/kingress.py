"""The Ingress of a Route: which hosts answer, and how each splits over revisions (Knative's shape, C9).

The rules follow knative/serving (pkg/reconciler/route/resources/ingress.go): for every tag, the main target first,
a rule for the names inside the cluster and one for each external host.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.control.domains import CLUSTER_DOMAIN, Domains
from upwell.runtime.control.resources import owner_reference
from upwell.runtime.control.rollout import ROLLOUT_ANNOTATION, Assigned, Rollout

INGRESS_CLASS: Final = "istio.ingress.networking.knative.dev"
"""Knative's own default, so that what is exported fits the article's cluster; here every class is served."""
CLASS_ANNOTATION: Final = "networking.knative.dev/ingress.class"
HTTP_PROTOCOL_ANNOTATION: Final = "networking.knative.dev/http-protocol"


@dataclass(frozen=True, slots=True)
class IngressSettings:
    """What an Ingress depends on besides its Route."""

    domains: Domains
    ingress_class: str = INGRESS_CLASS
    http_option: str = "Enabled"
    """Or `Redirected`: of config-network, where the Route does not say."""
    has_tag_header_routing: bool = False


class HostNames(NamedTuple):
    """Where a Route, or one of its tags, answers."""

    local: tuple[str, ...]
    """Inside the cluster, the full name last."""
    external: tuple[str, ...]
    """Outside, the one of its URL first; none when it is private."""

    @property
    def main(self) -> str:
        """The host of its URL."""
        return self.external[0] if self.external else self.local[-1]


def host_names(route: Manifest, tag: str, settings: IngressSettings) -> HostNames:
    """The hosts of a Route, or of one of its tags."""
    metadata = route["metadata"]
    name, namespace = f"{tag}-{metadata['name']}" if tag else metadata["name"], metadata["namespace"]
    local = (f"{name}.{namespace}", f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.{CLUSTER_DOMAIN[4:]}")
    domains = settings.domains.of(metadata.get("labels") or {})
    return HostNames(local, tuple(f"{name}.{namespace}.{domain}" for domain in domains))


def route_ingress(
    route: Manifest, traffic: Iterable[Assigned], settings: IngressSettings, rollout: Rollout
) -> Manifest:
    """The Ingress that sends the traffic of `route` (a Route, as stored) to revisions as assigned, shares that are
    rolling out as `rollout` says."""
    metadata = route["metadata"]
    return {
        "apiVersion": "networking.internal.knative.dev/v1alpha1",
        "kind": "Ingress",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": {},
            "annotations": {ROLLOUT_ANNOTATION: rollout.to_json()},
            "ownerReferences": [owner_reference(route)],
        },
        "spec": {"httpOption": settings.http_option, "rules": []},
    }
