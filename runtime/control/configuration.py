"""A Configuration and its revisions: pure.

A change of the template makes the next revision, named as Knative names them (`hello-00001`) after the
Configuration's generation. A revision never changes; one exception is our own: what its image stands for may be
said after it was made, once, since it has never run until then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from upwell.functions.api.names import revision_name
from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.cluster.labels import (
    CONFIGURATION_LABEL,
    CONFIGURATION_UID_LABEL,
    GENERATION_LABEL,
    ROUTES_ANNOTATION,
    SERVICE_LABEL,
    SERVICE_UID_LABEL,
)
from upwell.runtime.cluster.reference import SOURCE_ANNOTATION
from upwell.runtime.control.conditions import READY, StatusCondition, find, is_true, merge
from upwell.runtime.control.resources import owner_reference
from upwell.runtime.control.routing_state import (
    MODIFIED_ANNOTATION,
    ROUTING_STATE_LABEL,
    RoutingState,
    time_text,
)

CREATOR_ANNOTATION: Final = "serving.knative.dev/creator"
MODIFIER_ANNOTATION: Final = "serving.knative.dev/lastModifier"

_OWN_LABELS: Final = frozenset(
    {
        SERVICE_LABEL,
        SERVICE_UID_LABEL,
        CONFIGURATION_LABEL,
        CONFIGURATION_UID_LABEL,
        GENERATION_LABEL,
        ROUTING_STATE_LABEL,
    }
)
_OWN_ANNOTATIONS: Final = frozenset({CREATOR_ANNOTATION, MODIFIED_ANNOTATION, ROUTES_ANNOTATION})


def revision_generation(revision: Manifest) -> int:
    """Which generation of its Configuration made it."""
    return int(revision["metadata"]["labels"][GENERATION_LABEL])


def current_revision(configuration: Manifest, revisions: Sequence[Manifest]) -> Manifest | None:
    """The revision of `revisions`, all its own, that the template declares; None if it is to be made.

    A given name means the revision of that name, none means the newest; if it was made from the same template.
    """
    candidate = _candidate(configuration, revisions)
    return candidate if candidate is not None and _is_made_from(configuration, candidate) else None


def repaired_revision(configuration: Manifest, revisions: Sequence[Manifest]) -> Manifest | None:
    """The revision that the template declares but for the source that it lacked, with that source; else None."""
    candidate = _candidate(configuration, revisions)
    if candidate is None or SOURCE_ANNOTATION in candidate["metadata"].get("annotations", {}):
        return None
    source = _template_metadata(configuration, "annotations").get(SOURCE_ANNOTATION)
    if source is None:
        return None
    annotations = {**candidate["metadata"].get("annotations", {}), SOURCE_ANNOTATION: source}
    repaired = candidate | {"metadata": candidate["metadata"] | {"annotations": annotations}}
    return repaired if _is_made_from(configuration, repaired) else None


def _candidate(configuration: Manifest, revisions: Sequence[Manifest]) -> Manifest | None:
    given = _template_metadata(configuration).get("name")
    candidates = [r for r in revisions if given in (None, r["metadata"]["name"])]
    return candidates[-1] if candidates else None


def _is_made_from(configuration: Manifest, revision: Manifest) -> bool:
    metadata, template = revision["metadata"], configuration["spec"]["template"]
    annotations = _without(metadata.get("annotations"), _OWN_ANNOTATIONS)
    labels = _without(metadata.get("labels"), _OWN_LABELS)
    same = annotations == _without(_template_metadata(configuration, "annotations"), _OWN_ANNOTATIONS)
    same = same and labels == _without(_template_metadata(configuration, "labels"), _OWN_LABELS)
    return same and bool(revision["spec"] == template["spec"])


def _template_metadata(configuration: Manifest, *path: str) -> dict[str, Any]:
    found = configuration["spec"]["template"].get("metadata") or {}
    for name in path:
        found = found.get(name) or {}
    return dict(found)


def _without(pairs: Mapping[str, str] | None, names: frozenset[str]) -> dict[str, str]:
    return {name: value for name, value in (pairs or {}).items() if name not in names}


def next_revision_name(configuration: Manifest, revisions: Sequence[Manifest]) -> str:
    """What the next revision is called: as its template says, else after the generation."""
    given: str | None = _template_metadata(configuration).get("name")
    return given or revision_name(configuration["metadata"]["name"], _next_generation(configuration, revisions))


def next_revision(configuration: Manifest, revisions: Sequence[Manifest], now: float) -> Manifest:
    """The revision that the template asks for, as Knative makes it."""
    metadata, given = configuration["metadata"], _template_metadata(configuration)
    annotations = _template_metadata(configuration, "annotations")
    modifier = (metadata.get("annotations") or {}).get(MODIFIER_ANNOTATION)
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {
            "name": next_revision_name(configuration, revisions),
            "namespace": metadata["namespace"],
            "labels": {
                **given.get("labels", {}),
                **_owner_labels(configuration),
                GENERATION_LABEL: str(_next_generation(configuration, revisions)),
                ROUTING_STATE_LABEL: RoutingState.PENDING.value,
            },
            "annotations": {
                **annotations,
                **({CREATOR_ANNOTATION: modifier} if modifier else {}),
                MODIFIED_ANNOTATION: time_text(now),
            },
            "ownerReferences": [owner_reference(configuration)],
        },
        "spec": configuration["spec"]["template"]["spec"],
    }


def _next_generation(configuration: Manifest, revisions: Sequence[Manifest]) -> int:
    """The Configuration's own; more when revisions are older than it."""
    last = revision_generation(revisions[-1]) if revisions else 0
    return max(int(configuration["metadata"]["generation"]), last + 1)


