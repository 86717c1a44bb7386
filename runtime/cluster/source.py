"""Reads a Deployment as the host needs it: what the kubelet is to a pod, this machine is to a revision.

What a replica must know travels as it does in Knative, in the container's environment, so that the same object
serves a process of this machine and a pod. `upwell.runtime.control.resources` writes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from upwell.functions.errors import InvalidFunction
from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.cluster.labels import REVISION_LABEL
from upwell.runtime.cluster.reference import SourceReference
from upwell.runtime.host.source import FunctionSource

_TIMES: Final = {
    "REVISION_TIMEOUT_SECONDS": "timeout_seconds",
    "REVISION_RESPONSE_START_TIMEOUT_SECONDS": "response_start_timeout_seconds",
    "REVISION_IDLE_TIMEOUT_SECONDS": "idle_timeout_seconds",
}


def deployed_revision(manifest: Manifest) -> str:
    """`namespace/name` of the revision that a Deployment runs. Raises InvalidFunction when none is named."""
    metadata = manifest["metadata"]
    name = metadata.get("labels", {}).get(REVISION_LABEL)
    if name is None:
        raise InvalidFunction(f"label {REVISION_LABEL} is missing", where=f"Deployment {metadata['name']}")
    return f"{metadata['namespace']}/{name}"


def function_source(manifest: Manifest, bundles: Path, *, show_errors: bool) -> FunctionSource:
    """What the host needs to run a Deployment as processes. Raises InvalidFunction."""
    revision = deployed_revision(manifest)
    template = manifest["spec"]["template"]
    reference = SourceReference.read(template["metadata"].get("annotations", {}), revision)
    environment = {
        variable["name"]: str(variable.get("value", ""))
        for variable in template["spec"]["containers"][0].get("env", [])
    }
    try:
        return FunctionSource(
            revision=revision,
            root=bundles / reference.bundle,
            module=reference.module,
            attribute=reference.attribute,
            origin=Path(reference.origin) if reference.origin else None,
            environment=environment,
            container_concurrency=int(environment.get("CONTAINER_CONCURRENCY", 0)),
            show_errors=show_errors,
            **{field: float(environment[name]) for name, field in _TIMES.items() if name in environment},
        )
    except ValueError as error:
        raise InvalidFunction(f"a limit in its environment is no number: {error}", where=revision) from error
