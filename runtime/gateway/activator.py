"""Holds the requests of one revision until a replica has a free slot.

`admit` decides for a new request, `next_ready` for those that wait; both only look at the state kept here and
start no I/O, so that every rule can be tried without a socket. Ordering: first come, first served, unless a
policy gives the calls that wait an order of its own. Lifetime: one activator a revision, from the revision's first
route to its removal. Numbers and replica choice are Knative's (pkg/activator/net): random choice of two without a
concurrency limit, the first with a free slot up to a limit of three, round robin above; a DestinationRule puts its
own in their place.
"""

from __future__ import annotations

import enum
import random
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from upwell.runtime.cluster.interface import Replica
from upwell.runtime.http.upstream import UpstreamPool
from upwell.runtime.mesh.policy import Refusal

if TYPE_CHECKING:
    from upwell.runtime.gateway.call import Call

QUEUE_DEPTH: Final = 10_000
"""Requests held for one revision, as deep as Knative's activator holds."""
FIRST_AVAILABLE_LIMIT: Final = 3


class Rejection(enum.Enum):
    """Why a request was not admitted."""

    QUEUE_FULL = "queue_full"
    START_FAILED = "start_failed"
    NO_REVISION = "no_revision"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class RevisionLimits:
    """What a revision's spec says of its requests."""

    container_concurrency: int = 0
    """Requests a replica at once; 0 for no limit."""
    timeout_seconds: float = 300.0
    queue_depth: int = QUEUE_DEPTH
    burst_threshold: int = 100
    """Requests in flight a ready replica above which the autoscaler is poked at once: its capacity, which is
    containerConcurrency or Knative's default target."""


class Backend:
    """A ready replica as the gateway sees it."""

    __slots__ = ("in_flight", "locality", "name", "pool", "ready_at", "replica", "suspensions")

    def __init__(self, replica: Replica, pool: UpstreamPool, ready_at: float = 0.0) -> None:
        self.replica = replica
        self.name = replica.name
        self.locality = replica.locality
        self.ready_at = ready_at
        """Monotonic seconds."""
        self.pool = pool
        self.in_flight = 0
        self.suspensions = 0
        """Calls that found it unwilling and whose pause is not over; while there are any, it is passed over."""

    def __repr__(self) -> str:
        state = "suspended" if self.suspensions else self.replica.state.value
        return f"<Backend {self.replica.name} {state}, {self.in_flight} in flight>"


def pick(backends: Sequence[Backend], concurrency: int, rotation: int) -> Backend | None:
    """The backend for the next request, or None when no slot is free.

    `concurrency` is the containerConcurrency (0: unlimited); `rotation` a counter for the round robin.
    """
    count = len(backends)
    if count == 1:
        only = backends[0]
        return only if not only.suspensions and (concurrency == 0 or only.in_flight < concurrency) else None
    if count == 0:
        return None
    if concurrency == 0:
        usable = [backend for backend in backends if not backend.suspensions]
        if len(usable) < 2:
            return usable[0] if usable else None
        first = random.randrange(len(usable))
        second = (first + random.randrange(1, len(usable))) % len(usable)
        one, other = usable[first], usable[second]
        return one if one.in_flight <= other.in_flight else other
    start = 0 if concurrency <= FIRST_AVAILABLE_LIMIT else rotation % count
    for offset in range(count):
        backend = backends[(start + offset) % count]
        if not backend.suspensions and backend.in_flight < concurrency:
            return backend
    return None


class Balancer(Protocol):
    """Chooses replicas in the place of `pick`, and bounds what comes to them."""

    def pick(
        self, backends: Sequence[Backend], concurrency: int, rotation: int, call: Call, tried: Collection[str]
    ) -> Backend | Refusal | None:
        """The backend for `call`, None while no slot is free, or why there will be none; another than those
        `tried` if there is one."""
        ...

    def over(self, in_flight: int) -> Refusal | None:
        """Why no other request may come beside `in_flight` at replicas; None if one may."""
        ...

    def crowded(self, waiting: int) -> Refusal | None:
        """Why no other request may wait beside `waiting` for replicas that are ready; None if one may."""
        ...


class WaitingCalls(Protocol):
    """Calls that wait for a slot, in the order in which they are to get one."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Call]:
        """In the order in which they came."""
        ...

    def append(self, call: Call) -> None:
        """Another one waits."""
        ...

    def first(self) -> Call:
        """Whose turn it is; there is one."""
        ...

    def popleft(self) -> Call:
        """Take out the one whose turn it is."""
        ...

    def remove(self, call: Call) -> None:
        """Take out one that waits no longer."""
        ...


class FirstCome(deque["Call"]):
    """First come, first served."""

    def first(self) -> Call:
        """The one that has waited longest."""
        return self[0]


@dataclass(frozen=True, slots=True)
class ActivatorStatistics:
    """A moment of one revision's activator: calls held, calls at replicas, replicas in use."""

    waiting: int
    in_flight: int
    backends: int


