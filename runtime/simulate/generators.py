"""Traffic from a formula: `ramp:0-100rps/10m` and the like, the same for the same seed.

All but `heavy-tail` are one function whose rate over time is a line of straight pieces. Its requests are a Poisson
process of that rate, or evenly spaced with `spacing=even`; either way the k-th request comes when the integral of
the rate reaches the k-th mark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from upwell.functions.errors import InvalidInput
from upwell.runtime.simulate.defaults import TRACES
from upwell.runtime.simulate.heavy_tail import heavy_tail
from upwell.runtime.simulate.quantities import rate, seconds, whole
from upwell.runtime.simulate.trace import MAX_FUNCTIONS, MAX_REQUESTS, FloatArray, Trace, check_size, ordered

WHERE: Final = "--trace"
FUNCTION: Final = "default/function"
_DAY: Final = 86_400.0
_PIECES_A_PERIOD: Final = 96


@dataclass(frozen=True, slots=True)
class Rates:
    """Requests a second over time: straight lines between the points. Two points may share a time: a step."""

    times: FloatArray
    values: FloatArray


def is_generator(text: str) -> bool:
    """Whether it begins as a generator does, so that it is no file."""
    kind, colon, _ = text.partition(":")
    return bool(colon) and kind in {*_SHAPES, "heavy-tail"}


def generate(text: str, seed: int) -> Trace:
    """The trace of a generator. Raises InvalidInput for one that cannot be read."""
    kind, _, rest = text.partition(":")
    parts = rest.split(",")
    options = dict(_option(part) for part in parts if "=" in part)
    shapes = [part for part in parts if "=" not in part]
    if kind == "heavy-tail":
        return _heavy_tail(text, options, seed)
    even = options.pop("spacing", "poisson")
    if even not in ("even", "poisson"):
        raise InvalidInput(f"spacing is even or poisson, not {even!r}", where=WHERE)
    rates = _SHAPES[kind](shapes, options)
    if options:
        raise InvalidInput(f"{kind} has no {next(iter(options))!r}", where=WHERE, hint=_hint(kind))
    times = arrivals(rates, None if even == "even" else np.random.default_rng([seed, 0]))
    function = np.zeros(len(times), np.int64)
    return ordered(text, (FUNCTION,), times, function, None, float(rates.times[-1]))


def arrivals(rates: Rates, generator: np.random.Generator | None) -> FloatArray:
    """When requests come, by a Poisson process of these rates; evenly spaced without a generator."""
    widths = np.diff(rates.times)
    marks = np.concatenate(([0.0], np.cumsum(widths * (rates.values[1:] + rates.values[:-1]) / 2)))
    total = float(marks[-1])
    check_size(int(total), WHERE)
    if generator is None:
        wanted: FloatArray = np.arange(int(total), dtype=np.float64) + 0.5
    else:
        wanted = np.sort(generator.uniform(0, total, generator.poisson(total)))
    return _inverse(rates, marks, wanted)


def _inverse(rates: Rates, marks: FloatArray, wanted: FloatArray) -> FloatArray:
    """The times at which the integral of the rate reaches `wanted`, by solving each piece's quadratic."""
    piece = np.clip(np.searchsorted(marks, wanted, side="right") - 1, 0, len(marks) - 2)
    begin, width = rates.times[piece], np.diff(rates.times)[piece]
    low, high = rates.values[piece], rates.values[piece + 1]
    left = wanted - marks[piece]
    slope = np.divide(high - low, width, out=np.zeros_like(width), where=width > 0)
    root = np.sqrt(np.maximum(low * low + 2 * slope * left, 0.0))
    # This form of the root holds for a flat piece too.
    passed = np.divide(2 * left, low + root, out=np.zeros_like(left), where=low + root > 0)
    return np.asarray(begin + np.minimum(passed, width))


