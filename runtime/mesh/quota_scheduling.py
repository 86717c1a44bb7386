"""QuotaSchedulingPolicy: requests beyond a quota wait for their turn, which comes by priority.

The shell around `QuotaQueue`: one queue, or one for each value of a label; a timer of each that has somebody
waiting; and counters of each workload. Bounded: `MOST_WAITING` requests wait for one policy in all, and
`MOST_BUCKETS` values of a label are known, of which those that were used longest ago are let go.
"""

from __future__ import annotations

import copy
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from upwell.functions.api.scheduling import QuotaSchedulingSpec, Selector
from upwell.runtime.clock import Clock
from upwell.runtime.mesh.fair_queue import Workload
from upwell.runtime.mesh.flow_labels import Condition, compile_matcher, read_label
from upwell.runtime.mesh.policy import Cause, Refusal
from upwell.runtime.mesh.quota_bucket import QuotaBucket
from upwell.runtime.mesh.quota_queue import Decision, Outcome, QuotaQueue, QuotaRequest, WaitingRoom
from upwell.runtime.mesh.request import PolicyRequest
from upwell.runtime.mesh.workloads import Workloads
from upwell.runtime.timers import Timer, TimerWheel

SCHEDULING_TIMEOUT: Final = 60.0
"""Seconds that a request waits at the most, as in ASM."""
MOST_WAITING: Final = 10_000
"""Requests that wait for one policy, as many as wait for one revision."""
MOST_BUCKETS: Final = 10_000
"""Values of `limit_by_label_key` that are told apart."""
MOST_COUNTED: Final = 1000
"""Names of workloads that are counted apart: a label of the caller can make any number of them."""
OTHER_WORKLOADS: Final = "other"
RESEED_INTERVAL: Final = 300.0
_LIMITED_FLAG: Final = "RL"
_EVENT_LABEL: Final = "http.request.header.ce_"


@dataclass(slots=True)
class WorkloadCounters:
    """What became of a workload's requests since the policy was applied. Tokens; requests; seconds."""

    incoming_tokens: float = 0.0
    accepted_tokens: float = 0.0
    rejected_tokens: float = 0.0
    """Of those that gave up waiting too."""
    passed: int = 0
    """Requests that went on at once."""
    released: int = 0
    """Requests that waited, and had their turn."""
    refused: int = 0
    cancelled: int = 0
    """Requests that gave up waiting."""
    waiting: int = 0
    """Requests that wait now."""
    queue_seconds: float = 0.0
    """Spent waiting by all that waited and do so no longer."""


class _Lane:
    """One bucket with its queue, and the timer that is set for it."""

    __slots__ = ("due_at", "queue", "timer", "used_at")

    def __init__(self, queue: QuotaQueue) -> None:
        self.queue = queue
        self.timer: Timer | None = None
        self.due_at = 0.0
        self.used_at = 0.0


class _Waiting(QuotaRequest):
    """A request on its way through a quota; the gateway's `Hold` while it waits."""

    __slots__ = ("_answer", "_decided", "_lane", "_quota", "_released")

    def __init__(self, quota: _Quota, lane: _Lane, workload: Workload, deadline: float, now: float) -> None:
        super().__init__(workload, deadline, now)
        self._quota = quota
        self._lane = lane
        self._released: Callable[[Refusal | None], None] | None = None
        self._answer: Refusal | None = None
        self._decided = False

    def wait(self, released: Callable[[Refusal | None], None]) -> None:
        self._released = released
        if self._decided:
            self._quota.later(self._tell)

    def cancel(self) -> None:
        self._released = None
        self._quota.cancel(self, self._lane)

    def decided(self, answer: Refusal | None) -> None:
        """Tell the one who waits; if nobody does yet, when somebody does."""
        self._decided = True
        self._answer = answer
        self._tell()

    def _tell(self) -> None:
        released, self._released = self._released, None
        if released is not None:
            released(self._answer)


