"""The types of objects, each named once. A type is its kind and its API group, as kubectl writes them together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

SERVICE: Final = "Service.serving.knative.dev"
CONFIGURATION: Final = "Configuration.serving.knative.dev"
ROUTE: Final = "Route.serving.knative.dev"
REVISION: Final = "Revision.serving.knative.dev"
DEPLOYMENT: Final = "Deployment.apps"
INGRESS: Final = "Ingress.networking.internal.knative.dev"
CONFIG_MAP: Final = "ConfigMap"
NAMESPACE: Final = "Namespace"
"""Has no namespace itself: that of its key is empty."""


def type_of(manifest: Mapping[str, Any]) -> str:
    """The type of an object: `Kind.group`, or the kind alone in Kubernetes' core group, which has no name."""
    group, slash, _ = manifest["apiVersion"].partition("/")
    kind: str = manifest["kind"]
    return f"{kind}.{group}" if slash else kind
