"""The autoscaler's loop: what is pure in `upwell.autoscaler` meets a clock and a cluster here.

It follows Revisions (settings), replicas (what is ready) and reports (load), ticks the engine every two seconds
as Knative does, and serves a poke at once: nothing stands between the request that found no replica and the call
of `Cluster.scale`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from upwell.autoscaler.classes import NO_SIGNALS, SignalReader
from upwell.autoscaler.decision import Decision
from upwell.autoscaler.engine import Engine
from upwell.autoscaler.saved import SavedRevision
from upwell.autoscaler.spec import AutoscalerConfig
from upwell.autoscaler.stats import Report, ReportBatch
from upwell.runtime.clock import Clock
from upwell.runtime.cluster.interface import (
    Cluster,
    Exit,
    Manifest,
    Replica,
    ReplicaState,
    StartFailure,
)
from upwell.runtime.control.conditions import is_true
from upwell.runtime.control.revision import SCALE_TARGET_INITIALIZED, revision_settings

TICK_SECONDS: Final = 2.0
REPORTS_SECONDS: Final = 0.2
"""After a whole second, by when the reports of that second have come."""

STARTS: Final = 64
"""Starts of replicas that are remembered of a revision, for plots."""

_log = logging.getLogger("upwell.autoscaler")


def burst_threshold(config: AutoscalerConfig, revision: Manifest) -> int:
    """Requests in flight on one replica of a Revision above which a poke is due: all that it is meant to take."""
    return max(1, int(revision_settings(config, revision).total_value))


class Start(NamedTuple):
    """A replica that came up."""

    ready_at: float
    """Unix seconds."""
    seconds: float
    """From the decision to start it."""


class AutoscalerLoop:
    """Scales every revision of one cluster. Implements the gateway's `Autoscaling` and `ClusterObserver`.

    `signals` is where metrics besides requests are read, `saved` what an autoscaler before this one wrote down,
    and `decided` is told each decision whose outcome or reason is new, before it is acted on.
    """

    def __init__(
        self,
        config: AutoscalerConfig,
        cluster: Cluster,
        clock: Clock,
        *,
        decided: Callable[[Decision], None] = lambda decision: None,
        signals: SignalReader = NO_SIGNALS,
        saved: Mapping[str, SavedRevision] = MappingProxyType({}),
    ) -> None:
        self.config = config
        """Holds for a revision from when it is next told of."""
        self.engine = Engine(signals=signals)
        self._cluster = cluster
        self._clock = clock
        self._decided = decided
        self._saved = dict(saved)
        self._starts: dict[str, deque[Start]] = {}
        self._is_broken = False
        """The last tick met a defect."""

    # Told by the control plane

    def set_revision(self, revision: str, manifest: Manifest) -> None:
        """Scale this revision from now on, or under these settings."""
        ready, starting = self._count(revision)
        self.engine.set_revision(
            revision,
            revision_settings(self.config, manifest),
            self._clock.now(),
            ready=ready,
            initialized=is_true(manifest, SCALE_TARGET_INITIALIZED),
            saved=self._saved.pop(revision, None),
        )
        self.engine.observe(revision, ready=ready, starting=starting)

    def remove_revision(self, revision: str) -> None:
        """Forget a revision."""
        self.engine.remove_revision(revision)
        self._starts.pop(revision, None)

    # Told by gateways and replicas

    def report(self, report: Report) -> None:
        """Take the load of one revision over a span; of a revision that is not known, nothing."""
        self.engine.report(report, self._clock.now())

    def report_batch(self, batch: ReportBatch) -> None:
        """Take the load of many revisions from one reporter."""
        self.engine.report_batch(batch, self._clock.now())

    def poke(self, revision: str, in_flight: int) -> None:
        """Decide at once for a revision whose load exceeds what is ready."""
        decision = self.engine.poke(revision, in_flight, self._clock.now())
        if decision is not None:
            self._try(self._decided, decision)
            self._act(decision)

    # Told by the cluster

    def replica_changed(self, replica: Replica) -> None:
        """Count the replicas anew."""
        if self.engine.settings(replica.revision) is None:
            return  # what is left of it would be kept for ever
        ready, starting = self._count(replica.revision)
        self.engine.observe(replica.revision, ready=ready, starting=starting)
        if replica.state is ReplicaState.READY and replica.ready_at is not None:
            starts = self._starts.setdefault(replica.revision, deque(maxlen=STARTS))
            starts.append(Start(replica.ready_at, replica.ready_at - replica.started_at))

    def replica_exited(self, exit: Exit) -> None:
        """The count was taken when the replica was gone."""

    def start_failed(self, failure: StartFailure) -> None:
        """The cluster tries again by itself."""

    # Life

    async def run(self) -> None:
        """Tick until cancelled, a little after the whole second that reports end on."""
        while True:
            await asyncio.sleep(TICK_SECONDS - (self._clock.now() - REPORTS_SECONDS) % TICK_SECONDS)
            try:
                self.tick()
                self._is_broken = False
            except Exception:  # scales are held, and whatever runs goes on serving
                if not self._is_broken:
                    _log.exception("a tick failed, so all scales are held")
                self._is_broken = True

    def tick(self) -> None:
        """Decide for every revision and act on what changed."""
        tick = self.engine.tick(self._clock.now())
        for decision in tick.news():
            self._try(self._decided, decision)
        for decision in tick.to_scale():
            self._try(self._act, decision)

    def starts(self, revision: str) -> Sequence[Start]:
        """The latest replicas of a revision that came up, oldest first."""
        return tuple(self._starts.get(revision, ()))

    def _try(self, act: Callable[[Decision], None], decision: Decision) -> None:
        try:
            act(decision)
        except Exception:  # one revision's trouble must not stop the others
            _log.exception("a decision could not be followed", extra={"revision": decision.revision})

    def _act(self, decision: Decision) -> None:
        if decision.scale is not None:
            self._cluster.scale(decision.revision, decision.scale, reason=decision.sentence())

    def _count(self, revision: str) -> tuple[int, int]:
        """How many replicas of a revision are ready, and how many start."""
        states = Counter(replica.state for replica in self._cluster.replicas(revision))
        return states[ReplicaState.READY], states[ReplicaState.STARTING]
