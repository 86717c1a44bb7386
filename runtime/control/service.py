"""A Service as the Configuration and the Route that it stands for, and its status as theirs: pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.cluster.labels import ROUTES_ANNOTATION, SERVICE_LABEL, SERVICE_UID_LABEL
from upwell.runtime.control.conditions import READY, StatusCondition, find, merge, summary
from upwell.runtime.control.kingress import LAST_APPLIED_ANNOTATION
from upwell.runtime.control.resources import is_controlled_by, owner_reference
from upwell.runtime.control.rollout import DURATION_ANNOTATIONS
from upwell.runtime.control.writes import Verb, Write

_REVISION_NAMES: Final = ("latestCreatedRevisionName", "latestReadyRevisionName")
_FOLLOWS_LATEST: Final[Mapping[str, Any]] = {"latestRevision": True, "percent": 100}


def service_configuration(service: Manifest) -> Manifest:
    """The Configuration of a Service."""
    metadata = service["metadata"]
    uid = {SERVICE_UID_LABEL: metadata["uid"]}
    configuration = _child(service, "Configuration", uid, (LAST_APPLIED_ANNOTATION, *DURATION_ANNOTATIONS))
    configuration["metadata"]["annotations"][ROUTES_ANNOTATION] = metadata["name"]
    return configuration | {"spec": {"template": service["spec"]["template"]}}


def service_route(service: Manifest) -> Manifest:
    """The Route of a Service: targets without a revision follow its own Configuration."""
    name = service["metadata"]["name"]
    targets = service["spec"].get("traffic") or (_FOLLOWS_LATEST,)
    traffic = [dict(each) if each.get("revisionName") else {**each, "configurationName": name} for each in targets]
    return _child(service, "Route", {}, (LAST_APPLIED_ANNOTATION,)) | {"spec": {"traffic": traffic}}


def _child(service: Manifest, kind: str, labels: Mapping[str, str], left_out: Collection[str]) -> Manifest:
    metadata = service["metadata"]
    annotations = metadata.get("annotations") or {}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": kind,
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": {**(metadata.get("labels") or {}), SERVICE_LABEL: metadata["name"], **labels},
            "annotations": {key: value for key, value in annotations.items() if key not in left_out},
            "ownerReferences": [owner_reference(service)],
        },
    }


def child_writes(
    service: Manifest, configuration: Manifest | None, route: Manifest | None, *, is_name_taken: bool
) -> list[Write]:
    """What to write so that a Service's children declare what it does; those of somebody else are left alone.

    Where the next revision is given its name, the Route waits until that is known to be free, as `is_name_taken`
    says of the Configuration as it is: else it might send traffic to what was made from another template.
    """
    if configuration is not None and not is_controlled_by(configuration, service):
        return []
    first = _child_write(service, configuration, service_configuration(service))
    waits = bool((service["spec"]["template"].get("metadata") or {}).get("name"))
    if waits and (first is not None or is_name_taken):
        return [first] if first is not None else []
    second = _child_write(service, route, service_route(service))
    return [write for write in (first, second) if write is not None]


def _child_write(service: Manifest, found: Manifest | None, wanted: Manifest) -> Write | None:
    if found is None:
        return Write(Verb.CREATE, wanted, "the service has none")
    if not is_controlled_by(found, service):
        return None
    metadata, declared = found["metadata"], wanted["metadata"]
    annotations = dict(declared["annotations"])
    annotations.pop(ROUTES_ANNOTATION, None)
    kept = (metadata.get("annotations") or {}).get(ROUTES_ANNOTATION)
    if kept is not None:
        annotations[ROUTES_ANNOTATION] = kept
    changed = metadata | {"labels": declared["labels"], "annotations": annotations}
    if changed == metadata and found["spec"] == wanted["spec"]:
        return None
    return Write(Verb.UPDATE, found | {"metadata": changed, "spec": wanted["spec"]}, "the service changed")


def service_status(
    service: Manifest,
    configuration: Manifest,
    route: Manifest | None,
    *,
    taken_name: str | None,
    now: float,
) -> dict[str, Any]:
    """The status of a Service whose children say how they are; it has no Route as long as that waits. `taken_name`
    is that of its next revision, where another object has it."""
    configurations_ready = _of_child(service, configuration, "ConfigurationsReady")
    routes_ready = _of_child(service, route, "RoutesReady")
    parts = [configurations_ready, routes_ready]
    if taken_name is not None:
        message = (
            f'The revision name "{taken_name}" is taken by a conflicting Revision, so traffic will not be migrated'
        )
        parts = [StatusCondition("RoutesReady", "False", "RevisionNameTaken", message), configurations_ready]
    elif route is not None and routes_ready.status == "True" and not _is_migrated(configuration, route):
        message = "Traffic is not yet migrated to the latest revision."
        parts[1] = StatusCondition("RoutesReady", "Unknown", "TrafficNotMigrated", message)
    told, made = _own_status(service, route), _own_status(service, configuration)
    return {
        "observedGeneration": service["metadata"]["generation"],
        "conditions": merge(service, [*parts, summary(parts)], now),
        **{name: told[name] for name in ("url", "address", "traffic") if name in told},
        **{name: made[name] for name in _REVISION_NAMES if name in made},
    }


def _own_status(service: Manifest, child: Manifest | None) -> Mapping[str, Any]:
    if child is None or not is_controlled_by(child, service):
        return {}
    return child.get("status") or {}


def _of_child(service: Manifest, child: Manifest | None, type: str) -> StatusCondition:
    if child is None:
        return StatusCondition(type, "Unknown")
    kind, name = child["kind"], child["metadata"]["name"]
    if not is_controlled_by(child, service):
        return StatusCondition(
            type, "False", "NotOwned", f'There is an existing {kind} "{name}" that we do not own.'
        )
    ready = find(child, READY)
    return ready._replace(type=type) if ready is not None else StatusCondition(type, "Unknown")


def _is_migrated(configuration: Manifest, route: Manifest) -> bool:
    """Whether each share that follows the latest revision is with the latest ready one."""
    latest = (configuration.get("status") or {}).get("latestReadyRevisionName")
    told = (route.get("status") or {}).get("traffic") or ()
    return all(each["revisionName"] == latest for each in told if each.get("latestRevision"))