class _Quota:
    """What all places of a policy share: the buckets, the queues, the counters."""

    def __init__(
        self, policy: str, spec: QuotaSchedulingSpec, wheel: TimerWheel, clock: Clock, random: Callable[[], float]
    ) -> None:
        self.policy = policy
        self._spec = spec.quota_scheduler
        scheduler = self._spec.scheduler
        self._wheel = wheel
        self._clock = clock
        self.workloads = Workloads(scheduler, random)
        self.counters: dict[str, WorkloadCounters] = {name: WorkloadCounters() for name in self.workloads.names}
        self.room = WaitingRoom(MOST_WAITING)
        self._margin = scheduler.margin_seconds
        self._status = scheduler.denied_status
        label = self._spec.rate_limiter.limit_by_label_key
        self._read_key = read_label(label) if label else None
        self.lanes: OrderedDict[str, _Lane] = OrderedDict()
        self._only: _Lane | None = None
        self._reseed_at = 0.0
        self._decided: deque[tuple[_Waiting, Refusal | None]] = deque()

    def admit(self, request: PolicyRequest, now: float) -> Refusal | _Waiting | None:
        lane = self._only or self._lane(request, now)
        if lane is None:
            return None
        workload, queue_timeout = self.workloads.sort(request)
        counters = self.counters.get(workload.name) or self.counters_of(workload.name)
        cost = workload.cost
        counters.incoming_tokens += cost
        if lane.queue.passes(cost, now):
            counters.accepted_tokens += cost
            counters.passed += 1
            return None
        waiting = _Waiting(self, lane, workload, self._deadline(request, queue_timeout, now), now)
        decision = lane.queue.enter(waiting, now)
        if decision is not None:
            return self._refuse(decision, counters)
        counters.waiting += 1
        self._arm(lane, now)
        return waiting

    def cancel(self, waiting: _Waiting, lane: _Lane) -> None:
        now = self._clock.monotonic()
        if lane.queue.cancel(waiting, now):
            counters = self.counters_of(waiting.workload.name)
            counters.waiting -= 1
            counters.cancelled += 1
            counters.rejected_tokens += waiting.workload.cost
            counters.queue_seconds += now - waiting.arrived_at
            self._arm(lane, now)

    def later(self, callback: Callable[[], None]) -> None:
        self._wheel.schedule(0.0, callback)

    def counters_of(self, name: str) -> WorkloadCounters:
        """A workload's counters; those of a name too many are shared."""
        counters = self.counters.get(name)
        if counters is None:
            known = name if len(self.counters) < MOST_COUNTED else OTHER_WORKLOADS
            counters = self.counters.setdefault(known, WorkloadCounters())
        return counters

    def _deadline(self, request: PolicyRequest, queue_timeout: float | None, now: float) -> float:
        wait = SCHEDULING_TIMEOUT if queue_timeout is None else min(queue_timeout, SCHEDULING_TIMEOUT)
        if request.deadline is None:
            return now + wait
        return min(now + wait, request.deadline - self._margin)

    def _lane(self, request: PolicyRequest, now: float) -> _Lane | None:
        """The lane of a request; None for one without the label by which lanes are told apart."""
        if self._read_key is None:
            self._only = self._open("", now)
            return self._only
        key = self._read_key(request)
        if key is None:
            return None
        lane = self.lanes.get(key)
        if lane is None:
            self._let_go(now)
            lane = self._open(key, now)
        self.lanes.move_to_end(key)
        lane.used_at = now
        return lane

    def _open(self, key: str, now: float) -> _Lane:
        parameters = self._spec.rate_limiter
        bucket = QuotaBucket(
            self._spec.bucket_capacity,
            self._spec.fill_amount,
            parameters.interval_seconds,
            now,
            continuous=parameters.fills_continuously,
            delays_filling=bool(parameters.delay_initial_fill),
        )
        lane = self.lanes[key] = _Lane(QuotaQueue(bucket, self.room))
        return lane

    def _let_go(self, now: float) -> None:
        """Forget lanes that nobody used for long, and the one used longest ago when there are too many.

        One in which requests wait stays; there are never more of those than may wait.
        """
        idle_since = now - self._spec.rate_limiter.max_idle_seconds
        for _ in range(min(len(self.lanes), 8)):
            key, lane = next(iter(self.lanes.items()))
            if lane.queue:
                self.lanes.move_to_end(key)
            elif lane.used_at < idle_since or len(self.lanes) >= MOST_BUCKETS:
                del self.lanes[key]
            else:
                return

    def _arm(self, lane: _Lane, now: float) -> None:
        """Set the lane's timer for when it is due."""
        if now >= self._reseed_at:
            self._reseed_at = now + RESEED_INTERVAL
            self.workloads.reseed()
        due_at = lane.queue.due_at
        timer = lane.timer
        if timer is not None:
            if due_at is not None and lane.due_at <= due_at:
                return  # fires early, and sets itself again
            timer.cancel()
            lane.timer = None
        if due_at is not None:
            lane.due_at = due_at
            lane.timer = self._wheel.schedule(max(0.0, due_at - now), lambda: self._turn(lane))

    def _turn(self, lane: _Lane) -> None:
        lane.timer = None
        now = self._clock.monotonic()
        for decision in lane.queue.advance(now):
            waiting = decision.request
            assert isinstance(waiting, _Waiting), "requests are offered by admit alone"
            self._decided.append((waiting, self._settle(decision, now)))
        self._arm(lane, now)
        self._tell()

    def _tell(self) -> None:
        """Tell those that waited, one after the other; one that fails does not keep it from the others."""
        try:
            while self._decided:
                waiting, answer = self._decided.popleft()
                waiting.decided(answer)
        finally:
            if self._decided:
                self.later(self._tell)

    def _settle(self, decision: Decision, now: float) -> Refusal | None:
        """Count a decision for one that waited."""
        request = decision.request
        counters = self.counters_of(request.workload.name)
        counters.waiting -= 1
        counters.queue_seconds += now - request.arrived_at
        if decision.admits:
            counters.accepted_tokens += request.workload.cost
            counters.released += 1
            return None
        return self._refuse(decision, counters)

    def _refuse(self, decision: Decision, counters: WorkloadCounters) -> Refusal:
        counters.rejected_tokens += decision.request.workload.cost
        counters.refused += 1
        reason = f"quota exceeded: {decision.outcome.value}"
        if decision.outcome is Outcome.FULL:
            reason = f"{reason}: {self.room.most}"
        return Refusal(self.policy, Cause.LIMITED, _LIMITED_FLAG, reason, self._status)


