"""Tables as traces: a line an arrival (`time[,function[,service_ms]]`) or a rate (`time,rate[,function]`).

Times are seconds, from any beginning or Unix time, or ISO 8601. A header names the columns, in any order; without
one they stand as above, and a number in the second column is a rate. A rate holds until the function's next line;
the last one for as long as the one before it.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from upwell.functions.errors import InvalidInput
from upwell.runtime.simulate.arrivals import Arrivals, parse_amount, parse_time
from upwell.runtime.simulate.generators import Rates, arrivals
from upwell.runtime.simulate.quantities import GREATEST_RATE

FUNCTION: Final = "default/function"
ONLY_RATE_SECONDS: Final = 60.0
_COLUMNS: Final = {
    "time": "time",
    "timestamp": "time",
    "function": "function",
    "revision": "function",
    "service_ms": "service_ms",
    "rate": "rate",
    "rps": "rate",
}
_ARRIVALS: Final = ("time", "function", "service_ms")
_RATES: Final = ("time", "rate", "function")
_HINT: Final = "Columns are time[,function[,service_ms]] or time,rate[,function]."

Cells = tuple[str, list[str]]
"""Where a line stands (file and number), and its cells."""
Row = tuple[str, Mapping[str, str]]
"""The same with the cells by column."""


def read_table(lines: Iterator[tuple[int, str]], name: str, seed: int) -> Arrivals:
    """The requests of a table. Raises InvalidInput, with the line, for one that cannot be read."""
    cells = _cells(lines, name)
    first = next(cells, None)
    if first is None:
        return Arrivals()
    where, row = first
    if parse_time(row[0]) is None:
        columns = _header(row, where)
        rows = _named(columns, cells)
    else:
        columns = _RATES if len(row) > 1 and parse_amount(row[1]) is not None else _ARRIVALS
        rows = _named(columns, _chained(first, cells))
    return _rates(rows, seed) if "rate" in columns else _arrivals(rows)


def _cells(lines: Iterator[tuple[int, str]], name: str) -> Iterator[Cells]:
    for number, text in lines:
        if not text.startswith("#"):
            yield f"{name}:{number}", [cell.strip() for cell in next(csv.reader([text]))]


def _chained(first: Cells, rest: Iterable[Cells]) -> Iterator[Cells]:
    yield first
    yield from rest


def _header(row: Sequence[str], where: str) -> tuple[str, ...]:
    columns = tuple(_COLUMNS.get(cell.lower(), "") for cell in row)
    named = [column for column in columns if column]
    if "time" not in named:
        raise InvalidInput("neither a time nor a header that names one", where=where, hint=_HINT)
    if len(set(named)) < len(named) or {"rate", "service_ms"} <= set(named):
        raise InvalidInput("the header names columns that do not go together", where=where, hint=_HINT)
    return columns


def _named(columns: Sequence[str], cells: Iterable[Cells]) -> Iterator[Row]:
    for where, row in cells:
        if len(row) > len(columns):
            raise InvalidInput(f"has {len(row)} columns, not {len(columns)} at most", where=where, hint=_HINT)
        yield where, dict(zip(columns, row, strict=False))


def _time(row: Mapping[str, str], where: str) -> float:
    text = row.get("time", "")
    time = parse_time(text)
    if time is None:
        hint = "Times are seconds, or ISO 8601 as 2026-01-31T12:00:00Z."
        raise InvalidInput(f"{text[:64]!r} is no time", where=where, hint=hint)
    return time


def _arrivals(rows: Iterable[Row]) -> Arrivals:
    found = Arrivals()
    for where, row in rows:
        service = math.nan
        if row.get("service_ms"):
            amount = parse_amount(row["service_ms"])
            if amount is None:
                raise InvalidInput(f"{row['service_ms'][:64]!r} is no number of milliseconds", where=where)
            service = amount / 1000
        found.add(_time(row, where), row.get("function") or FUNCTION, service, where)
    return found


def _rates(rows: Iterable[Row], seed: int) -> Arrivals:
    found = Arrivals()
    lines: list[list[tuple[float, float]]] = []
    for where, row in rows:
        rate = parse_amount(row.get("rate"))
        if rate is None or rate > GREATEST_RATE:
            raise InvalidInput(f"{row.get('rate', '')[:64]!r} is no rate", where=where, hint=_HINT)
        index = found.index(row.get("function") or FUNCTION, where)
        if index == len(lines):
            lines.append([])
        lines[index].append((_time(row, where), rate))
    for name, index in found.functions.items():
        _draw(found, name, sorted(lines[index]), np.random.default_rng([seed, 0, index]))
    return found


def _draw(found: Arrivals, name: str, line: Sequence[tuple[float, float]], generator: np.random.Generator) -> None:
    begins = [time for time, _ in line]
    last = begins[-1] - begins[-2] if len(begins) > 1 else ONLY_RATE_SECONDS
    ends = [*begins[1:], begins[-1] + last]
    # Measured from its own beginning: Unix times would cost digits.
    times = np.array([bound - begins[0] for pair in zip(begins, ends, strict=True) for bound in pair])
    values = np.repeat([rate for _, rate in line], 2)
    for time in arrivals(Rates(times, values), generator).tolist():
        found.add(begins[0] + time, name, math.nan, name)
    found.began = begins[0] if found.began is None else min(found.began, begins[0])
    found.ended = max(found.ended, ends[-1])