def _owner_labels(configuration: Manifest) -> dict[str, str]:
    metadata = configuration["metadata"]
    labels = metadata.get("labels") or {}
    inherited = {name: labels[name] for name in (SERVICE_LABEL, SERVICE_UID_LABEL) if name in labels}
    return {**inherited, CONFIGURATION_LABEL: metadata["name"], CONFIGURATION_UID_LABEL: metadata["uid"]}


def adopted_revision(configuration: Manifest, revision: Manifest) -> Manifest:
    """A revision that an earlier version stored as its Service's, as the Configuration's."""
    metadata = revision["metadata"]
    labels = {**metadata.get("labels", {}), **_owner_labels(configuration)}
    return revision | {
        "metadata": metadata | {"labels": labels, "ownerReferences": [owner_reference(configuration)]}
    }


def configuration_status(
    configuration: Manifest, revisions: Sequence[Manifest], latest: Manifest | None, now: float
) -> dict[str, Any]:
    """The status of a Configuration whose `revisions` say how they are; `latest` is the one that its template
    declares, None when its name is taken."""
    before = configuration.get("status") or {}
    created, ready = before.get("latestCreatedRevisionName"), before.get("latestReadyRevisionName")
    if latest is not None:
        created, ready = latest["metadata"]["name"], _latest_ready(configuration, revisions, latest)
    if latest is None:
        name = next_revision_name(configuration, revisions)
        what = f"the name {name!r} belongs to a revision that was not made from this template"
        condition = StatusCondition(
            READY, "False", "RevisionFailed", f"Revision creation failed with message: {what}."
        )
    elif ready is not None and all(ready != revision["metadata"]["name"] for revision in revisions):
        condition = StatusCondition(READY, "False", "RevisionDeleted", f'Revision "{ready}" was deleted.')
    else:
        condition = _readiness(latest)
    status: dict[str, Any] = {
        "observedGeneration": configuration["metadata"]["generation"],
        "conditions": merge(configuration, [condition], now),
    }
    if created is not None:
        status["latestCreatedRevisionName"] = created
    if ready is not None:
        status["latestReadyRevisionName"] = ready
    return status


def _readiness(latest: Manifest) -> StatusCondition:
    health = find(latest, READY)
    if health is None or health.status != "False":
        return StatusCondition(READY, health.status if health is not None else "Unknown")
    name = latest["metadata"]["name"]
    message = f'Revision "{name}" failed with message: {health.message}.'
    return StatusCondition(READY, "False", "RevisionFailed", message)


def _latest_ready(configuration: Manifest, revisions: Sequence[Manifest], latest: Manifest) -> str | None:
    """The name of the revision that those who follow the latest get: the newest that is ready.

    None older than the one before takes its place while that exists, though it fails by now. Where revisions are
    given their names, none but the present one does: they may be declared again in any order.
    """
    before: str | None = (configuration.get("status") or {}).get("latestReadyRevisionName")
    newer = list(revisions)
    names = [revision["metadata"]["name"] for revision in revisions]
    if before in names:
        newer = [] if _template_metadata(configuration).get("name") else newer[names.index(before) :]
    ready: list[str] = [each["metadata"]["name"] for each in (*newer, latest) if is_true(each, READY)]
    return ready[-1] if ready else before
