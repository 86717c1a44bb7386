"""Which fields of a Service or Configuration have no meaning on this machine, or one that it cannot give them.

A replica here is a process and not a pod. What only says where and as whom a pod runs is kept, does nothing, and
is warned of. What a program would miss is refused: a variable or a file that would not be there, a container that
would not run. A cluster takes the same manifest with both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from upwell.functions.api.meta import Fault, field_path

Path = tuple[str | int, ...]
POD: Final = ("spec", "template", "spec")

_POD_WARNINGS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            "nodeSelector",
            "nodeName",
            "affinity",
            "tolerations",
            "topologySpreadConstraints",
            "schedulerName",
            "schedulingGates",
            "priorityClassName",
            "priority",
            "preemptionPolicy",
            "runtimeClassName",
            "overhead",
        ),
        "there is one machine",
    ),
    **dict.fromkeys(("serviceAccountName", "serviceAccount"), "the process has no account in a cluster"),
    **dict.fromkeys(
        ("hostNetwork", "hostPID", "hostIPC", "hostUsers", "shareProcessNamespace", "securityContext"),
        "the process runs as you and shares this machine",
    ),
    **dict.fromkeys(
        (
            "dnsPolicy",
            "dnsConfig",
            "hostAliases",
            "hostname",
            "subdomain",
            "setHostnameAsFQDN",
            "hostnameOverride",
        ),
        "names are this machine's",
    ),
    **dict.fromkeys(
        ("restartPolicy", "terminationGracePeriodSeconds", "activeDeadlineSeconds", "readinessGates"),
        "the platform decides it, and Knative refuses it",
    ),
    **dict.fromkeys(("os", "resourceClaims", "resources"), "it is for a node of a cluster"),
}
_CONTAINER_WARNINGS: Final[Mapping[str, str]] = {
    "securityContext": "the process runs as you",
    **dict.fromkeys(("stdin", "stdinOnce", "tty"), "Knative refuses it"),
    **dict.fromkeys(("restartPolicy", "restartPolicyRules", "resizePolicy"), "the platform decides it"),
    **dict.fromkeys(("terminationMessagePath", "terminationMessagePolicy"), "a message is the end of its log"),
}


def not_honoured(declared: Mapping[str, Any]) -> tuple[list[Fault], list[str]]:
    """The fields of a valid Service or Configuration that are refused here, and a warning for each that does
    nothing."""
    pod = declared["spec"]["template"]["spec"]
    faults = [*_pod_faults(pod)]
    warnings = [_nothing((*POD, name), why) for name, why in _POD_WARNINGS.items() if pod.get(name)]
    for index, container in enumerate(pod["containers"]):
        path = (*POD, "containers", index)
        warnings += [
            _nothing((*path, name), why) for name, why in _CONTAINER_WARNINGS.items() if container.get(name)
        ]
        warnings += _container_warnings(container, path)
        faults += _variable_faults(container, path)
        faults += _mount_faults(container, pod.get("volumes"), path)
    return faults, warnings


def _nothing(path: Path, why: str) -> str:
    return f"{field_path(path)}: kept, but does nothing on this machine: {why}"


def _pod_faults(pod: Mapping[str, Any]) -> Iterator[Fault]:
    for index in range(1, len(pod["containers"])):
        yield Fault((*POD, "containers", index), "a replica is one process here: further containers do not run")
    for name in ("initContainers", "ephemeralContainers"):
        if pod.get(name):
            yield Fault((*POD, name), "a replica is one process here: further containers do not run")


def _container_warnings(container: Mapping[str, Any], path: Path) -> Iterator[str]:
    for index, port in enumerate(container.get("ports") or ()):
        if port.get("name") == "h2c":
            where = field_path((*path, "ports", index, "name"))
            yield f"{where}: requests reach the program as HTTP/1.1 on this machine, not as HTTP/2"
    for index, mount in _items(container.get("volumeMounts")):
        where = field_path((*path, "volumeMounts", index))
        yield f"{where}: nothing is mounted on this machine: {mount.get('mountPath')} is its own"


# What would not be there


def _variable_faults(container: Mapping[str, Any], path: Path) -> Iterator[Fault]:
    for index, variable in enumerate(container.get("env") or ()):
        source = variable.get("valueFrom")
        if source and not _is_optional(source):
            message = f"{variable['name']} would be missing: there is nothing to take it from here; give its value"
            yield Fault((*path, "env", index, "valueFrom"), message)
    for index, source in _items(container.get("envFrom")):
        if not _is_optional(source):
            message = "its variables would be missing: there is nothing to take them from here; give them in env"
            yield Fault((*path, "envFrom", index), message)


def _mount_faults(container: Mapping[str, Any], volumes: Any, path: Path) -> Iterator[Fault]:
    by_name = {str(volume.get("name")): volume for _, volume in _items(volumes)}
    for index, mount in _items(container.get("volumeMounts")):
        volume = by_name.get(str(mount.get("name")), {})
        if "emptyDir" not in volume and not _is_optional(volume):
            message = f"its files would be missing: nothing is mounted on this machine at {mount.get('mountPath')}"
            yield Fault((*path, "volumeMounts", index), message)
    for index, _ in _items(container.get("volumeDevices")):
        yield Fault((*path, "volumeDevices", index), "there are no volumes on this machine")


def _is_optional(source: Any) -> bool:
    """Whether a reference to a Secret or ConfigMap says that it may be absent, which all of them are here."""
    values = source.values() if isinstance(source, dict) else ()
    return any(isinstance(value, dict) and value.get("optional") is True for value in values)


def _items(value: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """The mappings of a list whose shape nobody has checked."""
    for index, each in enumerate(value if isinstance(value, list) else ()):
        if isinstance(each, dict):
            yield index, each
