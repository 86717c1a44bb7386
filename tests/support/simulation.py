"""Small simulations for tests."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from upwell.runtime.simulate.distributions import Constant
from upwell.runtime.simulate.observed import Observed
from upwell.runtime.simulate.plans import Declared, plan
from upwell.runtime.simulate.simulation import Conditions, service_seconds, start_seconds
from upwell.runtime.simulate.trace import Trace, ordered
from upwell.runtime.simulate.world import Shortcuts, World

NAME = "default/function"


def trace(
    times: Sequence[float],
    service: float | Sequence[float] = 0.1,
    *,
    seconds: float = 0.0,
    functions: Sequence[int] = (),
    began: float = 0.0,
) -> Trace:
    """Requests at these times, all of one function unless `functions` says otherwise."""
    own = np.array(functions or [0] * len(times), np.int64)
    names = tuple(f"{NAME}-{index}" if index else NAME for index in range(int(own.max(initial=0)) + 1))
    known = np.broadcast_to(np.array(service, np.float64), len(times)).copy()
    length = seconds or math.floor(max(times, default=0.0)) + 1.0
    return ordered("a test", names, np.array(times, np.float64), own, known, length, began)


def conditions(of: Trace, *, start: float = 0.5, seed: int = 0, **above: str) -> Conditions:
    """Under these keys of config-autoscaler."""
    keys = {name.replace("_", "-"): value for name, value in above.items()}
    return Conditions(of, Declared(above=keys), Constant(start), seed=seed)


def observe(
    given: Conditions,
    varied: Mapping[str, str] | None = None,
    shortcuts: Shortcuts = Shortcuts.TAKEN,
    *,
    start: Iterator[float] | None = None,
) -> Observed:
    """All that happens under these conditions; `start` takes the place of their start times."""
    plans = plan(given.declared, given.trace.functions, varied or {}).plans
    starts = start_seconds(given) if start is None else start
    world = World(given.trace, plans, service_seconds(given), starts, seed=given.seed, shortcuts=shortcuts)
    return world.run()


class ReadyCounts:
    """How many replicas are ready at any time: steps in the order of time."""

    def __init__(self, steps: Sequence[tuple[float, int]]) -> None:
        self.times = [time for time, _ in steps]
        self.counts = [count for _, count in steps]

    @classmethod
    def of(cls, observed: Observed) -> ReadyCounts:
        """Of a simulation, in seconds of its trace."""
        replicas = observed.replicas
        changes = sorted(
            (time - observed.began, change)
            for ready, drained in zip(replicas.ready, replicas.drained, strict=True)
            if ready < drained
            for time, change in ((ready, 1), (drained, -1))
        )
        count, steps = 0, [(-math.inf, 0)]
        for time, change in changes:
            count += change
            steps.append((time, count))
        return cls(steps)

    def at(self, time: float) -> int:
        """The count at this time."""
        return self.counts[bisect.bisect_right(self.times, time) - 1]

    def between(self, begin: float, end: float) -> list[int]:
        """Every count that there is from `begin` to `end`."""
        first, last = bisect.bisect_right(self.times, begin) - 1, bisect.bisect_right(self.times, end)
        return self.counts[first:last]
