"""What a run found, as plain values: text, JSON, plots, conditions and tests read these and nothing else.

Durations of requests are milliseconds, all other times seconds from the start of the run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from upwell.runtime.load.histogram import Histogram, percentile_of
from upwell.runtime.load.outcomes import Outcome
from upwell.runtime.load.plan import EVERYTHING, Load
from upwell.runtime.load.record import Course, Record

MILLISECONDS: Final = 1000.0
FEWEST_MOMENTS: Final = 20
FULL_MOMENT: Final = 20
"""Requests in a bucket of time, below which it is made wider while there are enough of them."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How durations are spread, in milliseconds; all 0 of none."""

    count: int
    mean: float
    least: float
    p50: float
    p75: float
    p90: float
    p95: float
    p99: float
    p999: float
    greatest: float


@dataclass(frozen=True, slots=True)
class Series:
    """What came over time: one value a bucket in each list."""

    bucket_seconds: float
    times: tuple[float, ...]
    """Where each bucket begins."""
    rates: Mapping[str, tuple[float, ...]]
    """Answers a second, by outcome."""
    p50: tuple[float | None, ...]
    """Of the requests that succeeded; None where none did."""
    p99: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class ClassReport:
    """What came of the requests of one class, or of all."""

    name: str
    requests: int
    """Those that are over."""
    rate: float
    """The same, a second."""
    outcomes: Mapping[str, int]
    """How many succeeded, were limited, broken or failed."""
    statuses: Mapping[str, int]
    """By the number of the status, ascending."""
    errors: Mapping[str, int]
    """Of requests without an answer, by cause; they count as failed."""
    late: int
    """Sent more than 10 ms after they were due."""
    latest_seconds: float
    """How late the latest was sent."""
    was_starved: bool
    """Whether a request was due while every connection was busy."""
    unsent: int
    """Due, and not sent when the time was up: durations leave them out."""
    cut_off: int
    """Under way when the run was interrupted."""
    durations: Mapping[str, Spread]
    """By outcome, of the outcomes that there were, and `all`."""
    series: Series


@dataclass(frozen=True, slots=True)
class LoadReport:
    """A whole run."""

    url: str
    asked_rate: float | None
    """Requests a second of an open loop; None of a closed one."""
    arrivals: str | None
    connections: int
    seconds: float
    interrupted: bool
    total: ClassReport
    classes: tuple[ClassReport, ...]
    """One for each class; none when there were no classes."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def encode(self) -> str:
        """The JSON text that `upwell load -o json` prints."""
        return json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def report(load: Load, records: Sequence[Record], seconds: float, *, interrupted: bool) -> LoadReport:
    """Of the records of the classes, in their order; they may be made coarser."""
    total = Record()
    for record in records:
        total.merge(record)
    course = total.course
    while len(course.moments) > FEWEST_MOMENTS and total.requests < FULL_MOMENT * len(course.moments):
        course.widen()
    named = zip(load.classes, records, strict=True) if len(records) > 1 else ()
    return LoadReport(
        url=load.url,
        asked_rate=load.rate,
        arrivals=None if load.rate is None else "poisson" if load.is_poisson else "constant",
        connections=load.connections,
        seconds=seconds,
        interrupted=interrupted,
        total=_of(EVERYTHING, total, seconds, course),
        classes=tuple(_of(each.name, record, seconds, course) for each, record in named),
    )


def _of(name: str, record: Record, seconds: float, whole: Course) -> ClassReport:
    everything = Histogram()
    for histogram in record.durations.values():
        everything.merge(histogram)
    spreads = {
        outcome.value: _spread(histogram) for outcome, histogram in record.durations.items() if histogram.count
    }
    return ClassReport(
        name=name,
        requests=record.requests,
        rate=record.requests / seconds if seconds > 0 else 0.0,
        outcomes={outcome.value: histogram.count for outcome, histogram in record.durations.items()},
        statuses={str(status): count for status, count in sorted(record.statuses.items())},
        errors=dict(sorted(record.errors.items())),
        late=record.late,
        latest_seconds=record.latest,
        was_starved=record.starved,
        unsent=record.unsent,
        cut_off=record.cut_off,
        durations={**spreads, EVERYTHING: _spread(everything)},
        series=_series(record.course, whole),
    )


def _spread(histogram: Histogram) -> Spread:
    return Spread(
        count=histogram.count,
        mean=histogram.mean * MILLISECONDS,
        least=histogram.least * MILLISECONDS if histogram.count else 0.0,
        p50=histogram.percentile(50) * MILLISECONDS,
        p75=histogram.percentile(75) * MILLISECONDS,
        p90=histogram.percentile(90) * MILLISECONDS,
        p95=histogram.percentile(95) * MILLISECONDS,
        p99=histogram.percentile(99) * MILLISECONDS,
        p999=histogram.percentile(99.9) * MILLISECONDS,
        greatest=histogram.greatest * MILLISECONDS,
    )


def _series(course: Course, whole: Course) -> Series:
    """In the buckets of the whole run."""
    while course.width < whole.width:
        course.widen()
    if whole.moments:
        course.at((len(whole.moments) - 0.5) * course.width)
    moments = course.moments
    return Series(
        bucket_seconds=course.width,
        times=tuple(index * course.width for index in range(len(moments))),
        rates={
            outcome.value: tuple(moment.counts[outcome] / course.width for moment in moments)
            for outcome in Outcome
        },
        p50=tuple(_percentile(moment.durations, 50) for moment in moments),
        p99=tuple(_percentile(moment.durations, 99) for moment in moments),
    )


def _percentile(durations: Mapping[int, int], percent: float) -> float | None:
    if not durations:
        return None
    return percentile_of(sorted(durations.items()), sum(durations.values()), percent) * MILLISECONDS
