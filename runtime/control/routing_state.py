"""Which routes refer to a revision or a configuration, noted on it as Knative's labeler does.

Every route adds and removes its own name. A revision is `pending` until a route refers to it, `active` while one
does, and `reserve` afterwards: not reachable, so that it keeps no replicas, and free to be removed.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from typing import Final

from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.cluster.labels import ROUTES_ANNOTATION

ROUTING_STATE_LABEL: Final = "serving.knative.dev/routingState"
MODIFIED_ANNOTATION: Final = "serving.knative.dev/routingStateModified"


class RoutingState(enum.Enum):
    """Whether a route refers to a revision."""

    PENDING = "pending"
    ACTIVE = "active"
    RESERVE = "reserve"


def routing_state(revision: Manifest) -> RoutingState:
    """Of a Revision; pending when it does not say."""
    text = (revision["metadata"].get("labels") or {}).get(ROUTING_STATE_LABEL, "")
    return next((state for state in RoutingState if state.value == text), RoutingState.PENDING)


def referring_routes(manifest: Manifest) -> tuple[str, ...]:
    """The names of the routes that refer to a Revision or Configuration."""
    text = (manifest["metadata"].get("annotations") or {}).get(ROUTES_ANNOTATION, "")
    return tuple(name for name in text.split(",") if name)


def noted(manifest: Manifest, route: str, *, refers: bool, now: float) -> Manifest | None:
    """A Revision or Configuration with the note that `route` refers to it, or without; None when it is so.

    A revision's state follows, with the time of its change.
    """
    metadata = manifest["metadata"]
    names = set(referring_routes(manifest))
    if not refers and route not in names:
        return None
    wanted = names | {route} if refers else names - {route}
    annotations, labels = dict(metadata.get("annotations") or {}), dict(metadata.get("labels") or {})
    if wanted != names:
        annotations[ROUTES_ANNOTATION] = ",".join(sorted(wanted))
        if not wanted:
            del annotations[ROUTES_ANNOTATION]
    state = RoutingState.ACTIVE if wanted else RoutingState.RESERVE
    if manifest["kind"] == "Revision" and labels.get(ROUTING_STATE_LABEL) != state.value:
        labels[ROUTING_STATE_LABEL] = state.value
        annotations[MODIFIED_ANNOTATION] = time_text(now)
    if (annotations, labels) == (metadata.get("annotations") or {}, metadata.get("labels") or {}):
        return None
    return manifest | {"metadata": metadata | {"annotations": annotations, "labels": labels}}


def time_text(now: float) -> str:
    """Unix seconds as RFC 3339, to the second."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
