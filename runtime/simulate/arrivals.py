"""What a reader of traces collects, request by request."""

from __future__ import annotations

import enum
import math
from array import array
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from upwell.functions.errors import InvalidInput
from upwell.runtime.simulate.trace import MAX_REQUESTS

MAX_NAME: Final = 512
GREATEST_TIME: Final = 1e12


class Moments(enum.Enum):
    """How finely a trace tells when a request came."""

    EXACT = enum.auto()
    WHOLE_SECONDS = enum.auto()
    """So that it came at any time within the second."""


@dataclass(slots=True)
class Arrivals:
    """Requests in the order in which they were read; times in seconds, as they were written."""

    times: array[float] = field(default_factory=lambda: array("d"))
    function: array[int] = field(default_factory=lambda: array("q"))
    service: array[float] = field(default_factory=lambda: array("d"))
    """Seconds at a replica, NaN where that is not known."""
    functions: dict[str, int] = field(default_factory=dict)
    """The index of each name."""
    moments: Moments = Moments.EXACT
    began: float | None = None
    """When the trace begins, if that is not its first request."""
    ended: float = -math.inf
    """When it ends, if that is after its last request."""

    def add(self, time: float, function: str, service: float, where: str) -> None:
        """A request that came at `time`. Raises InvalidInput for too many."""
        if len(self.times) >= MAX_REQUESTS:
            raise InvalidInput(f"more than {MAX_REQUESTS} requests", where=where, hint="Take a part of it.")
        self.times.append(time)
        self.function.append(self.index(function, where))
        self.service.append(service)

    def index(self, function: str, where: str) -> int:
        """The index of a function by its name."""
        found = self.functions.get(function)
        if found is None:
            if not 0 < len(function) <= MAX_NAME or not function.isprintable():
                raise InvalidInput("a function's name is 1 to 512 printable characters", where=where)
            found = self.functions[function] = len(self.functions)
        return found


def parse_time(text: str) -> float | None:
    """Seconds, written as a number or as ISO 8601 (UTC unless it says otherwise); None for what is neither."""
    try:
        value = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = datetime.fromisoformat(f"{text}+00:00")
        value = moment.timestamp()
    return value if 0 <= value <= GREATEST_TIME else None


def parse_amount(text: object) -> float | None:
    """A number that is finite and not negative; None for what is not."""
    if isinstance(text, bool) or not isinstance(text, (str, int, float)):
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < math.inf else None
