"""The Deployment of a revision: written by the reconciler, read by whatever runs the pods.

What a replica must know travels as it does in Knative, in the container's environment, so that the same object
serves a process of this machine and a pod. A function's source is named by an annotation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from upwell.functions.errors import InvalidFunction
from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.host.launcher import FunctionSource

SOURCE_ANNOTATION: Final = "upwell.dev/source"
"""JSON of a `SourceReference`: which bundle holds the function and where it starts."""
DEFAULT_TIMEOUT_SECONDS: Final = 300.0

_QUEUE_VARIABLES: Final = {
    "CONTAINER_CONCURRENCY": "containerConcurrency",
    "REVISION_TIMEOUT_SECONDS": "timeoutSeconds",
    "REVISION_RESPONSE_START_TIMEOUT_SECONDS": "responseStartTimeoutSeconds",
    "REVISION_IDLE_TIMEOUT_SECONDS": "idleTimeoutSeconds",
}


@dataclass(frozen=True, slots=True)
class SourceReference:
    """A function's source, fixed when it was deployed."""

    bundle: str
    """Digest of the content-addressed copy."""
    module: str
    attribute: str | None = None
    origin: str | None = None
    """Where the source stood, for tracebacks."""

    def annotation(self) -> str:
        """The value of SOURCE_ANNOTATION."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def read(cls, annotations: Mapping[str, str], where: str) -> SourceReference:
        """From an object's annotations. Raises InvalidFunction when there is none or it is malformed."""
        text = annotations.get(SOURCE_ANNOTATION)
        if text is None:
            raise InvalidFunction("no source is known for its image", where=where)
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise InvalidFunction(f"annotation {SOURCE_ANNOTATION} is malformed", where=where) from error


def deployment(revision: Manifest, service: str) -> Manifest:
    """The Deployment that runs `revision`, at zero replicas; its owner is the revision."""
    metadata, spec = revision["metadata"], revision["spec"]
    container: dict[str, Any] = dict(spec["containers"][0])
    limits = {name: spec[field] for name, field in _QUEUE_VARIABLES.items() if spec.get(field) is not None}
    identity = {
        "K_REVISION": metadata["name"],
        "K_CONFIGURATION": service,
        "K_SERVICE": service,
        "SERVING_NAMESPACE": metadata["namespace"],
        "SERVING_REVISION": metadata["name"],
    }
    variables = [{"name": name, "value": str(value)} for name, value in (identity | limits).items()]
    container["env"] = [*container.get("env", []), *variables]
    labels = {
        "app": metadata["name"],
        **metadata.get("labels", {}),
        "serving.knative.dev/revision": metadata["name"],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": f"{metadata['name']}-deployment",
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": dict(metadata.get("annotations", {})),
            "ownerReferences": [owner_reference(revision)],
        },
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"serving.knative.dev/revision": metadata["name"]}},
            "template": {
                "metadata": {"labels": labels, "annotations": dict(metadata.get("annotations", {}))},
                "spec": {"containers": [container]},
            },
        },
    }


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


def function_source(revision: str, manifest: Manifest, bundles: Path, *, show_errors: bool) -> FunctionSource:
    """What the host needs to run the Deployment `manifest` as processes. Raises InvalidFunction."""
    template = manifest["spec"]["template"]
    reference = SourceReference.read(template["metadata"].get("annotations", {}), revision)
    environment = {
        variable["name"]: str(variable.get("value", ""))
        for variable in template["spec"]["containers"][0].get("env", [])
    }
    return FunctionSource(
        revision=revision,
        root=bundles / reference.bundle,
        module=reference.module,
        attribute=reference.attribute,
        origin=Path(reference.origin) if reference.origin else None,
        environment=environment,
        container_concurrency=int(environment.get("CONTAINER_CONCURRENCY", 0)),
        timeout_seconds=float(environment.get("REVISION_TIMEOUT_SECONDS", DEFAULT_TIMEOUT_SECONDS)),
        show_errors=show_errors,
    )
