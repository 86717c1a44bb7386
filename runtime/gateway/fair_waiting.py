"""The activator's queue in the order of a policy: workloads by priority, first come first served in each."""

from __future__ import annotations

from collections.abc import Iterator

from upwell.runtime.gateway.call import Call
from upwell.runtime.mesh.fair_queue import ONE_FLOW, FairQueue
from upwell.runtime.mesh.workloads import Workloads


class FairWaiting:
    """Calls that wait for a slot; see `activator.WaitingCalls`."""

    def __init__(self, workloads: Workloads) -> None:
        self._workloads = workloads
        self._queue: FairQueue[Call] = FairQueue()

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Call]:
        return iter(self._queue)

    def append(self, call: Call) -> None:
        """Let it wait, as its workload weighs. What came before the policy weighs like anything else."""
        request = call.policy_request
        if request is None:
            self._queue.push(call, 1.0, ONE_FLOW)
        else:
            workload = self._workloads.of(request)
            self._queue.push(call, workload.priority, workload.flow, workload.cost)

    def first(self) -> Call:
        """Whose turn it is."""
        return self._queue.first()

    def popleft(self) -> Call:
        """Take out the one whose turn it is."""
        return self._queue.pop()

    def remove(self, call: Call) -> None:
        """Take out one that waits no longer."""
        self._queue.remove(call)
