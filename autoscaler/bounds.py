"""What stands around the algorithm's wish: minimum and maximum, the initial scale, and the way to zero.

A revision goes to zero in steps, as in Knative's kpa/scaler.go. It must have been active for the stable window
before it is found inactive; it then keeps what it has for the grace period, so that the network can send requests
to the activator instead, and for the retention period where one is set. One that cannot be activated within the
progress deadline (and some seconds in which its failure can be told) goes to zero as well. Pure: `bound` takes the
decision and the revision's activity, and returns the decision with scale, reasons and the next activity.

Where this differs from Knative on purpose, docs/differences.md says so. Limits of time are compared as moments,
not as spans, so that a decision changes exactly at the `next_check` that was told.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from upwell.autoscaler.decision import Activity, Bound, Decision, Status
from upwell.autoscaler.spec import RevisionSettings

ACTIVATION_MARGIN = 30.0
"""Seconds after the progress deadline in which a failed start is diagnosed before its replicas go."""


@dataclass(frozen=True, slots=True)
class RequestPath:
    """Whether requests would reach the activator if there were no replica."""

    activator_answers: bool = True
    """A probe of the revision's address was answered by the activator."""
    proxying_since: float | None = None
    """Since when all its requests pass the activator (Unix seconds); None when that is not known."""


class ActiveCondition(NamedTuple):
    """An activity as the condition Active of Knative's PodAutoscaler tells it."""

    status: str
    """`True`, `False` or `Unknown`."""
    reason: str
    """`Queued`, `NoTraffic` or `TimedOut`; empty for an active revision."""


def active_condition(activity: Activity) -> ActiveCondition:
    """The condition that says where a revision stands, and why it is not active."""
    if activity.status is Status.ACTIVE:
        return ActiveCondition("True", "")
    if activity.status is Status.ACTIVATING:
        return ActiveCondition("Unknown", "Queued")
    return ActiveCondition("False", "TimedOut" if activity.timed_out else "NoTraffic")


def maximum(settings: RevisionSettings) -> int:
    """The most replicas there may be, by max-scale or the cluster's max-scale-limit; 0 for any number."""
    most, limit = settings.max_scale, settings.max_scale_limit
    return limit if limit > 0 and not 0 < most <= limit else most


def needed(settings: RevisionSettings, *, initialized: bool) -> int:
    """How many ready replicas make a revision active; before it was initialized, which make it so.

    No more than may be, or a revision with a greater initial or minimum scale would start for ever.
    """
    least = max(settings.min_scale, 1 if initialized else settings.initial_scale)
    most = maximum(settings)
    return min(least, most) if most > 0 else least


def begin(settings: RevisionSettings, ready: int, now: float, *, initialized: bool) -> Activity:
    """The activity of a revision first seen now; `initialized` when it is known to have been up before."""
    if ready > 0 and ready >= needed(settings, initialized=initialized):
        return Activity(Status.ACTIVE, now, True)
    if ready == 0 and settings.min_scale == 0 and (initialized or settings.initial_scale == 0):
        return Activity(Status.INACTIVE, now, True)
    return Activity(Status.ACTIVATING, now, initialized)


def bound(
    settings: RevisionSettings,
    activity: Activity,
    decision: Decision,
    path: RequestPath,
    now: float,
    *,
    revision: str = "",
) -> Decision:
    """`decision` of `revision` with its scale, what shaped it, the next activity and when to look again."""
    wish, reasons = _within(settings, activity, decision, now)
    if wish is None:
        scale, known, check = None, None, None
    elif wish > 0:
        scale, known, check = wish, wish, None
    else:
        scale, known, reason, check = _toward_zero(settings, activity, path, now)
        reasons = (*reasons, reason) if reason else reasons
    if decision.in_flight is not None and scale is not None and scale <= decision.ready + decision.starting:
        scale, reasons = None, (*reasons, Bound.POKE_ONLY_RAISES)
    return decision._replace(
        revision=revision,
        scale=scale,
        wanted=known,
        bounds=(*decision.bounds, *reasons),
        activity=_follow(settings, activity, known, decision.ready, now),
        next_check=check,
    )


