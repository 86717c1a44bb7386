"""The virtual platform: a trace's requests through the gateway's own admission, under the autoscaler's own engine.

What is production code here: the engine with its windows, ticks and pokes; `Activator` (which replica, who waits,
who is refused), the request accounting, and the rule when load is worth a poke. What plays the rest, on a virtual
clock: requests that take the time they are given, replicas that take theirs to start and finish what they have
when they are ended. Events happen in the order of time; of those at one moment, ends come before arrivals.

As on the platform the gateway reports each whole second and the engine ticks each even one, 0.2 s later, by when
those reports are in. Replicas report at a moment of their own, which is half past a second here: their word is
that nothing came around the gateway, and that they are there. Since it says nothing else, it is told once a tick,
for the two seconds before.

Two shortcuts leave out what would change nothing; `Shortcuts.AVOIDED` does without, for whoever wants to compare.

A revision at rest is taken out of the engine, and put back when its next request comes. It is at rest when it has
no replica, none is wanted, nothing is reported of it, and its windows and its scale-down delay have run out: then
a tick knows no demand, wants nothing of it and changes nothing, whatever the time, and the state that a new
revision begins with (inactive, initialized, no panic, empty windows) leads to the same decisions as what it had.

A poke is left out when the replicas that are ready can only be enough. The gateway pokes for each request after a
second of silence, lest the last replica be let go. Suppose the revision is active and not in panic, and that both
the requests in flight and whatever was reported within its windows fit into the target of one replica. Then both
windows ask for one replica at most, which is ready: the poke raises nothing, there is no panic to enter or to
renew, and one that is active stays so. Where more than that decides (a delay, another metric or class, a scale of
activation) pokes are never left out.
"""

from __future__ import annotations

import enum
import heapq
import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from upwell.autoscaler.decision import Decision, Missing, Status
from upwell.autoscaler.kpa import TICK
from upwell.runtime.cluster.interface import ReplicaState
from upwell.runtime.control.autoscaler import REPORTS_SECONDS
from upwell.runtime.gateway.activator import Backend
from upwell.runtime.gateway.settings import GatewaySettings
from upwell.runtime.simulate.autoscaling import Autoscaling
from upwell.runtime.simulate.cluster import Events, VirtualCluster
from upwell.runtime.simulate.observed import EPOCH, Fate, Observed
from upwell.runtime.simulate.replicas import RevisionPlan, VirtualRevision, may_rest
from upwell.runtime.simulate.trace import FloatArray, Trace

REPLICA_REPORT: Final = 0.5


class Shortcuts(enum.Enum):
    """Whether work that changes nothing is left out."""

    TAKEN = enum.auto()
    AVOIDED = enum.auto()


