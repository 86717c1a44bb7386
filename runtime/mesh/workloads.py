"""Sorting requests into the workloads of a scheduler: whose they are, what they weigh and what they cost.

The first workload whose matcher holds is the one. Labels of the request may then overrule its tokens, its
priority and its name, and split it into fair queues; they come from the caller, so what is no sensible number is
passed over and priorities are kept within bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from upwell.functions.api.scheduling import DEFAULT_WORKLOAD, Scheduler, WorkloadParameters
from upwell.runtime.mesh.fair_queue import Flow, Workload
from upwell.runtime.mesh.flow_labels import Condition, ReadLabel, compile_matcher, read_label
from upwell.runtime.mesh.request import PolicyRequest

FAIR_QUEUES: Final = 256
"""In one workload: callers share them by the hash of their label, so that more labels are not more service."""
LEAST_PRIORITY: Final = 1e-6
MOST_PRIORITY: Final = 1e6


@dataclass(frozen=True, slots=True)
class Sort:
    """A workload as it is declared."""

    condition: Condition | None
    workload: Workload
    queue_timeout: float | None
    """Seconds; None without a limit of its own."""


def _sort(name: str, parameters: WorkloadParameters | None, condition: Condition | None) -> Sort:
    given = parameters or WorkloadParameters()
    workload = Workload(name, given.weight, Flow(name), given.cost)
    return Sort(condition, workload, given.queue_timeout_seconds)


class Workloads:
    """The workloads of one scheduler. Holds the seed that spreads labels over fair queues."""

    def __init__(self, scheduler: Scheduler, random: Callable[[], float]) -> None:
        self._random = random
        self._default = _sort(DEFAULT_WORKLOAD, scheduler.default_workload_parameters, None)
        self._sorts = [
            _sort(each.name or str(index), each.parameters, compile_matcher(each.label_matcher))
            for index, each in enumerate(scheduler.workloads or ())
        ]
        self._tokens = _reader(scheduler.tokens_label_key)
        self._priority = _reader(scheduler.priority_label_key)
        self._name = _reader(scheduler.workload_label_key)
        self._fairness = _reader(scheduler.fairness_label_key)
        self._overruled = any((self._tokens, self._priority, self._name, self._fairness))
        self._seed = b""
        self.reseed()

    @property
    def names(self) -> tuple[str, ...]:
        """Of those that are declared, the default one last."""
        return (*(each.workload.name for each in self._sorts), DEFAULT_WORKLOAD)

    def reseed(self) -> None:
        """Spread labels over fair queues anew, so that none shares its queue with the same others for ever."""
        self._seed = int(self._random() * 2**64).to_bytes(9, "big")

    def of(self, request: PolicyRequest) -> Workload:
        """Whose request it is."""
        return self.sort(request)[0]

    def sort(self, request: PolicyRequest) -> tuple[Workload, float | None]:
        """Whose request it is, and for how many seconds it may wait at the most (None: no limit of its own)."""
        found = self._default
        for each in self._sorts:
            if each.condition is None or each.condition(request):
                found = each
                break
        if self._overruled:
            return self._overrule(found.workload, request), found.queue_timeout
        return found.workload, found.queue_timeout

    def _overrule(self, workload: Workload, request: PolicyRequest) -> Workload:
        name, priority, _, cost = workload
        if self._name is not None:
            name = self._name(request) or name
        if self._tokens is not None:
            given = _number(self._tokens(request))
            cost = cost if given is None else given
        if self._priority is not None:
            given = _number(self._priority(request))
            priority = min(max(given, LEAST_PRIORITY), MOST_PRIORITY) if given else priority
        label = self._fairness(request) if self._fairness is not None else None
        flow = Flow(name, self._fair_queue(label) if label else -1)
        return Workload(name, priority, flow, cost)

    def _fair_queue(self, label: str) -> int:
        return blake2b(label.encode(), digest_size=1, key=self._seed).digest()[0] % FAIR_QUEUES


def _reader(label: str | None) -> ReadLabel | None:
    return read_label(label) if label else None


def _number(text: str | None) -> float | None:
    """A number that is not negative; None for anything else."""
    if text is None or "_" in text:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
