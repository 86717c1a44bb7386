"""One simulation from beginning to end: a trace, settings and a seed go in, a report comes out.

Each source of chance has a stream of its own, so that settings which start more replicas do not change how long
requests take: points of a sweep differ by their settings alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from upwell.runtime.simulate.defaults import COMMON_SERVICE
from upwell.runtime.simulate.distributions import Distribution, parse_distribution
from upwell.runtime.simulate.plans import Declared, plan
from upwell.runtime.simulate.quantities import show_seconds
from upwell.runtime.simulate.report import SimulationReport
from upwell.runtime.simulate.summary import summarize
from upwell.runtime.simulate.trace import FloatArray, Trace
from upwell.runtime.simulate.world import Shortcuts, World

_SERVICE_STREAM: Final = 1
_START_STREAM: Final = 2
_BLOCK: Final = 1024


@dataclass(frozen=True, slots=True)
class Conditions:
    """What holds for all points of a sweep."""

    trace: Trace
    declared: Declared
    start: Distribution
    service: Distribution | None = None
    """None: what the trace says; where it says nothing, what it says of other requests, or COMMON_SERVICE."""
    seed: int = 0


def simulate(
    conditions: Conditions,
    varied: Mapping[str, str],
    *,
    shortcuts: Shortcuts = Shortcuts.TAKEN,
    told: Callable[[int], None] = lambda seconds: None,
) -> SimulationReport:
    """Simulate under one combination of settings. Raises InvalidInput for a setting that cannot be used."""
    plans = plan(conditions.declared, conditions.trace.functions, varied)
    world = World(
        conditions.trace,
        plans.plans,
        service_seconds(conditions),
        start_seconds(conditions),
        seed=conditions.seed,
        shortcuts=shortcuts,
        told=told,
    )
    return summarize(conditions.trace, plans.plans, world.run(), {**_shown(conditions), **plans.shown, **varied})


def service_seconds(conditions: Conditions) -> FloatArray:
    """How long each request takes at a replica."""
    trace = conditions.trace
    generator = np.random.default_rng([conditions.seed, _SERVICE_STREAM])
    if conditions.service is not None:
        return conditions.service.draw(len(trace), generator)
    unknown = np.isnan(trace.service)
    missing = int(unknown.sum())
    if not missing:
        return trace.service
    if missing == len(trace):
        return parse_distribution(COMMON_SERVICE, "--service-time").draw(missing, generator)
    known = trace.service[~unknown]
    service = trace.service.copy()
    service[unknown] = known[generator.integers(0, len(known), missing)]
    return service


def start_seconds(conditions: Conditions) -> Iterator[float]:
    """How long each new replica takes to start, without end."""
    generator = np.random.default_rng([conditions.seed, _START_STREAM])
    while True:
        yield from conditions.start.draw(_BLOCK, generator).tolist()


def _shown(conditions: Conditions) -> dict[str, str]:
    trace = conditions.trace
    if conditions.service is not None:
        service = str(conditions.service)
    elif len(trace) and np.isnan(trace.service).all():
        service = COMMON_SERVICE
    else:
        service = "as in the trace"
    return {
        "trace": trace.name,
        "functions": str(len(trace.functions)),
        "length": show_seconds(trace.seconds),
        "service time": service,
        "start time": str(conditions.start),
        "seed": str(conditions.seed),
    }
