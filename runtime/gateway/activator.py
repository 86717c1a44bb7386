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
from collections.abc import Sequence
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
    """Chooses replicas in the place of `pick`."""

    def pick(
        self, backends: Sequence[Backend], concurrency: int, rotation: int, call: Call
    ) -> Backend | Refusal | None:
        """The backend for `call`, None while no slot is free, or why there will be none."""
        ...


class WaitingCalls(Protocol):
    """Calls that wait for a slot, in the order in which they are to get one."""

    def __len__(self) -> int: ...

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

    __slots__ = ("_rotation", "backends", "balancer", "in_flight", "limits", "retry_at", "revision", "waiting")

    def __init__(self, revision: str, limits: RevisionLimits) -> None:
        self.revision = revision
        self.limits = limits
        self.backends: list[Backend] = []
        self.waiting: WaitingCalls = FirstCome()
        self.balancer: Balancer | None = None
        self.in_flight = 0
        self.retry_at = 0.0
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
        if not self.waiting:
            taken = self._take(call)
            if taken is not None:
                return taken
        if now < self.retry_at and not self.backends:
            return Rejection.START_FAILED
        if len(self.waiting) >= self.limits.queue_depth:
            return Rejection.QUEUE_FULL
        self.waiting.append(call)
        return None

    def next_ready(self) -> tuple[Call, Backend | Refusal] | None:
        """The next waiting call with a slot taken for it, or with the reason why it will get none; None when
        nothing waits or nothing is free."""
        if not self.waiting:
            return None
        call = self.waiting.first()
        taken = self._take(call)
        if taken is None:
            return None
        return self.waiting.popleft(), taken

    def spare(self, call: Call) -> Backend | None:
        """A slot that nobody waits for, taken for a copy of `call`; None when there is none."""
        taken = None if self.waiting else self._take(call)
        return taken if isinstance(taken, Backend) else None

    def order(self, waiting: WaitingCalls) -> None:
        """Serve those that wait in the order of `waiting` from now on; none of them is lost."""
        while self.waiting:
            waiting.append(self.waiting.popleft())
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
        taken: Backend | Refusal | None
        if self.balancer is None:
            taken = pick(self.backends, self.limits.container_concurrency, self._rotation)
        else:
            taken = self.balancer.pick(self.backends, self.limits.container_concurrency, self._rotation, call)
        if isinstance(taken, Backend):
            self._rotation += 1
            taken.in_flight += 1
            self.in_flight += 1
        return taken
