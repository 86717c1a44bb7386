"""What is known of metrics besides requests: a board that sources write on and the autoscaler reads.

The autoscaler reads what its revisions are scaled by at each tick and never waits for it. What is read is what is
wanted: a source is asked for that alone, on its own interval, and no longer once nobody has read it for a while.
What is on the board counts for as long as its source said, and is missing after that; a source that fails makes it
missing at once, which is logged when it begins, changes or ends: once, however many revisions it concerns.

Ages are counted on the monotonic clock, so that a wall clock that is set neither revives a value nor ends one. A
board belongs to one event loop and holds what was read or told of lately.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from upwell.autoscaler.decision import Missing, Reading, ReplicaReading
from upwell.autoscaler.metric_targets import BACKLOG, CPU, MEMORY, MetricTarget
from upwell.runtime.clock import Clock
from upwell.runtime.cluster.interface import Cluster, Replica, ReplicaState

INTEREST_SECONDS: Final = 10.0
"""For how long what was read once is wanted: several ticks."""
BACKLOG_SECONDS: Final = 60.0
"""For how long a backlog counts by default: whoever knows it tells it more often, changed or not."""
STEP_SECONDS: Final = 1.0
"""The most that what is newly wanted waits for its source."""
USAGE_SECONDS: Final = 5.0
LASTING: Final = 3
"""Intervals of its source for which a value counts."""

_MISSING: Final = Reading(missing=Missing.METRICS_FAILED)
_log = logging.getLogger("upwell.autoscaler")


class Wanted(NamedTuple):
    """A metric of a revision; `query` tells several of the same kind apart."""

    revision: str
    metric: str
    query: str = ""


class Tell(Protocol):
    """How a source says what it found out."""

    def __call__(self, wanted: Wanted, reading: Reading, reason: str = "") -> None:
        """The metric is now as `reading` says; `reason` says why there is none, where that is worth a warning."""
        ...


class SignalSource(Protocol):
    """Finds out about some metrics, when it is asked."""

    @property
    def metrics(self) -> frozenset[str]:
        """Those that it knows of."""
        ...

    @property
    def interval(self) -> float:
        """Seconds from one poll to the next."""
        ...

    async def poll(self, wanted: Sequence[Wanted], tell: Tell) -> None:
        """Find out and tell, of each of `wanted`, in bounded time."""
        ...


class _Entry:
    __slots__ = ("asked_at", "good_until", "reading", "reason")

    def __init__(self) -> None:
        self.asked_at = float("-inf")
        self.reading = _MISSING
        self.good_until = float("-inf")
        self.reason = ""


class SignalBoard:
    """The latest reading of each metric. Implements the engine's `SignalReader`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[Wanted, _Entry] = {}
        self._failures: Counter[tuple[str, str]] = Counter()
        """How many entries of a metric are missing for the same reason."""

    def __repr__(self) -> str:
        return f"<SignalBoard {len(self._entries)} metrics>"

    def read(self, revision: str, metric: MetricTarget, now: float) -> Reading:
        """See `SignalReader`. `now` is the engine's, which a wall clock that was set back may lag behind."""
        monotonic = self._clock.monotonic()
        entry = self._entry(Wanted(revision, metric.metric, metric.query))
        entry.asked_at = monotonic
        return entry.reading if monotonic < entry.good_until else _MISSING

    def wanted(self, metrics: Collection[str]) -> list[Wanted]:
        """Those of `metrics` that were read lately. What is neither read nor good any more is forgotten."""
        now = self._clock.monotonic()
        since = now - INTEREST_SECONDS
        for wanted, entry in list(self._entries.items()):
            if entry.asked_at < since and entry.good_until <= now:
                self._change_reason(wanted.metric, entry, "")
                del self._entries[wanted]
        return [
            wanted
            for wanted, entry in self._entries.items()
            if entry.asked_at >= since and wanted.metric in metrics
        ]

    def tell(self, wanted: Wanted, reading: Reading, lasts: float, reason: str = "") -> None:
        """Put `reading` on the board, where it counts for `lasts` seconds. A `reason` why it is missing is logged
        when no other revision is told it of this metric already, with this one as the example."""
        entry = self._entry(wanted)
        entry.reading = reading
        entry.good_until = self._clock.monotonic() + lasts
        if reason != entry.reason and (reason or reading.missing is None):
            is_ended, is_begun = self._change_reason(wanted.metric, entry, reason)
            details = {"revision": wanted.revision, "metric": wanted.metric, "reason": reason}
            if is_begun:
                _log.warning("a metric cannot be read, so the scale is held", extra=details)
            elif is_ended and not reason:
                _log.info("a metric can be read again", extra=details)

    def _change_reason(self, metric: str, entry: _Entry, reason: str) -> tuple[bool, bool]:
        """Note why an entry is missing now. Whether it was the last one with its reason before, and is the first
        one with the new."""
        before, after = (metric, entry.reason), (metric, reason)
        entry.reason = reason
        is_ended = is_begun = False
        if before[1]:
            self._failures[before] -= 1
            is_ended = not self._failures[before]
            if is_ended:
                del self._failures[before]
        if reason:
            self._failures[after] += 1
            is_begun = self._failures[after] == 1
        return is_ended, is_begun

    def set_backlog(self, revision: str, events: float, lasts: float = BACKLOG_SECONDS) -> None:
        """How many events wait for a revision, told by whoever holds them."""
        self.tell(Wanted(revision, BACKLOG), Reading(max(0.0, events)), lasts)

    def _entry(self, wanted: Wanted) -> _Entry:
        entry = self._entries.get(wanted)
        if entry is None:
            entry = self._entries[wanted] = _Entry()
        return entry


