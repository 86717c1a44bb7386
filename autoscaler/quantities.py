"""Reads numbers, booleans and durations as Go's standard library writes them in ConfigMaps and annotations, and
Kubernetes' quantities.

Python's own parsers take more (spaces, underscores, "nan") and no durations. Each function raises `ValueError` for
text that Go refuses; numbers that are not finite are refused too, since no setting has a use for them.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_HEX_FLOAT = re.compile(r"[+-]?0[xX]([\da-fA-F]+\.?[\da-fA-F]*|\.[\da-fA-F]+)[pP][+-]?\d+", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,20}", re.ASCII)
_DURATION = re.compile(r"([+-]?)((?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+|0)", re.ASCII)
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?\d{1,2})|([KMGTPE]i|[numkMGTPE]))?", re.ASCII)
_SCALES = {
    **{f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", start=1)},
    **{letter: 1000.0**power for power, letter in enumerate("kMGTPE", start=1)},
    **{letter: 1000.0**-power for power, letter in enumerate("mun", start=1)},
}
_LONGEST = 2**63 - 1  # nanoseconds, about 292 years
_LONGEST_TEXT = 64


def parse_float(text: str) -> float:
    """A finite decimal or hexadecimal number."""
    if len(text) <= _LONGEST_TEXT:
        if _FLOAT.fullmatch(text):
            value = float(text)
        elif _HEX_FLOAT.fullmatch(text):
            value = _from_hex(text)
        else:
            raise ValueError("not a number")
        if math.isfinite(value):
            return value
    raise ValueError("not a number within range")


def _from_hex(text: str) -> float:
    try:
        return float.fromhex(text)
    except OverflowError:
        return math.inf


def parse_int32(text: str) -> int:
    """A decimal integer of 32 bits."""
    if not _INTEGER.fullmatch(text):
        raise ValueError("not a whole number")
    value = int(text)
    if not -(2**31) <= value < 2**31:
        raise ValueError("not within 32 bits")
    return value


def parse_quantity(text: str) -> float:
    """An amount as Kubernetes writes it: `250m`, `0.5`, `2k`, `1Gi`, `1e3`."""
    found = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST_TEXT else None
    if found is None:
        raise ValueError("not an amount such as 250m or 0.5")
    number, exponent, suffix = found.groups()
    return float(number) * (10.0 ** int(exponent) if exponent else _SCALES.get(suffix or "", 1.0))


def parse_bool(text: str) -> bool:
    """One of 1, t, T, TRUE, true, True and their opposites."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("not true or false")


def parse_duration(text: str) -> int:
    """A duration such as "1m30s", in nanoseconds."""
    match = _DURATION.fullmatch(text) if len(text) <= _LONGEST_TEXT else None
    if match is None:
        raise ValueError("not a duration such as 90s or 1m30s")
    sign, body = match.groups()
    total = sum(
        int(Fraction(number.rstrip(".") if number.endswith(".") else number) * _NANOSECONDS[unit])
        for number, unit in _DURATION_PART.findall(body)
    )
    if total > _LONGEST:
        raise ValueError("longer than 292 years")
    return -total if sign == "-" else total


def parse_seconds(text: str) -> float:
    """A duration such as "1m30s" in seconds, whole ones exactly."""
    return parse_duration(text) / 1_000_000_000
