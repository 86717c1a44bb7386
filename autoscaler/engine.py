"""The autoscaler of many revisions: takes reports and pokes, and decides when it is told to.

The engine has no loop, no clock and does no I/O. Whoever runs it calls `tick` every two seconds, `report` for each
report received, `observe` when replica counts change and `poke` when requests wait; it applies the `scale` of the
decisions that come back. Calls come from one thread. A revision's state is made by `set_revision` and lives until
`remove_revision`; all of it is plain data, bounded in size.

Time within the engine never runs backwards: when `now` jumps back by more than a second, later times are shifted
by whole seconds so that windows and grace periods go on from where they were.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from upwell.autoscaler import bounds, kpa
from upwell.autoscaler.bounds import RequestPath
from upwell.autoscaler.decision import Activity, Decision, Inputs, Missing, State
from upwell.autoscaler.demand import Acceptance, Demand
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.stats import Report

HISTORY = 64
_GREATEST_SLEW = 1.0


@dataclass(slots=True)
class Revision:
    """All that the engine knows of one revision. Replica counts are as last observed."""

    key: str
    settings: RevisionSettings
    demand: Demand
    state: State
    activity: Activity
    ready: int
    starting: int = 0
    path: RequestPath = field(default_factory=RequestPath)
    latest: Decision | None = None
    outcome: tuple[object, ...] = ()
    history: deque[Decision] = field(default_factory=lambda: deque(maxlen=HISTORY))


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """Counts since the engine began, and the latest decision by revision."""

    revisions: int
    reporters: int
    ticks: int
    pokes: int
    pokes_that_raised: int
    reports: Mapping[Acceptance, int]
    latest: Mapping[str, Decision]


class Engine:
    """Decides for many revisions, each named "namespace/name"."""

    def __init__(self) -> None:
        self._revisions: dict[str, Revision] = {}
        self._reports = dict.fromkeys(Acceptance, 0)
        self._ticks = self._pokes = self._pokes_that_raised = 0
        self._time = -math.inf
        self._shift = 0

    def set_revision(
        self, key: str, settings: RevisionSettings, now: float, ready: int = 0, *, initialized: bool = False
    ) -> None:
        """Begin to scale a revision, or change its settings; windows, mode and activity of a known one stay.

        `ready` and `initialized` describe a revision that is new to the engine: how many replicas it has, and
        whether it had reached its initial scale before. One with more than one replica starts in panic mode.
        """
        moment = self._moment(now)
        revision = self._revisions.get(key)
        if revision is None:
            self._revisions[key] = Revision(
                key,
                settings,
                Demand.of(settings),
                kpa.start(settings, ready, moment),
                bounds.begin(settings, ready, moment, initialized=initialized),
                ready,
            )
            return
        before = revision.settings
        revision.settings = settings
        if (before.metric, before.aggregation) == (settings.metric, settings.aggregation):
            revision.demand.resize(settings, moment)
        else:
            revision.demand = Demand.of(settings)

    def remove_revision(self, key: str) -> None:
        """Forget a revision; an unknown one is no error."""
        self._revisions.pop(key, None)

    def observe(self, key: str, *, ready: int, starting: int = 0, path: RequestPath | None = None) -> None:
        """Note how many replicas of a revision serve and how many are on the way, and how requests reach it."""
        revision = self._revisions.get(key)
        if revision is not None:
            revision.ready = ready
            revision.starting = starting
            if path is not None:
                revision.path = path

    def report(self, report: Report, now: float) -> Acceptance:
        """Take a report; a repeated one, one from too long ago and one of an unknown revision change nothing."""
        moment = self._moment(now)
        revision = self._revisions.get(report.revision)
        if revision is None:
            accepted = Acceptance.UNKNOWN_REVISION
        else:
            accepted = revision.demand.accept(report, min(report.ended + self._shift, moment), moment)
        self._reports[accepted] += 1
        return accepted

    def poke(self, key: str, in_flight: int, now: float) -> Decision | None:
        """Decide at once for a revision with `in_flight` requests waiting or running.

        Returns a decision that raises the scale, at least from zero to one, or None when there is nothing to
        raise. The requests count for this decision and are not recorded.
        """
        revision = self._revisions.get(key)
        if revision is None or in_flight < 1:
            return None
        self._pokes += 1
        decision = self._decide(revision, self._moment(now), in_flight)
        if decision.scale is None:
            return None
        self._pokes_that_raised += 1
        return decision

    def tick(self, now: float) -> list[Decision]:
        """Decide for every revision."""
        self._ticks += 1
        moment = self._moment(now)
        return [self._decide(revision, moment, None) for revision in self._revisions.values()]

    def latest(self, key: str) -> Decision | None:
        """The latest decision for a revision."""
        revision = self._revisions.get(key)
        return revision.latest if revision else None

    def history(self, key: str) -> list[Decision]:
        """The latest 64 decisions that differ in outcome or reason from the one before, oldest first."""
        revision = self._revisions.get(key)
        return list(revision.history) if revision else []

    def statistics(self) -> EngineStatistics:
        """A snapshot for metrics."""
        revisions = self._revisions.values()
        return EngineStatistics(
            revisions=len(revisions),
            reporters=sum(len(revision.demand.reporters) for revision in revisions),
            ticks=self._ticks,
            pokes=self._pokes,
            pokes_that_raised=self._pokes_that_raised,
            reports=dict(self._reports),
            latest={revision.key: revision.latest for revision in revisions if revision.latest},
        )

    def _decide(self, revision: Revision, moment: float, in_flight: int | None) -> Decision:
        demand = revision.demand
        demand.settle(moment)
        averages = demand.averages(moment, revision.ready)
        stable, panic = averages or (0.0, 0.0)
        inputs = Inputs(
            stable,
            panic,
            revision.ready,
            revision.starting,
            None if averages else Missing.NO_DATA,
            in_flight,
        )
        wished = kpa.decide(revision.settings, revision.state, inputs, moment)
        decision = bounds.bound(
            revision.settings, revision.activity, wished, revision.path, moment, revision=revision.key
        )
        assert decision.activity is not None, "set by bound"
        revision.state, revision.activity = decision.state, decision.activity
        outcome = decision.outcome
        if outcome != revision.outcome:
            revision.outcome = outcome
            revision.history.append(decision)
        revision.latest = decision
        return decision

    def _moment(self, now: float) -> float:
        """`now` as the engine counts it: never less than before."""
        moment = now + self._shift
        behind = self._time - moment
        if behind > _GREATEST_SLEW:
            self._shift += math.ceil(behind)
            moment = now + self._shift
        self._time = max(self._time, moment)
        return self._time
