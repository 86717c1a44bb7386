"""Request accounting, and the report that a replica or gateway pushes once a second.

Every replica imports this module, so it needs the standard library alone. `RequestStats` lives as long as its
process, is touched twice a request and once a report, always from one thread; it reads no clock. A `Report` says
what one reporter saw over one span of time; the engine tells repeated reports apart by reporter and sequence. A
`ReportBatch` is what one reporter saw of many revisions, in columns.

The accounting follows Knative's queue-proxy: in-flight requests weighted by time since the previous report,
arrivals counted, requests marked `K-Proxy-Request` counted in the totals and apart.
"""

from __future__ import annotations

import json
import math
import operator
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from upwell.functions.errors import InvalidInput

MAX_NAME_LENGTH = 512
MAX_SPAN = 86_400.0  # a laptop that slept a night still reports
MAX_CONCURRENCY = 1e6
MAX_COUNT = 1e9
MAX_SEQUENCE = 2**53
MAX_TIME = 1e10
MAX_ENCODED_LENGTH = 4096
MAX_BATCH_ROWS = 20_000
MAX_ENCODED_BATCH_LENGTH = 8 * 1024 * 1024

_MICROSECONDS = 1_000_000


class RequestAverages(NamedTuple):
    """What happened between two reports. Concurrencies are means over time, `span` is in seconds."""

    average_concurrency: float
    average_proxied_concurrency: float
    request_count: int
    proxied_request_count: int
    span: float


class RequestStats:
    """Counts requests in flight and arrivals; `now` is in seconds of one clock throughout.

    Times are kept as whole microseconds, so that sums are exact whatever the clock's epoch. An event that carries
    an earlier time than the one before it counts, but no time passes.
    """

    __slots__ = (
        "_area",
        "_arrivals",
        "_changed",
        "_in_flight",
        "_proxied_area",
        "_proxied_arrivals",
        "_proxied_in_flight",
        "_reported",
    )

    def __init__(self, created: float) -> None:
        self._changed = self._reported = int(created * 1e6 + 0.5)
        self._in_flight = self._proxied_in_flight = 0
        self._arrivals = self._proxied_arrivals = 0
        self._area = self._proxied_area = 0

    @property
    def in_flight(self) -> int:
        """Requests started and not finished."""
        return self._in_flight

    def start(self, now: float, proxied: bool = False) -> None:
        """A request arrived; `proxied` when an activator that reports it too has sent it."""
        moment = int(now * 1e6 + 0.5)
        passed = moment - self._changed
        if passed > 0:
            self._changed = moment
            self._area += self._in_flight * passed
            if self._proxied_in_flight:
                self._proxied_area += self._proxied_in_flight * passed
        self._in_flight += 1
        self._arrivals += 1
        if proxied:
            self._proxied_in_flight += 1
            self._proxied_arrivals += 1

    def finish(self, now: float, proxied: bool = False) -> None:
        """A request that was started with the same `proxied` is over."""
        moment = int(now * 1e6 + 0.5)
        passed = moment - self._changed
        if passed > 0:
            self._changed = moment
            self._area += self._in_flight * passed
            if self._proxied_in_flight:
                self._proxied_area += self._proxied_in_flight * passed
        self._in_flight -= 1
        if proxied:
            self._proxied_in_flight -= 1

    def report(self, now: float) -> RequestAverages:
        """Averages since the previous report; counters start again, open requests carry over."""
        moment = int(now * 1e6 + 0.5)
        passed = moment - self._changed
        if passed > 0:
            self._changed = moment
            self._area += self._in_flight * passed
            self._proxied_area += self._proxied_in_flight * passed
        span = self._changed - self._reported
        averages = RequestAverages(
            self._area / span if span else 0.0,
            self._proxied_area / span if span else 0.0,
            self._arrivals,
            self._proxied_arrivals,
            span / _MICROSECONDS,
        )
        self._reported = self._changed
        self._area = self._proxied_area = 0
        self._arrivals = self._proxied_arrivals = 0
        return averages

    @property
    def changed(self) -> float:
        """The latest time accounted, in seconds: where the last reported span ends."""
        return self._changed / _MICROSECONDS


