"""Where the ticks of an axis stand and how they read.

Steps are round: 1, 2, 2.5 or 5 times a power of ten; of times also 15 and 30 seconds or minutes, 1, 2, 3, 6 and 12
hours, and whole days, counted from the zone's midnight. An axis of values ends at a tick on both sides, so that
nothing stands above the last one; an axis of time ends where the data does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Final

from upwell.runtime.charts.model import Axis, Unit

GREATEST: Final = 1e15
"""Beyond this a value is a gap: floats no longer tell neighbours apart."""

LATEST: Final = 2.5e11
"""Likewise of a Unix time: the calendar of `datetime` ends in the year 9999."""

SMALLEST: Final = 1e-9
"""On a logarithmic axis what is below this is a gap, and no linear axis spans less."""

FEWEST: Final = 3
"""Powers of ten that a range across 1 needs, however far apart they are: one below, 1 itself, one above."""

MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86400.0
TIME_STEPS: Final = (
    *(1.0, 2.0, 5.0, 10.0, 15.0, 30.0),
    *(MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE),
    *(HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 5 * DAY),
)
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
SUFFIXES: Final = ("", "k", "M", "G", "T", "P")


@dataclass(frozen=True, slots=True)
class Scale:
    """The range of an axis and its ticks, as (value, label); `least` is less than `greatest`."""

    least: float
    greatest: float
    marks: tuple[tuple[float, str], ...]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """How far along the axis a value stands: 0 at the least, 1 at the greatest, held to that range."""
        if self.logarithmic:
            low, high, at = math.log10(self.least), math.log10(self.greatest), math.log10(max(value, SMALLEST))
        else:
            low, high, at = self.least, self.greatest, value
        return min(1.0, max(0.0, (at - low) / (high - low)))


def usable(axis: Axis, value: float) -> bool:
    """Whether the axis can show the value; otherwise it is a gap."""
    if not math.isfinite(value):
        return False
    if axis.logarithmic and value < SMALLEST:
        return False
    return abs(value) <= (LATEST if axis.unit is Unit.TIME else GREATEST)


def fit(axis: Axis, values: Iterable[float], most: int, *, vertical: bool) -> Scale:
    """The scale that shows all usable values, with about `most` ticks at the most (never more than `most` + 2).

    Without any value there are no ticks.
    """
    shown = [value for value in values if usable(axis, value)]
    shown.extend(value for value in (axis.least, axis.greatest) if value is not None)
    shown.extend(value for value, _ in axis.marks)
    if not shown:
        return Scale(1.0, 10.0, (), logarithmic=True) if axis.logarithmic else Scale(0.0, 1.0, ())
    if axis.logarithmic:
        return _logarithmic(axis, shown, most)
    low, high = _range(axis, shown, vertical=vertical)
    if axis.marks:
        return Scale(low, high, axis.marks)
    step = round_step(axis.unit, high - low, most)
    shift = _offset(low, axis.zone) if axis.unit is Unit.TIME else 0.0
    first = math.floor(round((low + shift) / step, 6))
    last = max(first + 1, math.ceil(round((high + shift) / step, 6)))
    places = [round(k * step - shift, 9) for k in range(first, last + 1)]
    if axis.unit in (Unit.TIME, Unit.SECONDS) and not vertical:
        places = [place for place in places if low <= place <= high]
    else:
        low, high = places[0], places[-1]
    return Scale(low, high, tuple(zip(places, labels(axis, places, step), strict=True)))


def round_step(unit: Unit, span: float, most: int) -> float:
    """The least round distance of ticks that divides `span` into no more than `most` - 1 parts."""
    wanted = span / max(1, most - 1)
    if unit in (Unit.TIME, Unit.SECONDS) and wanted > 0.5:
        if wanted <= TIME_STEPS[-1]:
            return next(step for step in TIME_STEPS if step >= wanted)
        return DAY * round_step(Unit.NUMBER, span / DAY, most)
    if unit is Unit.COUNT and wanted <= 1:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(wanted))
    factors = (1, 2, 5, 10) if unit is Unit.COUNT and power <= 1 else (1, 2, 2.5, 5, 10)
    return next((factor * power for factor in factors if factor * power >= wanted * (1 - 1e-9)), 10 * power)


def labels(axis: Axis, places: Sequence[float], step: float) -> list[str]:
    """How ticks `step` apart read, in one unit and with equally many decimals."""
    greatest = max((abs(place) for place in places), default=0.0)
    match axis.unit:
        case Unit.TIME:
            return [_time_of_day(place, step, axis.zone) for place in places]
        case Unit.SECONDS:
            return [_elapsed(place, step, greatest) for place in places]
        case Unit.MILLISECONDS if greatest >= (1000 if axis.logarithmic else 2000):
            return _with_unit([place / 1000 for place in places], step / 1000, "s")
        case Unit.MILLISECONDS:
            return _with_unit(places, step, "ms")
        case Unit.PERCENT:
            return _with_unit([place * 100 for place in places], step * 100, "%")
        case _:
            return _numbers(places, step)


def caption(axis: Axis, scale: Scale) -> str:
    """What stands by the axis: its label, and of a time axis the day and the zone besides."""
    if axis.unit is not Unit.TIME:
        return axis.label
    start, end = _local(scale.least, axis.zone), _local(scale.greatest, axis.zone)
    days = _day(start) if start.date() == end.date() else f"{_day(start)} to {_day(end)}"
    return ", ".join(part for part in (axis.label, f"{days} {end.year}", _zone_name(start)) if part)


def _range(axis: Axis, shown: list[float], *, vertical: bool) -> tuple[float, float]:
    if vertical and axis.from_zero:
        shown = [*shown, 0.0]
    low, high = min(shown), max(shown)
    if high - low > max(SMALLEST, 1e-9 * max(abs(low), abs(high))):
        return low, high
    if low == 0:
        return 0.0, 1.0
    pad = 30.0 if axis.unit in (Unit.TIME, Unit.SECONDS) else max(1e-3, abs(low) * 0.1)
    return low - pad, high + pad


def _logarithmic(axis: Axis, shown: list[float], most: int) -> Scale:
    low, high = min(shown), max(shown)
    if axis.marks:
        return Scale(low, high if high > low else low * 10, axis.marks, logarithmic=True)
    every = 1
    places = _spread(low, high, (1, 2, 5))
    while len(places) > max(most, FEWEST):
        places = _spread(low, high, (1,), every)
        every += 1
    if len(places) == 1:
        places = [places[0], places[0] * 10]
    texts = [text for place in places for text in labels(axis, [place], place)]
    return Scale(places[0], places[-1], tuple(zip(places, texts, strict=True)), logarithmic=True)


def _spread(low: float, high: float, factors: tuple[int, ...], every: int = 1) -> list[float]:
    """Places from the last not above `low` to the first not below `high`, each `every`-th power of ten."""
    first = math.floor(math.floor(math.log10(low) + 1e-12) / every) * every
    last = math.ceil(math.log10(high) / every + 1) * every
    places = [float(f"{factor}e{power}") for power in range(first, last + 1, every) for factor in factors]
    begin = max((at for at, place in enumerate(places) if place <= low * (1 + 1e-9)), default=0)
    end = min((at for at, place in enumerate(places) if place >= high * (1 - 1e-9)), default=len(places) - 1)
    return places[begin : end + 1]


def _numbers(values: Sequence[float], step: float) -> list[str]:
    greatest = max((abs(value) for value in values), default=0.0)
    scale = 0 if greatest < 10_000 else min(len(SUFFIXES) - 1, int(math.log10(greatest) // 3))
    divisor = 1000.0**scale
    decimals = _decimals(step / divisor)
    return [
        "0" if abs(value) < step / 2 else f"{value / divisor:.{decimals}f}{SUFFIXES[scale]}" for value in values
    ]


def _with_unit(values: Sequence[float], step: float, unit: str) -> list[str]:
    return [text if text == "0" else f"{text} {unit}" for text in _numbers(values, step)]


def _decimals(step: float) -> int:
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return decimals if abs(round(step, decimals) - step) < step * 1e-6 else decimals + 1


def _elapsed(seconds: float, step: float, greatest: float) -> str:
    if seconds == 0:
        return "0"
    sign, whole = "-" if seconds < 0 else "", abs(seconds)
    if step < 1:
        return f"{seconds:.{_decimals(step)}f} s"
    if step >= DAY:
        return f"{sign}{whole / DAY:g} d"
    hours, minutes, rest = int(whole // HOUR), int(whole % HOUR // MINUTE), round(whole % MINUTE)
    if step < MINUTE:
        if greatest <= 2 * MINUTE:
            return f"{sign}{whole:g} s"
        return f"{sign}{hours}:{minutes:02}:{rest:02}" if greatest >= HOUR else f"{sign}{minutes}:{rest:02}"
    if greatest < 2 * HOUR and step < HOUR:
        return f"{sign}{whole / MINUTE:g} min"
    return f"{sign}{hours} h" if step >= HOUR else f"{sign}{hours}:{minutes:02} h"


def _time_of_day(seconds: float, step: float, zone: tzinfo | None) -> str:
    moment = _local(seconds, zone)
    if step >= DAY or (step >= HOUR and (moment.hour, moment.minute) == (0, 0)):
        return _day(moment)
    if step < 1:
        return f"{moment:%H:%M:%S}.{moment.microsecond // 100_000}"
    return f"{moment:%H:%M:%S}" if step < MINUTE else f"{moment:%H:%M}"


def _local(seconds: float, zone: tzinfo | None) -> datetime:
    moment = datetime.fromtimestamp(seconds, zone)
    return moment if zone is not None else moment.astimezone()


def _offset(seconds: float, zone: tzinfo | None) -> float:
    """Seconds by which the zone is ahead of UTC at that moment."""
    offset = _local(seconds, zone).utcoffset()
    return offset.total_seconds() if offset is not None else 0.0


def _day(moment: datetime) -> str:
    return f"{moment.day} {MONTHS[moment.month - 1]}"


def _zone_name(moment: datetime) -> str:
    offset = moment.strftime("%z")
    return "UTC" if offset in ("", "+0000") else f"UTC{offset[:3]}:{offset[3:5]}"
