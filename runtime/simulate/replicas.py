"""One revision's replicas in the virtual cluster: started, ready, drained and gone, with nothing behind them.

As the local cluster does, it starts what is missing at once, ends those first that do not serve yet and then the
youngest, and lets a draining replica finish what it has. Lifetime: one a revision, for the whole simulation; each
replica that is gone leaves a line in `ReplicaColumns`.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import Final, cast

from upwell.autoscaler.annotations import KPA
from upwell.autoscaler.metric_targets import CONCURRENCY
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.stats import RequestStats
from upwell.runtime.cluster.deployed import victims
from upwell.runtime.cluster.interface import Replica, ReplicaState
from upwell.runtime.gateway.activator import Activator, Backend, RevisionLimits
from upwell.runtime.gateway.gateway import RevisionEntry
from upwell.runtime.http.connect import Endpoint
from upwell.runtime.http.upstream import UpstreamPool

WINDOW_MARGIN: Final = 2.0
"""Seconds beyond a window's length until nothing of a report is left in it: it lags behind, by whole seconds."""
NOWHERE: Final = Endpoint(path="virtual")
NO_CONNECTIONS: Final = cast(UpstreamPool, None)
"""Requests to virtual replicas take no way at all."""


class VirtualReplica(Replica):
    """A replica that keeps time of itself."""

    __slots__ = ("backend", "busy_seconds", "busy_since", "drained_at")

    def __init__(self, revision: str, number: int, now: float) -> None:
        super().__init__(f"{revision}-{number}", revision, NOWHERE, ReplicaState.STARTING, now)
        self.backend: Backend | None = None
        self.drained_at = 0.0
        self.busy_since = 0.0
        self.busy_seconds = 0.0

    def idle(self, now: float) -> None:
        """Its last request is over."""
        self.busy_seconds += now - self.busy_since


@dataclass(slots=True)
class ReplicaColumns:
    """Replicas that are gone, in the order in which they went. Times are seconds of the virtual clock."""

    function: array[int] = field(default_factory=lambda: array("q"))
    started: array[float] = field(default_factory=lambda: array("d"))
    ready: array[float] = field(default_factory=lambda: array("d"))
    """When it began to serve; when it was drained, for one that never did."""
    drained: array[float] = field(default_factory=lambda: array("d"))
    gone: array[float] = field(default_factory=lambda: array("d"))
    busy: array[float] = field(default_factory=lambda: array("d"))
    """Seconds with at least one request."""

    def add(self, function: int, replica: VirtualReplica, now: float) -> None:
        """The replica is gone."""
        drained = replica.drained_at or now
        self.function.append(function)
        self.started.append(replica.started_at)
        self.ready.append(drained if replica.ready_at is None else replica.ready_at)
        self.drained.append(drained)
        self.gone.append(now)
        self.busy.append(replica.busy_seconds)


@dataclass(frozen=True, slots=True)
class RevisionPlan:
    """What one function is simulated under."""

    settings: RevisionSettings
    limits: RevisionLimits


def may_rest(settings: RevisionSettings) -> bool:
    """Whether a revision with these settings can be at rest: it goes to zero, and requests alone decide."""
    return (
        settings.autoscaler_class == KPA
        and not settings.metrics
        and settings.min_scale == 0
        and settings.enable_scale_to_zero
    )


def calm_load(settings: RevisionSettings) -> int:
    """The requests in flight for which one replica is enough, whatever else is known; -1 where that depends."""
    plain = settings.autoscaler_class == KPA and not settings.metrics and settings.metric == CONCURRENCY
    plain = plain and settings.scale_down_delay == 0 and settings.activation_scale <= 1
    return math.floor(settings.target_value) if plain and settings.panic_threshold > 1 else -1


class VirtualRevision:
    """A function's revision: what the gateway keeps of it, its replicas, and what is known of its autoscaling."""

    __slots__ = (
        "alive",
        "calm_load",
        "converging",
        "draining",
        "entry",
        "expiring",
        "followed",
        "index",
        "key",
        "loud_at",
        "panic_since",
        "plan",
        "ready",
        "silent_since",
        "started",
        "steady",
        "unsettled",
        "want",
        "wanted",
    )

    def __init__(self, key: str, index: int, plan: RevisionPlan, now: float) -> None:
        self.key = key
        self.index = index
        self.plan = plan
        self.entry = RevisionEntry(Activator(key, plan.limits), RequestStats(now))
        self.entry.reset_poke()
        self.alive: list[VirtualReplica] = []
        """Replicas that serve or will."""
        self.draining = 0
        self.ready = 0
        self.started = 0
        self.wanted = 0
        """Replicas that the cluster was last told to run."""
        self.converging = False
        self.unsettled = False
        self.followed = False
        """The autoscaler's engine knows it; if not, it is at rest."""
        self.silent_since = now
        """Since when nothing is reported of it, while it has no replica."""
        self.expiring = False
        """Something will look whether waiting requests have run out of time."""
        self.want = 0
        """What the autoscaler's latest decision came to."""
        self.panic_since: float | None = None
        self.calm_load = calm_load(plan.settings)
        self.loud_at = -math.inf
        """When more than the calm load was reported last."""
        self.steady = False
        """The autoscaler's latest decision left it active and not in panic."""

    def is_enough(self, in_flight: int, now: float) -> bool:
        """Whether the replicas that are ready are enough for certain: see `upwell.runtime.simulate.world`."""
        settings = self.plan.settings
        return (
            self.steady
            and in_flight <= self.calm_load
            and self.ready >= max(1, settings.min_scale, settings.initial_scale)
            and now - self.loud_at > settings.stable_window + WINDOW_MARGIN
        )

    @property
    def starting(self) -> int:
        """Replicas on their way."""
        return len(self.alive) - self.ready

    def start(self, now: float) -> VirtualReplica:
        """A further replica, starting from now."""
        self.started += 1
        replica = VirtualReplica(self.key, self.started, now)
        self.alive.append(replica)
        return replica

    def became_ready(self, replica: VirtualReplica, now: float) -> None:
        """The gateway may use it from now on."""
        replica.state = ReplicaState.READY
        replica.ready_at = now
        self.ready += 1
        activator = self.entry.activator
        activator.set_ready(replica, NO_CONNECTIONS)
        replica.backend = activator.backends[-1]
        self.entry.reset_poke()

    def surplus(self) -> list[VirtualReplica]:
        """Which replicas are to end, if there are too many, first to last."""
        surplus = len(self.alive) - self.wanted
        if surplus <= 0:
            return []
        # The newest start last in the list, and a stable sort by time alone would end the older of two.
        return cast(list[VirtualReplica], victims(list(reversed(self.alive)), surplus))

    def drain(self, replica: VirtualReplica, now: float) -> bool:
        """The gateway sends it nothing more; returns whether it was in use, and so whether capacity is gone."""
        replica.state = ReplicaState.DRAINING
        replica.drained_at = now
        self.alive.remove(replica)
        self.draining += 1
        removed = self.entry.activator.remove(replica) is not None
        if removed:
            self.ready -= 1
            self.entry.reset_poke()
        return removed
