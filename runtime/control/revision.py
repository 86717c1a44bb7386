"""What a Revision says of itself: whether it can run, whether it does, and how many replicas it has.

Ready rests on ResourcesAvailable and ContainerHealthy. Two conditions are no part of it, since a revision at zero
is as good as any: Active tells whether there are replicas; ScaleTargetInitialized, as Knative's PodAutoscaler has
it, that there were once as many as it begins with. That stays, so that no later platform begins with them again.
A third is there only where a revision asks to be scaled by what is not built: ScalingAsDeclared says what scales
it instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from upwell.autoscaler.annotations import not_built
from upwell.autoscaler.bounds import needed
from upwell.autoscaler.quantities import parse_quantity, parse_seconds
from upwell.autoscaler.spec import (
    DEFAULT_CPU_REQUEST,
    DEFAULT_PROGRESS_DEADLINE,
    UNREACHABLE,
    AutoscalerConfig,
    RevisionSettings,
)
from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.control.conditions import StatusCondition, find, is_true, merge, summary
from upwell.runtime.control.images import unmapped_message
from upwell.runtime.control.routing_state import RoutingState, routing_state

IMAGE_NOT_MAPPED: Final = "ImageNotMapped"
SCALE_TARGET_INITIALIZED: Final = "ScaleTargetInitialized"
PROGRESS_DEADLINE: Final = "serving.knative.dev/progress-deadline"
SCALING_AS_DECLARED: Final = "ScalingAsDeclared"

_INFO: Final = "Info"
_WARNING: Final = "Warning"


def revision_settings(config: AutoscalerConfig, revision: Manifest) -> RevisionSettings:
    """What the autoscaler aims at for a Revision under `config`."""
    return config.resolve(
        revision["metadata"].get("annotations", {}),
        container_concurrency=int(revision["spec"].get("containerConcurrency") or 0),
        reachability=UNREACHABLE if routing_state(revision) is RoutingState.RESERVE else "",
        cpu_request=_cpu_request(revision["spec"].get("containers") or ()),
        progress_deadline=_progress_deadline(revision["metadata"].get("annotations", {})),
    )


def read_progress_deadline(text: str) -> float:
    """Seconds that replicas get to become ready. Raises ValueError for an annotation that Knative refuses."""
    seconds = parse_seconds(text)
    if seconds <= 0 or seconds != int(seconds):
        raise ValueError("not a positive duration of whole seconds such as 120s")
    return seconds


def _progress_deadline(annotations: Mapping[str, str]) -> float:
    try:
        return read_progress_deadline(annotations[PROGRESS_DEADLINE])
    except (KeyError, ValueError):
        return DEFAULT_PROGRESS_DEADLINE


def _cpu_request(containers: Iterable[Manifest]) -> float:
    """Cores that a replica asks for, or is limited to where it asks for none; the default without either."""
    cores = 0.0
    for container in containers:
        resources = container.get("resources") or {}
        asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        try:
            cores += max(0.0, parse_quantity(str(asked["cpu"])))
        except (KeyError, ValueError):
            continue
    return cores or DEFAULT_CPU_REQUEST


def revision_status(
    revision: Manifest, deployment: Manifest | None, config: AutoscalerConfig, now: float, *, has_source: bool
) -> dict[str, Any]:
    """The status of a revision whose Deployment is as given; without a source it has none and cannot run."""
    parts = _health(deployment) if has_source else _unmapped(revision)
    others = [_activity(deployment), _initialization(revision, deployment, config)]
    others += _stood_in_for(revision, config)
    status: dict[str, Any] = {
        "observedGeneration": revision["metadata"].get("generation", 1),
        "conditions": merge(revision, [*parts, summary(parts), *others], now),
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


def _initialization(revision: Manifest, deployment: Manifest | None, config: AutoscalerConfig) -> StatusCondition:
    if not is_true(revision, SCALE_TARGET_INITIALIZED):
        settings = revision_settings(config, revision)
        ready = (deployment or {}).get("status", {}).get("readyReplicas") or 0
        if ready < needed(settings, initialized=False):
            return StatusCondition(SCALE_TARGET_INITIALIZED, "Unknown", "Initializing", severity=_INFO)
    return StatusCondition(SCALE_TARGET_INITIALIZED, "True", severity=_INFO)


def _stood_in_for(revision: Manifest, config: AutoscalerConfig) -> list[StatusCondition]:
    found = not_built(revision["metadata"].get("annotations", {}), config)
    if not found:
        return []
    message = "; ".join(f"{key} {what}" for key, what in found)
    return [StatusCondition(SCALING_AS_DECLARED, "False", "NotBuilt", message, _WARNING)]
