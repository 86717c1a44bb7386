"""Statistics of a handful of samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

__all__ = ["median", "percentile", "quietest"]


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that at least `percent` of 100 samples do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(1, math.ceil(len(ordered) * percent / 100)) - 1]


def quietest(samples: Sequence[float]) -> float:
    """The round that others disturbed least, for what noise can only add to."""
    return min(samples)
