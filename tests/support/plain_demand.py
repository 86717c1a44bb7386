"""One revision's demand in the plainest form, which the columns of many revisions must agree with."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from upwell.autoscaler.annotations import WEIGHTED_EXPONENTIAL
from upwell.autoscaler.demand import JITTER, OVERDUE, SILENCE, Acceptance
from upwell.autoscaler.reporters import ReporterState
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.stats import Report
from upwell.autoscaler.window import LinearWindow, WeightedWindow


@dataclass
class PlainDemand:
    """Two windows, a dictionary of reporters, and one of the seconds that are not complete."""

    settings: RevisionSettings
    reporters: dict[str, ReporterState] = field(default_factory=dict)
    pending: dict[int, float] = field(default_factory=dict)
    heard: float = -math.inf

    def __post_init__(self) -> None:
        kind = WeightedWindow if self.settings.aggregation == WEIGHTED_EXPONENTIAL else LinearWindow
        self.stable = kind(self.settings.stable_window)
        self.panic = kind(self.settings.panic_window)

    def resize(self, settings: RevisionSettings, now: float) -> None:
        self.settings = settings
        self.stable.resize(now, settings.stable_window)
        self.panic.resize(now, settings.panic_window)

    def accept(self, report: Report, ended: float, now: float) -> Acceptance:
        if ended <= now - self.stable.window:
            return Acceptance.TOO_LATE
        span = report.ended - report.started
        known = self.reporters.get(report.reporter)
        if known is None:
            self.reporters[report.reporter] = ReporterState(report.sequence, ended)
        elif not known.is_new(report.sequence, ended, span):
            return Acceptance.DUPLICATE
        self.heard = now
        self._spread(report, span, ended, now)
        return Acceptance.ACCEPTED

    def _spread(self, report: Report, span: float, ended: float, now: float) -> None:
        if self.settings.metric == "rps":
            span = max(span, JITTER)
            rate = (report.request_count - report.proxied_request_count) / span
        else:
            rate = max(0.0, report.average_concurrency - report.average_proxied_concurrency)
        started = max(ended - span, now - self.stable.window)
        newest = self.stable.newest
        for second in range(math.floor(started), math.ceil(ended)):
            value = rate * (min(ended, second + 1) - max(started, second))
            if newest is not None and second <= newest:
                self._record(second, value)
            else:
                self.pending[second] = self.pending.get(second, 0.0) + value

    def _record(self, second: int, value: float) -> None:
        self.stable.record(second, value)
        self.panic.record(second, value)

    def settle(self, now: float) -> None:
        heard = [each.ended for each in self.reporters.values() if each.ended > now - OVERDUE]
        complete = min([now, *heard]) + JITTER
        for second in sorted(self.pending):
            if second + 1 <= complete:
                self._record(second, self.pending.pop(second))
        forgotten = now - self.stable.window
        self.reporters = {name: each for name, each in self.reporters.items() if each.ended >= forgotten}

    def averages(self, now: float, ready: int) -> tuple[float, float] | None:
        latest = now - 1
        newest = self.stable.newest
        if newest is None or int(latest) - newest >= self.stable.window:
            return None
        if ready > 0 and now - self.heard > SILENCE:
            return None
        return self.stable.average(latest), self.panic.average(latest)