def _within(
    settings: RevisionSettings, activity: Activity, decision: Decision, now: float
) -> tuple[int | None, tuple[Bound, ...]]:
    """The wish between minimum and maximum, None when it is unknown and what is there will do."""
    wish = decision.desired
    reasons: list[Bound] = []
    if wish == 0 and decision.in_flight is not None:
        wish = 1
        reasons.append(Bound.POKE_NEEDS_ONE)
    least, most = settings.min_scale, maximum(settings)
    below, above = Bound.MIN_SCALE, Bound.MAX_SCALE if most == settings.max_scale else Bound.MAX_SCALE_LIMIT
    if least < settings.initial_scale and _initial_scale_counts(settings, activity, wish, now):
        least, below = settings.initial_scale, Bound.INITIAL_SCALE
    if most > 0:
        least = min(least, most)
    if wish is None:
        reasons.append(Bound.NO_DEMAND_KNOWN)
        if activity.status is Status.ACTIVATING and least == 0 and settings.enable_scale_to_zero:
            return 0, tuple(reasons)
        if decision.ready + decision.starting >= max(least, 0 if settings.enable_scale_to_zero else 1):
            return None, tuple(reasons)
        wish = 0
    if wish < least:
        return least, (*reasons, below)
    if 0 < most < wish:
        return most, (*reasons, above)
    return wish, tuple(reasons)


def _initial_scale_counts(settings: RevisionSettings, activity: Activity, wish: int | None, now: float) -> bool:
    """Until it was reached once; but a revision that cannot start is not started over and over."""
    if activity.initialized or not settings.reachable:
        return False
    if wish:
        return True
    return activity.status is Status.ACTIVATING and not _overdue(settings, activity, now)


def _overdue(settings: RevisionSettings, activity: Activity, now: float) -> bool:
    return now > _last_of_activation(settings, activity)


def _last_of_activation(settings: RevisionSettings, activity: Activity) -> float:
    """The last moment at which a revision may still come up."""
    return activity.since + (settings.progress_deadline + ACTIVATION_MARGIN)


def _toward_zero(
    settings: RevisionSettings, activity: Activity, path: RequestPath, now: float
) -> tuple[int | None, int | None, Bound | None, float | None]:
    """What zero comes to: the scale to set, the scale known to be wanted, the reason, and when to look again."""
    if not settings.enable_scale_to_zero:
        return 1, 1, Bound.SCALE_TO_ZERO_DISABLED, None
    if activity.status is Status.ACTIVATING:
        if _overdue(settings, activity, now):
            return 0, 0, Bound.ACTIVATION_TIMED_OUT, None
        return None, None, Bound.ACTIVATING, math.nextafter(_last_of_activation(settings, activity), math.inf)
    if activity.status is Status.ACTIVE:
        long_enough = activity.since + settings.stable_window
        if now < long_enough:
            return 1, 1, Bound.ACTIVE_TOO_BRIEFLY, long_enough
        *_, check = _from_inactive(settings, replace(activity, since=now), path, now)
        return None, 0, Bound.FOUND_INACTIVE, check
    return _from_inactive(settings, activity, path, now)


def _from_inactive(
    settings: RevisionSettings, activity: Activity, path: RequestPath, now: float
) -> tuple[int | None, int | None, Bound | None, float | None]:
    # With a target burst capacity of -1 the activator is in the path by definition.
    if settings.target_burst_capacity != -1 and not path.activator_answers:
        return None, 0, Bound.ACTIVATOR_NOT_IN_PATH, None
    retention = settings.scale_to_zero_pod_retention_period if settings.reachable else 0.0
    retained = activity.since + retention
    if now < retained:
        return None, 0, Bound.RETENTION_PERIOD, retained
    behind = activity.since if path.proxying_since is None else min(activity.since, path.proxying_since)
    over = behind + settings.scale_to_zero_grace_period
    if now < over:
        return None, 0, Bound.GRACE_PERIOD, over
    return 0, 0, None, None


def _follow(settings: RevisionSettings, activity: Activity, known: int | None, ready: int, now: float) -> Activity:
    """The activity after a round in which `known` replicas were wanted (None: unknown) and `ready` were there."""
    threshold = needed(settings, initialized=activity.initialized)
    initialized = activity.initialized or ready >= threshold
    status, timed_out = activity.status, activity.timed_out
    if known == 0 or (threshold == 0 and not known):
        timed_out = timed_out or (status is Status.ACTIVATING and threshold > 0)
        status = Status.INACTIVE
    elif known or status is not Status.INACTIVE:
        status = Status.ACTIVE if ready >= max(1, threshold) else Status.ACTIVATING
        timed_out = False
    if status is not activity.status:
        return Activity(status, now, initialized, timed_out)
    if initialized is not activity.initialized:
        return replace(activity, initialized=initialized)
    return activity