@dataclass(frozen=True, slots=True)
class Report:
    """What one reporter saw of one revision between `started` and `ended` (Unix seconds).

    `revision` is "namespace/name". Concurrencies are means over the span and include the proxied ones, as the
    counts do.
    """

    revision: str
    reporter: str
    sequence: int
    started: float
    ended: float
    average_concurrency: float
    average_proxied_concurrency: float
    request_count: int
    proxied_request_count: int

    def encode(self) -> bytes:
        """One line of compact JSON, without the newline."""
        fields = (
            self.revision,
            self.reporter,
            self.sequence,
            self.started,
            self.ended,
            self.average_concurrency,
            self.average_proxied_concurrency,
            self.request_count,
            self.proxied_request_count,
        )
        return json.dumps(dict(zip(_NAMES, fields, strict=True)), separators=(",", ":")).encode()

    @classmethod
    def decode(cls, line: bytes) -> Report:
        """The report in `line`; raises `InvalidInput` for anything that `encode` cannot have written."""
        fields = _fields(line, MAX_ENCODED_LENGTH, _NAMES)
        started, ended = _span(fields)
        average, proxied_average = _concurrencies(fields)
        count, proxied_count = _counts(fields)
        return cls(
            revision=_revision(fields),
            reporter=_name(fields, "reporter"),
            sequence=_whole(fields, "sequence", MAX_SEQUENCE),
            started=started,
            ended=ended,
            average_concurrency=average,
            average_proxied_concurrency=proxied_average,
            request_count=count,
            proxied_request_count=proxied_count,
        )


