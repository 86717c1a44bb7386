"""How long requests are served and replicas take to start: distributions that are drawn from by seed alone.

A distribution is written `constant:50ms`, `exponential:50ms` (its mean), `lognormal:50ms,0.8` (its median, and the
standard deviation of the logarithm) or `empirical:FILE`, whose lines are milliseconds, each as likely as another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from upwell.functions.errors import InvalidInput
from upwell.runtime.simulate.quantities import seconds, show_seconds

FloatArray = npt.NDArray[np.float64]

GREATEST_SIGMA: Final = 10.0
MAX_SAMPLES: Final = 1_000_000


class Distribution(Protocol):
    """Durations in seconds, never negative."""

    def draw(self, count: int, generator: np.random.Generator) -> FloatArray:
        """`count` of them, independent of each other."""
        ...

    def __str__(self) -> str:
        """As `parse_distribution` reads it."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same."""

    value: float

    def draw(self, count: int, generator: np.random.Generator) -> FloatArray:
        """See Distribution."""
        return np.full(count, self.value)

    def __str__(self) -> str:
        return f"constant:{show_seconds(self.value)}"


@dataclass(frozen=True, slots=True)
class Exponential:
    """Memoryless, by its mean."""

    mean: float

    def draw(self, count: int, generator: np.random.Generator) -> FloatArray:
        """See Distribution."""
        return generator.exponential(self.mean, count)

    def __str__(self) -> str:
        return f"exponential:{show_seconds(self.mean)}"


@dataclass(frozen=True, slots=True)
class Lognormal:
    """By the median and the standard deviation of the logarithm."""

    median: float
    sigma: float

    def draw(self, count: int, generator: np.random.Generator) -> FloatArray:
        """See Distribution."""
        return self.median * np.exp(self.sigma * generator.standard_normal(count))

    def __str__(self) -> str:
        return f"lognormal:{show_seconds(self.median)},{self.sigma:g}"


@dataclass(frozen=True, slots=True)
class Empirical:
    """What was observed, each value as likely as another; at least one."""

    samples: FloatArray
    name: str

    def draw(self, count: int, generator: np.random.Generator) -> FloatArray:
        """See Distribution."""
        return self.samples[generator.integers(0, len(self.samples), count)]

    def __str__(self) -> str:
        return f"empirical:{self.name}"


def parse_distribution(text: str, where: str) -> Distribution:
    """The distribution that `text` writes; raises InvalidInput naming `where`, the option that has it."""
    kind, _, rest = text.partition(":")
    if kind == "constant":
        return Constant(seconds(rest, where))
    if kind == "exponential":
        return Exponential(seconds(rest, where))
    if kind == "lognormal":
        median, comma, sigma = rest.partition(",")
        return Lognormal(seconds(median, where), _sigma(sigma, where) if comma else 1.0)
    if kind == "empirical":
        return Empirical(_samples(rest, where), rest)
    hint = "There are constant:50ms, exponential:50ms, lognormal:50ms,0.8 and empirical:FILE."
    raise InvalidInput(f"{text!r} is no distribution", where=where, hint=hint)


def _sigma(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= GREATEST_SIGMA:
        raise InvalidInput(f"{text!r} is no number from 0 to {GREATEST_SIGMA:g}", where=where)
    return value


def _samples(path: str, where: str) -> FloatArray:
    values = []
    try:
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    values.append(_milliseconds(line.strip(), f"{path}:{number}"))
                if len(values) > MAX_SAMPLES:
                    raise InvalidInput(f"more than {MAX_SAMPLES} values", where=path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InvalidInput(f"cannot be read: {reason}", where=path or where) from error
    if not values:
        raise InvalidInput("no values in it", where=path, hint="One duration in milliseconds a line.")
    return np.array(values) / 1000


def _milliseconds(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InvalidInput(f"{text[:64]!r} is no number of milliseconds", where=where)
    return value
