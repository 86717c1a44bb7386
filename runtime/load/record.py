"""What came of the requests of one class: counts, durations, and how both went over time.

Memory is bounded: durations are in histograms, and time in buckets that are made twice as wide when there are too
many of them.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from upwell.runtime.load.histogram import Histogram
from upwell.runtime.load.outcomes import Outcome

FINEST_SECONDS: Final = 0.1
MOST_BUCKETS: Final = 400


class Moment:
    """The answers that came in one bucket of time."""

    __slots__ = ("counts", "durations")

    def __init__(self) -> None:
        self.counts: Counter[Outcome] = Counter()
        self.durations: Counter[int] = Counter()
        """Of what succeeded, by the histogram's bucket."""

    def merge(self, other: Moment) -> None:
        """Count what `other` counted as well."""
        self.counts.update(other.counts)
        self.durations.update(other.durations)


class Course:
    """Buckets of time from the start of the run on."""

    def __init__(self, width: float = FINEST_SECONDS) -> None:
        self.width = width
        self.moments: list[Moment] = []

    def at(self, seconds: float) -> Moment:
        """The bucket of a moment, `seconds` after the start."""
        index = int(seconds / self.width)
        while index >= MOST_BUCKETS:
            self.widen()
            index = int(seconds / self.width)
        while index >= len(self.moments):
            self.moments.append(Moment())
        return self.moments[index]

    def widen(self) -> None:
        """Make each bucket twice as wide."""
        self.width *= 2
        for kept, dropped in zip(self.moments[::2], self.moments[1::2], strict=False):
            kept.merge(dropped)
        self.moments = self.moments[::2]

    def merge(self, other: Course) -> None:
        """Count what `other` counted as well; it may be made wider."""
        while self.width < other.width:
            self.widen()
        while other.width < self.width:
            other.widen()
        for index, moment in enumerate(other.moments):
            self.at((index + 0.5) * self.width).merge(moment)


class Record:
    """Of one class, or of all."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        """Of requests without an answer, by cause."""
        self.durations = {outcome: Histogram() for outcome in Outcome}
        self.course = Course()
        self.late = 0
        """Sent later than LATE_SECONDS after they were due."""
        self.latest = 0.0
        """How late the latest was, in seconds."""
        self.starved = False
        """Whether one was due when every connection was busy."""
        self.unsent = 0
        """Due, and not sent when the time was up."""
        self.cut_off = 0
        """Under way when the run was interrupted."""

    @property
    def requests(self) -> int:
        """Those that are over."""
        return sum(each.count for each in self.durations.values())

    def answered(self, status: int, outcome: Outcome, duration: float, at: float) -> None:
        """An answer came `at` seconds after the start, `duration` after the request was due."""
        self.statuses[status] += 1
        self._ended(outcome, duration, at)

    def broke(self, cause: str, duration: float, at: float) -> None:
        """There was no whole answer."""
        self.errors[cause] += 1
        self._ended(Outcome.FAILED, duration, at)

    def _ended(self, outcome: Outcome, duration: float, at: float) -> None:
        bucket = self.durations[outcome].record(max(0.0, duration))
        moment = self.course.at(at)
        moment.counts[outcome] += 1
        if outcome is Outcome.SUCCEEDED:
            moment.durations[bucket] += 1

    def merge(self, other: Record) -> None:
        """Count what `other` counted as well."""
        self.statuses.update(other.statuses)
        self.errors.update(other.errors)
        for outcome, histogram in other.durations.items():
            self.durations[outcome].merge(histogram)
        self.course.merge(other.course)
        self.late += other.late
        self.latest = max(self.latest, other.latest)
        self.starved = self.starved or other.starved
        self.unsent += other.unsent
        self.cut_off += other.cut_off
