"""Durations and rates as people write them on a command line: `50ms`, `10m`, `1m30s`, `100rps`, `6000rpm`."""

from __future__ import annotations

import re
from typing import Final

from upwell.functions.errors import InvalidInput

LONGEST_SECONDS: Final = 366 * 86_400.0
GREATEST_RATE: Final = 1e6
_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PARTS: Final = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(us|ms|s|m|h|d)", re.ASCII)
_RATES: Final = {"rps": 1.0, "rpm": 1 / 60.0, "rph": 1 / 3600.0}
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?|\.\d+", re.ASCII)


def seconds(text: str, where: str) -> float:
    """A duration with its unit, in seconds. Raises InvalidInput naming `where`."""
    parts = _PARTS.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidInput(f"{text!r} is no duration", where=where, hint="Write it as 50ms, 10m, 1m30s or 24h.")
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if total > LONGEST_SECONDS:
        raise InvalidInput(f"{text!r} is longer than a year", where=where)
    return total


def rate(text: str, where: str) -> float:
    """Requests a second; a number alone is that already. Raises InvalidInput naming `where`."""
    unit = text[-3:] if text[-3:] in _RATES else ""
    number = text.removesuffix(unit)
    if not _NUMBER.fullmatch(number):
        raise InvalidInput(f"{text!r} is no rate", where=where, hint="Write it as 100rps, 6000rpm or 20rph.")
    value = float(number) * _RATES.get(unit, 1.0)
    if value > GREATEST_RATE:
        raise InvalidInput(f"{text!r} is more than {GREATEST_RATE:g} requests a second", where=where)
    return value


def whole(text: str, least: int, most: int, where: str) -> int:
    """A whole number from `least` to `most`. Raises InvalidInput naming `where`."""
    if not re.fullmatch(r"\d{1,12}", text, re.ASCII) or not least <= int(text) <= most:
        raise InvalidInput(f"{text!r} is not a whole number from {least} to {most}", where=where)
    return int(text)


def show_seconds(value: float) -> str:
    """A duration as `seconds` reads it, to a millisecond: `1h30m`, `2.5s`, `50ms`."""
    if value < 1:
        return f"{value * 1000:g}ms"
    text = ""
    for unit in ("d", "h", "m"):
        count, value = divmod(value, _UNITS[unit])
        text += f"{count:.0f}{unit}" if count else ""
    value = round(value, 3)
    return text + (f"{value:g}s" if value or not text else "")
