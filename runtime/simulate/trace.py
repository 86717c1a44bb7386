"""Arrivals in columns: what a simulation is given, wherever it came from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from upwell.functions.errors import InvalidInput

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MAX_REQUESTS: Final = 20_000_000
"""About two gigabytes while they are simulated."""
MAX_FUNCTIONS: Final = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Requests in the order of their arrival.

    `times` (n, float64) are seconds from the trace's first moment, not decreasing; `function` (n, int64) indexes
    `functions`; `service` (n, float64) are seconds at a replica, NaN where that is not known.
    """

    name: str
    functions: tuple[str, ...]
    times: FloatArray
    function: IntArray
    service: FloatArray
    seconds: float
    """How long it is; the last request may come earlier."""
    began: float = 0.0
    """Its first moment, in whole seconds of Unix time where that is known: the autoscaler ticks on even ones."""

    def __len__(self) -> int:
        return len(self.times)

    def lasting(self, seconds: float) -> Trace:
        """Cut after this time, or with silence up to it."""
        kept = int(np.searchsorted(self.times, seconds))
        return replace(
            self,
            times=self.times[:kept],
            function=self.function[:kept],
            service=self.service[:kept],
            seconds=seconds,
        )


def ordered(
    name: str,
    functions: tuple[str, ...],
    times: FloatArray,
    function: IntArray,
    service: FloatArray | None,
    seconds: float,
    began: float = 0.0,
) -> Trace:
    """A trace of arrivals in any order; equal times stay in the order given. Raises InvalidInput for too many."""
    check_size(len(times), name)
    order = np.argsort(times, kind="stable")
    known = np.full(len(times), np.nan) if service is None else service
    return Trace(name, functions, times[order], function[order], known[order], seconds, began)


def check_size(requests: int, where: str) -> None:
    """Raises InvalidInput when there are more requests than are simulated."""
    if requests > MAX_REQUESTS:
        raise InvalidInput(
            f"{requests} requests are more than the {MAX_REQUESTS} that are simulated at once",
            where=where,
            hint="Take a shorter part of it.",
        )
