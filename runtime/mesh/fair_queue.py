"""Who is next among those that wait: fair by weight between flows, first come first served within one.

Weighted fair queueing as FluxNinja Aperture schedules requests (pkg/scheduler/wfq.go), which follows the virtual
clock of Demers, Keshav and Shenker (1989). The queue and each flow have a virtual time. A flow begins at the
queue's; a flow's first item would finish at the flow's time plus its cost, which is its tokens by its priority,
times the number of its workload's flows; the smallest finish is next. What is served advances its flow's time, and
the queue's to that. So among flows that always wait, service is in proportion to their priorities.

In one thing this departs from Aperture: while a flow's first item is being served, further ones stay behind it
in the flow. There they could overtake those that had waited longer.

An item waits at most once. Pushing, taking and removing cost O(log flows), and O(1) with a single flow.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush
from typing import Final, Generic, NamedTuple, TypeVar

T = TypeVar("T", bound=Hashable)


class Flow(NamedTuple):
    """Items that are served in the order in which they came."""

    workload: str = ""
    queue: int = -1
    """One of a workload's, where fairness within it is asked for."""


class Workload(NamedTuple):
    """How an item counts among those that wait."""

    name: str
    priority: float
    flow: Flow
    cost: float
    """In tokens."""


ONE_FLOW: Final = Flow()


class _Group:
    """Counts the flows of one workload that are under way."""

    __slots__ = ("flows",)

    def __init__(self) -> None:
        self.flows = 0


class _Flow(Generic[T]):
    """State of a flow that has items, or one that is being served."""

    __slots__ = ("group", "is_serving", "key", "ticket", "time", "waiting")

    def __init__(self, key: tuple[Flow, float], group: _Group, time: float) -> None:
        self.key = key
        self.group = group
        self.time = time
        self.waiting: OrderedDict[T, float] = OrderedDict()
        """Items and their costs in virtual time."""
        self.is_serving = False
        self.ticket = 0
        """Number of its valid entry among the candidates; 0 without one."""


class Taken(Generic[T]):
    """An item that left the queue and whose flow waits to hear whether it was served."""

    __slots__ = ("cost", "flow", "item")

    def __init__(self, item: T, flow: _Flow[T], cost: float) -> None:
        self.item = item
        self.flow = flow
        self.cost = cost


class FairQueue(Generic[T]):
    """Items that wait, by flow. Iteration goes in the order in which they came."""

    __slots__ = ("_candidates", "_flow_of", "_flows", "_groups", "_tickets", "_time")

    def __init__(self) -> None:
        self._flows: dict[tuple[Flow, float], _Flow[T]] = {}
        self._groups: dict[tuple[str, float], _Group] = {}
        """By workload and priority."""
        self._candidates: list[tuple[float, int, _Flow[T]]] = []
        """Flows by the virtual finish of their first item; one whose number is not its flow's is outdated."""
        self._flow_of: dict[T, _Flow[T]] = {}
        self._time = 0.0
        self._tickets = 0

    def __len__(self) -> int:
        return len(self._flow_of)

    def __iter__(self) -> Iterator[T]:
        return iter(self._flow_of)

    def __contains__(self, item: object) -> bool:
        return item in self._flow_of

    def __repr__(self) -> str:
        return f"<FairQueue {len(self)} waiting in {len(self._flows)} flows>"

    @property
    def flows(self) -> int:
        """Flows that have items waiting, or one that is being served."""
        return len(self._flows)

    def push(self, item: T, priority: float = 1.0, flow: Flow = ONE_FLOW, cost: float = 1.0) -> None:
        """Let an item wait that does not wait yet. `cost` is in tokens, `priority` above 0."""
        key = (flow, priority)
        state = self._flows.get(key)
        if state is None:
            state = self._open(key)
        state.waiting[item] = cost / priority * state.group.flows
        self._flow_of[item] = state
        if not state.ticket and not state.is_serving:
            self._enter(state)

    def first(self) -> T:
        """Who is next, unless others come. Raises IndexError when nobody waits."""
        return next(iter(self._first_flow().waiting))

    def pop(self) -> T:
        """Take out who is next, to be served. Raises IndexError when nobody waits."""
        taken = self.take()
        self.served(taken)
        return taken.item

    def take(self) -> Taken[T]:
        """Take out who is next; `served` or `passed_over` must follow before another of its flow can be next.

        Raises IndexError when nobody waits.
        """
        flow = self._first_flow()
        heappop(self._candidates)
        flow.ticket = 0
        flow.is_serving = True
        item, cost = flow.waiting.popitem(last=False)
        del self._flow_of[item]
        return Taken(item, flow, cost)

    def served(self, taken: Taken[T]) -> None:
        """What was taken got its turn, which counts for its flow."""
        flow = taken.flow
        flow.time += taken.cost
        self._time = flow.time
        self.passed_over(taken)

    def passed_over(self, taken: Taken[T]) -> None:
        """What was taken gave up its turn."""
        flow = taken.flow
        flow.is_serving = False
        if flow.waiting:
            self._enter(flow)
        else:
            self._close(flow)

    def remove(self, item: T) -> None:
        """Take out an item that waits no longer. Raises KeyError when it does not wait."""
        flow = self._flow_of.pop(item)
        was_first = bool(flow.ticket) and next(iter(flow.waiting)) is item
        del flow.waiting[item]
        if not was_first:
            return
        flow.ticket = 0
        if flow.waiting:
            self._enter(flow)
        else:
            self._close(flow)
        if len(self._candidates) > 2 * len(self._flows) + 16:
            self._candidates = [each for each in self._candidates if each[1] == each[2].ticket]
            heapify(self._candidates)

    def _open(self, key: tuple[Flow, float]) -> _Flow[T]:
        flow, priority = key
        if not self._flows:
            self._time = 0.0
            self._candidates.clear()
        name = (flow.workload, priority)
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group()
        group.flows += 1
        state = self._flows[key] = _Flow(key, group, self._time)
        return state

    def _close(self, state: _Flow[T]) -> None:
        flow, priority = state.key
        del self._flows[state.key]
        state.group.flows -= 1
        if not state.group.flows:
            del self._groups[flow.workload, priority]

    def _enter(self, flow: _Flow[T]) -> None:
        """Make a flow a candidate, by its first item."""
        self._tickets += 1
        flow.ticket = self._tickets
        cost = next(iter(flow.waiting.values()))
        heappush(self._candidates, (flow.time + cost, self._tickets, flow))

    def _first_flow(self) -> _Flow[T]:
        candidates = self._candidates
        while candidates[0][1] != candidates[0][2].ticket:
            heappop(candidates)
        return candidates[0][2]
