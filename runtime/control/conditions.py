"""Knative's conditions: what stands, why not, and since when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

READY: Final = "Ready"


class StatusCondition(NamedTuple):
    """One condition; `status` is "True", "False" or "Unknown"."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    severity: str = ""
    """"Info" for one that Ready does not depend on."""


def find(manifest: dict[str, Any], type: str) -> StatusCondition | None:
    """The condition of that type in an object's status."""
    for item in manifest.get("status", {}).get("conditions", []):
        if item["type"] == type:
            return StatusCondition(type, item["status"], item.get("reason", ""), item.get("message", ""))
    return None


def is_true(manifest: dict[str, Any], type: str) -> bool:
    """Whether the object has that condition and it stands."""
    condition = find(manifest, type)
    return condition is not None and condition.status == "True"


def find_for_generation(manifest: dict[str, Any], type: str) -> StatusCondition | None:
    """The condition of that type, if it is said of the object's present generation and not of an earlier one."""
    observed = manifest.get("status", {}).get("observedGeneration")
    return find(manifest, type) if observed == manifest["metadata"]["generation"] else None


def holds_for_generation(manifest: dict[str, Any], type: str) -> bool:
    """Whether the object's present generation has that condition and it stands."""
    condition = find_for_generation(manifest, type)
    return condition is not None and condition.status == "True"


def summary(parts: list[StatusCondition]) -> StatusCondition:
    """Ready as the first part that fails says, else the first that is unknown, else True; before those that give
    no reason come those that do."""
    for status in ("False", "Unknown"):
        found = [part for part in parts if part.status == status]
        if found:
            return min(found, key=lambda part: not part.reason)._replace(type=READY)
    return StatusCondition(READY, "True")


def merge(manifest: dict[str, Any], conditions: list[StatusCondition], now: float) -> list[dict[str, Any]]:
    """`conditions` as status entries; the transition time of one whose status stays is kept."""
    before = {item["type"]: item for item in manifest.get("status", {}).get("conditions", [])}
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    merged = []
    for condition in sorted(conditions):
        entry = {"type": condition.type, "status": condition.status}
        if condition.severity:
            entry["severity"] = condition.severity
        if condition.reason:
            entry["reason"] = condition.reason
        if condition.message:
            entry["message"] = condition.message
        old = before.get(condition.type)
        same = old is not None and old["status"] == condition.status
        entry["lastTransitionTime"] = old["lastTransitionTime"] if old is not None and same else stamp
        merged.append(entry)
    return merged