class QuotaScheduling:
    """A QuotaSchedulingPolicy where it stands in a chain: a Filter."""

    def __init__(
        self, policy: str, spec: QuotaSchedulingSpec, wheel: TimerWheel, clock: Clock, random: Callable[[], float]
    ) -> None:
        """`policy` is `KIND NAMESPACE/NAME`; `clock` the one whose monotonic seconds `admit` is given."""
        self._quota = _Quota(policy, spec, wheel, clock, random)
        self.reads_events = any(label.startswith(_EVENT_LABEL) for label in spec.quota_scheduler.labels)
        """Whether attributes of the events in a body have a say."""
        self._conditions: tuple[Condition, ...] = ()
        self._admit = self._quota.admit

    def __repr__(self) -> str:
        return f"<QuotaScheduling {self.policy}, {self.waiting} waiting>"

    @property
    def policy(self) -> str:
        return self._quota.policy

    @property
    def workloads(self) -> Workloads:
        """How it sorts requests."""
        return self._quota.workloads

    @property
    def counters(self) -> Mapping[str, WorkloadCounters]:
        """By workload."""
        return self._quota.counters

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return self._quota.room.waiting

    @property
    def buckets(self) -> int:
        """Buckets in use: one, or one for each value of the label."""
        return len(self._quota.lanes)

    def at(self, selectors: Sequence[Selector]) -> QuotaScheduling:
        """The same quota where these of its selectors are the ones that mean the place."""
        conditions = [compile_matcher(each.label_matcher) for each in selectors]
        placed = copy.copy(self)
        placed._conditions = () if None in conditions else tuple(each for each in conditions if each is not None)
        return placed

    def admit(self, request: PolicyRequest, now: float) -> Refusal | _Waiting | None:
        """Nothing while there are tokens; then a place in the queue, or a refusal for want of time or room."""
        if self._conditions and not any(condition(request) for condition in self._conditions):
            return None
        return self._admit(request, now)