class SignalPoller:
    """Asks one source for what is wanted of it: every interval, and soon where something is newly wanted."""

    def __init__(self, board: SignalBoard, source: SignalSource, clock: Clock) -> None:
        self._board = board
        self._source = source
        self._clock = clock
        self._asked: frozenset[Wanted] = frozenset()
        self._next = float("-inf")
        self._is_broken = False

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(STEP_SECONDS)

    async def step(self) -> None:
        """Poll if that is due."""
        wanted = self._board.wanted(self._source.metrics)
        now = self._clock.monotonic()
        if self._asked.issuperset(wanted) and now < self._next:
            return
        self._asked, self._next = frozenset(wanted), now + self._source.interval
        if not wanted:
            return
        try:
            await self._source.poll(wanted, self._tell)
            self._is_broken = False
        except Exception:  # a defect of one source must not end the platform; what it should tell is missing soon
            if not self._is_broken:
                _log.exception("a source of metrics failed", extra={"metrics": sorted(self._source.metrics)})
            self._is_broken = True

    def _tell(self, wanted: Wanted, reading: Reading, reason: str = "") -> None:
        self._board.tell(wanted, reading, LASTING * self._source.interval, reason)


class ProcessUsage(Protocol):
    """What the processes of one replica use."""

    @property
    def cores(self) -> float | None:
        """Processor time a second."""
        ...

    @property
    def memory(self) -> int | None:
        """Bytes."""
        ...


Measure = Callable[[Collection[int], float], Mapping[int, ProcessUsage]]
"""From processes and monotonic seconds to what each uses, with all below it; may take some milliseconds."""


class UsageSource:
    """Processor (cores) and memory (bytes) of replicas that are processes of this machine."""

    metrics = frozenset({CPU, MEMORY})
    interval = USAGE_SECONDS

    def __init__(self, cluster: Cluster, measure: Measure, clock: Clock) -> None:
        self._cluster = cluster
        self._measure = measure
        self._clock = clock

    async def poll(self, wanted: Sequence[Wanted], tell: Tell) -> None:
        """See `SignalSource`. Replicas that drain count no more."""
        replicas = {revision: self._replicas(revision) for revision in {each.revision for each in wanted}}
        pids = [replica.pid for each in replicas.values() for replica in each if replica.pid is not None]
        # In a thread: on a machine with thousands of processes one look takes as long as many requests.
        usages = await asyncio.to_thread(lambda: self._measure(pids, self._clock.monotonic()))
        reason = "nothing can be told of processes on this machine" if pids and not usages else ""
        for each in wanted:
            reading = _reading(each.metric, replicas[each.revision], usages)
            tell(each, reading, reason if reading.missing else "")

    def _replicas(self, revision: str) -> list[Replica]:
        alive = (ReplicaState.STARTING, ReplicaState.READY)
        return [replica for replica in self._cluster.replicas(revision) if replica.state in alive]


def _reading(metric: str, replicas: Sequence[Replica], usages: Mapping[int, ProcessUsage]) -> Reading:
    """The sum over the replicas whose usage is known; missing when there are replicas and it is known of none."""
    each = tuple(
        ReplicaReading(
            replica.name,
            _value(metric, usages.get(replica.pid) if replica.pid is not None else None),
            replica.state is ReplicaState.READY,
            replica.started_at,
            replica.started_at if replica.ready_at is None else replica.ready_at,
        )
        for replica in replicas
    )
    known = [reading.value for reading in each if reading.value is not None]
    missing = Missing.METRICS_FAILED if each and not known else None
    return Reading(sum(known), missing, each)


def _value(metric: str, usage: ProcessUsage | None) -> float | None:
    if usage is None:
        return None
    return usage.cores if metric == CPU else usage.memory
