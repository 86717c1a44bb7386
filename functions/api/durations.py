"""Durations as manifests write them: text such as "1.5s", "250ms" or "1h30m"."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Final

from pydantic import AfterValidator

from upwell.functions.api.meta import invalid

_PART: Final = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_WHOLE: Final = re.compile(rf"(?:0|(?:{_PART.pattern})+)")
_UNITS: Final = {
    "ns": Fraction(1, 1_000_000_000),
    "us": Fraction(1, 1_000_000),
    "µs": Fraction(1, 1_000_000),
    "μs": Fraction(1, 1_000_000),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}
_LONGEST_TEXT: Final = 64
_LONGEST: Final = 315_576_000_000
"""Seconds: ten thousand years, as protobuf bounds a duration."""


def seconds(text: str) -> float:
    """A duration in seconds, as near as a float comes. Raises ValueError for what is none, or a negative one."""
    if len(text) > _LONGEST_TEXT or not _WHOLE.fullmatch(text):
        raise ValueError("not a duration such as 90s, 250ms or 1m30s")
    parts = _PART.findall(text)
    total = sum((Fraction(f"0{number}".rstrip(".")) * _UNITS[unit] for number, unit in parts), Fraction(0))
    if total > _LONGEST:
        raise ValueError("longer than ten thousand years")
    return float(total)


def _checked(text: str) -> str:
    try:
        seconds(text)
    except ValueError as error:
        raise invalid(f"{text!r} is {error}") from None
    return text


def _checked_positive(text: str) -> str:
    if seconds(_checked(text)) < 0.001:
        raise invalid(f"{text!r} is too short: at least 1ms")
    return text


Duration = Annotated[str, AfterValidator(_checked)]
"""Any duration, kept as it was written; `seconds` reads it."""

PositiveDuration = Annotated[str, AfterValidator(_checked_positive)]
"""One of a millisecond at least, as Istio asks for everywhere."""