def _option(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name.strip(), value.strip()


def _hint(kind: str) -> str:
    return f"Write it as {next(each for each in TRACES if each.startswith(kind))}."


def _one(shapes: Sequence[str], kind: str) -> tuple[str, float]:
    """`RATE/DURATION`, the only part without a name."""
    if len(shapes) != 1:
        raise InvalidInput(f"{','.join(shapes)!r} is no {kind}", where=WHERE, hint=_hint(kind))
    text, slash, length = shapes[0].partition("/")
    if not slash:
        raise InvalidInput(f"{shapes[0]!r} has no duration", where=WHERE, hint=_hint(kind))
    duration = seconds(length, WHERE)
    if duration <= 0:
        raise InvalidInput("takes no time", where=WHERE, hint=_hint(kind))
    return text, duration


def _span(text: str, kind: str) -> tuple[float, float]:
    low, dash, high = text.partition("-")
    if not dash:
        raise InvalidInput(f"{text!r} is no span of rates", where=WHERE, hint=_hint(kind))
    return rate(low, WHERE), rate(high, WHERE)


def _poisson(shapes: Sequence[str], options: dict[str, str]) -> Rates:
    text, duration = _one(shapes, "poisson")
    value = rate(text, WHERE)
    return Rates(np.array([0.0, duration]), np.array([value, value]))


def _ramp(shapes: Sequence[str], options: dict[str, str]) -> Rates:
    text, duration = _one(shapes, "ramp")
    low, high = _span(text, "ramp")
    return Rates(np.array([0.0, duration]), np.array([low, high]))


def _step(shapes: Sequence[str], options: dict[str, str]) -> Rates:
    times, values, began = [], [], 0.0
    for shape in shapes:
        text, duration = _one([shape], "step")
        value = rate(text, WHERE)
        times += [began, began + duration]
        values += [value, value]
        began += duration
    return Rates(np.array(times), np.array(values))


def _spike(shapes: Sequence[str], options: dict[str, str]) -> Rates:
    text, duration = _one(shapes, "spike")
    low, high = _span(text, "spike")
    at = seconds(options.pop("at"), WHERE) if "at" in options else duration / 3
    until = at + (seconds(options.pop("for"), WHERE) if "for" in options else min(30.0, duration / 10))
    if until > duration:
        raise InvalidInput("the spike ends after the trace", where=WHERE, hint=_hint("spike"))
    return Rates(np.array([0.0, at, at, until, until, duration]), np.array([low, low, high, high, low, low]))


def _diurnal(shapes: Sequence[str], options: dict[str, str]) -> Rates:
    """Lowest at the beginning and highest half a period later, as a cosine."""
    text, duration = _one(shapes, "diurnal")
    low, high = _span(text, "diurnal")
    period = seconds(options.pop("period"), WHERE) if "period" in options else _DAY
    if period <= 0:
        raise InvalidInput("the period takes no time", where=WHERE, hint=_hint("diurnal"))
    pieces = min(MAX_REQUESTS, max(2, int(np.ceil(duration / period * _PIECES_A_PERIOD)) + 1))
    times = np.linspace(0.0, duration, pieces)
    return Rates(times, low + (high - low) * (1 - np.cos(2 * np.pi * times / period)) / 2)


_SHAPES: Final[Mapping[str, Callable[[Sequence[str], dict[str, str]], Rates]]] = {
    "poisson": _poisson,
    "ramp": _ramp,
    "step": _step,
    "spike": _spike,
    "diurnal": _diurnal,
}


def _heavy_tail(text: str, options: Mapping[str, str], seed: int) -> Trace:
    given = {"functions": "1000", "requests": "2000000", "hours": "24", **options}
    if len(given) > 3:
        unknown = next(name for name in options if name not in ("functions", "requests", "hours"))
        raise InvalidInput(f"heavy-tail has no {unknown!r}", where=WHERE, hint=_hint("heavy-tail"))
    return heavy_tail(
        text,
        functions=whole(given["functions"], 1, MAX_FUNCTIONS, WHERE),
        requests=whole(given["requests"], 1, MAX_REQUESTS, WHERE),
        seconds=3600.0 * whole(given["hours"], 1, 24 * 366, WHERE),
        seed=seed,
    )
