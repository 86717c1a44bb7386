"""Reads a Deployment as the host needs it: what the kubelet is to a pod, this machine is to a revision.

What a replica must know travels as it does in Knative, in the container's environment and fields, so that the same
object serves a process of this machine and a pod. `upwell.runtime.control.resources` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from upwell.functions.errors import InvalidFunction
from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.cluster.labels import REVISION_LABEL
from upwell.runtime.cluster.quantity import parse_bytes
from upwell.runtime.cluster.reference import CommandReference, Reference, SourceReference, read_reference
from upwell.runtime.host.source import FunctionSource, ProgramSource, Source
from upwell.runtime.sidecar.expansion import expand, expand_in_order
from upwell.runtime.sidecar.probing import Lifecycle, Probe, Probes, read_action

DEFAULT_PORT: Final = 8080
"""Of a container that declares none: Knative's."""

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


def function_source(manifest: Manifest, bundles: Path, *, show_errors: bool, logs: Path | None = None) -> Source:
    """What the host needs to run a Deployment as processes: a function, or a program. `logs` is the folder of all
    log files; None leaves output to the platform's own. Raises InvalidFunction."""
    revision = deployed_revision(manifest)
    template = manifest["spec"]["template"]
    reference = read_reference(template["metadata"].get("annotations") or {}, revision)
    container = template["spec"]["containers"][0]
    pairs = [(each["name"], str(each.get("value") or "")) for each in container.get("env") or ()]
    brought = reference.environment if isinstance(reference, SourceReference) else ()
    environment = expand_in_order((*brought, *pairs))
    try:
        common: dict[str, Any] = {
            "environment": environment,
            "container_concurrency": int(environment.get("CONTAINER_CONCURRENCY", 0)),
            "show_errors": show_errors,
            "log": None if logs is None else log_file(logs, revision, environment.get("K_SERVICE", "")),
            "memory_bytes": _memory(container),
            **_care(container, revision),
            **{field: float(environment[name]) for name, field in _TIMES.items() if name in environment},
        }
    except ValueError as error:
        raise InvalidFunction(f"a limit of it is no number: {error}", where=revision) from error
    return _source(revision, reference, template["spec"], bundles, common)


def log_file(logs: Path, revision: str, service: str) -> Path:
    """Where the output of a revision goes; `service` is the name of the Service that it belongs to."""
    namespace, _, name = revision.partition("/")
    return logs / namespace / (service or name) / f"{name}.log"


def _source(
    revision: str, reference: Reference, pod: Mapping[str, Any], bundles: Path, common: dict[str, Any]
) -> Source:
    if isinstance(reference, SourceReference):
        return FunctionSource(
            revision,
            bundles / reference.bundle,
            reference.module,
            reference.attribute,
            Path(reference.origin) if reference.origin else None,
            **common,
        )
    container = pod["containers"][0]
    directory = _directory(reference, container, common["environment"])
    grace = pod.get("terminationGracePeriodSeconds")
    if grace is not None:
        common["termination_seconds"] = float(grace)
    return ProgramSource(
        revision,
        (*(container.get("command") or reference.command), *(container.get("args") or ())),
        directory,
        **common,
    )


def _directory(
    reference: CommandReference, container: Mapping[str, Any], environment: Mapping[str, str]
) -> Path | None:
    """The container's working directory; one that is relative stands below where the mapping was made."""
    named = expand(container.get("workingDir") or "", environment)
    if named:
        return Path(reference.directory or "", named)
    return Path(reference.directory) if reference.directory else None


def _own_port(container: Mapping[str, Any]) -> int:
    ports: list[dict[str, Any]] = container.get("ports") or [{}]
    return int(ports[0].get("containerPort") or DEFAULT_PORT)


def _memory(container: Mapping[str, Any]) -> int:
    limit = ((container.get("resources") or {}).get("limits") or {}).get("memory")
    return 0 if limit is None else parse_bytes(str(limit))


def _care(container: Mapping[str, Any], where: str) -> dict[str, Any]:
    port = _own_port(container)
    declared = {name: container.get(f"{name}Probe") for name in ("readiness", "liveness", "startup")}
    lifecycle = container.get("lifecycle") or {}
    return {
        "probes": Probes(
            **{name: Probe.read(probe, port, where) for name, probe in declared.items() if probe is not None}
        ),
        "lifecycle": Lifecycle(
            read_action(lifecycle.get("postStart") or {}, port, where),
            read_action(lifecycle.get("preStop") or {}, port, where),
        ),
    }