class Activator:
    """The queue and the replicas of one revision."""

    __slots__ = (
        "_rotation",
        "backends",
        "balancer",
        "in_flight",
        "is_removed",
        "limits",
        "retry_at",
        "retrying",
        "revision",
        "waiting",
    )

    def __init__(self, revision: str, limits: RevisionLimits) -> None:
        self.revision = revision
        self.limits = limits
        self.backends: list[Backend] = []
        self.waiting: WaitingCalls = FirstCome()
        self.balancer: Balancer | None = None
        self.in_flight = 0
        self.is_removed = False
        """Whether the revision is gone, so that nobody may wait for it any more."""
        self.retry_at = 0.0
        self.retrying: dict[Call, Collection[str]] = {}
        """Calls that are no request's first attempt, and names of replicas that another is to be preferred to."""
        self._rotation = 0

    def __repr__(self) -> str:
        return (
            f"<Activator {self.revision} {len(self.waiting)} waiting, {self.in_flight} in flight, "
            f"{len(self.backends)} backends>"
        )

    def admit(self, call: Call, now: float) -> Backend | Rejection | Refusal | None:
        """A slot taken for `call`, a reason to refuse it, or None once it waits in the queue.

        `now` is Unix time: after a failed start, requests are refused until the next attempt is due.
        """
        taken: Backend | Refusal | None = None
        if self.balancer is not None and self.backends:
            taken = self.balancer.over(self.in_flight)
        if taken is None and not self.waiting:
            taken = self._take(call)
        return taken if taken is not None else self._queue(call, now)

    def _queue(self, call: Call, now: float) -> Rejection | Refusal | None:
        if self.is_removed:
            return Rejection.NO_REVISION
        if now < self.retry_at and not self.backends:
            return Rejection.START_FAILED
        if len(self.waiting) >= self.limits.queue_depth:
            return Rejection.QUEUE_FULL
        if self.balancer is not None and self.backends:
            refusal = self.balancer.crowded(len(self.waiting))
            if refusal is not None:
                return refusal
        self.waiting.append(call)
        return None

    def next_ready(self) -> tuple[Call, Backend | Refusal] | None:
        """The next waiting call with a slot taken for it, or with the reason why it will get none; None when
        nothing waits or nothing is free."""
        if not self.waiting or (self.balancer is not None and self.balancer.over(self.in_flight) is not None):
            return None
        call = self.waiting.first()
        taken = self._take(call)
        if taken is None:
            return None
        return self.waiting.popleft(), taken

    def spare(self, call: Call) -> Backend | None:
        """A slot that nobody waits for, taken for a copy of `call`; None when there is none."""
        if self.waiting or (self.balancer is not None and self.balancer.over(self.in_flight) is not None):
            return None
        taken = self._take(call)
        return taken if isinstance(taken, Backend) else None

    def order(self, waiting: WaitingCalls) -> None:
        """Serve those that wait in the order of `waiting` from now on; none of them is lost."""
        for call in self.waiting:
            waiting.append(call)
        self.waiting = waiting

    def release(self, backend: Backend) -> None:
        """Give back the slot of a call that is over or will be tried elsewhere."""
        backend.in_flight -= 1
        self.in_flight -= 1

    def leave(self, call: Call) -> None:
        """Take a waiting call out of the queue, whose client or deadline could not wait."""
        self.waiting.remove(call)

    def set_ready(self, replica: Replica, pool: UpstreamPool, ready_at: float = 0.0) -> None:
        """The replica serves from now on, which is `ready_at` in monotonic seconds."""
        self.retry_at = 0.0
        self.backends.append(Backend(replica, pool, ready_at))

    def remove(self, replica: Replica) -> Backend | None:
        """The replica gets no further call. Its calls under way keep their slots in the returned backend."""
        for index, backend in enumerate(self.backends):
            if backend.replica is replica:
                return self.backends.pop(index)
        return None

    def set_failure(self, retry_at: float) -> None:
        """Replicas cannot start until `retry_at` (Unix seconds): nobody need wait for them."""
        self.retry_at = retry_at

    def statistics(self) -> ActivatorStatistics:
        """Counts of this moment."""
        return ActivatorStatistics(len(self.waiting), self.in_flight, len(self.backends))

    def _take(self, call: Call) -> Backend | Refusal | None:
        concurrency = self.limits.container_concurrency
        tried = self.retrying.get(call, ()) if self.retrying else ()
        taken: Backend | Refusal | None = None
        if self.balancer is not None:
            taken = self.balancer.pick(self.backends, concurrency, self._rotation, call, tried)
        elif tried:
            others = [backend for backend in self.backends if backend.name not in tried]
            taken = pick(others, concurrency, self._rotation)
        if taken is None and self.balancer is None:
            taken = pick(self.backends, concurrency, self._rotation)
        if isinstance(taken, Backend):
            self._rotation += 1
            taken.in_flight += 1
            self.in_flight += 1
        return taken
