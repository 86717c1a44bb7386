"""When requests are due: seconds from the start of the run, in ascending order.

An open loop's times depend on nothing that the answers do; a closed loop's requests are always due, and wait for
one of its connections.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence


def constant(rate: float, phase: float = 0.0) -> Iterator[float]:
    """`rate` a second at equal distances from `phase` on; without drift however long it goes on."""
    return (phase + number / rate for number in itertools.count())


def poisson(rate: float, random: Callable[[], float]) -> Iterator[float]:
    """`rate` a second on average, each at a moment of its own; `random` draws from [0, 1)."""
    at = 0.0
    while True:
        at -= math.log1p(-random()) / rate
        yield at


def always() -> Iterator[float]:
    """Due from the start on, of a closed loop."""
    return itertools.repeat(0.0)


def limited(times: Iterator[float], count: int | None, seconds: float | None) -> Iterator[float]:
    """The first `count` of them, or those before `seconds`."""
    if count is not None:
        times = itertools.islice(times, count)
    if seconds is not None:
        times = itertools.takewhile(lambda at: at < seconds, times)
    return times


def apportioned(whole: int, shares: Sequence[float], least: int = 0) -> list[int]:
    """Whole numbers by `shares` (above 0) that add up to `whole`: those with the largest remainders round up.

    Each gets `least` at least, and then they may add up to more.
    """
    total = sum(shares)
    exact = [whole * share / total for share in shares]
    parts = [math.floor(each) for each in exact]
    by_remainder = sorted(range(len(shares)), key=lambda at: parts[at] - exact[at])
    for at in by_remainder[: whole - sum(parts)]:
        parts[at] += 1
    return [max(least, part) for part in parts]
