"""Which revisions of a configuration to remove: Knative's garbage collection, as a pure decision.

Only a revision that a route once referred to and none does now may go (`routingState` reserve); the latest ready
one never does, nor one annotated `serving.knative.dev/no-gc: "true"`. Of the others, the longest unused first,
those go that are older than both time limits, as long as `min_non_active` stay; then any beyond `max_non_active`
(knative/serving, pkg/reconciler/gc/gc.go).
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.control.routing_state import MODIFIED_ANNOTATION, RoutingState, routing_state

NO_GC_ANNOTATION: Final = "serving.knative.dev/no-gc"

_HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """Knative's `config-gc`; times in seconds, None where a limit is disabled."""

    since_create_time: float | None = 48 * _HOUR
    since_last_active_time: float | None = 15 * _HOUR
    min_non_active: int = 20
    max_non_active: int | None = 1000


class Surplus(NamedTuple):
    """A revision to remove, and why."""

    revision: Manifest
    reason: str


class Collection(NamedTuple):
    """What a look at a configuration's revisions came to."""

    surplus: Sequence[Surplus]
    again_after: float | None
    """Seconds until the next one is past its time limits, when nothing else changes; None when none will be."""


def collect(
    revisions: Sequence[Manifest], in_use: Container[str], settings: RetentionSettings, now: float
) -> Collection:
    """Which of a configuration's `revisions` to remove at `now` (Unix seconds); never those named in `in_use`, the
    latest ready one and the one that its template declares."""
    idle = sorted((r for r in revisions if _may_go(r, in_use)), key=lambda r: (_last_active(r), _name(r)))
    room = max(0, len(idle) - settings.min_non_active)
    waits = {_name(revision): _stale_in(revision, settings, now) for revision in idle}
    stale = [revision for revision in idle if waits[_name(revision)] == 0][:room]
    surplus = [Surplus(revision, "nothing has referred to it for longer than is kept") for revision in stale]
    gone = {_name(revision) for revision in stale}
    kept = [revision for revision in idle if _name(revision) not in gone]
    if settings.max_non_active is not None:
        most = max(settings.max_non_active, settings.min_non_active)
        excess = kept[: max(0, len(kept) - most)]
        surplus += [Surplus(revision, f"more than {most} are not in use") for revision in excess]
    left = room - len(surplus)
    coming = sorted(wait for wait in waits.values() if wait)
    return Collection(surplus, coming[0] if left > 0 and coming else None)


def _may_go(revision: Manifest, in_use: Container[str]) -> bool:
    if _name(revision) in in_use or routing_state(revision) is not RoutingState.RESERVE:
        return False
    is_preserved = str((revision["metadata"].get("annotations") or {}).get(NO_GC_ANNOTATION)).lower() == "true"
    return not is_preserved


def _stale_in(revision: Manifest, settings: RetentionSettings, now: float) -> float | None:
    """Seconds until it is past both time limits, 0 when it is; None without any limit."""
    limits = (
        (_created(revision), settings.since_create_time),
        (_last_active(revision), settings.since_last_active_time),
    )
    waits = [since + limit - now for since, limit in limits if limit is not None]
    return max(0.0, *waits) if waits else None


def _name(revision: Manifest) -> str:
    name: str = revision["metadata"]["name"]
    return name


def _last_active(revision: Manifest) -> float:
    """When a route last began or ceased to refer to it; its creation if that is not known. Unix seconds."""
    modified = _seconds((revision["metadata"].get("annotations") or {}).get(MODIFIED_ANNOTATION))
    return _created(revision) if modified is None else modified


def _created(revision: Manifest) -> float:
    return _seconds(revision["metadata"].get("creationTimestamp")) or 0.0


def _seconds(text: str | None) -> float | None:
    """RFC 3339 as Unix seconds; None when it is none."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None
