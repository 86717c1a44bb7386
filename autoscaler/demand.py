"""One revision's demand: the reports of its replicas and gateways, brought into its windows.

Reporters push once a second, each at its own moment, so that at any time the latest second is known in part only.
A report's value is spread over the seconds that it covers, by overlap; a second goes into the windows when every
reporter that is still heard has reported beyond it, and a late report lands in its own second all the same. Spans
end no later than the time at which they are received: a clock that runs ahead elsewhere moves no window.

Lives as long as its revision in the engine; one thread, times not decreasing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from upwell.autoscaler.annotations import RPS, WEIGHTED_EXPONENTIAL
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.stats import Report
from upwell.autoscaler.window import LinearWindow, WeightedWindow

OVERDUE = 2.5
"""Seconds of silence after which a reporter is no longer waited for: two periods and a margin."""
JITTER = 0.05
"""Seconds by which a report may miss the end of a second and still count as covering it."""
SILENCE = 5.0
"""Seconds without any report after which the demand on replicas that run is unknown, not zero."""
MAX_REPORTERS = 4096
_REMEMBERED_SEQUENCES = 64


class Acceptance(StrEnum):
    """What became of a report."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    TOO_LATE = "too-late"
    UNKNOWN_REVISION = "unknown-revision"


@dataclass(slots=True)
class ReporterState:
    """What is remembered of one reporter: the greatest sequence, and which of those just below it were seen."""

    sequence: int
    ended: float
    seen: int = 1

    def is_new(self, report: Report, ended: float) -> bool:
        """Whether the report was not seen before; notes it."""
        ahead = report.sequence - self.sequence
        if ahead > 0:
            self.seen = (self.seen << min(ahead, _REMEMBERED_SEQUENCES) | 1) & (1 << _REMEMBERED_SEQUENCES) - 1
        elif ended - (report.ended - report.started) >= self.ended and ended > self.ended:
            self.seen = 1  # a lower sequence for a later time: the reporter began anew
        else:
            place = 1 << min(-ahead, _REMEMBERED_SEQUENCES)
            if place >> _REMEMBERED_SEQUENCES or self.seen & place:
                return False
            self.seen |= place
            return True
        self.sequence = report.sequence
        self.ended = max(self.ended, ended)
        return True


@dataclass(slots=True)
class Demand:
    """The windows of one revision, and the seconds that are not complete yet."""

    stable: LinearWindow
    panic: LinearWindow
    rps: bool
    reporters: dict[str, ReporterState] = field(default_factory=dict)
    pending: dict[int, float] = field(default_factory=dict)
    heard: float = -math.inf
    """When the latest report was received."""

    @classmethod
    def of(cls, settings: RevisionSettings) -> Demand:
        """Empty windows as the settings have them."""
        kind = WeightedWindow if settings.aggregation == WEIGHTED_EXPONENTIAL else LinearWindow
        return cls(kind(settings.stable_window), kind(settings.panic_window), settings.metric == RPS)

    def resize(self, settings: RevisionSettings, now: float) -> None:
        """Follow a change of window lengths, keeping what was recorded."""
        self.stable.resize(now, settings.stable_window)
        self.panic.resize(now, settings.panic_window)

    def accept(self, report: Report, ended: float, now: float) -> Acceptance:
        """Take a report whose span ends at `ended` by our own clock."""
        if ended <= now - self.stable.window:
            return Acceptance.TOO_LATE
        known = self.reporters.get(report.reporter)
        if known is None:
            self._admit(report, ended)
        elif not known.is_new(report, ended):
            return Acceptance.DUPLICATE
        self.heard = now
        self._spread(report, ended, now)
        return Acceptance.ACCEPTED

    def _admit(self, report: Report, ended: float) -> None:
        if len(self.reporters) >= MAX_REPORTERS:
            del self.reporters[min(self.reporters, key=lambda name: self.reporters[name].ended)]
        self.reporters[report.reporter] = ReporterState(report.sequence, ended)

    def _spread(self, report: Report, ended: float, now: float) -> None:
        span = report.ended - report.started
        if self.rps:
            # Requests without a span still arrived: they all count for the second in which it lies.
            requests = report.request_count - report.proxied_request_count
            span = span or JITTER
            rate = requests / span
        else:
            rate = max(0.0, report.average_concurrency - report.average_proxied_concurrency)
        started = max(ended - span, now - self.stable.window)
        newest = self.stable.newest
        for second in range(math.floor(started), math.ceil(ended)):
            value = rate * (min(ended, second + 1) - max(started, second))
            if newest is not None and second <= newest:
                self.stable.record(second, value)
                self.panic.record(second, value)
            else:
                self.pending[second] = self.pending.get(second, 0.0) + value

    def settle(self, now: float) -> None:
        """Bring the seconds that are complete by `now` into the windows, and forget who fell silent."""
        overdue, forgotten = now - OVERDUE, now - self.stable.window
        complete, stale = now, False
        for reporter in self.reporters.values():
            if reporter.ended > overdue:
                complete = min(complete, reporter.ended)
            elif reporter.ended < forgotten:
                stale = True
        self._bring(complete + JITTER)
        if stale:
            kept = {name: each for name, each in self.reporters.items() if each.ended >= forgotten}
            self.reporters = kept

    def _bring(self, complete: float) -> None:
        """Move the seconds that end by `complete` into the windows, oldest first."""
        for second in sorted(self.pending):
            if second + 1 <= complete:
                value = self.pending.pop(second)
                self.stable.record(second, value)
                self.panic.record(second, value)

    def averages(self, now: float, ready: int) -> tuple[float, float] | None:
        """The metric over the stable and the panic window, up to the latest whole second.

        None when that is not known: nothing within the stable window, or silence where `ready` replicas ought to
        report every second.
        """
        latest = now - 1
        newest = self.stable.newest
        if newest is None or int(latest) - newest >= self.stable.window:
            return None
        if ready > 0 and now - self.heard > SILENCE:
            return None
        return self.stable.average(latest), self.panic.average(latest)
