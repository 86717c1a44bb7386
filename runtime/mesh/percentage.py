"""Shares of requests: exact to a millionth, as Envoy counts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from upwell.functions.api.http_values import Percent

Random = Callable[[], float]
"""The next random number in [0, 1)."""

WHOLE: Final = 1_000_000


def share_of(percentage: Percent | None, absent: float) -> int:
    """A percentage in millionths, rounded to the nearest; `absent` percent where none is set."""
    value = absent if percentage is None else percentage.value or 0.0
    return round(value * (WHOLE // 100))


def happens(share: int, random: Random) -> bool:
    """Whether a request is one of the share, in millionths. Draws a number only where the outcome is open."""
    if share <= 0 or share >= WHOLE:
        return share > 0
    return int(random() * WHOLE) < share
