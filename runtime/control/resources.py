"""What the reconciler writes for a revision: its Deployment. `upwell.runtime.cluster.source` reads it.

What a replica must know travels as it does in Knative, in the container's environment, so that the same object
serves a process of this machine and a pod.
"""

from __future__ import annotations

from typing import Any, Final

from upwell.functions.api.names import child_name
from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.cluster.labels import CONFIGURATION_LABEL, REVISION_LABEL, ROUTES_ANNOTATION
from upwell.runtime.control.routing_state import MODIFIED_ANNOTATION, ROUTING_STATE_LABEL

_LIMITS: Final = {
    "CONTAINER_CONCURRENCY": "containerConcurrency",
    "REVISION_TIMEOUT_SECONDS": "timeoutSeconds",
    "REVISION_RESPONSE_START_TIMEOUT_SECONDS": "responseStartTimeoutSeconds",
    "REVISION_IDLE_TIMEOUT_SECONDS": "idleTimeoutSeconds",
}


def deployment_name(revision: str) -> str:
    """The name of the Deployment of a revision (Knative's ChildName)."""
    return child_name(revision, "-deployment")


def deployment(revision: Manifest, service: str) -> Manifest:
    """The Deployment that runs `revision`, at zero replicas; its owner is the revision."""
    metadata = revision["metadata"]
    labels = {"app": metadata["name"], **metadata.get("labels", {}), REVISION_LABEL: metadata["name"]}
    labels.pop(ROUTING_STATE_LABEL, None)
    annotations = dict(metadata.get("annotations", {}))
    for changing in (ROUTES_ANNOTATION, MODIFIED_ANNOTATION):
        annotations.pop(changing, None)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": deployment_name(metadata["name"]),
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner_reference(revision)],
        },
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {REVISION_LABEL: metadata["name"]}},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": _pod(revision, service),
            },
        },
    }


def _pod(revision: Manifest, service: str) -> dict[str, Any]:
    grace = revision["spec"].get("terminationGracePeriodSeconds")
    pod: dict[str, Any] = {"containers": [_container(revision, service)]}
    return pod if grace is None else pod | {"terminationGracePeriodSeconds": grace}


def serving_container(spec: dict[str, Any]) -> dict[str, Any]:
    """The container of a revision that takes the requests: of several the one with ports."""
    containers: list[dict[str, Any]] = spec["containers"]
    return next((each for each in containers if each.get("ports")), containers[0])


def _container(revision: Manifest, service: str) -> dict[str, Any]:
    """All that the Revision's container has, probes and lifecycle included, with what a replica must know."""
    metadata, spec = revision["metadata"], revision["spec"]
    container = serving_container(spec)
    identity = {
        "K_REVISION": metadata["name"],
        "K_CONFIGURATION": metadata.get("labels", {}).get(CONFIGURATION_LABEL) or service,
        "K_SERVICE": service,
        "SERVING_NAMESPACE": metadata["namespace"],
        "SERVING_REVISION": metadata["name"],
    }
    limits = {name: spec[field] for name, field in _LIMITS.items() if spec.get(field) is not None}
    ours = [{"name": name, "value": str(value)} for name, value in (identity | limits).items()]
    return container | {"env": [*(container.get("env") or ()), *ours]}


def owner_reference(owner: Manifest) -> dict[str, Any]:
    """The reference that makes `owner` the controller of what carries it."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def is_controlled_by(manifest: Manifest, owner: Manifest) -> bool:
    """Whether `owner` is the controller of an object."""
    references = manifest["metadata"].get("ownerReferences", [])
    return any(r.get("controller") and r["uid"] == owner["metadata"]["uid"] for r in references)
