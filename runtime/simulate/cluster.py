"""The virtual cluster: as many replicas of each revision as `scale` last said, in rounds like the local cluster's.

Whoever is told of replicas may ask for another scale from within; the round under way ends, and another begins.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

from upwell.runtime.cluster.interface import ReplicaState
from upwell.runtime.simulate.observed import Observed
from upwell.runtime.simulate.replicas import VirtualReplica, VirtualRevision


class Events:
    """What is to happen, in the order of time; of equal times, ends of requests come last."""

    __slots__ = ("_numbered", "heap")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Any]] = []
        """When; the request that ends, or a negative number; the backend that has it, or what is to be called."""
        self._numbered = 0

    def at(self, moment: float, what: Callable[[float], None]) -> None:
        """Call `what` with the time, at that time."""
        self._numbered -= 1
        heapq.heappush(self.heap, (moment, self._numbered, what))


class ClusterObserver(Protocol):
    """Who is told of replicas, at once."""

    def capacity_gained(self, revision: VirtualRevision, now: float) -> None:
        """A replica became ready."""
        ...

    def capacity_lost(self, revision: VirtualRevision, removed: bool, now: float) -> None:
        """A replica is drained; `removed` when it was ready."""
        ...

    def counted(self, revision: VirtualRevision) -> None:
        """There are more replicas of the revision or fewer, or another is ready."""
        ...

    def emptied(self, revision: VirtualRevision, now: float) -> None:
        """The last replica that served is gone."""
        ...


class VirtualCluster:
    """Starts and ends the replicas of all revisions."""

    def __init__(
        self, events: Events, start_seconds: Iterator[float], observed: Observed, observer: ClusterObserver
    ) -> None:
        self._events = events
        self._start_seconds = start_seconds
        self._observed = observed
        self._observer = observer

    def scale(self, revision: VirtualRevision, wanted: int, now: float) -> None:
        """Run this many replicas of the revision from now on."""
        if wanted == revision.wanted:
            return
        revision.wanted = wanted
        self._observed.scales.append((now, revision.index, wanted))
        revision.unsettled = True
        if revision.converging:
            return
        revision.converging = True
        while revision.unsettled:
            revision.unsettled = False
            self._round(revision, now)
        revision.converging = False

    def _round(self, revision: VirtualRevision, now: float) -> None:
        for replica in revision.surplus():
            if revision.unsettled:
                return
            self._drain(revision, replica, now)
        missing = revision.wanted - len(revision.alive)
        for _ in range(missing):
            replica = revision.start(now)
            self._events.at(now + next(self._start_seconds), partial(self._became_ready, revision, replica))
        if missing > 0:
            self._observer.counted(revision)

    def _became_ready(self, revision: VirtualRevision, replica: VirtualReplica, now: float) -> None:
        if replica.state is not ReplicaState.STARTING:
            return
        revision.became_ready(replica, now)
        self._observer.capacity_gained(revision, now)
        self._observer.counted(revision)

    def _drain(self, revision: VirtualRevision, replica: VirtualReplica, now: float) -> None:
        removed = revision.drain(replica, now)
        self._observer.capacity_lost(revision, removed, now)
        if replica.backend is None or replica.backend.in_flight == 0:
            self.gone(revision, replica, now)
        self._observer.counted(revision)

    def gone(self, revision: VirtualRevision, replica: VirtualReplica, now: float) -> None:
        """A replica that was drained has finished what it had."""
        replica.state = ReplicaState.GONE
        revision.draining -= 1
        self._observed.replicas.add(revision.index, replica, now)
        if revision.ready + revision.draining == 0:
            self._observer.emptied(revision, now)

    def close(self, revision: VirtualRevision, now: float) -> None:
        """The simulation ends, and with it every replica."""
        for replica in revision.alive:
            if replica.backend is not None and replica.backend.in_flight:
                replica.idle(now)
            self._observed.replicas.add(revision.index, replica, now)
