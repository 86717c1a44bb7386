"""What a Revision says of itself: whether it can run, whether it does, and how many replicas it has.

Ready rests on ResourcesAvailable and ContainerHealthy; Active tells whether there are replicas and is no part of
Ready, since a revision at zero is as good as any.
"""

from __future__ import annotations

from typing import Any, Final

from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.control.conditions import StatusCondition, find, merge, summary
from upwell.runtime.control.images import unmapped_message

IMAGE_NOT_MAPPED: Final = "ImageNotMapped"

_INFO: Final = "Info"


def revision_status(
    revision: Manifest, deployment: Manifest | None, now: float, *, has_source: bool
) -> dict[str, Any]:
    """The status of a revision whose Deployment is as given; without a source it has none and cannot run."""
    parts = _health(deployment) if has_source else _unmapped(revision)
    status: dict[str, Any] = {
        "observedGeneration": revision["metadata"].get("generation", 1),
        "conditions": merge(revision, [*parts, summary(parts), _activity(deployment)], now),
    }
    if deployment is not None and "status" in deployment:
        status["actualReplicas"] = int(deployment["status"].get("readyReplicas") or 0)
        status["desiredReplicas"] = int(deployment["spec"].get("replicas") or 0)
    return status


def _health(deployment: Manifest | None) -> list[StatusCondition]:
    available = find(deployment, "Available") if deployment is not None else None
    if available is None:
        return [
            StatusCondition("ResourcesAvailable", "Unknown", "Deploying"),
            StatusCondition("ContainerHealthy", "Unknown", "Deploying"),
        ]
    if available.status == "True":
        return [StatusCondition("ResourcesAvailable", "True"), StatusCondition("ContainerHealthy", "True")]
    return [
        StatusCondition("ResourcesAvailable", "True"),
        StatusCondition("ContainerHealthy", "False", available.reason, available.message),
    ]


def _unmapped(revision: Manifest) -> list[StatusCondition]:
    message = unmapped_message(revision["spec"]["containers"][0]["image"])
    return [
        StatusCondition("ResourcesAvailable", "Unknown", IMAGE_NOT_MAPPED),
        StatusCondition("ContainerHealthy", "False", IMAGE_NOT_MAPPED, message),
    ]


def _activity(deployment: Manifest | None) -> StatusCondition:
    if deployment is None or "status" not in deployment:
        return StatusCondition("Active", "Unknown", "Deploying", severity=_INFO)
    if deployment["status"].get("readyReplicas"):
        return StatusCondition("Active", "True", severity=_INFO)
    if deployment["spec"].get("replicas"):
        message = "requests wait for the first replica"
        return StatusCondition("Active", "Unknown", "Queued", message, _INFO)
    return StatusCondition("Active", "False", "NoTraffic", "no request has come for a while", _INFO)
