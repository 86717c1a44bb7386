"""Reads an amount of memory as Kubernetes writes it: ``128Mi``, ``1Gi``, ``0.5G``, ``1e9``."""

from __future__ import annotations

import re
from fractions import Fraction
from math import ceil
from typing import Final

_QUANTITY: Final = re.compile(r"(\d+\.?\d*|\.\d+)(?:[eE]([+-]?\d{1,2})|([KMGTPE]i|[numkMGTPE]))?", re.ASCII)
_SUFFIXES: Final = {
    **{f"{letter}i": Fraction(1024) ** power for power, letter in enumerate("KMGTPE", start=1)},
    **{letter: Fraction(1000) ** power for power, letter in enumerate("kMGTPE", start=1)},
    **{letter: Fraction(1, 1000) ** power for power, letter in enumerate("mun", start=1)},
}


def parse_bytes(text: str) -> int:
    """An amount in bytes, rounded up as Kubernetes does. Raises ValueError."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no amount of memory such as 128Mi")
    number, exponent, suffix = found.groups()
    scale = Fraction(10) ** int(exponent) if exponent else _SUFFIXES.get(suffix or "", Fraction(1))
    return ceil(Fraction(number) * scale)
