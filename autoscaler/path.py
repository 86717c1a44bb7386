"""Which way requests take to a revision: straight to its replicas, or through activators.

Two steps, as in Knative. The autoscaler intends a mode (kpa/kpa.go): requests go straight only while replicas are
known to be wanted and there is capacity to spare for the target burst; the activator buffers for all else. What
routes then sees to it that requests arrive somewhere (serverlessservice.go): a revision without a ready replica is
proxied, and where no activator is ready replicas serve, ready or not. With the gateway always in the path the mode
is only told; another ingress class follows it. Pure.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from upwell.autoscaler.decision import Decision

ALL_ACTIVATORS = 0


class Mode(StrEnum):
    """The mode of a ServerlessService."""

    SERVE = "Serve"
    PROXY = "Proxy"


class PathReason(StrEnum):
    """Why requests take their way. Each speaks for Proxy but for those that say otherwise."""

    ZERO_WANTED = "zero-wanted"
    WANT_UNKNOWN = "want-unknown"
    BURST_CAPACITY_SHORT = "burst-capacity-short"
    BURST_CAPACITY_AMPLE = "burst-capacity-ample"
    """Speaks for Serve: replicas are wanted, and the target burst fits in."""
    NO_READY_REPLICA = "no-ready-replica"
    NO_READY_ACTIVATOR = "no-ready-activator"
    """Speaks for Serve, whatever else there is."""


class ServingPath(NamedTuple):
    """The way of requests, and why."""

    mode: Mode
    activators: int
    """How many activators stand before the revision in Proxy mode; 0 for all there are."""
    reasons: tuple[PathReason, ...]

    def sentence(self) -> str:
        """A plain explanation in one line."""
        if self.mode is Mode.SERVE:
            way = "requests go straight to replicas"
        elif self.activators == ALL_ACTIVATORS:
            way = "requests pass an activator"
        else:
            way = f"requests pass one of {self.activators} activators"
        return f"{way}: {'; '.join(_TEXTS[reason] for reason in self.reasons)}"


def intended(decision: Decision) -> ServingPath:
    """The way that follows from a decision after its bounds."""
    reasons = []
    if decision.wanted is None:
        reasons.append(PathReason.WANT_UNKNOWN)
    elif decision.wanted == 0:
        reasons.append(PathReason.ZERO_WANTED)
    if decision.excess_burst_capacity < 0:
        reasons.append(PathReason.BURST_CAPACITY_SHORT)
    if reasons:
        return ServingPath(Mode.PROXY, decision.activators, tuple(reasons))
    return ServingPath(Mode.SERVE, decision.activators, (PathReason.BURST_CAPACITY_AMPLE,))


def effective(path: ServingPath, *, ready_replicas: int, ready_activators: int) -> ServingPath:
    """The way that an intended path comes to where so many replicas and activators are ready.

    `activators` of the result is no more than are ready. Without either, requests go to replicas and fail there.
    """
    if ready_activators == 0:
        return ServingPath(Mode.SERVE, 0, (PathReason.NO_READY_ACTIVATOR,))
    activators = min(path.activators or ready_activators, ready_activators)
    if ready_replicas == 0:
        others = path.reasons if path.mode is Mode.PROXY else ()
        return ServingPath(Mode.PROXY, activators, (*others, PathReason.NO_READY_REPLICA))
    return path._replace(activators=activators)


_TEXTS = {
    PathReason.ZERO_WANTED: "no replica is wanted",
    PathReason.WANT_UNKNOWN: "it is not known how many replicas are wanted",
    PathReason.BURST_CAPACITY_SHORT: "there is less capacity to spare than the target burst takes",
    PathReason.BURST_CAPACITY_AMPLE: "replicas are wanted, and the target burst fits into what they can spare",
    PathReason.NO_READY_REPLICA: "no replica is ready",
    PathReason.NO_READY_ACTIVATOR: "no activator is ready",
}