class Numbers(Protocol):
    """A column of numbers: a list, an array of the standard library or one of numpy."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[float]: ...


@dataclass(frozen=True, slots=True, eq=False)
class ReportBatch:
    """What one reporter saw of many revisions up to `ended` (Unix seconds), one row each.

    A row covers the `spans` seconds before `ended`; its other columns are those of a `Report`. `sequence` numbers
    the reporter's batches: one that comes twice is left out as a whole. All columns are of equal length, no
    revision is named twice.
    """

    reporter: str
    sequence: int
    ended: float
    revisions: Sequence[str]
    spans: Numbers
    average_concurrency: Numbers
    average_proxied_concurrency: Numbers
    request_count: Numbers
    proxied_request_count: Numbers

    @classmethod
    def of(cls, reporter: str, sequence: int, ended: float, seen: Mapping[str, RequestAverages]) -> ReportBatch:
        """The batch of what `reporter` saw of each revision up to `ended`."""
        columns = zip(*seen.values(), strict=True) if seen else [()] * len(RequestAverages._fields)
        average, proxied_average, count, proxied_count, spans = columns
        return cls(reporter, sequence, ended, tuple(seen), spans, average, proxied_average, count, proxied_count)

    def encode(self) -> bytes:
        """One line of compact JSON, without the newline; `decode` reads up to `MAX_BATCH_ROWS` rows."""
        fields = {
            "reporter": self.reporter,
            "sequence": self.sequence,
            "ended": self.ended,
            "revisions": list(self.revisions),
            "spans": [float(span) for span in self.spans],
            "average_concurrency": [float(average) for average in self.average_concurrency],
            "average_proxied_concurrency": [float(average) for average in self.average_proxied_concurrency],
            "request_count": [int(count) for count in self.request_count],
            "proxied_request_count": [int(count) for count in self.proxied_request_count],
        }
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, line: bytes) -> ReportBatch:
        """The batch in `line`; raises `InvalidInput` for anything that `encode` cannot have written."""
        fields = _fields(line, MAX_ENCODED_BATCH_LENGTH, _BATCH_NAMES)
        revisions = _revisions(fields)
        rows = len(revisions)
        averages = _column(fields, "average_concurrency", rows, MAX_CONCURRENCY)
        proxied_averages = _column(fields, "average_proxied_concurrency", rows, MAX_CONCURRENCY)
        for average, proxied_average in _exceeding(averages, proxied_averages):
            if not math.isclose(proxied_average, average):
                raise _invalid("average_proxied_concurrency", "must not exceed average_concurrency")
        counts = _column(fields, "request_count", rows, MAX_COUNT, whole=True)
        proxied_counts = _column(fields, "proxied_request_count", rows, MAX_COUNT, whole=True)
        if _exceeding(counts, proxied_counts):
            raise _invalid("proxied_request_count", "must not exceed request_count")
        ended = _number(fields, "ended", MAX_TIME)
        return cls(
            reporter=_name(fields, "reporter"),
            sequence=_whole(fields, "sequence", MAX_SEQUENCE),
            ended=ended,
            revisions=revisions,
            spans=_column(fields, "spans", rows, min(MAX_SPAN, ended)),
            average_concurrency=averages,
            average_proxied_concurrency=proxied_averages,
            request_count=counts,
            proxied_request_count=proxied_counts,
        )


_NAMES = tuple(Report.__dataclass_fields__)
_BATCH_NAMES = tuple(ReportBatch.__dataclass_fields__)
_KEY = re.compile("[^/]+/[^/]+")


class Reporter:
    """One process's account of one revision: the counters, and the sequence of reports made from them.

    `reporter` names this process run; a name that comes back after a restart may start its sequence anew.
    """

    __slots__ = ("reporter", "revision", "sequence", "stats")

    def __init__(self, revision: str, reporter: str, created: float) -> None:
        self.revision = revision
        self.reporter = reporter
        self.sequence = 0
        self.stats = RequestStats(created)

    def report(self, now: float) -> Report:
        """The next report, covering the time since the one before it (Unix seconds)."""
        averages = self.stats.report(now)
        ended = self.stats.changed
        self.sequence += 1
        return Report(
            revision=self.revision,
            reporter=self.reporter,
            sequence=self.sequence,
            started=ended - averages.span,
            ended=ended,
            average_concurrency=averages.average_concurrency,
            average_proxied_concurrency=averages.average_proxied_concurrency,
            request_count=averages.request_count,
            proxied_request_count=averages.proxied_request_count,
        )


def _invalid(field: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"{field} {what}", where="report", hint="Reports are written by Report.encode of the same version."
    )


def _fields(line: bytes, most: int, names: tuple[str, ...]) -> dict[str, Any]:
    if len(line) > most:
        raise _invalid("report", f"is longer than {most} bytes")
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _invalid("report", "is not JSON") from error
    if not isinstance(fields, dict):
        raise _invalid("report", "is not a JSON object")
    unknown = fields.keys() - names
    if unknown:
        raise _invalid(sorted(unknown)[0], "is not a field of a report")
    return fields


def _name(fields: dict[str, Any], field: str) -> str:
    value = fields.get(field)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME_LENGTH or not value.isprintable():
        raise _invalid(field, f"must be 1 to {MAX_NAME_LENGTH} printable characters")
    return value


def _revision(fields: dict[str, Any]) -> str:
    value = _name(fields, "revision")
    if not _KEY.fullmatch(value):
        raise _invalid("revision", "must be namespace/name")
    return value


def _revisions(fields: dict[str, Any]) -> tuple[str, ...]:
    values = fields.get("revisions")
    if not isinstance(values, list) or len(values) > MAX_BATCH_ROWS:
        raise _invalid("revisions", f"must be a list of at most {MAX_BATCH_ROWS}")
    # Check by check rather than name by name: ten thousand names pass without a loop in Python.
    if not (
        set(map(type, values)) <= {str}
        and max(map(len, values), default=0) <= MAX_NAME_LENGTH
        and all(map(str.isprintable, values))
        and all(map(_KEY.fullmatch, values))
    ):
        raise _invalid("revisions", f"must be namespace/name, up to {MAX_NAME_LENGTH} printable characters each")
    if len(set(values)) < len(values):
        raise _invalid("revisions", "must not name one twice")
    return tuple(values)


def _column(fields: dict[str, Any], field: str, rows: int, most: float, *, whole: bool = False) -> array[float]:
    """One number a row, as doubles: 0 to `most`, which a double holds exactly where they are whole."""
    values = fields.get(field)
    if not isinstance(values, list) or len(values) != rows:
        raise _invalid(field, "must be a list with one number for each revision")
    if not set(map(type, values)) <= ({int} if whole else {int, float}):
        raise _invalid(field, f"must be {'whole ' if whole else ''}numbers")
    if values and not (min(values) >= 0 and max(values) <= most and not math.isnan(sum(values))):
        raise _invalid(field, f"must be between 0 and {most:g}")
    return array("d", values)


def _exceeding(wholes: array[float], parts: array[float]) -> list[tuple[float, float]]:
    """Each whole that is less than its part, with that."""
    if not any(map(operator.gt, parts, wholes)):
        return []
    return [(whole, part) for whole, part in zip(wholes, parts, strict=True) if part > whole]


def _number(fields: dict[str, Any], field: str, most: float) -> float:
    value = fields.get(field)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _invalid(field, "must be a number")
    if not 0 <= value <= most:  # also refuses NaN
        raise _invalid(field, f"must be between 0 and {most:g}")
    return float(value)


def _whole(fields: dict[str, Any], field: str, most: float) -> int:
    value = fields.get(field)
    if not isinstance(value, int):
        raise _invalid(field, "must be a whole number")
    return int(_number(fields, field, most))


def _span(fields: dict[str, Any]) -> tuple[float, float]:
    started = _number(fields, "started", MAX_TIME)
    ended = _number(fields, "ended", MAX_TIME)
    if not 0 <= ended - started <= MAX_SPAN:
        raise _invalid("ended", f"must lie within {MAX_SPAN:g} seconds after started")
    return started, ended


def _concurrencies(fields: dict[str, Any]) -> tuple[float, float]:
    average = _number(fields, "average_concurrency", MAX_CONCURRENCY)
    proxied = _number(fields, "average_proxied_concurrency", MAX_CONCURRENCY)
    if proxied > average and not math.isclose(proxied, average):
        raise _invalid("average_proxied_concurrency", "must not exceed average_concurrency")
    return average, proxied


def _counts(fields: dict[str, Any]) -> tuple[int, int]:
    count = _whole(fields, "request_count", MAX_COUNT)
    proxied = _whole(fields, "proxied_request_count", MAX_COUNT)
    if proxied > count:
        raise _invalid("proxied_request_count", "must not exceed request_count")
    return count, proxied
