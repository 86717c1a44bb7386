"""Many settings on one trace: which of them nothing beats, and which of these to take.

A point is on the front when no other has both a lower p99 latency and fewer replica-seconds. Points that refuse
more requests than the best one does are on no front: a request that is not answered has no latency. Points are
simulated in processes of their own where that pays, and come out the same in whatever order they end.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from upwell.functions.errors import InvalidInput, InvalidSettings
from upwell.runtime.simulate.plans import plan
from upwell.runtime.simulate.report import SimulationReport, SweepPoint
from upwell.runtime.simulate.simulation import Conditions, simulate

MAX_POINTS: Final = 1000
ALONE_BELOW: Final = 100_000
"""Requests, over all points: fewer are simulated sooner than processes for them have started."""
SHARES: Final = 4
"""Of the points, for each process: few, since each brings the trace along; several, so that all have work."""
WHERE: Final = "--sweep"
_NUMBER: Final = re.compile(r"(-?\d+(?:\.\d+)?)([a-z%]*)", re.ASCII)
_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class Axis:
    """One setting and the values that it takes in turn."""

    name: str
    values: tuple[str, ...]


def parse_axis(text: str) -> Axis:
    """`NAME=FROM:TO:STEP`, TO included, or `NAME=A,B,C`; values may carry a unit. Raises InvalidSettings."""
    name, equals, rest = text.partition("=")
    if not equals or not name or not rest:
        raise InvalidSettings(f"{text!r} is no sweep", where=WHERE, hint="Write NAME=FROM:TO:STEP or NAME=A,B,C.")
    bounds = rest.split(":")
    values = tuple(rest.split(",")) if len(bounds) == 1 else _range(bounds, text)
    if "" in values or len(set(values)) < len(values):
        raise InvalidSettings(f"{text!r} has an empty value, or one twice", where=WHERE)
    return Axis(name, values)


def _range(bounds: Sequence[str], text: str) -> tuple[str, ...]:
    hint = "Write NAME=FROM:TO:STEP, as target=20:200:20."
    matches = [_NUMBER.fullmatch(bound) for bound in bounds]
    if len(matches) != 3 or not all(matches):
        raise InvalidSettings(f"{text!r} is no range", where=WHERE, hint=hint)
    (low, unit), (high, other), (step, last) = (match.groups() for match in matches if match)
    if len({unit, other or unit, last or unit}) > 1 or float(step) <= 0 or float(high) < float(low):
        raise InvalidSettings(f"{text!r} is no range that ends", where=WHERE, hint=hint)
    count = math.floor((float(high) - float(low)) / float(step) + 10**-_DIGITS) + 1
    if count > MAX_POINTS:
        raise InvalidSettings(f"{text!r} has more than {MAX_POINTS} values", where=WHERE)
    return tuple(f"{round(float(low) + index * float(step), _DIGITS):g}{unit}" for index in range(count))


def combinations(axes: Sequence[Axis]) -> list[dict[str, str]]:
    """Every combination of the axes' values, the last varying fastest. Raises InvalidSettings for too many."""
    names = [axis.name for axis in axes]
    if len(set(names)) < len(names):
        raise InvalidSettings("a setting is swept twice", where=WHERE)
    if math.prod(len(axis.values) for axis in axes) > MAX_POINTS:
        raise InvalidSettings(f"more than {MAX_POINTS} combinations", where=WHERE, hint="Take larger steps.")
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(axis.values for axis in axes))]


def sweep(
    conditions: Conditions,
    axes: Sequence[Axis],
    told: Callable[[int], None] = lambda points: None,
    *,
    processes: int | None = None,
) -> SimulationReport:
    """The report of the recommended setting, with all points of the sweep.

    `told` is called with the number of points that are done. The report does not depend on the number of
    `processes`, which is one a core unless it is given, where that pays. Raises InvalidInput for a value that
    cannot be used, before anything is simulated.
    """
    points = combinations(axes)
    for point in points:
        _check(conditions, point)
    reports: list[SimulationReport] = []
    for done in _reports(conditions, points, processes or _processes(conditions, points)):
        reports += done
        told(len(reports))
    return recommend(points, reports)


def _check(conditions: Conditions, point: Mapping[str, str]) -> None:
    try:
        plan(conditions.declared, conditions.trace.functions, point)
    except InvalidInput as error:
        label = " ".join(f"{name}={value}" for name, value in point.items())
        raise InvalidSettings(str(error), where=f"{WHERE} {label}") from error


