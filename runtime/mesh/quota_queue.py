"""Requests before one bucket of tokens: pure, in the time that is given with each call.

As FluxNinja Aperture schedules requests. While nobody waits, a request takes its tokens and goes on. When there
are too few, the queue opens: exactly one request, whose turn it is, has drawn its tokens ahead of time and waits
until they have come; the others wait for their turn in a `FairQueue`. Whoever could not have its tokens before its
deadline is refused when its turn comes, and costs its flow nothing.

`offer` asks for a request, `advance` moves on to a time, `cancel` takes a request out. A caller advances at
`due_at`; when it is late, turns are taken at the times when they were due, as far as `CATCH_UP` back, so that the
resolution of a timer costs no throughput. Every decision is a record with its reason.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from upwell.runtime.mesh.fair_queue import FairQueue, Taken, Workload
from upwell.runtime.mesh.quota_bucket import QuotaBucket

CATCH_UP: Final = 0.1
"""Seconds. What was due longer ago counts from then, so that a stall does not end in a burst."""


class Outcome(enum.Enum):
    """What became of a request, and why."""

    AT_ONCE = "there was a token"
    IN_TURN = "its turn came"
    NO_TIME = "its tokens would come after its deadline"
    WAITED = "its turn did not come before its deadline"
    FULL = "too many requests wait"


ADMITTED: Final = frozenset({Outcome.AT_ONCE, Outcome.IN_TURN})


class QuotaRequest:
    """A request for tokens. `deadline` and `arrived_at` are monotonic seconds."""

    __slots__ = ("arrived_at", "deadline", "workload")

    def __init__(self, workload: Workload, deadline: float, arrived_at: float) -> None:
        self.workload = workload
        self.deadline = deadline
        self.arrived_at = arrived_at

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.workload.name}, {self.workload.cost:g} tokens>"


class Decision(NamedTuple):
    """What became of a request at a time."""

    request: QuotaRequest
    outcome: Outcome
    at: float

    @property
    def admits(self) -> bool:
        return self.outcome in ADMITTED


@dataclass(slots=True)
class WaitingRoom:
    """How many requests may wait, in all queues that share it."""

    most: int
    waiting: int = 0


class QuotaQueue:
    """One bucket and those that wait for its tokens."""

    __slots__ = ("_bucket", "_deadlines", "_entries", "_queue", "_ready_at", "_room", "_serving")

    def __init__(self, bucket: QuotaBucket, room: WaitingRoom) -> None:
        self._bucket = bucket
        self._room = room
        self._queue: FairQueue[QuotaRequest] = FairQueue()
        self._serving: Taken[QuotaRequest] | None = None
        self._ready_at = 0.0
        """When the tokens of the one whose turn it is will have come, or when the next turn is to be given."""
        self._deadlines: list[tuple[float, int, QuotaRequest]] = []
        self._entries = 0

    def __len__(self) -> int:
        return len(self._queue) + (self._serving is not None)

    def __repr__(self) -> str:
        return f"<QuotaQueue {len(self)} waiting, {self._bucket!r}>"

    @property
    def bucket(self) -> QuotaBucket:
        return self._bucket

    @property
    def due_at(self) -> float | None:
        """When to advance; None while nobody waits."""
        if not self:
            return None
        turn = self._ready_at
        return min(turn, self._next_deadline()) if self._deadlines else turn

    def offer(self, request: QuotaRequest, now: float) -> Decision | None:
        """The decision for a new request; None while it waits."""
        if self.passes(request.workload.cost, now):
            return Decision(request, Outcome.AT_ONCE, now)
        return self.enter(request, now)

    def passes(self, cost: float, now: float) -> bool:
        """Take tokens for a new request if it need not wait for them; otherwise nothing changes."""
        return cost <= 0 or (self._serving is None and not self._queue and self._bucket.take(cost, now))

    def enter(self, request: QuotaRequest, now: float) -> Decision | None:
        """Let a request wait that does not pass: None, or why it may not."""
        if request.deadline <= now:
            return Decision(request, Outcome.NO_TIME, now)
        if self._room.waiting >= self._room.most:
            return Decision(request, Outcome.FULL, now)
        if self:
            self._push(request)
            self._entries += 1
            heappush(self._deadlines, (request.deadline, self._entries, request))
            return None
        ready_at = self._bucket.draw(request.workload.cost, now, request.deadline)
        if ready_at is None:
            return Decision(request, Outcome.NO_TIME, now)
        self._push(request)
        self._serving = self._queue.take()
        self._ready_at = ready_at
        return None

    def advance(self, now: float) -> list[Decision]:
        """All that is due by now, in the order in which it became due."""
        decisions: list[Decision] = []
        while self:
            deadline = self._next_deadline()
            if self._ready_at <= deadline:
                if self._ready_at > now:
                    break
                self._turn(max(self._ready_at, now - CATCH_UP), decisions)
            elif deadline > now:
                break
            else:
                request = heappop(self._deadlines)[2]
                self._queue.remove(request)
                self._decide(request, Outcome.WAITED, now, decisions)
        return decisions

    def cancel(self, request: QuotaRequest, now: float) -> bool:
        """Take out a request that waits; False when it does not wait any more."""
        serving = self._serving
        if serving is not None and serving.item is request:
            self._give_up(serving, now)
        elif request in self._queue:
            self._queue.remove(request)
            self._tidy()
        else:
            return False
        self._room.waiting -= 1
        return True

    def _turn(self, at: float, decisions: list[Decision]) -> None:
        """The one whose turn it is goes on, and the next turn is given."""
        serving = self._serving
        if serving is not None:
            request = serving.item
            if request.deadline < at:
                self._give_up(serving, at)
                self._decide(request, Outcome.WAITED, at, decisions)
            else:
                self._serving = None
                self._queue.served(serving)
                self._decide(request, Outcome.IN_TURN, at, decisions)
        while self._queue and self._serving is None:
            self._wake(at, decisions)

    def _wake(self, at: float, decisions: list[Decision]) -> None:
        """Give the next one its turn: it draws its tokens, or is refused."""
        taken = self._queue.take()
        request = taken.item
        ready_at = None
        if request.deadline >= at:
            ready_at = self._bucket.draw(request.workload.cost, at, request.deadline)
        if ready_at is None:
            self._queue.passed_over(taken)
            self._decide(request, Outcome.NO_TIME, at, decisions)
        else:
            self._serving = taken
            self._ready_at = ready_at

    def _give_up(self, serving: Taken[QuotaRequest], at: float) -> None:
        self._serving = None
        self._ready_at = at
        self._bucket.give_back(serving.item.workload.cost, at)
        self._queue.passed_over(serving)
        self._tidy()

    def _decide(self, request: QuotaRequest, outcome: Outcome, at: float, decisions: list[Decision]) -> None:
        self._room.waiting -= 1
        decisions.append(Decision(request, outcome, at))
        self._tidy()

    def _push(self, request: QuotaRequest) -> None:
        workload = request.workload
        self._queue.push(request, workload.priority, workload.flow, workload.cost)
        self._room.waiting += 1

    def _next_deadline(self) -> float:
        """Of those that wait for their turn."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][2] not in self._queue:
            heappop(deadlines)
        return deadlines[0][0] if deadlines else math.inf

    def _tidy(self) -> None:
        """Let go of deadlines of those that left."""
        if not self._queue:
            self._deadlines.clear()
        elif len(self._deadlines) > 2 * len(self._queue) + 16:
            self._deadlines = [each for each in self._deadlines if each[2] in self._queue]
            heapify(self._deadlines)
