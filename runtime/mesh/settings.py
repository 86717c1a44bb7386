"""What an operator chooses of the mesh policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

INGRESS_GATEWAY: Final = "istio-system"
ACTIVATOR: Final = "knative-serving"
GATEWAY_LABELS: Final = MappingProxyType(
    {INGRESS_GATEWAY: {"istio": "ingressgateway"}, ACTIVATOR: {"app": "activator"}}
)


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """Seconds unless said otherwise."""

    gateway_labels: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: GATEWAY_LABELS)
    """What the gateway is labelled with, by namespace. Policies of these namespaces are the operator's: they act
    on every route and revision, where their selector means the gateway. Others act in their own alone."""
    stepped_refill: bool = False
    """Fill the buckets of an ASMLocalRateLimiter as Envoy up to 1.30 did, the whole quota every `fill_interval`,
    and not continuously."""
    zone: str = ""
    """The gateway's own `REGION/ZONE`, which zone-aware rules prefer."""
    name_policies: bool = False
    """Say in an answer which policy gave it, in `x-upwell-rejected-by`: for who develops, not for callers."""
    event_bytes: int = 1024 * 1024
    """Of a structured or batched CloudEvent, read before policies that match its attributes; beyond, they see a
    request without any."""

    def is_operators(self, namespace: str) -> bool:
        """Whether policies of `namespace` act everywhere."""
        return namespace in self.gateway_labels