def _simulate_all(conditions: Conditions, points: Sequence[Mapping[str, str]]) -> list[SimulationReport]:
    return [simulate(conditions, point) for point in points]


def _processes(conditions: Conditions, points: Sequence[Mapping[str, str]]) -> int:
    """How many are soonest done."""
    if len(points) * len(conditions.trace) < ALONE_BELOW:
        return 1
    return min(os.cpu_count() or 1, len(points))


def _reports(
    conditions: Conditions, points: Sequence[Mapping[str, str]], processes: int
) -> Iterator[list[SimulationReport]]:
    """The reports in the order of the points, a few at a time."""
    if processes == 1:
        yield from (_simulate_all(conditions, [point]) for point in points)
        return
    size = math.ceil(len(points) / (processes * SHARES))
    shares = [points[begin : begin + size] for begin in range(0, len(points), size)]
    # Not forked: what this process has open and running is none of theirs.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(partial(_simulate_all, conditions), shares)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


# What to take


def recommend(points: Sequence[Mapping[str, str]], reports: Sequence[SimulationReport]) -> SimulationReport:
    """The report of the point to take, with all points and the reason; one report for each point, at least one."""
    least_rejected = min(report.rejected for report in reports)
    costs = [
        (report.latency.p99, report.replica_seconds) if report.rejected == least_rejected else None
        for report in reports
    ]
    front = [cost is not None and not any(_beats(other, cost) for other in costs) for cost in costs]
    found = tuple(_point(*each) for each in zip(points, reports, front, strict=True))
    chosen = [index for index, on_front in enumerate(front) if on_front]
    best = min(chosen, key=lambda index: _product(reports[index]))
    return replace(
        reports[best], sweep=found, recommended=found[best], reason=_reason(found, found[best], least_rejected)
    )


def _beats(one: tuple[float, float] | None, other: tuple[float, float]) -> bool:
    if one is None:
        return False
    return one[0] <= other[0] and one[1] <= other[1] and one != other


def _product(report: SimulationReport) -> float:
    """A percent of latency counts as much as a percent of replica-seconds."""
    return report.latency.p99 * report.replica_seconds


def _point(settings: Mapping[str, str], report: SimulationReport, on_front: bool) -> SweepPoint:
    return SweepPoint(
        settings=dict(settings),
        p50=report.latency.p50,
        p99=report.latency.p99,
        greatest=report.latency.greatest,
        cold_starts=report.cold_starts,
        rejected=report.rejected,
        replica_seconds=report.replica_seconds,
        waste=report.waste,
        on_front=on_front,
    )


def _reason(points: Sequence[SweepPoint], best: SweepPoint, least_rejected: int) -> str:
    front = [point for point in points if point.on_front]
    fastest = min(front, key=lambda point: (point.p99, point.replica_seconds))
    cheapest = min(front, key=lambda point: (point.replica_seconds, point.p99))
    refused = f", and no setting refuses fewer than {least_rejected} requests" if least_rejected else ""
    if len(front) == 1:
        return f"no other setting is faster at p99 or takes fewer replica-seconds{refused}"
    if best.p99 == fastest.p99 and best.replica_seconds == cheapest.replica_seconds:
        of_all = "all settings" if len(front) == len(points) else f"all {len(front)} settings of the front"
        return f"{of_all} come to the same p99 and replica-seconds, and this is the first of them{refused}"
    compared = []
    if best is not fastest:
        compared.append(
            f"{_more(best.p99, fastest.p99)} p99 than the fastest ({fastest.label})"
            f" for {_less(best.replica_seconds, fastest.replica_seconds)} replica-seconds"
        )
    if best is not cheapest:
        compared.append(
            f"{_less(best.p99, cheapest.p99)} p99 than the cheapest ({cheapest.label})"
            f" for {_more(best.replica_seconds, cheapest.replica_seconds)} replica-seconds"
        )
    return f"the least p99 times replica-seconds of the front: {'; '.join(compared)}{refused}"


def _more(value: float, least: float) -> str:
    return f"{(value / least - 1) * 100:.0f} % more" if least else "more"


def _less(value: float, most: float) -> str:
    return f"{(1 - value / most) * 100:.0f} % less" if most else "less"
