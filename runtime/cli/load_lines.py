"""What a run found, as a person reads it; statuses in the form in which fortio prints them."""

from __future__ import annotations

from collections.abc import Iterator

import click

from upwell.runtime.cli.table import table
from upwell.runtime.load.plan import EVERYTHING
from upwell.runtime.load.report import ClassReport, LoadReport, Spread

HEADERS = ("REQUESTS", "SHARE", "A SECOND", "MEAN MS", "P50", "P75", "P90", "P95", "P99", "P99.9", "MAX")


def lines(report: LoadReport) -> Iterator[str]:
    """The whole summary."""
    total = report.total
    yield f"{report.url}: {_counted(total.requests, 'request')} in {report.seconds:.1f} s, {_how(report)}"
    yield ""
    if total.requests:
        classes = (*report.classes, total) if report.classes else (total,)
        yield _outcomes(classes, named=bool(report.classes))
        yield ""
        yield from _codes(report.classes or (total,), named=bool(report.classes))
    yield from (click.style(each, fg="yellow") for each in _warnings(report))


def _how(report: LoadReport) -> str:
    connections = _counted(report.connections, "connection")
    if report.asked_rate is None:
        return f"closed loop on {connections}"
    kind = "" if report.arrivals == "constant" else f" ({report.arrivals} arrivals)"
    return f"open loop of {report.asked_rate:g} a second{kind} on up to {connections}"


def _counted(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count:,} {what}s"


def _outcomes(classes: tuple[ClassReport, ...], *, named: bool) -> str:
    rows = []
    for of in classes:
        shown = {name: spread for name, spread in of.durations.items() if name != EVERYTHING}
        if len(shown) > 1:
            shown[EVERYTHING] = of.durations[EVERYTHING]
        name = "total" if of.name == EVERYTHING else of.name
        rows += [[*([name] if named else []), outcome, *_cells(each, of)] for outcome, each in shown.items()]
    return table([*(["CLASS"] if named else []), "OUTCOME", *HEADERS], rows)


def _cells(spread: Spread, of: ClassReport) -> list[str]:
    share = spread.count / of.requests
    durations = (
        *(spread.mean, spread.p50, spread.p75, spread.p90),
        *(spread.p95, spread.p99, spread.p999, spread.greatest),
    )
    return [f"{spread.count:,}", f"{share:.1%}", f"{of.rate * share:,.1f}", *map(_milliseconds, durations)]


def _milliseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _codes(classes: tuple[ClassReport, ...], *, named: bool) -> Iterator[str]:
    for of in classes:
        prefix = f"{of.name}: " if named else ""
        for status, count in of.statuses.items():
            yield f"{prefix}Code {status} : {count} ({count / of.requests:.1%})"
        for cause, count in of.errors.items():
            yield f"{prefix}No answer, {cause} : {count} ({count / of.requests:.1%})"


def _warnings(report: LoadReport) -> Iterator[str]:
    total = report.total
    if report.interrupted:
        yield f"Interrupted: {_counted(total.cut_off, 'request')} under way not counted."
    busy = "every connection was busy" if total.was_starved else "this machine did not keep up"
    more = " Give more with -c." if total.was_starved else ""
    if total.unsent:
        due = total.unsent + total.requests + total.cut_off
        yield (
            f"Not sent: {total.unsent:,} of {due:,} requests that were due, since {busy}. The durations above "
            f"leave them out, so they look better than they are.{more}"
        )
    if total.late:
        yield (
            f"Sent late: {_counted(total.late, 'request')}, up to {total.latest_seconds * 1000:,.0f} ms, since "
            f"{busy}. Durations count from when a request was due.{more if not total.unsent else ''}"
        )