class World:
    """One simulation; `run` may be called once.

    `service` (n,) has the seconds of each of the trace's requests at a replica; `start_seconds` yields how long
    each new replica takes to start. `told` is called with the virtual seconds passed, each second.
    """

    def __init__(
        self,
        trace: Trace,
        plans: Sequence[RevisionPlan],
        service: FloatArray,
        start_seconds: Iterator[float],
        *,
        seed: int,
        shortcuts: Shortcuts = Shortcuts.TAKEN,
        told: Callable[[int], None] = lambda seconds: None,
    ) -> None:
        count = len(trace)
        self._began = EPOCH + trace.began % TICK
        arrived = trace.times + self._began
        self._trace = trace
        self._times: list[float] = arrived.tolist()
        self._times.append(float("inf"))
        self._function: list[int] = trace.function.tolist()
        self._service: list[float] = service.tolist()
        self._seed = seed
        self._short = shortcuts is Shortcuts.TAKEN
        self._told = told
        self._revisions = [
            VirtualRevision(key, index, plan, self._began)
            for index, (key, plan) in enumerate(zip(trace.functions, plans, strict=True))
        ]
        self._by_key = {revision.key: revision for revision in self._revisions}
        self._autoscaling = Autoscaling()
        self._poke_growth = GatewaySettings().poke_growth
        self._margin = GatewaySettings().replica_margin_seconds
        self._events = Events()
        self._next = 0
        self._open = 0
        self._reporting: dict[str, VirtualRevision] = {}
        self._present: dict[str, VirtualRevision] = {}
        """Revisions with a replica that reports."""
        self._resting: dict[str, VirtualRevision] = {}
        """Revisions that will be at rest once their windows have run out."""
        self.observed = Observed(
            began=self._began,
            ended=self._began,
            arrived=arrived,
            dispatched=array("d", bytes(8 * count)),
            finished=array("d", bytes(8 * count)),
            fate=array("b", bytes(count)),
            cold=array("b", bytes(count)),
        )
        self._cluster = VirtualCluster(self._events, start_seconds, self.observed, self)

    def run(self) -> Observed:
        """Simulate the whole trace, and on until its last request is over."""
        state = random.getstate()
        random.seed(self._seed)  # the activator's choice of a replica is random
        try:
            self._run()
        finally:
            random.setstate(state)
        return self.observed

    def _run(self) -> None:
        for revision in self._revisions:
            if not self._short or not may_rest(revision.plan.settings) or revision.plan.settings.initial_scale > 0:
                self._follow(revision, self._began, initialized=False)
        last = self._began + self._trace.seconds
        second = int(self._began)
        while second < last or self._open or self._next < len(self._trace):
            self._second(float(second))
            second += 1
            self._told(second - int(self._began))
        self._close(float(second))

    def _second(self, second: float) -> None:
        """A second from its beginning to just before the next one's."""
        if self._reporting:
            self._report_gateway(second)
        if int(second) % TICK == 0:
            self._advance(second + REPORTS_SECONDS)
            self._tick(second + REPORTS_SECONDS)
        elif self._present:
            self._advance(second + REPLICA_REPORT)
            self._autoscaling.report_nothing("replicas", second + REPLICA_REPORT, TICK, tuple(self._present))
        self._advance(second + 1)

    def _advance(self, until: float) -> None:
        """Everything that happens before `until`."""
        events, times, position = self._events.heap, self._times, self._next
        arrival = times[position]
        pop = heapq.heappop
        while True:
            if events and events[0][0] <= arrival:
                if events[0][0] >= until:
                    break
                now, number, what = pop(events)
                if number >= 0:
                    self._complete(number, what, now)
                else:
                    what(now)
            elif arrival < until:
                self._arrive(position, arrival)
                position += 1
                arrival = times[position]
            else:
                break
        self._next = position

    # Requests, as the gateway's Call takes them

    def _arrive(self, request: int, now: float) -> None:
        revision = self._revisions[self._function[request]]
        if not revision.followed:
            self._follow(revision, now, initialized=True)
        entry = revision.entry
        stats = entry.stats
        if not entry.reporting:
            entry.reporting = True
            stats.report(now)
            self._reporting[revision.key] = revision
            entry.poke_above = 0
        stats.start(now)
        self._open += 1
        admitted = entry.activator.admit(request, now)  # type: ignore[arg-type]  # it keeps calls and looks into none
        if admitted is None:
            self._hold(revision, request, now)
        elif isinstance(admitted, Backend):
            self._dispatch(revision, request, admitted, now)
        else:
            self._refuse(revision, request, Fate.QUEUE_FULL, now)
        if stats.in_flight > entry.poke_above:
            self._poke(revision, now)

    def _hold(self, revision: VirtualRevision, request: int, now: float) -> None:
        if not revision.entry.activator.backends:
            self.observed.cold[request] = 1
        if not revision.expiring:
            revision.expiring = True
            self._events.at(now + revision.plan.limits.timeout_seconds, partial(self._expire, revision))

    def _expire(self, revision: VirtualRevision, now: float) -> None:
        """Answer for the requests that have waited for too long; they came in the order in which they wait."""
        waiting: Any = revision.entry.activator.waiting
        timeout = revision.plan.limits.timeout_seconds
        while waiting and self._times[waiting[0]] + timeout <= now:
            self._refuse(revision, waiting.popleft(), Fate.TIMED_OUT_WAITING, now)
        revision.expiring = bool(waiting)
        if waiting:
            self._events.at(self._times[waiting[0]] + timeout, partial(self._expire, revision))

    def _dispatch(self, revision: VirtualRevision, request: int, backend: Backend, now: float) -> None:
        self.observed.dispatched[request] = now
        seconds = self._service[request]
        timeout = revision.plan.limits.timeout_seconds
        allowed = min(timeout, timeout + self._margin - (now - self._times[request]))
        if seconds > allowed:
            seconds = allowed
            self.observed.fate[request] = Fate.TIMED_OUT_AT_REPLICA
        if backend.in_flight == 1:
            replica: Any = backend.replica
            replica.busy_since = now
        heapq.heappush(self._events.heap, (now + seconds, request, backend))

    def _complete(self, request: int, backend: Backend, now: float) -> None:
        revision = self._revisions[self._function[request]]
        entry = revision.entry
        activator = entry.activator
        activator.release(backend)
        self.observed.finished[request] = now
        if backend.in_flight == 0:
            replica: Any = backend.replica
            replica.idle(now)
            if replica.state is ReplicaState.DRAINING:
                self._cluster.gone(revision, replica, now)
        if activator.waiting:
            self._serve_waiting(revision, now)
        entry.stats.finish(now)
        self._open -= 1

    def _refuse(self, revision: VirtualRevision, request: int, fate: Fate, now: float) -> None:
        self.observed.fate[request] = fate
        self.observed.finished[request] = now
        revision.entry.stats.finish(now)
        self._open -= 1

    def _serve_waiting(self, revision: VirtualRevision, now: float) -> None:
        activator = revision.entry.activator
        while (ready := activator.next_ready()) is not None:
            request: Any = ready[0]
            backend: Any = ready[1]  # no balancer here, so nothing else
            self._dispatch(revision, request, backend, now)

    def _poke(self, revision: VirtualRevision, now: float) -> None:
        entry = revision.entry
        in_flight = entry.stats.in_flight
        entry.poke_above = max(entry.ready_capacity, in_flight, int(in_flight * self._poke_growth))
        if self._short and revision.is_enough(in_flight, now):
            return
        decision = self._autoscaling.poke(revision.key, in_flight, now)
        if decision is None:
            revision.steady = False  # the next tick will tell
        else:
            self._note(revision, decision, now)
            self._act(revision, decision, now)

    # Told by the cluster

    def capacity_gained(self, revision: VirtualRevision, now: float) -> None:
        """See ClusterObserver."""
        self._present[revision.key] = revision
        self._serve_waiting(revision, now)

    def capacity_lost(self, revision: VirtualRevision, removed: bool, now: float) -> None:
        """See ClusterObserver."""
        activator = revision.entry.activator
        if activator.waiting and (removed or not activator.backends):
            self._poke(revision, now)

    def counted(self, revision: VirtualRevision) -> None:
        """See ClusterObserver."""
        self._autoscaling.observe(revision.key, revision.ready, revision.starting)

    def emptied(self, revision: VirtualRevision, now: float) -> None:
        """See ClusterObserver."""
        self._present.pop(revision.key, None)
        revision.silent_since = now

    # The autoscaler

    def _follow(self, revision: VirtualRevision, now: float, *, initialized: bool) -> None:
        revision.followed = True
        self._autoscaling.add(revision.key, revision.plan.settings, now, initialized=initialized)

    def _report_gateway(self, now: float) -> None:
        """As the gateway does: all revisions with traffic, and zero once when it has ended."""
        reporting = self._reporting
        seen = {key: revision.entry.stats.report(now) for key, revision in reporting.items()}
        self._autoscaling.report("gateway", now, seen)
        for key, load in seen.items():
            revision = reporting[key]
            entry = revision.entry
            if load.average_concurrency > revision.calm_load:
                revision.loud_at = now
            in_flight = entry.stats.in_flight
            capacity = entry.ready_capacity
            if in_flight <= capacity:
                entry.poke_above = capacity
            if in_flight == 0 and load.request_count == 0 and load.average_concurrency == 0:
                entry.reporting = False
                revision.silent_since = now
                del reporting[key]

    def _tick(self, now: float) -> None:
        self.observed.ticks += 1
        ticked = self._autoscaling.tick(now)
        # In an order that does not depend on when a revision came to the engine.
        for decision in sorted(ticked.news, key=self._index):
            revision = self._by_key[decision.revision]
            self._note(revision, decision, now)
            if self._short and _is_over(decision) and may_rest(revision.plan.settings):
                self._resting[revision.key] = revision
        for decision in sorted(ticked.to_scale, key=self._index):
            self._act(self._by_key[decision.revision], decision, now)
        if self._resting:
            self._lay_to_rest(now)

    def _index(self, decision: Decision) -> int:
        return self._by_key[decision.revision].index

    def _act(self, revision: VirtualRevision, decision: Decision, now: float) -> None:
        if decision.scale is not None:
            self._cluster.scale(revision, decision.scale, now)

    def _note(self, revision: VirtualRevision, decision: Decision, now: float) -> None:
        want = decision.wanted
        if want is not None and want != revision.want:
            self.observed.wants.append((now, want - revision.want))
            revision.want = want
        activity = decision.activity
        revision.steady = (
            activity is not None and activity.status is Status.ACTIVE and decision.state.panic_since is None
        )
        if decision.panicking:
            if revision.panic_since is None:
                revision.panic_since = now
        elif revision.panic_since is not None:
            self.observed.panics.append((revision.panic_since, now))
            revision.panic_since = None

    def _lay_to_rest(self, now: float) -> None:
        for key, revision in list(self._resting.items()):
            settings = revision.plan.settings
            if revision.alive or revision.draining or revision.entry.reporting or revision.panic_since is not None:
                del self._resting[key]  # it will be over again
            elif now - revision.silent_since > max(settings.stable_window, settings.scale_down_delay) + 2 * TICK:
                del self._resting[key]
                revision.followed = False
                self._autoscaling.remove(key)

    def _close(self, now: float) -> None:
        """Everything that still goes on ends with the simulation."""
        self.observed.ended = now
        for revision in self._revisions:
            self._cluster.close(revision, now)
            if revision.panic_since is not None:
                self.observed.panics.append((revision.panic_since, now))


def _is_over(decision: Decision) -> bool:
    """Nothing is known of it any more, nothing is there, and its way to zero is behind it."""
    activity = decision.activity
    return (
        decision.missing is Missing.NO_DATA
        and decision.ready + decision.starting == 0
        and decision.state.panic_since is None
        and activity is not None
        and activity.status is Status.INACTIVE
        and activity.initialized
        and not activity.timed_out
    )
