"""The autoscaler's engine as the simulation uses it: batches of reports in, what changed out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from upwell.autoscaler.decision import Decision
from upwell.autoscaler.engine import Engine
from upwell.autoscaler.series import NoSeries
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.stats import ReportBatch, RequestAverages


@dataclass(frozen=True, slots=True)
class Ticked:
    """What a tick came to: replica counts to set, and decisions that came out otherwise than the one before."""

    to_scale: Sequence[Decision]
    news: Sequence[Decision]


class Autoscaling:
    """Every revision of a simulation. Times are seconds of the virtual clock, not decreasing."""

    def __init__(self) -> None:
        self._engine = Engine(series=NoSeries())
        self._sequence = 0

    def add(self, key: str, settings: RevisionSettings, now: float, *, initialized: bool) -> None:
        """Scale a revision from now on that has no replica."""
        self._engine.set_revision(key, settings, now, ready=0, initialized=initialized)

    def remove(self, key: str) -> None:
        """Forget a revision."""
        self._engine.remove_revision(key)

    def observe(self, key: str, ready: int, starting: int) -> None:
        """Replicas of a revision that serve, and that are on the way."""
        self._engine.observe(key, ready=ready, starting=starting)

    def report(self, reporter: str, now: float, seen: Mapping[str, RequestAverages]) -> None:
        """The loads of revisions as one reporter saw them over spans that end now."""
        self._sequence += 1
        self._engine.report_batch(ReportBatch.of(reporter, self._sequence, now, seen), now)

    def report_nothing(self, reporter: str, now: float, span: float, keys: Sequence[str]) -> None:
        """Some seconds without any request of its own, as one reporter saw them for each of these revisions."""
        self._sequence += 1
        none, spans = np.zeros(len(keys)), np.full(len(keys), span)
        self._engine.report_batch(
            ReportBatch(reporter, self._sequence, now, keys, spans, none, none, none, none), now
        )

    def poke(self, key: str, in_flight: int, now: float) -> Decision | None:
        """The decision that raises the scale at once, if there is one."""
        return self._engine.poke(key, in_flight, now)

    def tick(self, now: float) -> Ticked:
        """Decide for every revision."""
        ticked = self._engine.tick(now)
        return Ticked(list(ticked.to_scale()), list(ticked.news()))
